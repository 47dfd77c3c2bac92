"""Numbers as a reader wants them: three decimals, more where the number is small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MISSING = "\N{EN DASH}"


MINUS = "\N{MINUS SIGN}"


def digits(value: Any) -> str:
    """A figure for a table.

    Example:
        >>> [digits(x) for x in (0.41237, 0.0042, 3e-7, 0.0, 12.345, 15, None)]
        ['0.412', '0.0042', '3.0e-07', '0', '12.35', '15', '–']
    """
    x = number(value)
    if x is None:
        return MISSING
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f").replace("-", MINUS)
    if x == 0:
        return "0"
    if abs(x) < 0.0001:
        return _minus(f"{x:.1e}")
    return _minus(f"{x:.{_decimals(x)}f}")


def column(values: Sequence[Any]) -> list[str]:
    """Figures that stand below each other, all with the decimals of the largest.

    A figure that would be left with less than one digit keeps its own decimals.

    Example:
        >>> column([0.084, 0.0448, None]), column([0.9, 0.0448, 0.0002])
        (['0.0840', '0.0448', '–'], ['0.900', '0.045', '0.00020'])
    """
    numbers = [number(value) for value in values]
    decimals = _decimals(max((abs(x) for x in numbers if x is not None), default=0.0))
    return [
        digits(value) if x is None or abs(x) < 10.0**-decimals else _minus(f"{x:.{decimals}f}")
        for value, x in zip(values, numbers)
    ]


def interval(value: Any) -> str:
    """A pair `[lo, hi]`, both with the decimals of the larger, or nothing.

    Example:
        >>> interval([0.038, 0.4567])
        '0.038 – 0.457'
    """
    ends = pair(value)
    if ends is None:
        return ""
    decimals = _decimals(max(ends, key=abs))
    low, high = (_minus(f"{end + 0.0:.{decimals}f}") for end in ends)
    return f"{low} {MISSING} {high}"


def count(pixels: Any) -> str:
    """A large whole number in words' size.

    Example:
        >>> [count(n) for n in (950, 12_400, 3_210_000, 4_500_000_000)]
        ['950', '12.4 thousand', '3.21 million', '4.5 billion']
    """
    n = number(pixels)
    if n is None:
        return MISSING
    for size, word in ((1e9, "billion"), (1e6, "million"), (1e4, "thousand")):
        if n >= size:
            return f"{n / (1e3 if word == 'thousand' else size):.3g} {word}"
    return f"{n:.0f}"


def seconds(value: Any) -> str:
    """A duration.

    Example:
        >>> [seconds(s) for s in (0.0123, 4.56, 75, 4000)]
        ['0.012 s', '4.6 s', '1 min 15 s', '1 h 7 min']
    """
    s = number(value)
    if s is None:
        return MISSING
    if s < 59.5:
        return f"{s:.3f} s" if s < 1 else f"{s:.1f} s"
    if s < 3599.5:
        return "{} min {} s".format(*divmod(round(s), 60))
    return "{} h {} min".format(*divmod(round(s / 60), 60))


def _decimals(x: float) -> int:
    limits = ((0.001, 5), (0.1, 4), (10, 3), (1000, 2))
    return next((decimals for limit, decimals in limits if abs(x) < limit), 0)


def _minus(text: str) -> str:
    return text.replace("-", MINUS, 1) if text.startswith("-") else text


def number(value: Any) -> float | None:
    """A finite number, or None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(float(value)) < float("inf") else None


def pair(value: Any) -> tuple[float, float] | None:
    """Two finite numbers, or None for everything else."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return None if low is None or high is None else (low, high)
