"""Does what has a probability of 0.2 come true one time in five? ECE and Brier of one event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from doubtmap.errors import DataError, UsageError
from doubtmap.metrics.accumulator import Array, ArrayLike, Sums, same_shape, to_numpy
from doubtmap.metrics.reliability import diagram_of, mean_gap


@dataclass
class BinaryReliability(Sums):
    """Sums over pixels with a probability that they are positive; float64 throughout.

    Bins are those of `Reliability`: of the confidence, one minus the probability, with a pixel
    being right where it is not positive. So with the doubt of a softmax, and wrong for positive,
    `ece` is the same figure. It is exact; nothing is read off a finer histogram.

    Args:
        confidence: `(M, 3)`: by bin pixels, right ones, and the sum of the confidence. Bin m is
            `(m / M, (m + 1) / M]`, and 0 goes into the first.
        losses: `(2,)`: pixels, sum of the Brier score.

    Reference:
        Verification of Forecasts Expressed in Terms of Probability (Brier, 1950), of which this is
        half, as usual for two outcomes; ECE: On Calibration of Modern Neural Networks (Guo et al.,
        2017), https://arxiv.org/abs/1706.04599

    Example:
        >>> found = BinaryReliability.empty(bins=10)
        >>> found.update(np.array([0.25, 0.25, 0.75, 0.75]), np.array([True, False, True, True]))
        >>> found.ece, found.brier
        (0.25, 0.1875)
    """

    confidence: Array
    losses: Array

    @classmethod
    def empty(cls, bins: int = 15) -> Self:
        """Nothing seen yet.

        Raises:
            UsageError: for less than one bin.
        """
        if bins < 1:
            raise UsageError(f"BinaryReliability: expected at least 1 bin, got {bins}.")
        return cls(np.zeros((bins, 3)), np.zeros(2))

    def update(
        self, probability: ArrayLike, positive: ArrayLike, valid: ArrayLike | None = None
    ) -> None:
        """Take pixels.

        Args:
            probability: any shape, in [0, 1] where valid.
            positive: the same shape, bool.
            valid: the same shape, bool; the rest counts for nothing. Default: all.

        Raises:
            UsageError: where shapes differ.
            DataError: for NaN or values outside [0, 1] among the valid.
        """
        p, truth = to_numpy(probability), to_numpy(positive).astype(bool)
        same_shape("BinaryReliability", probability=p, positive=truth)
        if valid is not None:
            keep = to_numpy(valid).astype(bool)
            same_shape("BinaryReliability", probability=p, valid=keep)
            p, truth = p[keep], truth[keep]
        p, right = p.reshape(-1).astype(np.float64), ~truth.reshape(-1)
        _check(p)
        bins = len(self.confidence)
        at = np.clip(np.ceil((1 - p) * bins).astype(np.int64) - 1, 0, bins - 1)
        sums = [np.bincount(at, weights, bins) for weights in (None, right, 1 - p)]
        self.confidence = self.confidence + np.stack(sums, 1)
        self.losses = self.losses + np.array([len(p), np.square(p - ~right).sum()])

    @property
    def pixels(self) -> float:
        """How many pixels were seen."""
        return float(self.losses[0])

    @property
    def ece(self) -> float:
        """Mean over pixels of |share of positives - mean probability| of their bin; NaN if none."""
        return mean_gap(self.confidence)

    @property
    def brier(self) -> float:
        """Mean squared distance of probability and outcome, in [0, 1]; NaN without pixels."""
        return float(self.losses[1] / self.losses[0]) if self.pixels else float("nan")

    def diagram(self) -> tuple[Array, Array, Array]:
        """Mean confidence, accuracy (NaN where empty) and share of pixels, each `(M,)`."""
        return diagram_of(self.confidence)


def _check(p: Array) -> None:
    outside = ~((p >= 0) & (p <= 1))
    if outside.any():
        raise DataError(
            f"BinaryReliability: expected probabilities in [0, 1], got {p[outside][0]:g} and "
            f"{np.count_nonzero(outside) - 1} more outside. Mend the score, or leave these pixels "
            f"out as void."
        )
