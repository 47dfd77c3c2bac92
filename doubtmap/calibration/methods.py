"""Methods by name, as the command line takes them: `temperature`, `selective(temperature=2)`."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from doubtmap.calibration.binned import HistogramBinning, Isotonic
from doubtmap.calibration.calibrator import Calibrator, Identity
from doubtmap.calibration.dirichlet import Dirichlet
from doubtmap.calibration.ensemble_temperature import EnsembleTemperature
from doubtmap.calibration.local import Local
from doubtmap.calibration.meta import Meta
from doubtmap.calibration.selective import Selective, SelectiveConfidence, SelectiveSoft
from doubtmap.calibration.temperature import Temperature
from doubtmap.calibration.vector import Vector
from doubtmap.errors import UsageError

METHODS: dict[str, type[Calibrator]] = {
    "identity": Identity,
    "temperature": Temperature,
    "ensemble": EnsembleTemperature,
    "histogram": HistogramBinning,
    "isotonic": Isotonic,
    "vector": Vector,
    "dirichlet": Dirichlet,
    "meta": Meta,
    "local": Local,
    "selective": Selective,
    "selective_soft": SelectiveSoft,
    "selective_confidence": SelectiveConfidence,
}
"""By name, simplest first: where several do equally well, the first is taken."""

Fit = Callable[..., Calibrator]
_NAME = re.compile(r"(?P<name>\w+)(?:\((?P<arguments>.*)\))?")


def name_of(kind: type[Calibrator]) -> str:
    """The name of a method's class."""
    return next(name for name, method in METHODS.items() if method is kind)


def parse_method(text: str) -> Fit:
    """The `fit` of a named method, with its options.

    Args:
        text: such as `temperature` or `selective(temperature=2,others=dirichlet)`.

    Returns:
        To be called with pairs.

    Raises:
        UsageError: for an unknown name or option.

    Example:
        >>> parse_method("histogram(bins=10)").keywords
        {'bins': 10}
    """
    match = _NAME.fullmatch(text.replace(" ", ""))
    if match is None:
        raise UsageError(f"method: expected NAME or NAME(key=value,...), got {text!r}.")
    kind = _method(match["name"])
    fit: Fit = kind.fit  # type: ignore[attr-defined]
    known = [name for name in inspect.signature(fit).parameters if name != "pairs"]
    options: dict[str, Any] = {}
    for part in filter(None, (match["arguments"] or "").split(",")):
        key, equals, value = part.partition("=")
        if not equals or key not in known:
            takes = f"takes {', '.join(known)}" if known else "takes no options"
            raise UsageError(f"method: {match['name']} {takes}, got {part!r}.")
        if key in options:
            raise UsageError(f"method: {match['name']}: {key} is given twice.")
        options[key] = _method(value) if key == "others" else _value(value)
    return partial(fit, **options)


def split_methods(text: str) -> list[str]:
    """Split at commas outside brackets."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip()]


def _method(name: str) -> type[Calibrator]:
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"method: there is no method {name!r}. {hint}Known: {', '.join(METHODS)}, auto."
        )
    return METHODS[name]


def _value(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)
