"""Methods by name, as the command line takes them: `temperature`, `selective(temperature=2)`."""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from doubtmap.calibration.binned import HistogramBinning, Isotonic
from doubtmap.calibration.calibrator import Calibrator, Identity
from doubtmap.calibration.linear import Dirichlet, Vector
from doubtmap.calibration.local import Local
from doubtmap.calibration.meta import Meta
from doubtmap.calibration.preserving import (
    ArgmaxPreserving,
    ClassTemperature,
    DirichletKept,
    OrderPreserving,
    VectorKept,
)
from doubtmap.calibration.selective import Selective, SelectiveConfidence, SelectiveSoft
from doubtmap.calibration.temperature import Temperature, TemperatureMix
from doubtmap.errors import UsageError
from doubtmap.scores.parsing import given_arguments

METHODS: dict[str, type[Calibrator]] = {
    "identity": Identity,
    "temperature": Temperature,
    "class_temperature": ClassTemperature,
    "temperature_mix": TemperatureMix,
    "histogram": HistogramBinning,
    "isotonic": Isotonic,
    "vector": Vector,
    "vector_kept": VectorKept,
    "dirichlet": Dirichlet,
    "dirichlet_kept": DirichletKept,
    "order_preserving": OrderPreserving,
    "argmax_preserving": ArgmaxPreserving,
    "meta": Meta,
    "local": Local,
    "selective": Selective,
    "selective_soft": SelectiveSoft,
    "selective_confidence": SelectiveConfidence,
}
"""By name, simplest first: where several do equally well, the first is taken."""

FORMER = {"ensemble": "temperature_mix"}
"""Names of earlier versions, which files may still say."""

Fit = Callable[..., Calibrator]
_NAME = re.compile(r"(?P<name>\w+)(?:\((?P<arguments>.*)\))?")


def name_of(kind: type[Calibrator]) -> str:
    """The name of a method's class; of a class of one's own, what it is called."""
    return next((name for name, method in METHODS.items() if method is kind), kind.__name__)


def parse_method(text: str, seed: int | None = None) -> Fit:
    """The `fit` of a named method, with its options.

    Args:
        text: such as `temperature` or `selective(temperature=2,others=dirichlet)`.
        seed: for methods that take one; a `seed=` in the brackets comes first.

    Returns:
        To be called with pairs.

    Raises:
        UsageError: for an unknown name or option, or a value of another kind.

    Example:
        >>> parse_method("histogram(bins=10)").keywords
        {'bins': 10}
    """
    match = _NAME.fullmatch(text.replace(" ", ""))
    if match is None:
        raise UsageError(f"method: expected NAME or NAME(key=value,...), got {text!r}.")
    kind = _method(match["name"])
    fit: Fit = kind.fit  # type: ignore[attr-defined]
    takes = inspect.signature(fit).parameters
    defaults = {name: option.default for name, option in takes.items() if name != "pairs"}
    given = given_arguments("method", match["name"], "options", defaults, match["arguments"] or "")
    options: dict[str, Any] = {
        key: _value(value, defaults[key], f"{match['name']}: {key}") for key, value in given.items()
    }
    if seed is not None and "seed" in defaults:
        options.setdefault("seed", seed)
    return partial(fit, **options)


def split_methods(text: str) -> list[str]:
    """Split at commas outside brackets."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip()]


def _method(name: str) -> type[Calibrator]:
    if name in FORMER:
        raise UsageError(
            f"method: {name} is called {FORMER[name]} now, since several networks are an ensemble, "
            f"too. Take --method {FORMER[name]}."
        )
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"method: there is no method {name!r}. {hint}Known: {', '.join(METHODS)}, auto."
        )
    return METHODS[name]


def _value(text: str, default: object, option: str) -> object:
    """The value that a text stands for, of the kind of the option's default."""
    if isinstance(default, type):
        return _method(text)
    if isinstance(default, bool):
        return _read(text, {"true": True, "false": False}.__getitem__, option, "true or false")
    if isinstance(default, int):
        return _read(text, _whole, option, "a whole number")
    if isinstance(default, float):
        return _read(text, _finite, option, "a number")
    try:
        return _finite(text)
    except ValueError:
        return text


def _read(text: str, read: Callable[[str], object], option: str, expected: str) -> object:
    try:
        return read(text.lower())
    except (KeyError, ValueError):
        raise UsageError(f"method: {option}: expected {expected}, got {text!r}.") from None


def _whole(text: str) -> int:
    value = int(text)
    if abs(value) >= 1 << 63:
        raise ValueError
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value
