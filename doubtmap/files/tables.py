"""Tables of what a file must hold: names, types, shapes and ranges of its values and tensors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LARGEST = sys.float_info.max


@dataclass(frozen=True)
class Entry:
    """What a value of a file must be.

    Args:
        expected: in words.
        holds: whether a value is such.
    """

    expected: str
    holds: Callable[[Any], bool]


TEXT = Entry("a text", lambda value: isinstance(value, str))
TEXTS = Entry("texts", lambda value: _is_list(value, str))
FLAG = Entry("true or false", lambda value: isinstance(value, bool))
TABLE = Entry("a table", lambda value: isinstance(value, dict))


def one_of(*choices: str) -> Entry:
    """One of some texts."""
    return Entry(" or ".join(choices), lambda value: isinstance(value, str) and value in choices)


def within(low: float = -LARGEST, high: float = LARGEST) -> Entry:
    """A finite number in a range, its ends included."""
    return Entry(f"one of the {_range(low, high)}", lambda value: _within(value, low, high))


def whole(low: int, high: int = 1 << 53) -> Entry:
    """A whole number in a range, its ends included; `2.0` is one."""
    return Entry(
        f"a whole number from {low} to {high}",
        lambda value: _within(value, low, high) and value == int(value),
    )


def all_within(low: float = -LARGEST, high: float = LARGEST, count: int | None = None) -> Entry:
    """Finite numbers in a range, any count of them or a given one."""
    return Entry(
        f"{'' if count is None else f'{count} '}{_range(low, high)}",
        lambda value: (
            _is_list(value, object)
            and count in (None, len(value))
            and all(_within(each, low, high) for each in value)
        ),
    )


def optional(entry: Entry) -> Entry:
    """That, or nothing."""
    return Entry(f"{entry.expected}, or nothing", lambda value: value is None or entry.holds(value))


def _is_list(value: object, of: type) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, of) for each in value)


def _within(value: object, low: float, high: float) -> bool:
    """Whether it is a number of a range, and no whole one that floats do not know."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return low <= value <= high and (isinstance(value, float) or abs(value) <= 1 << 53)


@dataclass(frozen=True)
class Part:
    """What a tensor of a file must be.

    Args:
        axes: such as `"C D D"`; a length is a number or a name, and equal names are equal lengths.
            None: any.
        dtype: its type; None: any of floating point.
        low: smallest value; NaN is never one.
        high: largest.
    """

    axes: str | None = None
    dtype: torch.dtype | None = None
    low: float = -LARGEST
    high: float = LARGEST


def hold_entries(known: object, table: Mapping[str, Entry], what: str) -> None:
    """Refuse values that are not those of a table.

    Args:
        known: by name.
        table: what they must be.
        what: has them, for the sentence.

    Raises:
        ValueError: for one that is missing, unknown, or something else.
    """
    if not isinstance(known, dict):
        raise ValueError(f"{what} is no table")
    _hold_names(known, table, what)
    for name, entry in table.items():
        if not entry.holds(known[name]):
            raise ValueError(f"{name}: expected {entry.expected}, got {str(known[name])[:60]!r}")


def hold_parts(
    tensors: Mapping[str, Tensor], table: Mapping[str, Part], sizes: Mapping[str, int] | None = None
) -> None:
    """Refuse tensors that are not those of a table.

    Args:
        tensors: by name.
        table: what they must be; `*` stands for all that have no name there.
        sizes: lengths of axes that are known beforehand, by the axis' name.

    Raises:
        ValueError: for one that is missing, unknown, of another type or shape, or with values out
            of range or NaN.
    """
    named = {name: part for name, part in table.items() if name != "*"}
    _hold_names(tensors if "*" not in table else tensors.keys() & named, named, "it")
    known = dict(sizes or {})
    for name, tensor in tensors.items():
        _hold_part(name, tensor, named.get(name) or table["*"], known)


def _range(low: float, high: float) -> str:
    if (low, high) == (-LARGEST, LARGEST):
        return "finite numbers"
    if high == LARGEST:
        return f"finite numbers of at least {low:.6g}"
    if low == -LARGEST:
        return f"finite numbers of at most {high:.6g}"
    return f"finite numbers from {low:.6g} to {high:.6g}"


def _hold_names(known: Iterable[str], table: Mapping[str, object], what: str) -> None:
    names = set(known)
    if missing := [name for name in table if name not in names]:
        raise ValueError(f"{what} lacks {missing[0]}")
    if strange := sorted(names - set(table)):
        raise ValueError(f"{what} has {strange[0]!r}, of which nothing is known")


def _hold_part(name: str, tensor: Tensor, part: Part, sizes: dict[str, int]) -> None:
    """Check one tensor; axes that it names first become known."""
    if tensor.dtype != part.dtype and (part.dtype or not tensor.is_floating_point()):
        wanted = str(part.dtype or "floating point").removeprefix("torch.")
        raise ValueError(f"{name}: expected numbers of {wanted}, got {tensor.dtype}")
    axes, shape = (part.axes or "").split(), tuple(tensor.shape)
    if part.axes is not None:
        lengths = [int(axis) if axis.isdigit() else sizes.get(axis) for axis in axes]
        if len(axes) != len(shape) or any(n not in (None, m) for n, m in zip(lengths, shape)):
            known = ", ".join(f"{axis}={sizes[axis]}" for axis in axes if axis in sizes)
            expected = f"({', '.join(axes)}){' with ' if known else ''}{known}"
            raise ValueError(f"{name}: expected the shape {expected}, got {shape}")
        sizes |= {axis: n for axis, n in zip(axes, shape) if not axis.isdigit()}
        if any(sizes[axis] != n for axis, n in zip(axes, shape) if not axis.isdigit()):
            raise ValueError(f"{name}: expected the shape ({', '.join(axes)}), got {shape}")
    values = tensor.double()  # in float32 the largest bound would be infinity itself
    if not bool(((values >= part.low) & (values <= part.high)).all()):
        raise ValueError(f"{name}: expected {_range(part.low, part.high)}, got others")
