"""The figures of `dudes.py`: how one map follows another, what a map is worth, and intervals.

Intervals: 95 %, by resampling the images (`doubtmap.metrics.bootstrap`); all maps share the
weights, so differences between maps are paired.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from torch import Tensor

from doubtmap.datasets.dataset import UNKNOWN
from doubtmap.metrics import Confusion, Ranking, RankingCurve
from doubtmap.metrics.bootstrap import Weights, interval
from doubtmap.metrics.risk import Keeping

OCTAVES, STEPS = (-30, 2), 16
BINS = (OCTAVES[1] - OCTAVES[0]) * STEPS
"""Of doubt, evenly in its logarithm."""
COARSER = 8
"""Bins that are one where Spearman is resampled: half an octave."""
REPLICATES, SEED = 300, 0


def binned(doubt: Tensor) -> Any:
    """`(N,)` bins of a map, ascending with it."""
    octave = np.log2(np.maximum(doubt.flatten().double().numpy(), 2.0 ** OCTAVES[0]))
    return ((octave - OCTAVES[0]) * STEPS).astype(np.int64).clip(0, BINS - 1)


@cache
def weights(images: int) -> Any:
    """`(R, images)`, how often each counts in each replicate."""
    return np.stack([Weights(REPLICATES, SEED)(image) for image in range(images)], 1)


def resampled(states: list[Any], figure: Callable[[Any], float]) -> Any:
    """`(R,)`: a figure of every replicate of the sum of the images' states."""
    stacked = np.stack(states).reshape(len(states), -1)
    sums = weights(len(states)) @ stacked
    return np.array([figure(part.reshape(states[0].shape)) for part in sums])


@dataclass
class Following:
    """How a map follows another, by the class that the ensemble predicts."""

    classes: int
    sums: Any = field(init=False)
    counts: Any = field(init=False)
    images: dict[str, list[Any]] = field(default_factory=lambda: {"sums": [], "counts": []})

    def __post_init__(self) -> None:
        self.sums = np.zeros((self.classes, 6))
        self.counts = np.zeros((self.classes, BINS, BINS), np.int64)

    def update(self, own: Tensor, theirs: Tensor, chosen: Tensor) -> None:
        """Take one image's maps and the ensemble's classes."""
        x, y = own.flatten().double().numpy(), theirs.flatten().double().numpy()
        group, mine, others = chosen.flatten().numpy(), binned(own), binned(theirs)
        parts = (np.ones_like(x), x, y, x * x, y * y, x * y)
        sums = np.stack([np.bincount(group, part, self.classes) for part in parts], 1)
        self.sums += sums
        place = (group * BINS + mine) * BINS + others
        self.counts += np.bincount(place, minlength=self.counts.size).reshape(self.counts.shape)
        few = BINS // COARSER
        coarse = np.bincount(mine // COARSER * few + others // COARSER, minlength=few**2)
        self.images["sums"].append(sums.sum(0))
        self.images["counts"].append(coarse.reshape(few, few).astype(np.float32))

    def figures(self, group: int | None = None) -> dict[str, float]:
        """Over all pixels, or those of one class."""
        sums = self.sums.sum(0) if group is None else self.sums[group]
        counts = self.counts.sum(0) if group is None else self.counts[group]
        found = {"pearson": pearson(sums), "spearman": spearman(counts), "rmse": rmse(sums)}
        return found | {"mean": sums[1] / sums[0], "mean_of_ensemble": sums[2] / sums[0]}

    def intervals(self) -> dict[str, Any]:
        """Of the figures over all pixels."""
        found, sums = self.figures(), self.images["sums"]
        drawn = {"pearson": resampled(sums, pearson), "rmse": resampled(sums, rmse)}
        drawn["spearman"] = resampled(self.images["counts"], spearman)
        return {f"{name}_interval": interval(found[name], drawn[name], (-1, 1)) for name in drawn}


def pearson(sums: Any) -> float:
    """Of `(n, x, y, xx, yy, xy)`."""
    n, x, y, xx, yy, xy = sums
    deviation = np.sqrt((xx / n - (x / n) ** 2) * (yy / n - (y / n) ** 2))
    return float((xy / n - x * y / n**2) / deviation)


def rmse(sums: Any) -> float:
    """Of `(n, x, y, xx, yy, xy)`."""
    n, _, _, xx, yy, xy = sums
    return float(np.sqrt(max(xx - 2 * xy + yy, 0) / n))


def spearman(counts: Any) -> float:
    """Correlation of the ranks of a table of counts, ties at their average."""
    ranks = [np.cumsum(m) - (m - 1) / 2.0 for m in (counts.sum(1), counts.sum(0))]
    shares = counts / counts.sum()
    row, column = (r - (shares.sum(1 - axis) * r).sum() for axis, r in enumerate(ranks))
    covariance = row @ shares @ column
    return float(
        covariance / np.sqrt((shares.sum(1) * row**2).sum() * (shares.sum(0) * column**2).sum())
    )


def precision(counts: Any) -> float:
    """Average precision of `(2, BINS)`: negatives and positives by bin."""
    held = np.flatnonzero(counts.sum(0))[::-1]
    every = np.ones(len(held), bool)
    return float(RankingCurve(counts[1][held], counts[0][held], held, every).average_precision())


def miou(counts: Any) -> float:
    """Of `(C, C)` counts."""
    return Confusion(counts).miou


@dataclass
class Worth:
    """What a map is worth: unknown and wrong pixels, and what remains without the doubtful."""

    classes: int
    unknown: Ranking = field(default_factory=Ranking)
    wrong: Ranking = field(default_factory=Ranking)
    confusion: Any = None
    by_class: Any = None
    images: dict[str, list[Any]] = field(
        default_factory=lambda: {"unknown": [], "wrong": [], "confusion": []}
    )

    def __post_init__(self) -> None:
        self.confusion = np.zeros((BINS, self.classes, self.classes), np.int64)
        self.by_class = np.zeros((2, self.classes))

    def update(self, doubt: Tensor, predicted: Tensor, label: Tensor) -> None:
        """Take one image."""
        known, at = label >= 0, binned(doubt)
        either = known | (label == UNKNOWN)
        self.unknown.update(doubt, label == UNKNOWN, either)
        self.wrong.update(doubt, predicted != label, known)
        for kind, truth, valid in (
            ("unknown", label == UNKNOWN, either),
            ("wrong", predicted != label, known),
        ):
            place = (at + BINS * truth.flatten().numpy())[valid.flatten().numpy()]
            counts = np.bincount(place, minlength=2 * BINS).reshape(2, BINS)
            self.images[kind].append(counts.astype(np.float32))
        pair = label[known].numpy().astype(np.int64) * self.classes + predicted[known].numpy()
        place = at[known.flatten().numpy()] * self.classes**2 + pair
        confusion = np.bincount(place, minlength=self.confusion.size)
        confusion = confusion.reshape(self.confusion.shape)
        self.confusion += confusion
        self.images["confusion"].append(confusion.sum(0).astype(np.float64))
        group = predicted.flatten().numpy()
        self.by_class[0] += np.bincount(group, minlength=self.classes)
        self.by_class[1] += np.bincount(group, doubt.flatten().double().numpy(), self.classes)

    def figures(self, names: tuple[str, ...]) -> dict[str, Any]:
        """A row of the results."""
        mean = self.by_class[1] / np.maximum(self.by_class[0], 1)
        total = Confusion(self.confusion.sum(0))
        pixels = self.confusion.sum((1, 2))
        errors = pixels - np.trace(self.confusion, axis1=1, axis2=2)
        keeping = Keeping(pixels, errors)
        removed = np.arange(10) / 10
        row: dict[str, Any] = {"miou": total.miou, "accuracy": total.accuracy}
        for kind, ranking in (("unknown", self.unknown), ("wrong", self.wrong)):
            row[f"{kind}.auprc"] = float(ranking.average_precision())
            row[f"{kind}.auroc"] = float(ranking.auroc())
            row[f"{kind}.fpr95"] = float(ranking.fpr_at_tpr(0.95))
        row["wrong.aurc"] = keeping.area_under_risk()
        row["mean_by_predicted_class"] = dict(zip(names, mean.tolist()))
        row["mean_of_classes"] = float(mean.mean())
        row["removed"] = removed.tolist()
        row["miou_of_the_rest"] = [self.without(share).miou for share in removed]
        row["risk_of_the_rest"] = keeping.risk(1 - removed).tolist()
        return row

    def without(self, share: float) -> Confusion:
        """The confusion when so large a share of the pixels, the most doubtful, is dropped."""
        pixels = self.confusion.sum((1, 2))
        kept = (1 - share) * pixels.sum() - (np.cumsum(pixels) - pixels)
        part = np.clip(kept / np.maximum(pixels, 1), 0, 1)
        return Confusion((self.confusion * part[:, None, None]).sum(0))

    def replicates(self) -> dict[str, Any]:
        """`(R,)` of each figure that has an interval."""
        drawn = {f"{kind}.auprc": resampled(self.images[kind], precision) for kind in KINDS}
        return drawn | {"miou": resampled(self.images["confusion"], miou)}


KINDS = ("unknown", "wrong")


def with_intervals(
    rows: dict[str, dict[str, Any]],
    drawn: dict[str, dict[str, Any]],
    against: list[tuple[str, str, str, str]],
) -> None:
    """Add to rows their intervals, and how they differ from others.

    Args:
        rows: figures by the map's name, changed in place.
        drawn: of each map, the replicates of some figures.
        against: map, figure, the map that it is compared with, and what to call that.
    """
    for name, replicates in drawn.items():
        for key, values in replicates.items():
            rows[name][f"{key}_interval"] = interval(rows[name][key], values, (0, 1))
    for name, key, other, called in against:
        difference = rows[name][key] - rows[other][key]
        rows[name][f"{key}_minus_{called}"] = difference
        rows[name][f"{key}_minus_{called}_interval"] = interval(
            difference, drawn[name][key] - drawn[other][key], (-1, 1)
        )
