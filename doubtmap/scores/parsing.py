"""Scores by name, as the command line and `evaluate` take them."""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Iterable, Mapping

import torch

from doubtmap import scores
from doubtmap.errors import UsageError
from doubtmap.prediction import Prediction, Score

_NAME = re.compile(r"(?P<name>\w+)(?:\((?P<arguments>.*)\))?")


def parse_scores(
    wanted: str | Score | Iterable[str | Score] | Mapping[str, Score],
) -> dict[str, Score]:
    """Turn names, functions, or both into named scores, in order.

    Args:
        wanted: `"entropy,gradient(p=1,label=uniform)"`, a list of such names and of functions
            `Prediction -> (B, H, W)`, or a mapping from names to functions.

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


def split_names(text: str) -> list[str]:
    """Split at commas outside brackets."""
    parts = re.split(r",(?![^(]*\))", text)
    return [part.strip() for part in parts if part.strip()]


def _name_each(items: Iterable[str | Score]) -> dict[str, Score]:
    named: dict[str, Score] = {}
    for item in items:
        name, score = _parse_one(item) if isinstance(item, str) else (_name_of(item), item)
        if name in named:
            raise UsageError(f"scores: {name} is asked for twice; name each score once.")
        named[name] = score
    return named


def _parse_one(text: str) -> tuple[str, Score]:
    match = _NAME.fullmatch(text.replace(" ", ""))
    if match is None:
        raise UsageError(f"scores: expected NAME or NAME(key=value,...), got {text!r}.")
    name = match["name"]
    if name not in scores.STATELESS:
        near = difflib.get_close_matches(name, scores.STATELESS, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"scores: there is no score {name!r}. {hint}Known: {', '.join(scores.STATELESS)}."
        )
    function: Score = getattr(scores, name)
    arguments = _arguments(name, function, match["arguments"])
    score = functools.partial(function, **arguments) if arguments else function
    try:
        score(_probe())
    except TypeError as error:
        raise UsageError(f"scores: {text}: a value has the wrong type: {error}.") from error
    return match[0], score


def _arguments(name: str, function: Score, text: str | None) -> dict[str, object]:
    known = dict(list(inspect.signature(function).parameters.items())[1:])
    arguments: dict[str, object] = {}
    for part in filter(None, (text or "").split(",")):
        key, equals, value = part.partition("=")
        if not equals or key not in known:
            takes = f"takes {', '.join(known)}" if known else "takes no parameters"
            raise UsageError(f"scores: {name} {takes}, got {part!r}.")
        if key in arguments:
            raise UsageError(f"scores: {name}: {key} is given twice.")
        arguments[key] = _value(value)
        switch = isinstance(known[key].default, bool)
        if switch != isinstance(arguments[key], bool):
            expected = "true or false" if switch else "a value other than true and false"
            raise UsageError(f"scores: {name}: expected {key} to be {expected}, got {value!r}.")
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
    return Prediction(torch.zeros(1, 2, 1, 1), size=(1, 1), features=one)
