"""An axis of an image cut into spans that overlap, and how much each counts where."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from doubtmap.errors import UsageError

STEP = 32
"""Spans begin at multiples of it: as most networks halve their grid five times, each position of
a window falls on the same place of the grids as it does in the whole image."""


@dataclass(frozen=True)
class Span:
    """Part of an axis, in pixels, from `start` up to `stop`.

    Args:
        start, stop: what the network is given.
        rise: where its weight goes from 0 to 1; both 0 at the image's border.
        fall: where its weight goes from 1 to 0; both `stop` at the image's border.
    """

    start: int
    stop: int
    rise: tuple[float, float]
    fall: tuple[float, float]

    @property
    def length(self) -> int:
        """In pixels."""
        return self.stop - self.start

    def weights(self, cell: int, count: int) -> Tensor:
        """`(count,)` in [0, 1], at the centres of its cells; neighbours' weights add up to 1.

        Args:
            cell: pixels for each cell of a grid.
            count: cells, from `start` on; those beyond `stop` stand for padding.
        """
        places = self.start + cell * (torch.arange(count, dtype=torch.float64) + 0.5)
        up = _ramp(places, *self.rise) if self.rise[1] > self.start else torch.ones(count)
        down = _ramp(places, *self.fall) if self.fall[0] < self.stop else torch.zeros(count)
        return (up - down).float()


def _ramp(places: Tensor, low: float, high: float) -> Tensor:
    """From 0 at `low` to 1 at `high`, flat at both ends."""
    share = ((places - low) / (high - low)).clamp(0, 1)
    return share * share * (3 - 2 * share)


def spans(
    length: int, tile: int, overlap: int, step: int = STEP, *, shrink: bool = True
) -> tuple[Span, ...]:
    """Cut an axis into as few spans as do, evenly spread, and no longer than they need be.

    Neighbours overlap by `overlap` or more. In the middle half of `overlap`, centred in what they
    share, one's weight goes to 0 while the other's goes to 1; so what lies within a quarter of
    `overlap` of a window's border counts for nothing, unless it is the image's border.

    Args:
        length: of the axis, in pixels.
        tile: length of a span, at most; the last may be up to `step - 1` longer.
        overlap: at most half of `tile`.
        step: what all starts are multiples of.
        shrink: whether spans become shorter where that is enough; else they overlap more.

    Raises:
        UsageError: for numbers that do not go together.
    """
    check_tile(tile, overlap, step)
    if length <= tile:
        return (Span(0, length, (0, 0), (length, length)),)
    count = -(-(length - overlap) // (tile - overlap))
    if shrink:
        tile = min(tile, -(-(length + (count - 1) * overlap) // (count * step)) * step)
    starts = [index * (length - tile) // (count - 1) // step * step for index in range(count)]
    stops = [start + tile for start in starts[:-1]] + [length]
    middles = [(stop + start) / 2 for stop, start in zip(stops, starts[1:])]
    ramps = [(middle - overlap / 4, middle + overlap / 4) for middle in middles]
    return tuple(
        Span(*place) for place in zip(starts, stops, [(0, 0), *ramps], [*ramps, (length, length)])
    )


def check_tile(tile: int, overlap: int, step: int = STEP) -> None:
    """Refuse tiles and overlaps that do not go together.

    Raises:
        UsageError: which says what would do.
    """
    if tile < 2 * step or tile % step:
        raise UsageError(
            f"--tile: expected a multiple of {step} of at least {2 * step} pixels, got {tile}. "
            f"Try {max(2 * step, round(tile / step) * step)}."
        )
    if not 0 < overlap <= tile // 2 or overlap % step:
        raise UsageError(
            f"--overlap: expected a multiple of {step} from {step} to half of --tile, "
            f"{tile // 2}, got {overlap}. Try {max(step, tile // 8 // step * step)}."
        )
