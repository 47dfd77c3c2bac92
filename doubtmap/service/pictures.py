"""What `POST /doubt` gives back for an image: JSON, a picture, or tensors."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from doubtmap.reports.maps import classes_png, doubt_png
from doubtmap.service.answers import Answer, Answering
from doubtmap.service.limits import Refusal
from doubtmap.service.protocol import HEADER, write_answer
from doubtmap.version import __version__

Form = Literal["json", "doubt", "classes", "tensors"]
Coding = Literal["runs", "png", "none"]
Maps = Literal["none", "png"]
_FORMS: dict[str, Form] = {
    "application/json": "json",
    "image/png": "doubt",
    "application/octet-stream": "tensors",
}
"""What is meant by the first type that a client accepts, where it does not say `answer`."""


_RUNS = 1_000_000
"""Of an answer, of which each takes two hundred bytes while it is written."""


@dataclass(frozen=True)
class Wanted:
    """How an image is answered.

    Args:
        form: `json`, a PNG of one score (`doubt`) or of the `classes`, or all as `tensors`.
        score: whose PNG, and whose share above the threshold.
        threshold: above which that score counts as doubt; None for none.
        coding: of the classes in JSON: run lengths, a PNG in base64, or none.
        maps: of the scores in JSON: a PNG in base64, or none.
    """

    form: Form
    score: str
    threshold: float | None
    coding: Coding = "runs"
    maps: Maps = "none"


def read_wanted(query: Mapping[str, str], accept: str, answering: Answering) -> Wanted:
    """What a request asks for by its query and its `Accept` header.

    Raises:
        Refusal: 400 for what is not known.
    """
    known = ("answer", "score", "threshold", "classes", "maps")
    if strange := sorted(set(query) - set(known)):
        raise Refusal(400, f"expected {', '.join(known)} in the query, got {strange[0][:60]!r}.")
    types = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    usual = next((_FORMS[kind] for kind in types if kind in _FORMS), "json")
    score = _one_of(query, "score", tuple(answering.scores), next(iter(answering.scores)))
    return Wanted(
        _one_of(query, "answer", get_args(Form), usual),  # type: ignore[arg-type]
        score,
        _number(query, "threshold", answering.thresholds.get(score)),
        _one_of(query, "classes", get_args(Coding), "runs"),  # type: ignore[arg-type]
        _one_of(query, "maps", get_args(Maps), "none"),  # type: ignore[arg-type]
    )


def _one_of(query: Mapping[str, str], name: str, known: tuple[str, ...], usual: str) -> str:
    given = query.get(name, usual)
    if given not in known:
        raise Refusal(400, f"{name}: expected one of {', '.join(known)}, got {given[:60]!r}.")
    return given


def _number(query: Mapping[str, str], name: str, usual: float | None) -> float | None:
    given = query.get(name)
    if given is None:
        return usual
    try:
        number = float(given)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise Refusal(400, f"{name}: expected a number, got {given[:60]!r}.")
    return number


def written(
    answer: Answer, wanted: Wanted, answering: Answering
) -> tuple[bytes, str, dict[str, str]]:
    """The body of the response, its type, and headers beside it."""
    if wanted.form == "classes":
        return classes_png(answer.classes, answering.class_names), "image/png", {}
    if wanted.form == "doubt":
        return _map(answer, wanted.score, answering), "image/png", {}
    if wanted.form == "tensors":
        every = dict.fromkeys(("classes", *answer.doubts), True)
        body, length = write_answer(every, [answer], answering.name)
        return body, "application/octet-stream", {HEADER: str(length)}
    return json.dumps(_told(answer, wanted, answering)).encode(), "application/json", {}


def runs(classes: NDArray[np.integer[Any]]) -> list[list[int]]:
    """`[class, length]` of each run, row by row, going on over the ends of rows.

    Example:
        >>> runs(np.array([[0, 0, 2], [2, 2, 1]]))
        [[0, 2], [2, 3], [1, 1]]

    Raises:
        Refusal: 413 for so many that they would take too much memory.
    """
    flat = classes.ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
    if len(starts) > _RUNS:
        raise Refusal(
            413,
            f"expected classes in at most {_RUNS / 1e6:g} million runs, got "
            f"{len(starts) / 1e6:.3g} million. Ask for classes=png, or classes=none.",
        )
    lengths = np.diff(np.append(starts, flat.size))
    pairs: list[list[int]] = np.stack([flat[starts].astype(np.int64), lengths], 1).tolist()
    return pairs


def _told(answer: Answer, wanted: Wanted, answering: Answering) -> dict[str, Any]:
    """The answer as JSON."""
    counts = np.bincount(answer.classes.ravel(), minlength=answering.classes)
    names = answering.class_names
    said: dict[str, Any] = {
        "doubtmap": __version__,
        "model": answering.name,
        "size": list(answer.classes.shape),
        "class_names": list(names),
        "shares": {names[k]: counts[k] / answer.classes.size for k in np.flatnonzero(counts)},
    }
    if wanted.coding == "runs":
        said["classes"] = {"runs": runs(answer.classes)}
    elif wanted.coding == "png":
        said["classes"] = {"png": _text(classes_png(answer.classes, names))}
    said["scores"] = {name: _figures(name, answer, wanted, answering) for name in answer.doubts}
    said["notes"] = [*answering.notes, *answer.notes]
    return said


def _figures(name: str, answer: Answer, wanted: Wanted, answering: Answering) -> dict[str, Any]:
    doubt = answer.doubts[name]
    limit = wanted.threshold if name == wanted.score else answering.thresholds.get(name)
    figures: dict[str, Any] = {
        "mean": float(doubt.mean(dtype=np.float64)),
        "lowest": float(doubt.min()),
        "highest": float(doubt.max()),
        "threshold": limit,
        "above": None if limit is None else float((doubt > limit).mean()),
    }
    if wanted.maps == "png":
        figures["png"] = _text(_map(answer, name, answering))
    return figures


def _map(answer: Answer, score: str, answering: Answering) -> bytes:
    """A doubt map as `doubtmap score` writes it of one image."""
    return doubt_png(answer.doubts[score], score, answering.scales[score])


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
