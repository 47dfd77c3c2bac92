"""Scores by name, as the command line and `evaluate` take them."""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from doubtmap import scores
from doubtmap.errors import UsageError
from doubtmap.files.afar import path_of
from doubtmap.files.python import START
from doubtmap.prediction import Prediction, Queries, Score
from doubtmap.scores.default import Doubt
from doubtmap.scores.density import Density
from doubtmap.scores.mahalanobis import Mahalanobis
from doubtmap.scores.members import said_by_head
from doubtmap.scores.rejection import suited
from doubtmap.scores.sets import LabelSets
from doubtmap.scores.sums import Sum
from doubtmap.scores.wrong import Wrong
from doubtmap.scores.yours import Yours, of_packages, opened

_NAME = re.compile(r"(?P<name>\w+)\s*(?:\((?P<arguments>[^()]*)\))?(?::(?P<file>.+))?")


OURS = (*scores.STATELESS, *scores.OF_MEMBERS, *scores.OF_HEADS, *scores.OF_QUERIES)
ALL = "all"
"""Among names of scores: every one without fitting."""
FITTED: dict[
    str,
    type[Density] | type[Doubt] | type[LabelSets] | type[Mahalanobis] | type[Sum] | type[Wrong],
] = {
    "doubt": Doubt,
    "density": Density,
    "mahalanobis": Mahalanobis,
    "sets": LabelSets,
    "sum": Sum,
    "wrong": Wrong,
}
"""The scores that learn from data, by name."""


def parse_scores(
    wanted: str | Score | Iterable[str | Score] | Mapping[str, Score],
) -> dict[str, Score]:
    """Turn names, functions, or both into named scores, in order.

    Args:
        wanted: `"entropy,gradient(p=1,label=uniform)"`, a list of such names and of functions
            `Prediction -> (B, H, W)`, or a mapping from names to functions. A name may be
            `python:FILE.py:NAME`, or one of an installed package.

    Returns:
        Scores by name; the name is what results call them.

    Raises:
        UsageError: for an unknown name, parameter or value.

    Example:
        >>> list(parse_scores("entropy, gradient(p = 1)"))
        ['entropy', 'gradient(p=1)']
    """
    if isinstance(wanted, Mapping):
        named = dict(wanted)
    elif isinstance(wanted, str):
        named = _name_each(split_names(wanted))
    else:
        named = _name_each([wanted] if callable(wanted) else wanted)
    if not named:
        raise UsageError(f"scores: expected at least one of {', '.join(scores.STATELESS)}.")
    for name in named:
        if "/" in name:
            raise UsageError(f"scores: expected names without a slash, got {name!r}.")
    return named


def parse_asked(
    wanted: str | Score | Iterable[str | Score] | Mapping[str, Score],
    first: Callable[[], Prediction | None],
) -> tuple[dict[str, Score], list[str]]:
    """As `parse_scores`, where `all` stands for every score without fitting that there can be.

    Args:
        wanted: see `parse_scores`; `all` may stand among others, as in `"all,density:FILE"`.
        first: called where `all` is there: gives a prediction of the network.

    Returns:
        Scores by name, and a sentence for each that is left out.

    Raises:
        UsageError: as `parse_scores`.
    """
    items = split_names(wanted) if isinstance(wanted, str) else wanted
    if callable(items) or isinstance(items, Mapping):
        return parse_scores(items), []
    items = list(items)
    if ALL not in items:
        return parse_scores(items), []
    prediction = first()
    every, notes = possible_scores(prediction) if prediction else ([*scores.STATELESS], [])
    expanded = [part for item in items for part in (every if item == ALL else [item])]
    return parse_scores(expanded), notes


def possible_scores(prediction: Prediction) -> tuple[list[str], list[str]]:
    """Names of all scores without fitting of a prediction, and why others are left out."""
    names, notes = list(scores.STATELESS), []
    if prediction.members is not None:
        names += scores.OF_MEMBERS
    if prediction.queries is not None:
        names = [*scores.OF_QUERIES, *names]
        best, why = suited(prediction)
        notes.append(f"{best} suits this network best for unknown objects: {why}.")
    if prediction.features is None:
        names.remove("gradient")
        notes.append(
            f"gradient: left out, since it needs the network's features, but "
            f"{prediction.features_missing}."
        )
    if prediction.members is None and prediction.members_missing != Prediction.members_missing:
        of = ", ".join(scores.OF_MEMBERS)
        notes.append(f"{of}: left out, since {prediction.members_missing}.")
    if prediction.members is not None or prediction.energy_missing:
        names.remove("energy")
        why = prediction.energy_missing or (
            "the logits of several networks or passes are the logarithm of their mean "
            "probability, whose energy is 0 everywhere"
        )
        notes.append(f"energy: left out, since {why}.")
    names += [name for name in scores.OF_HEADS if said_by_head(prediction, name) is not None]
    if "negative" in names and prediction.classes_of is not None:
        names.remove("negative")
        notes.append("negative: left out, since it needs the network's own logits, not calibrated.")
    return names, notes


def split_names(text: str) -> list[str]:
    """Split at commas outside brackets."""
    parts = re.split(r",(?![^(]*\))", text)
    return [part.strip() for part in parts if part.strip()]


def _name_each(items: Iterable[str | Score]) -> dict[str, Score]:
    """Scores by name; fitted ones that share a name are told apart by their files' names."""
    parsed = [_parse_one(i) if isinstance(i, str) else (_name_of(i), None, i) for i in items]
    count = Counter(name for name, _, _ in parsed)
    named: dict[str, Score] = {}
    for name, file, score in parsed:
        full = f"{name}:{Path(file).stem}" if file and count[name] > 1 else name
        if full in named:
            raise UsageError(f"scores: {full} is asked for twice; name each score once.")
        named[full] = score
    return named


def _parse_one(text: str) -> tuple[str, str | None, Score]:
    """Name without file, file, and score."""
    if text.startswith(START):
        yours = Yours(text)
        return yours.name, None, yours
    name, given, file = split_call(text)
    plain = f"{name}({given})" if given else name
    if name in FITTED and (file is not None or name not in scores.STATELESS):
        if file is None:
            made_by = FITTED[name].made_by
            raise UsageError(
                f"scores: {name} learns from data: expected its file, as in {name}:FILE, got "
                f"{text!r}. Make one with: {made_by}."
            )
        kind = FITTED[name]
        options = _arguments(name, kind.READ_OPTIONS, given)
        if issubclass(kind, Sum | Wrong):
            return plain, file, kind.load(file, open_scores, **options)
        return plain, file, kind.load(file, **options)
    if file is not None:
        raise UsageError(f"scores: {name} takes no file, got {text!r}. Leave it out.")
    ours = name in OURS
    function: Callable[..., Any] = getattr(scores, name) if ours else opened(of_packages()[name])
    known = list(inspect.signature(function).parameters.values())[1:]
    arguments = _arguments(name, {option.name: option.default for option in known}, given)
    score = functools.partial(function, **arguments) if arguments else function
    if name in (*scores.STATELESS, *scores.OF_QUERIES):
        try:
            score(_probe())
        except TypeError as error:
            raise UsageError(f"scores: {text}: a value has the wrong type: {error}.") from error
    return plain, None, score


def parse_fit(text: str) -> tuple[str, dict[str, Any]]:
    """What to fit: the name of a score that learns from data, and all its options.

    Args:
        text: as in `"density(covariance=tied,certainty=0)"` or `"wrong"`.

    Returns:
        The name, and the options that were given.

    Raises:
        UsageError: for a score that needs no fitting, or an unknown option or value.
    """
    name, given, file = split_call(text)
    if name == "mahalanobis":
        raise UsageError(
            "fit: expected density, whose file mahalanobis:FILE reads too, got mahalanobis. Fit "
            "density instead."
        )
    if name == "sets":
        raise UsageError(f"fit: label sets are made by another command: {LabelSets.made_by}.")
    if name not in FITTED or file is not None:
        raise UsageError(
            f"fit: expected doubt, density, sum, wrong or segments, which learn from data, got "
            f"{text!r}."
        )
    kind = FITTED[name]
    assert not issubclass(kind, LabelSets | Mahalanobis)
    return name, _arguments(name, kind.FIT_OPTIONS | kind.READ_OPTIONS, given)


def needs_labels(text: str) -> bool:
    """Whether what is to be fitted, as `parse_fit` takes it, looks at labels of the images."""
    name, options = parse_fit(text)
    return name not in ("doubt", "sum") and options.get("labels") != "predicted"


def relocated(text: str, folder: Path | None) -> str:
    """The text of a score, its file looked for in `folder` where it is not where the text says."""
    name, arguments, file = split_call(text)
    if not file or folder is None or path_of(file).exists():
        return text
    beside = folder / Path(file).name
    return f"{name}({arguments}):{beside}" if beside.exists() else text


def split_call(text: str) -> tuple[str, str, str | None]:
    """Name, arguments without spaces, and file of `NAME(key=value,...):FILE`.

    What begins with `python:` is a name as a whole.
    """
    if text.startswith(START):
        return text, "", None
    match = _NAME.fullmatch(text)
    if match is None:
        raise UsageError(f"scores: expected NAME or NAME(key=value,...), got {text!r}.")
    known = dict.fromkeys(
        (
            *OURS,
            *FITTED,
            *of_packages(),
        )
    )
    if match["name"] not in known:
        near = difflib.get_close_matches(match["name"], known, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"scores: there is no score {match['name'][:60]!r}. {hint}Known: {', '.join(known)}."
        )
    return match["name"], (match["arguments"] or "").replace(" ", ""), match["file"]


def given_arguments(
    who: str, name: str, things: str, known: Collection[str], text: str
) -> dict[str, str]:
    """Keys and values of `key=value,...`.

    Args:
        who: asks, for errors.
        name: of what takes them.
        things: that it takes, such as `parameters`.
        known: keys.
        text: without spaces.

    Raises:
        UsageError: for an unknown key, one without a value, or one given twice.
    """
    given: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or key not in known:
            takes = f"takes {', '.join(known)}" if known else f"takes no {things}"
            raise UsageError(f"{who}: {name} {takes}, got {part!r}.")
        if key in given:
            raise UsageError(f"{who}: {name}: {key} is given twice.")
        given[key] = value
    return given


def _arguments(name: str, known: Mapping[str, object], text: str) -> dict[str, object]:
    arguments: dict[str, object] = {}
    for key, value in given_arguments("scores", name, "parameters", known, text).items():
        arguments[key] = value if isinstance(known[key], str) else _value(value)
        switch = isinstance(known[key], bool)
        if switch != isinstance(arguments[key], bool):
            expected = "true or false" if switch else "a value other than true and false"
            raise UsageError(f"scores: {name}: expected {key} to be {expected}, got {value!r}.")
        if isinstance(known[key], (int, float)) and isinstance(arguments[key], str):
            raise UsageError(f"scores: {name}: expected {key} to be a number, got {value!r}.")
    return arguments


def _value(text: str) -> object:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        return text


def _name_of(score: Score) -> str:
    name = getattr(score, "__name__", None) or getattr(score, "name", None)
    if isinstance(score, functools.partial):
        values = ",".join(f"{key}={value}" for key, value in score.keywords.items())
        return f"{_name_of(score.func)}({values})"
    return {"pixel_gradient_norm": "gradient"}.get(name, name) if name else type(score).__name__


def _probe() -> Prediction:
    """The smallest prediction that has everything, to find bad parameters before any image."""
    one = torch.ones(1, 1, 1, 1)
    queries = Queries(one[:, 0])
    return Prediction(torch.zeros(1, 2, 1, 1), size=(1, 1), features=one, queries=queries)


def open_scores(texts: Sequence[str], beside: Path | None = None) -> dict[str, Score]:
    """The scores of these texts, by text.

    Args:
        texts: as on the command line.
        beside: folder where files are looked for that are not where the text says.

    Raises:
        UsageError: for no score, an unknown one, one asked for twice, or `wrong` itself.
    """
    found = []
    for text in texts:
        if split_call(text)[0] == Wrong.name:
            raise UsageError(f"wrong: expected other scores to fuse, got {text!r}. Leave it out.")
        found.append(relocated(text, beside))
    return dict(zip(texts, parse_scores(found).values()))
