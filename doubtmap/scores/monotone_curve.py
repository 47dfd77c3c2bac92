"""A rising curve over a score: few knots in the file, a table of many cells to read it with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from doubtmap.kernels.steps import ordered

CELLS = 1 << 14
"""Of the table, at most."""
TILE = 1 << 16
"""Pixels read at once: they stay in the processor's cache."""


@dataclass(frozen=True, eq=False)
class Curve:
    """A rising, piecewise linear function of a score, flat beyond its ends.

    Linear in the score's float32 key (`doubtmap.kernels.steps`), which is about its logarithm, so
    that a score may span any range. Larger values never have a lower level, rounding included.

    Args:
        knots: `(K,)` int32 keys, strictly ascending; one knot is a constant.
        levels: `(K,)` float64, not descending, at the knots.
    """

    knots: Tensor
    levels: Tensor

    def __post_init__(self) -> None:
        knots, levels = self.knots, self.levels
        rising = bool((knots[1:] > knots[:-1]).all() and (levels[1:] >= levels[:-1]).all())
        if knots.ndim != 1 or not len(knots) or knots.shape != levels.shape or not rising:
            raise ValueError("a curve needs ascending knots, and levels that do not descend")
        if not bool(torch.isfinite(levels).all()):
            raise ValueError("a curve needs finite levels")

    @property
    def rise(self) -> float:
        """From the lowest to the highest level."""
        return float(self.levels[-1] - self.levels[0])

    def __call__(self, values: Tensor) -> Tensor:
        """Read the curve.

        Args:
            values: any shape, float32, finite.

        Returns:
            The same shape, float32.
        """
        start, change = self._table(values.device)
        flat = values.contiguous().view(-1)
        result = torch.empty_like(flat)
        for begin in range(0, len(flat), TILE):
            part = slice(begin, begin + TILE)
            key = self._keys(flat[part])
            cell = (key >> self._shift).sub_(self._ends[0] >> self._shift)
            within = key.bitwise_and_((1 << self._shift) - 1).float().mul_(0.5**self._shift)
            low, rise = start.index_select(0, cell), change.index_select(0, cell)
            torch.addcmul(low, within, rise, out=result[part])
        return result.view(values.shape)

    def _keys(self, values: Tensor) -> Tensor:
        """Keys between the ends; those of numbers above 0 are their bits."""
        low, high = self._ends
        if low < 0:
            return ordered(values).clamp_(low, high)
        ends = torch.tensor([low, high], dtype=torch.int32).view(torch.float32).tolist()
        # -0.0 + 0.0 is 0.0, whose bits are 0
        return (values + 0.0).clamp(*ends).view(torch.int32)

    @cached_property
    def _ends(self) -> tuple[int, int]:
        return int(self.knots[0]), int(self.knots[-1])

    @cached_property
    def _shift(self) -> int:
        """Bits of a key below the cell: as few as keep the table small."""
        span = self._ends[1] - self._ends[0]
        return max(0, span.bit_length() - (CELLS.bit_length() - 1))

    def _table(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Level at the start of each cell, and how much it rises within."""
        if device not in self._tables:
            low, high = self._ends
            first, last = low >> self._shift, high >> self._shift
            edges = np.arange(first, last + 2, dtype=np.int64) << self._shift
            levels = np.interp(edges, self.knots.numpy().astype(np.float64), self.levels.numpy())
            # Rounded to float32, a level plus the change to the next never passes the next:
            # the change is exact where they are near, and never wholly reached elsewhere.
            rounded = torch.from_numpy(levels).float()
            self._tables[device] = rounded[:-1].to(device), rounded.diff().to(device)
        return self._tables[device]

    @cached_property
    def _tables(self) -> dict[torch.device, tuple[Tensor, Tensor]]:
        return {}


Numbers = NDArray[np.float64]


def places(values: Tensor, knots: Tensor) -> tuple[NDArray[np.intp], Numbers]:
    """Between which knots values lie, and how far from one to the next.

    Args:
        values: `(N,)` float32, finite.
        knots: `(K,)` int32 keys, ascending, at least two.

    Returns:
        `(N,)` in [0, K - 2], and `(N,)` in [0, 1].
    """
    keys = ordered(values).numpy().astype(np.float64)
    at = knots.numpy().astype(np.float64)
    cell = np.clip(np.searchsorted(at, keys, side="right") - 1, 0, len(at) - 2)
    return cell, np.clip((keys - at[cell]) / (at[cell + 1] - at[cell]), 0, 1)
