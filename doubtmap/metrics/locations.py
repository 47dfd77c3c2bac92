"""Do a class's features depend on where in the image its pixels lie?

One Gaussian for each class, wherever its pixels are, is sound where the class's mean is nearer to
itself far away in the image than to the means of other classes there.

Reference:
    Deep Deterministic Uncertainty for Semantic Segmentation (Mukhoti et al., 2021), figure 1,
    https://arxiv.org/abs/2111.00079. The paper compares three pairs of pixels; here all pairs of
    cells of a grid that are at least half the image's diagonal apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from doubtmap.errors import UsageError
from doubtmap.metrics.accumulator import Array


@dataclass(frozen=True, eq=False)
class LocationFigures:
    """Mean distances between class means at distant cells.

    Args:
        distances: `(C, C)`, of class i in one cell to class j in a distant one, over all pairs of
            cells in which both have pixels enough; NaN where there is no such pair.
        same: mean of the diagonal.
        other: mean of the rest.
        ratio: `same / other`; below 1 the class tells more than the place.
        nearest_is_same: share of (cell, class, distant cell) in which the nearest class mean of
            the distant cell is the same class's.
    """

    distances: Array
    same: float
    other: float
    ratio: float
    nearest_is_same: float


class Locations:
    """Sums of features by class and cell of a grid over the image.

    Args:
        classes: how many.
        channels: of the features.
        grid: cells along each side.
        least: pixels that a class needs in a cell for its mean to count.
    """

    def __init__(self, classes: int, channels: int, grid: int = 8, least: int = 50) -> None:
        if grid < 2 or least < 1:
            raise UsageError(
                f"locations: expected a grid of at least 2 and at least 1 pixel, got {grid} and "
                f"{least}."
            )
        self.grid, self.least = grid, least
        self.counts = torch.zeros(grid * grid, classes, dtype=torch.float64)
        self.sums = torch.zeros(grid * grid, classes, channels, dtype=torch.float64)

    def update(
        self, features: Tensor, labels: Tensor, extent: tuple[int, int] | None = None
    ) -> None:
        """Take images.

        Args:
            features: `(B, D, h, w)`.
            labels: `(B, h, w)` class indices; below 0 counts for nothing, as must all that lies
                outside of the extent.
            extent: rows and columns that the grid of cells covers; default: all.
        """
        height, width = extent or (labels.shape[-2], labels.shape[-1])
        rows, columns = (
            (torch.arange(whole) * self.grid // part).clamp_max(self.grid - 1)
            for whole, part in zip(labels.shape[-2:], (height, width))
        )
        cells = (rows[:, None] * self.grid + columns).expand(labels.shape).to(labels.device)
        valid = labels >= 0
        classes = self.counts.shape[1]
        at = (cells[valid] * classes + labels[valid]).cpu()
        z = features.permute(0, 2, 3, 1)[valid].double().cpu()
        self.counts.view(-1).index_add_(0, at, torch.ones(len(at), dtype=torch.float64))
        self.sums.view(-1, z.shape[1]).index_add_(0, at, z)

    def __add__(self, other: Self) -> Self:
        _, classes, channels = self.sums.shape
        total = type(self)(classes, channels, self.grid, self.least)
        total.counts, total.sums = self.counts + other.counts, self.sums + other.sums
        return total

    def figures(self) -> LocationFigures:
        """Distances between the means of cells at least half the diagonal apart."""
        classes = self.counts.shape[1]
        means = (self.sums / self.counts.clamp_min(1)[..., None]).numpy()
        there = (self.counts >= self.least).numpy()
        totals, pairs = np.zeros((classes, classes)), np.zeros((classes, classes))
        hits = asked = 0
        for a, b in _distant(self.grid):
            between = np.linalg.norm(means[a][:, None] - means[b][None], axis=2)
            both = there[a][:, None] & there[b][None]
            totals += np.where(both, between, 0)
            pairs += both
            for number in np.flatnonzero(there[a] & there[b]):
                if there[b].sum() > 1:
                    row = np.where(there[b], between[number], np.inf)
                    hits, asked = hits + int(row.argmin() == number), asked + 1
        with np.errstate(invalid="ignore"):
            distances = np.where(pairs > 0, totals / pairs, np.nan)
        diagonal = np.eye(classes, dtype=bool)
        same, other = _mean(distances[diagonal]), _mean(distances[~diagonal])
        return LocationFigures(
            distances,
            same,
            other,
            same / other if other else float("nan"),
            hits / asked if asked else float("nan"),
        )


def _distant(grid: int) -> list[tuple[int, int]]:
    """Ordered pairs of cells at least half the diagonal apart."""
    places = [(row, column) for row in range(grid) for column in range(grid)]
    least = (grid - 1) ** 2 / 2
    return [
        (a, b)
        for a, (r, c) in enumerate(places)
        for b, (s, d) in enumerate(places)
        if (r - s) ** 2 + (c - d) ** 2 >= least
    ]


def _mean(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")
