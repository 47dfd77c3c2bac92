"""Do a class's features depend on where in the image its pixels lie?

One Gaussian for each class, wherever its pixels are, is sound where the class's mean is nearer to
itself far away in the image than to the means of other classes there. The means are taken over a
data set and written as `locations.json` and as a matrix, `locations.svg`.

Reference:
    Deep Deterministic Uncertainty for Semantic Segmentation (Mukhoti et al., 2021), figure 1,
    https://arxiv.org/abs/2111.00079. The paper compares three pairs of pixels; here all pairs of
    cells of a grid that are at least half the image's diagonal apart.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from doubtmap.datasets.dataset import Dataset
from doubtmap.engine.run import Pairs, Progress
from doubtmap.errors import DataError, UsageError
from doubtmap.files import alone, write_atomically
from doubtmap.metrics.accumulator import Array
from doubtmap.prediction import Segmenter, listening_to
from doubtmap.reports.charts import drawing
from doubtmap.reports.page import stand_alone
from doubtmap.scores.inner_features import Scale, inner_features, native_extent, native_labels
from doubtmap.scoring import before_last_activation
from doubtmap.version import __version__


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


def locate(
    segmenter: Segmenter,
    dataset: Dataset,
    *,
    layer: str = "auto",
    scale: Scale = "unit",
    grid: int = 8,
    progress: Progress | None = None,
) -> LocationFigures:
    """Compare class means at distant places, the same class's with other classes'.

    Args:
        segmenter: the network.
        dataset: labelled images.
        layer: whose output the features are; `auto` and `classifier` as in fitting a density.
        scale: as in fitting a density.
        grid: cells along each side of the image.
        progress: told after each image.

    Raises:
        UsageError, ModelError, DataError: as fitting a density does.
        DataError: where no class is seen at two distant places.
    """
    if layer == "auto":
        layer = before_last_activation(segmenter) or "classifier"
    layers = () if layer == "classifier" else tuple(layer.split("+"))
    sums: Locations | None = None
    for prediction, label in Pairs(listening_to(segmenter, layers), dataset, progress=progress):
        z = inner_features(prediction, layers, scale, "locations", native=True)
        if sums is None:
            sums = Locations(prediction.native_logits.shape[1], z.shape[1], grid)
        sums.update(z, native_labels(prediction, label), native_extent(prediction))
    assert sums is not None
    figures = sums.figures()
    if not math.isfinite(figures.ratio):
        raise DataError(
            f"{dataset.name}: expected two classes with pixels enough at distant places, and "
            f"features that tell them apart, found none. Use more images, or a coarser --grid."
        )
    return figures


CELL, MARGIN = 46, 116


STYLE = (
    ".head{font-weight:600;font-size:14px}text{fill:var(--ink)}.faint{fill:var(--soft)}"
    ".dark{fill:#1d1d21}.light{fill:#fff}.own{fill:none;stroke:var(--gap);stroke-width:2}\n"
)


@alone
def write_locations(
    figures: LocationFigures, class_names: tuple[str, ...], out: Path, command: str = ""
) -> str:
    """Write figures and picture.

    Args:
        figures: as `locate` gives them.
        class_names: one for each class.
        out: folder.
        command: what to write as their origin.

    Returns:
        A sentence with the figures.

    Raises:
        DataError: where the folder cannot be written.
    """
    names = class_names or tuple(str(number) for number in range(len(figures.distances)))
    content = {
        "doubtmap": __version__,
        "command": command,
        "classes": list(names),
        "same": figures.same,
        "other": figures.other,
        "ratio": figures.ratio,
        "nearest_is_same": figures.nearest_is_same,
        "distances": [
            [float(value) if np.isfinite(value) else None for value in row]
            for row in figures.distances
        ],
    }
    write_atomically(out / "locations.json", json.dumps(content, indent=1).encode())
    write_atomically(out / "locations.svg", stand_alone(matrix(figures, names), STYLE))
    verdict = (
        "the class tells more than the place"
        if figures.ratio < 1
        else (
            "the place tells more than the class, so one Gaussian for each class is not sound here"
        )
    )
    return (
        f"Between distant places, means of one class lie {figures.same:.3g} apart, of different "
        f"classes {figures.other:.3g} (ratio {figures.ratio:.2f}); the nearest mean is the same "
        f"class's in {figures.nearest_is_same:.0%}: {verdict}. See {out / 'locations.svg'}."
    )


def matrix(figures: LocationFigures, names: tuple[str, ...]) -> Markup:
    """Mean distance of each class here to each class far away, darker is nearer."""
    side = MARGIN + CELL * len(names)
    values = figures.distances
    low, high = np.nanmin(values), np.nanmax(values)
    parts = [
        Markup('<text class="head" x="12" y="24">Distance of class means at distant places</text>')
    ]
    parts.append(
        Markup(
            '<text class="faint" x="12" y="42">same class {:.3g}, other classes {:.3g}</text>'
        ).format(figures.same, figures.other)
    )
    for row, name in enumerate(names):
        middle = MARGIN + CELL * row + CELL / 2
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(
                MARGIN - 8, middle + 4, name
            )
        )
        parts.append(
            Markup('<text transform="translate({} {}) rotate(-40)">{}</text>').format(
                middle - 2, MARGIN - 8, name
            )
        )
        for column in range(len(names)):
            parts.append(_cell(row, column, values[row, column], float(low), float(high)))
    return drawing(side + 60, side + 14, "Distances between class means", *parts)


def _cell(row: int, column: int, value: float, low: float, high: float) -> Markup:
    x, y = MARGIN + CELL * column, MARGIN + CELL * row
    if not np.isfinite(value):
        return Markup('<rect x="{}" y="{}" width="{}" height="{}" fill="#eee"/>').format(
            x, y, CELL - 2, CELL - 2
        )
    near = 1 - (value - low) / (high - low) if high > low else 1.0
    red, green, blue = (round(250 - near * (250 - end)) for end in (18, 66, 110))
    own = Markup('<rect class="own" x="{}" y="{}" width="{}" height="{}"/>').format(
        x + 1, y + 1, CELL - 4, CELL - 4
    )
    return Markup(
        '<rect x="{x}" y="{y}" width="{s}" height="{s}" fill="rgb({r},{g},{b})"/>'
        '<text class="{css}" x="{cx}" y="{cy}" text-anchor="middle">{value:.3g}</text>'
    ).format(
        x=x,
        y=y,
        s=CELL - 2,
        r=red,
        g=green,
        b=blue,
        css="light" if near > 0.5 else "dark",
        cx=x + CELL / 2 - 1,
        cy=y + CELL / 2 + 3,
        value=value,
    ) + (own if row == column else Markup(""))
