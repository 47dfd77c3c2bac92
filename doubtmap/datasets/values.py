"""What the raw values in a label file mean, as data, and the table that translates them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doubtmap.datasets.dataset import KNOWN, UNKNOWN, VOID
from doubtmap.errors import DataError

HIGHEST_VALUE = 65535
"""Label files have at most 16 bits."""

_NAMES = {KNOWN: "known", UNKNOWN: "unknown", VOID: "void"}
_UNDESCRIBED = np.iinfo(np.int16).min


@dataclass(frozen=True)
class LabelValues:
    """The meaning of raw label values.

    Args:
        classes: raw values of each class, in the order of the class indices.
        known: values of pixels that are known, their class not said.
        unknown: values of something outside the classes.
        void: values of pixels that count for nothing.
        other: meaning of every other value: `KNOWN`, `UNKNOWN`, `VOID`, or `None` where such a
            value is an error.
    """

    classes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    known: tuple[int, ...] = ()
    unknown: tuple[int, ...] = ()
    void: tuple[int, ...] = ()
    other: int | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their indices."""
        return tuple(self.classes)

    def described(self) -> Iterator[tuple[int, str, int]]:
        """Every described value, with the name of its meaning and the label it becomes."""
        for index, (name, values) in enumerate(self.classes.items()):
            yield from ((value, name, index) for value in values)
        for label in (KNOWN, UNKNOWN, VOID):
            values = getattr(self, _NAMES[label])
            yield from ((value, _NAMES[label], label) for value in values)

    def translate(self, raw: NDArray[Any], path: Path) -> NDArray[np.int16]:
        """Labels of raw values.

        Args:
            raw: `(H, W)` unsigned integers of at most 16 bits.
            path: the file they come from, for the message.

        Returns:
            `(H, W)`: class index, or `KNOWN`, `UNKNOWN`, `VOID`.

        Raises:
            DataError: a value has no meaning.
        """
        labels: NDArray[np.int16] = np.take(self._table, raw)
        if self.other is None and (labels == _UNDESCRIBED).any():
            raise DataError(self._undescribed(raw[labels == _UNDESCRIBED], path))
        return labels

    @cached_property
    def _table(self) -> NDArray[np.int16]:
        rest = _UNDESCRIBED if self.other is None else self.other
        table = np.full(HIGHEST_VALUE + 1, rest, np.int16)
        for value, _, label in self.described():
            table[value] = label
        return table

    def _undescribed(self, raw: NDArray[Any], path: Path) -> str:
        values, counts = np.unique(raw, return_counts=True)
        found = [f"{value} ({count} pixels)" for value, count in zip(values, counts, strict=True)]
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        expected = ", ".join(_ranges(sorted({value for value, _, _ in self.described()})))
        return (
            f"{path}: expected the label values {expected}, got {', '.join(found[:8])}{more}. "
            "Choose the layout that these labels were written for, or describe the values in a "
            "doubtmap.toml and use folder:PATH."
        )


def _ranges(values: list[int]) -> Iterator[str]:
    """Sorted values in words: 0 to 11, 255."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    for run in runs:
        yield str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}"
