"""Several calibrators of one network, measured side by side on the same images.

Kept are sums by image, so that all figures, pooled or per image, with 10 or 15 bins, and paired
differences come from one pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from doubtmap.calibration import Calibrator
from doubtmap.calibration.calibrator import Pairs
from doubtmap.calibration.pixels import checked_label
from doubtmap.engine.run import Progress
from doubtmap.errors import DataError, UsageError
from doubtmap.kernels.labelled import segments_of
from doubtmap.metrics.accumulator import Array
from doubtmap.metrics.bootstrap import interval
from doubtmap.metrics.patches import boundary_band, random_patches
from doubtmap.metrics.reliability import confidence_sums, mean_gap
from doubtmap.prediction import Prediction

FINE = 30
"""Bins kept; 10 and 15 follow from them."""


PATCHES = 10


PER_IMAGE = {15: "ece_per_image", 10: "ece_per_image_10_bins"}
"""Means over images of each image's ECE, by their number of bins."""


Differing = Literal["ece", "nll", "brier", "ece_per_image", "ece_per_image_10_bins"]

Region = Literal["all", "boundary", "inside", "small", "middle", "large"]


REGIONS: tuple[Region, ...] = ("all", "boundary", "inside", "small", "middle", "large")
SIZES: dict[Region, tuple[float, float]] = {
    "small": (0.0, 0.001),
    "middle": (0.001, 0.01),
    "large": (0.01, 1.0),
}
"""Shares of an image that a labelled segment, connected pixels of one class, takes: above the
first, up to the second."""


@dataclass(eq=False)
class Comparison:
    """Sums of each image and method.

    Args:
        names: of the methods.
        block: consecutive images that are drawn together by the bootstrap, since neighbouring
            frames are alike; fewer where there are not ten blocks.
        replicates: of the bootstrap.
        seed: of bootstrap and patches.
        sums: for each image `(methods, regions + patches, 30, 3)`: by bin of the confidence,
            pixels, right ones, and the sum of the confidence.
        losses: for each image `(methods, 3)`: pixels, Brier score and negative log-likelihood.
        classes: for each image those that any method predicts in it, `(K,)`.
        by_class: for each image `(methods, K, 30, 3)`: as sums, by predicted class.
    """

    names: tuple[str, ...]
    block: int = 10
    replicates: int = 300
    seed: int = 0
    sums: list[Array] = field(default_factory=list)
    losses: list[Array] = field(default_factory=list)
    classes: list[Array] = field(default_factory=list)
    by_class: list[Array] = field(default_factory=list)

    def ece(self, name: str, bins: int = 15, region: Region = "all") -> float:
        """Expected calibration error, pooled over all pixels of a region."""
        return mean_gap(_coarse(self._region(name, region).sum(0), bins))

    def ece_per_image(self, name: str, bins: int = 15, region: Region = "all") -> float:
        """Mean over images of each image's ECE; images without pixels are left out."""
        return _mean_ece(_coarse(self._region(name, region), bins))

    def ece_per_patch(self, name: str, bins: int = 15) -> float:
        """Mean over seeded patches of 72 x 72 pixels of each patch's ECE."""
        patches = self._stacked[:, self._at(name), len(REGIONS) :]
        return _mean_ece(_coarse(patches, bins))

    def brier(self, name: str) -> float:
        """Mean Brier score, pooled, in [0, 2]."""
        return self._loss(name, 1)

    def nll(self, name: str) -> float:
        """Mean negative log-likelihood, pooled, in nats."""
        return self._loss(name, 2)

    def accuracy(self, name: str) -> float:
        """Share of right pixels."""
        sums = self._region(name, "all").sum(0)
        return float(sums[:, 1].sum() / sums[:, 0].sum())

    def figures(self, name: str) -> dict[str, Any]:
        """All figures of a method, with intervals of the main ones."""
        row: dict[str, Any] = {"ece": self.ece(name)}
        row["ece_interval"] = interval(row["ece"], self._replicated(name, "ece"), (0, 1))
        row["ece_10_bins"] = self.ece(name, 10)
        for bins, figure in PER_IMAGE.items():
            row[figure] = self.ece_per_image(name, bins)
            row[f"{figure}_interval"] = interval(
                row[figure], self._replicated(name, figure), (0, 1)
            )
        row["ece_per_patch"] = self.ece_per_patch(name)
        for region in ("boundary", "inside"):
            row[f"ece_{region}"] = self.ece(name, region=region)
            row[f"ece_per_image_{region}"] = self.ece_per_image(name, region=region)
        row["nll"], row["brier"] = self.nll(name), self.brier(name)
        row["nll_interval"] = interval(row["nll"], self._replicated(name, "nll"), (0, np.inf))
        row["brier_interval"] = interval(row["brier"], self._replicated(name, "brier"), (0, 2))
        row["accuracy"] = self.accuracy(name)
        return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in row.items()}

    def difference(
        self, a: str, b: str, figure: Differing = "ece"
    ) -> tuple[float, list[float] | None]:
        """Figure of `a` minus that of `b`, and its paired 95 % interval."""
        per_image = {name: partial(self.ece_per_image, bins=k) for k, name in PER_IMAGE.items()}
        of = per_image[figure] if figure in per_image else getattr(self, figure)
        value = of(a) - of(b)
        drawn = self._replicated(a, figure) - self._replicated(b, figure)
        return value, interval(value, drawn)

    def diagram(self, name: str, bins: int = 15, label: int | None = None) -> dict[str, Any]:
        """The reliability diagram of all pixels, or of those predicted to be a class.

        Returns:
            `confidence`, `accuracy` and `share` by bin, None where a bin is empty.
        """
        found = self._region(name, "all") if label is None else self._class(name, label)
        count, right, confidence = _coarse(found.sum(0), bins).T
        some = np.where(count > 0, count, np.nan)
        return {
            "confidence": _or_none(confidence / some),
            "accuracy": _or_none(right / some),
            "share": (count / max(count.sum(), 1)).tolist(),
        }

    @property
    def predicted(self) -> list[int]:
        """The classes that any method predicts anywhere."""
        return sorted({int(label) for some in self.classes for label in some})

    def within(self, name: str, part: Region | int) -> dict[str, Any]:
        """Calibration of some pixels: of a region, or of those predicted to be a class.

        Returns:
            `share` of all pixels, `confidence` and `accuracy` in the mean, and `ece` with
            `ece_interval`; all but the share None where there are none.
        """
        sums = self._class(name, part) if isinstance(part, int) else self._region(name, part)
        pixels, right, confidence = sums.sum((0, 1))
        found: dict[str, Any] = dict.fromkeys(("confidence", "accuracy", "ece", "ece_interval"))
        found["share"] = float(pixels / self._region(name, "all")[..., 0].sum())
        if pixels:
            found |= {"confidence": float(confidence / pixels), "accuracy": float(right / pixels)}
            found["ece"] = ece = mean_gap(_coarse(sums.sum(0), 15))
            found["ece_interval"] = interval(ece, self._replicated_ece(sums), (0, 1))
        return found

    def take(self, rows: Array, losses: Array, by_class: Array) -> None:
        """Take an image.

        Args:
            rows: one of `sums`.
            losses: one of `losses`.
            by_class: `(methods, C, 30, 3)`.
        """
        there = np.flatnonzero(by_class[..., 0].any((0, 2)))
        self.sums.append(rows)
        self.losses.append(losses)
        self.classes.append(there)
        self.by_class.append(by_class[:, there])

    @property
    def _stacked(self) -> Array:
        return np.stack(self.sums)

    def _at(self, name: str) -> int:
        if name not in self.names:
            raise UsageError(f"comparison: expected one of {', '.join(self.names)}, got {name!r}.")
        return self.names.index(name)

    def _region(self, name: str, region: Region) -> Array:
        return np.stack([row[self._at(name), REGIONS.index(region)] for row in self.sums])

    def _class(self, name: str, label: int) -> Array:
        found = np.zeros((len(self.classes), FINE, 3))
        for row, classes, sums in zip(found, self.classes, self.by_class):
            for at in np.flatnonzero(classes == label):
                row += sums[self._at(name), at]
        return found

    def _loss(self, name: str, column: int) -> float:
        pixels, value = np.stack(self.losses)[:, self._at(name)][:, [0, column]].sum(0)
        return float(value / pixels)

    def _replicated(self, name: str, figure: str) -> Array:
        """`(R,)`: the figure where blocks of images count Poisson(1) times each."""
        if figure == "ece":
            return self._replicated_ece(self._region(name, "all"))
        for bins, per_image in PER_IMAGE.items():
            if figure == per_image:
                each = [mean_gap(row) for row in _coarse(self._region(name, "all"), bins)]
                with np.errstate(invalid="ignore"):
                    return np.asarray(self._drawn @ np.array(each) / self._drawn.sum(1))
        column = {"brier": 1, "nll": 2}[figure]
        losses = self._drawn @ np.stack(self.losses)[:, self._at(name)]
        with np.errstate(invalid="ignore", divide="ignore"):
            result: Array = losses[:, column] / losses[:, 0]
        return result

    def _replicated_ece(self, sums: Array) -> Array:
        """`(R,)`, of `(images, 30, 3)`."""
        drawn = np.tensordot(self._drawn, _coarse(sums, 15), 1)
        return np.array([mean_gap(row) for row in drawn])

    @property
    def _drawn(self) -> Array:
        """`(R, images)`: how often each image counts."""
        images = len(self.sums)
        block = max(1, min(self.block, images // 10))
        blocks = -(-images // block)
        drawn = np.random.default_rng(self.seed).poisson(1.0, (self.replicates, blocks))
        return np.repeat(drawn, block, 1)[:, :images].astype(np.float64)


def compare(
    pairs: Pairs,
    calibrators: Mapping[str, Calibrator],
    *,
    block: int = 10,
    replicates: int = 300,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Measure calibrators on the same images, every pixel with a class.

    Args:
        pairs: predictions and labels on which nothing was fitted.
        calibrators: by name.
        block: consecutive images that the bootstrap draws together.
        replicates: of the bootstrap.
        seed: of bootstrap and patches.
        progress: told after each image.

    Raises:
        UsageError: where no calibrator is given.
        DataError: where no pixel has a class.
    """
    if not calibrators:
        raise UsageError("compare: expected at least one calibrator, got none.")
    found = Comparison(tuple(calibrators), block, replicates, seed)
    for index, (prediction, label) in enumerate(pairs):
        checked_label(label, prediction)
        if bool((label >= 0).any()):
            regions = _regions(label, seed + index)
            measured = [_measure(c(prediction), label, regions) for c in calibrators.values()]
            found.take(*(np.stack(column) for column in zip(*measured)))
        if progress:
            total = len(pairs) if isinstance(pairs, Sized) else index + 1
            progress("compare", index + 1, total)
    if not found.sums:
        raise DataError(
            "compare: expected pixels labelled with a class of the model, found none. Pass "
            "labelled images whose class names are the model's."
        )
    return found


def _measure(
    prediction: Prediction, label: Tensor, regions: list[Tensor]
) -> tuple[Array, Array, Array]:
    there = label >= 0
    logits, classes, truth = prediction.logits, prediction.classes[there], label[there]
    log_p = logits.log_softmax(1)
    p = log_p.exp()
    of_truth = log_p.gather(1, label.clamp_min(0)[:, None])[:, 0][there].double()
    confidence = p.gather(1, prediction.classes[:, None])[:, 0][there]
    squares = p.square_().sum(1)[there].double()
    right = classes == truth
    at = (confidence * FINE).ceil().long().sub_(1).clamp_(0, FINE - 1)
    rows = [confidence_sums(at[r], right[r], confidence[r], FINE) for r in regions]
    brier = squares - 2 * of_truth.exp() + 1
    losses = np.array([len(truth), float(brier.sum()), float(-of_truth.sum())])
    count = logits.shape[1]
    by_class = confidence_sums(classes * FINE + at, right, confidence, count * FINE)
    by_class = by_class.reshape(count, FINE, 3)
    return np.stack(rows), losses, by_class


def _regions(label: Tensor, seed: int) -> list[Tensor]:
    """Indices among the pixels with a class, of each region and patch."""
    there = label >= 0
    band = boundary_band(label)[there]
    masks = [torch.ones_like(band), band, ~band]
    size = _segment_shares(label)[there]
    masks += [(size > low) & (size <= high) for low, high in SIZES.values()]
    for rows, columns in random_patches((label.shape[-2], label.shape[-1]), PATCHES, seed=seed):
        patch = torch.zeros_like(there)
        patch[:, rows, columns] = True
        masks.append(patch[there])
    return [torch.nonzero(mask)[:, 0] for mask in masks]


def _segment_shares(label: Tensor) -> Tensor:
    """`(1, H, W)`: the share of the image that each pixel's labelled segment takes."""
    segments, count = segments_of(label[0])
    pixels = torch.bincount(segments.flatten().long(), minlength=count)
    return (pixels[segments.long()] / label[0].numel())[None]


def _coarse(sums: Array, bins: int) -> Array:
    if FINE % bins:
        raise UsageError(f"comparison: expected a number of bins that divides {FINE}, got {bins}.")
    shape = (*sums.shape[:-2], bins, FINE // bins, 3)
    result: Array = sums.reshape(shape).sum(-2)
    return result


def _mean_ece(sums: Array) -> float:
    each = [mean_gap(row) for row in sums.reshape(-1, *sums.shape[-2:])]
    defined = [value for value in each if np.isfinite(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _or_none(values: Array) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
