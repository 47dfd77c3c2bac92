"""What remains when the most doubtful pixels are set aside: risk-coverage and sparsification."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from doubtmap.metrics.accumulator import Array


@dataclass(frozen=True)
class Keeping:
    """Pixels and their summed error, by ascending doubt; the errors may be any non-negative.

    Args:
        pixels: `(n,)` per bin of doubt.
        errors: `(n,)` summed error per bin: wrong pixels, or Brier scores.
    """

    pixels: Array
    errors: Array

    def risk(self, coverage: Array) -> Array:
        """Mean error of the least doubtful pixels.

        Args:
            coverage: shares of the pixels kept, in (0, 1].
        """
        total = self.pixels.sum()
        kept = np.asarray(coverage) * total
        cumulated = np.cumsum(np.concatenate([[0], self.pixels]))
        error = np.interp(kept, cumulated, np.cumsum(np.concatenate([[0], self.errors])))
        return np.asarray(error / np.maximum(kept, 1e-300))

    def area_under_risk(self) -> float:
        """AURC: mean over n of the mean error of the n least doubtful pixels.

        Pixels of one bin count as evenly mixed. NaN without pixels.

        Reference:
            Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers (Geifman et al.,
            2019), https://arxiv.org/abs/1805.08206
        """
        held = self.pixels > 0
        some = slice(None) if held.all() else held
        pixels, errors = self.pixels[some], self.errors[some]
        if not pixels.size:
            return float("nan")
        rate, before, offset = errors / pixels, np.cumsum(pixels), np.cumsum(errors)
        before -= pixels
        offset -= errors
        # sum over j = 1..m of (e + rate j) / (b + j), the sum of 1 / (b + j) as an integral
        offset -= rate * before
        before += 0.5
        np.log1p(np.divide(pixels, before, out=before), out=before)
        offset *= before
        rate *= pixels
        rate += offset
        return float(rate.sum() / pixels.sum())


def areas_under_risk(pixels: Array, errors: Array) -> Array:
    """`Keeping.area_under_risk` of every row, `(R,)`.

    Args:
        pixels: `(R, n)` per bin of doubt.
        errors: `(R, n)` summed error per bin.
    """
    held = pixels > 0
    before = (np.cumsum(pixels, 1) - pixels)[held]
    error_before = (np.cumsum(errors, 1) - errors)[held]
    ends, totals = np.concatenate([[0], np.cumsum(held.sum(1))]), pixels.sum(1)
    pixels, errors = pixels[held], errors[held]
    rate = errors / pixels
    offset = (error_before - rate * before) * np.log1p(pixels / (before + 0.5))
    parts = rate * pixels + offset
    sums = [parts[a:b].sum() for a, b in itertools.pairwise(ends)]
    return np.array([s / t if t else np.nan for s, t in zip(sums, totals)])


def normalised_ece(doubt: Array, right: Array, wrong: Array, bins: int = 10) -> float:
    """ECE of `1 - (s - min s) / (max s - min s)`, a score s brought to [0, 1] by its extremes.

    What it says of a score depends on its two extreme pixels; it is here since papers give it.

    Args:
        doubt: `(n,)`, values of the score.
        right: `(n,)`, how many right pixels have each.
        wrong: `(n,)`, how many wrong ones.
        bins: equally wide, of the confidence.

    Returns:
        Mean over the pixels of |accuracy - confidence| of their bin, in [0, 1]; NaN where no two
        values differ.

    Reference:
        Pixel-wise Gradient Uncertainty for Convolutional Neural Networks applied to
        Out-of-Distribution Segmentation (Maag and Riedlinger, 2023),
        https://arxiv.org/abs/2303.06920. Departure: pixels of confidence 1 count.
    """
    pixels = right + wrong
    held = pixels > 0
    values, pixels, right = (part[held].astype(np.float64) for part in (doubt, pixels, right))
    if not values.size or values.min() == values.max():
        return float("nan")
    confidence = (values.max() - values) / (values.max() - values.min())
    at = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(at, right - pixels * confidence, bins)
    return float(np.abs(gaps).sum() / pixels.sum())


def sparsification(by_doubt: Keeping, by_error: Keeping) -> tuple[Array, Array, Array]:
    """Mean error of what remains when the most doubtful, or the worst, pixels are removed.

    Args:
        by_doubt: pixels and errors by ascending doubt.
        by_error: the same pixels by ascending error: the best order there is.

    Returns:
        Removed share (0, 0.01, ... 0.99), error by doubt, error of the oracle, each divided by
        the error with nothing removed.

    Reference:
        Uncertainty Estimates and Multi-Hypotheses Networks for Optical Flow (Ilg et al., 2018),
        https://arxiv.org/abs/1802.07095
    """
    removed = np.arange(100) / 100
    curve, oracle = by_doubt.risk(1 - removed), by_error.risk(1 - removed)
    if not curve[0] > 0:
        return removed, np.full(100, np.nan), np.full(100, np.nan)
    return removed, curve / curve[0], oracle / curve[0]


def area_under_sparsification_error(removed: Array, curve: Array, oracle: Array) -> float:
    """AUSE: area between the two curves of `sparsification`; 0 is as good as knowing the error."""
    gap = curve - oracle
    return float((gap[1:] + gap[:-1]) @ np.diff(removed) / 2)
