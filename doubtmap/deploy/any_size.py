"""The default score in a graph whose images have any size.

What follows the image's width there, squares, windows and a blur, are products with matrices here,
whose entries the graph computes from the sizes that it is given. Every export is held to
`doubtmap.scores.doubt` and `island` themselves.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from doubtmap.kernels import at_least_float32
from doubtmap.kernels.squares import PARTS, Sides
from doubtmap.prediction import Prediction, Score
from doubtmap.scores import doubt, island
from doubtmap.scores.default import ACROSS, FLOOR, SQUARES
from doubtmap.scores.sums import Sum
from doubtmap.scores.wrong import Wrong


@dataclass(frozen=True)
class Axis:
    """One axis of a grid; lengths are tensors, so that the graph follows them.

    Args:
        cells: how many, int64.
    """

    cells: Tensor

    @property
    def places(self) -> Tensor:
        """`(n,)` int64, from 0."""
        return _range(self.cells)

    def coarser(self, square: Tensor) -> Axis:
        """That of the means over so many cells; the last may be cut."""
        return Axis((self.cells + square - 1) // square)

    def means(self, square: Tensor) -> Tensor:
        """`(n', n)`: the share of each cell in each mean."""
        inside = (self.places // square == self.coarser(square).places[:, None]).float()
        return inside / inside.sum(1, keepdim=True)

    def between(self, square: Tensor) -> Tensor:
        """`(n, n')`: each cell by those of `coarser`, bilinearly."""
        few = self.coarser(square)
        at = ((self.places + 0.5) / square - 0.5).clamp_min(0)
        low = at.floor()
        high = torch.minimum(low + 1, (few.cells - 1).float())
        part, which = (at - low)[:, None], few.places.float()
        of_low, of_high = ((each[:, None] == which).float() for each in (low, high))
        return of_low * (1 - part) + of_high * part

    def blur(self, sigma: Tensor) -> Tensor:
        """`(n, n)`: a Gaussian of so many cells; beyond the border the outermost go on."""
        reach = (4 * sigma + 0.5).floor().long()
        wide = _range(self.cells + 2 * reach) - reach
        gap = wide - self.places[:, None]
        kernel = (-0.5 * (gap / sigma).square()).exp() * (gap.abs() <= reach)
        inside = torch.minimum(wide.clamp_min(0), self.cells - 1)[:, None] == self.places
        return (kernel / kernel.sum(1, keepdim=True)) @ inside.float()

    def ahead(self, reach: Tensor) -> Tensor:
        """`(n, n)`: of each cell itself and those ahead, within reach: 1 at (cell, of which)."""
        gap = self.places[:, None] - self.places
        return ((gap >= 0) & (gap <= reach)).float()


def _range(count: Tensor) -> Tensor:
    """`(count,)` int64, from 0."""
    found: Tensor = torch.arange(count)  # type: ignore[call-overload]
    return found


@dataclass(frozen=True)
class Grid:
    """Rows and columns of maps."""

    rows: Axis
    columns: Axis

    @classmethod
    def of(cls, maps: Tensor) -> Grid:
        """That of `(B, C, h, w)`."""
        shape = torch._shape_as_tensor(maps)
        return cls(Axis(shape[2]), Axis(shape[3]))

    def coarser(self, square: Tensor) -> Grid:
        """That of means over squares."""
        return Grid(self.rows.coarser(square), self.columns.coarser(square))

    def averaged(self, maps: Tensor, square: Tensor) -> Tensor:
        """Means over squares, as `doubtmap.kernels.squares.averaged`."""
        return self.rows.means(square) @ maps @ self.columns.means(square).T

    def spread_out(self, maps: Tensor, square: Tensor) -> Tensor:
        """Means back on this grid, as `doubtmap.scores.smoothing.spread_out`."""
        return self.rows.between(square) @ maps @ self.columns.between(square).T

    def islands(self, p: Tensor, sides: Sides) -> Tensor:
        """As `doubtmap.kernels.squares.islands`, `(B, 1, h, w)`."""
        found = []
        for part in PARTS:
            reach = (self.columns.cells // part).clamp_min(1)
            across, down = self.columns.ahead(reach), self.rows.ahead(reach).T
            if sides == "mean":
                mean = (p @ (across + across.T) + down @ p) / 3
            else:
                product = (p @ across) * (p @ across.T) * (down @ p)
                mean = (product.clamp_min(1e-9).log() / 3).exp()
            found.append((mean * (1 - p)).amax(1, keepdim=True) / reach)
        return torch.cat(found, 1).amax(1, keepdim=True).clamp(0, 1)


def _samples(pixels: float, columns: Tensor, across: Tensor) -> Tensor:
    """As `doubtmap.scores.islands.samples`."""
    return (pixels * columns / across).round().clamp_min(1).long()


def _across(prediction: Prediction) -> Tensor:
    """Image pixels that the native grid is wide."""
    return torch.as_tensor((prediction.covered or prediction.size)[1]).double()


def island_of_any_size(prediction: Prediction, cell: float = 8, sides: Sides = "mean") -> Tensor:
    """As `doubtmap.scores.island`."""
    logits = at_least_float32(prediction.native_logits)
    grid = Grid.of(logits)
    square = _samples(cell, grid.columns.cells, _across(prediction))
    p = grid.averaged(logits.softmax(1), square)
    found = grid.coarser(square).islands(p, sides)
    return prediction.to_size(grid.spread_out(found, square))[:, 0].float()


def doubt_of_any_size(prediction: Prediction) -> Tensor:
    """As `doubtmap.scores.doubt`."""
    logits = at_least_float32(prediction.native_logits)
    whole = Grid.of(logits)
    fine = _samples(1, whole.columns.cells, torch.tensor(float(ACROSS)))
    grid, log_p = whole.coarser(fine), logits.log_softmax(1).clamp_min(-1e4)
    p = log_p.exp()
    entropy = whole.averaged(-(log_p * p).sum(1, keepdim=True), fine)
    p = whole.averaged(p, fine)
    sigma = (2 * grid.columns.cells / ACROSS).clamp_min(1)
    smooth = grid.rows.blur(sigma) @ entropy @ grid.columns.blur(sigma).T
    total = 0.5 * (smooth + 1e-6).log()
    sides: tuple[Sides, Sides] = ("mean", "geometric")
    for pixels, each in zip(SQUARES, sides):
        square = _samples(pixels, grid.columns.cells, _across(prediction))
        found = grid.coarser(square).islands(grid.averaged(p, square), each)
        total = total + 0.75 * (FLOOR + grid.spread_out(found, square)).log()
    return prediction.to_size(whole.spread_out(total, fine))[:, 0].exp().float()


def of_any_size(score: Score) -> Score:
    """What stands for a score in a graph whose images have any size; itself, if it may."""
    if isinstance(score, functools.partial):
        return functools.partial(of_any_size(score.func), *score.args, **score.keywords)
    if isinstance(score, Sum | Wrong):
        return replace(score, scores=tuple(map(of_any_size, score.scores)))
    if score is doubt:
        return doubt_of_any_size
    return island_of_any_size if score is island else score
