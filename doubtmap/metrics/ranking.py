"""How well a score ranks positives above negatives: AUPRC, AUROC, FPR at 95 % TPR.

Pooled over all pixels ever seen, in fixed memory, with bounds that always hold the exact value.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from doubtmap.errors import UsageError
from doubtmap.kernels.counted import areas, ranked
from doubtmap.metrics.accumulator import Array, ArrayLike, Figure, State, same_shape, to_numpy
from doubtmap.metrics.histogram import Bins, Histogram

ROUNDING = 1e-12
"""Bounds are widened by this much for the rounding of float64 sums."""


@dataclass(frozen=True)
class RankingCurve:
    """Counts of positives and negatives by descending score; figures are functions of them.

    Args:
        positives: `(n,)` per bin.
        negatives: `(n,)` per bin.
        true_positives: `(n,)` positives with a score in this bin or above.
        false_positives: `(n,)` negatives with a score in this bin or above.
        lowest: `(n,)` lowest score of each bin.
        single: `(n,)` whether a bin holds one number only, so that all its pixels tie.
    """

    positives: Array
    negatives: Array
    true_positives: Array
    false_positives: Array
    lowest: Array
    single: Array

    @classmethod
    def from_bins(cls, bins: Bins, positives: Array, negatives: Array) -> Self:
        """Order bins by descending score, dropping those without positives and negatives."""
        (p, n, tp, fp), *rest = ranked(positives, negatives, bins.lowest, bins.single)
        return cls(p, n, tp, fp, *rest)

    @property
    def defined(self) -> bool:
        """Whether there is a positive and a negative."""
        found = self.true_positives[-1:] * self.false_positives[-1:]
        return bool(found.size and found[0] > 0)

    @cached_property
    def _areas(self) -> Array:
        sums = self.true_positives, self.false_positives
        return areas(self.positives, self.negatives, *sums, self.single)

    def average_precision(self) -> Figure:
        """Area under the precision-recall curve, as the step sum without interpolation."""
        if not self.defined:
            return _undefined()
        return _figure(*(self._areas[:3] / self.true_positives[-1]))

    def auroc(self) -> Figure:
        """Area under the ROC curve; ties count one half."""
        if not self.defined:
            return _undefined()
        pairs = self.true_positives[-1] * self.false_positives[-1]
        ordered, within, unsure = self._areas[3:]
        value = ordered / pairs + within / 2
        return _figure(value, value - unsure / 2, value + unsure / 2)

    def fpr_at_tpr(self, tpr: float = 0.95) -> Figure:
        """False-positive rate at the first threshold whose true-positive rate reaches `tpr`."""
        if not 0 < tpr <= 1:
            raise UsageError(f"fpr_at_tpr: expected a rate in (0, 1], got {tpr}.")
        if not self.defined:
            return _undefined()
        at = int(np.searchsorted(self._recall, tpr, side="left"))
        total = self.false_positives[-1]
        upper = self.false_positives[at] / total
        before = (self.false_positives[at] - self.negatives[at]) / total
        lower = upper if self.single[at] else before
        return _figure(upper, lower, upper)

    def threshold_at_tpr(self, tpr: float = 0.95) -> float:
        """Highest threshold whose true-positive rate reaches `tpr`: positive is `score > it`.

        In a bin that holds several numbers it lies below all of them, so the rate is reached. NaN
        where there are no positives or no negatives.
        """
        if not 0 < tpr <= 1:
            raise UsageError(f"threshold_at_tpr: expected a rate in (0, 1], got {tpr}.")
        if not self.defined:
            return float("nan")
        at = int(np.searchsorted(self._recall, tpr, side="left"))
        return float(np.nextafter(self.lowest[at], np.float32(-np.inf), dtype=np.float32))

    def best_f1(self) -> tuple[float, float]:
        """Largest pixel F1 over all thresholds, and the threshold: positive is `score > it`."""
        if not self.defined:
            return float("nan"), float("nan")
        f1 = (
            2
            * self.true_positives
            / (self.true_positives + self.false_positives + self.true_positives[-1])
        )
        at = int(np.argmax(f1))
        below = np.nextafter(self.lowest[at], np.float32(-np.inf), dtype=np.float32)
        return float(f1[at]), float(below)

    def precision_recall(self, points: int = 400) -> tuple[Array, Array]:
        """Recall and precision from the highest score down, thinned to about `points`."""
        _, recall, precision = self.operating_points(points)
        return recall, precision

    def operating_points(self, points: int = 400) -> tuple[Array, Array, Array]:
        """Thresholds from the highest down, and the recall and precision of `score >= it`."""
        at = _thin(self._recall, points)
        tp, fp = self.true_positives[at], self.false_positives[at]
        return self.lowest[at], self._recall[at], tp / np.maximum(tp + fp, 1)

    def roc(self, points: int = 400) -> tuple[Array, Array]:
        """False- and true-positive rates from the highest score down, thinned."""
        fpr = self.false_positives / (self.false_positives[-1:].sum() or 1.0)
        at = _thin(fpr + self._recall, points)
        return fpr[at], self._recall[at]

    @cached_property
    def _recall(self) -> Array:
        return np.asarray(self.true_positives / (self.true_positives[-1:].sum() or 1.0))


class Ranking:
    """Accumulates scores of positives and negatives; any real scores, in fixed memory.

    The figures pool all pixels. Each is a float with `.bounds`, which always contain the exact
    value; where every number has a bin of its own, both are equal to it. NaN where there are no
    positives or no negatives.

    Args:
        bins: memory is `20 * bins` bytes at most: 42 MB by default.

    Example:
        >>> import numpy as np
        >>> ranking = Ranking()
        >>> ranking.update(np.array([0.9, 0.8, 0.1]), np.array([True, False, False]))
        >>> float(ranking.average_precision())
        1.0
    """

    def __init__(self, bins: int = 1 << 21) -> None:
        self.histogram = Histogram(bins, shape=(2,))

    def update(self, score: ArrayLike, positive: ArrayLike, valid: ArrayLike | None = None) -> None:
        """Take a frame, or any number of pixels.

        Args:
            score: any shape, finite where valid; higher = more positive.
            positive: the same shape, bool (or 0 and 1).
            valid: the same shape, bool; the rest counts for nothing. Default: all.

        Raises:
            UsageError: where shapes differ, or `positive` has other values.
            DataError: for NaN or infinities among the valid scores.
        """
        scores, truth = to_numpy(score), to_numpy(positive)
        same_shape("Ranking", score=scores, positive=truth)
        if valid is not None:
            keep = to_numpy(valid).astype(bool)
            same_shape("Ranking", score=scores, valid=keep)
            scores, truth = scores[keep], truth[keep]
        if truth.dtype != bool and not np.isin(truth, (0, 1)).all():
            raise UsageError(
                "Ranking: expected positive to be bool or 0 and 1, got other values. "
                "Pass void pixels as valid=False."
            )
        if not np.issubdtype(scores.dtype, np.floating):
            scores = scores.astype(np.float64)
        self.histogram.update(scores, truth.astype(np.uint8))

    def __add__(self, other: Self) -> Self:
        total = type(self)(self.histogram.bins)
        total.histogram = self.histogram + other.histogram
        return total

    @property
    def curve(self) -> RankingCurve:
        """The counts by descending score."""
        bins = self.histogram.view()
        return RankingCurve.from_bins(bins, bins.counts[1], bins.counts[0])

    def average_precision(self) -> Figure:
        """Area under the precision-recall curve, no interpolation (scikit-learn's)."""
        return self.curve.average_precision()

    def auroc(self) -> Figure:
        """Area under the ROC curve."""
        return self.curve.auroc()

    def fpr_at_tpr(self, tpr: float = 0.95) -> Figure:
        """False-positive rate at the first threshold whose true-positive rate reaches `tpr`."""
        return self.curve.fpr_at_tpr(tpr)

    def state(self) -> State:
        """The sums as named arrays."""
        return self.histogram.state()

    @classmethod
    def from_state(cls, state: State) -> Self:
        """The ranking whose `state()` this was."""
        ranking = cls(int(state["flags"][0]))
        ranking.histogram = Histogram.from_state(state)
        return ranking


def _figure(value: float, lower: float, upper: float) -> Figure:
    bounds = max(0.0, float(lower) - ROUNDING), min(1.0, float(upper) + ROUNDING)
    return Figure(float(value), bounds)


def _undefined() -> Figure:
    return Figure(float("nan"), (float("nan"), float("nan")))


def _thin(position: Array, points: int) -> Array:
    """Indices of about `points` samples, evenly spread in `position`, ends included."""
    if len(position) <= points:
        return np.arange(len(position))
    wanted = np.linspace(position[0], position[-1], points)
    at = np.searchsorted(position, wanted).clip(0, len(position) - 1)
    return np.unique(np.concatenate([[0], at, [len(position) - 1]]))
