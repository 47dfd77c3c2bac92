"""Figures of unknown pixels that can be averaged over networks and compared image by image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import doubtmap as dm
from doubtmap.datasets import Dataset
from doubtmap.engine import Pairs
from doubtmap.metrics import Confusion, Histogram, RankingCurve
from doubtmap.metrics.bootstrap import BootstrapHistogram, Weights, interval
from doubtmap.metrics.histogram import Bins
from doubtmap.prediction import Prediction, Segmenter

SCORES: dict[str, Callable[[Prediction], Tensor]] = {
    "max_softmax": dm.scores.max_softmax,
    "entropy": dm.scores.entropy,
    "max_logit": dm.scores.max_logit,
    "divergence": dm.scores.divergence,
}
FIGURES = ("auprc", "auroc", "fpr95")
REPLICATES = 300


def figures_of(bins: Bins) -> list[float]:
    """AUPRC, AUROC and FPR95 of unknown (channel 1) against known pixels (channel 0)."""
    curve = RankingCurve.from_bins(bins, bins.counts[1], bins.counts[0])
    if not curve.defined:
        return [float("nan")] * len(FIGURES)
    found = (curve.average_precision(), curve.auroc(), curve.fpr_at_tpr(0.95))
    return [float(figure) for figure in found]


@dataclass
class Found:
    """Known and unknown pixels by the value of one score, and their bootstrap replicates."""

    pixels: Histogram = field(default_factory=lambda: Histogram(1 << 19, shape=(2,)))
    replicates: BootstrapHistogram = field(
        default_factory=lambda: BootstrapHistogram(REPLICATES, channels=2)
    )

    def update(self, values: Any, unknown: Any, weights: Any) -> None:
        """Take one image: `(N,)` values, and which pixels are unknown."""
        self.pixels.update(values, unknown)
        image = Histogram(1 << 15, shape=(2,))
        image.add(image.locate(values), unknown)
        self.replicates.add(image, weights)


@dataclass(frozen=True)
class Measured:
    """What one network does on one set.

    Args:
        values: by score, `(3,)`: `FIGURES`.
        drawn: by score, `(R, 3)`: of each bootstrap replicate; an image weighs the same in all
            networks' replicates of a number, so differences of them are paired.
        miou: NaN without labels of known classes.
        images: how many.
    """

    values: Mapping[str, NDArray[np.float64]]
    drawn: Mapping[str, NDArray[np.float64]]
    miou: float
    images: int

    def save(self, path: Path) -> None:
        """Write it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"values {name}": array for name, array in self.values.items()}
        arrays |= {f"drawn {name}": array for name, array in self.drawn.items()}
        np.savez(path, miou=np.array(self.miou), images=np.array(self.images), **arrays)

    @classmethod
    def load(cls, path: Path) -> Measured:
        """Read what `save` wrote."""
        with np.load(path) as file:
            parts = [
                {name.split(" ", 1)[1]: file[name] for name in file.files if name.startswith(kind)}
                for kind in ("values ", "drawn ")
            ]
            return cls(parts[0], parts[1], float(file["miou"]), int(file["images"]))


def measured(
    segmenter: Segmenter,
    dataset: Dataset,
    unknown: tuple[str, ...],
    every: int = 1,
    together: int = 1,
) -> Measured:
    """All scores in one pass over every so many-th image, pixels pooled, void left out.

    So many images in a row are drawn `together` by the bootstrap: frames of a drive look alike.
    """
    indices = range(0, len(dataset), every)
    found = {name: Found() for name in SCORES}
    weights, confusion = Weights(REPLICATES), Confusion.empty(len(segmenter.class_names))
    for index, (prediction, label) in enumerate(Pairs(segmenter, dataset, unknown, indices)):
        confusion.update(prediction.classes, label, label >= 0)
        counts = label != -2
        is_unknown = (label[counts] == -1).numpy().astype(np.int64)
        for name, score in SCORES.items():
            values = score(prediction)[counts].numpy()
            found[name].update(values, is_unknown, weights(index // together))
        print(f"\r{dataset.name}: {index + 1}/{len(indices)}   ", end="", flush=True)
    print()
    return Measured(
        {name: np.array(figures_of(one.pixels.view())) for name, one in found.items()},
        {name: one.replicates.figures(figures_of) for name, one in found.items()},
        confusion.miou if confusion.counts.any() else float("nan"),
        len(indices),
    )


def rows_of(name: str, runs: Sequence[Measured], plain: Sequence[Measured]) -> list[dict[str, Any]]:
    """A row for each score: means over networks that differ by their seed alone.

    Args:
        name: of the networks.
        runs: one for each seed.
        plain: of the networks that they are compared with, the same seeds in the same order, of
            which the first so many count; may be empty.

    Returns:
        Rows with `unknown.FIGURE`, the mean over the runs; `_runs`, each of them; `_interval`, the
        bootstrap's over images, with the networks as they are; and `unknown.auprc_gain`, how far
        the mean lies above that of the plain networks' best score, with its paired interval.

    Raises:
        ValueError: for fewer networks to compare with than networks.
    """
    miou = [run.miou for run in runs]
    about: dict[str, Any] = {"miou": None, "images": runs[0].images, "networks": len(runs)}
    if not np.isnan(miou).any():
        about |= {"miou": float(np.mean(miou)), "miou_runs": miou}
    rows = []
    for score in runs[0].values:
        row: dict[str, Any] = {"name": f"{name}: {score}"} | about
        values, drawn = stacked(runs, score)
        for at, figure in enumerate(FIGURES):
            mean = float(values[:, at].mean())
            row[f"unknown.{figure}"] = mean
            row[f"unknown.{figure}_interval"] = interval(mean, drawn.mean(0)[:, at], (0.0, 1.0))
            row[f"unknown.{figure}_runs"] = values[:, at].tolist()
        if plain:
            if len(plain) < len(runs):
                raise ValueError(f"{name}: expected {len(runs)} plain networks, got {len(plain)}")
            row |= gain(values, drawn, plain[: len(runs)])
        rows.append(row)
    return rows


def gain(
    values: NDArray[np.float64], drawn: NDArray[np.float64], plain: Sequence[Measured]
) -> dict[str, Any]:
    """The AUPRC above that of the plain networks' best score, mean over the runs of both."""
    best = max(plain[0].values, key=lambda score: stacked(plain, score)[0][:, 0].mean())
    base, base_drawn = stacked(plain, best)
    mean = float(values[:, 0].mean() - base[:, 0].mean())
    replicates = drawn.mean(0)[:, 0] - base_drawn.mean(0)[:, 0]
    found: dict[str, Any] = {"plain_best": best, "plain_best_auprc": float(base[:, 0].mean())}
    found["unknown.auprc_gain"] = mean
    found["unknown.auprc_gain_interval"] = interval(mean, replicates)
    return found


def stacked(
    runs: Sequence[Measured], score: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`(runs, 3)` values and `(runs, R, 3)` replicates of a score."""
    return (
        np.stack([run.values[score] for run in runs]),
        np.stack([run.drawn[score] for run in runs]),
    )
