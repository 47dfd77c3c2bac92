"""Sums over pixels: bins of probabilities, means of squares, curves, and components of a mask.

The door to `sums.c`; where it is not built, NumPy and SciPy do the same, to the last digit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from doubtmap.kernels import compiled_sums
from doubtmap.kernels.fused import compiled_serves

Array = NDArray[Any]


def means(values: Array, size: int, whole: Array) -> Array:
    """Mean of each square of a map that is `whole`, in float32.

    Args:
        values: `(H, W)` float32.
        size: of the squares, in pixels.
        whole: `(H // size, W // size)` bool.

    Returns:
        `(n,)` float32, in reading order.
    """
    if compiled_serves() and whole.size:
        arrays = np.ascontiguousarray(values), size, np.ascontiguousarray(whole)
        return compiled_sums.means(*arrays)
    rows, columns = whole.shape
    inside = values[: rows * size, : columns * size].reshape(rows, size, columns, size)
    squares = inside.transpose(0, 2, 1, 3).reshape(rows, columns, size * size)
    sums = np.cumsum(squares, -1, dtype=np.float32)[whole, -1]  # one after the other
    return np.asarray(sums / np.float32(size * size))


def add_columns(sums: Array, at: Array, more: Array) -> None:
    """Add columns `(..., n)`, float64 or unsigned of up to 32 bits, to others at places `(n,)`."""
    if compiled_serves():
        compiled_sums.add_columns(sums, at, np.ascontiguousarray(more))
    else:
        np.add.at(np.moveaxis(sums, -1, 0), at, np.moveaxis(more, -1, 0))


def binned(p: Array, truth: Array, bins: int) -> Array:
    """Sums over the pixels by bin of their p, for each of K probabilities.

    Args:
        p: `(K, N)` in [0, 1]. Bin m is `(m / bins, (m + 1) / bins]`, 0 in the first.
        truth: `(N,)`, whole numbers.
        bins: how many.

    Returns:
        `(K, bins, 3)` float64: pixels, those whose truth is k, and the sum of p.
    """
    if p.dtype == np.float32 and compiled_serves():
        return compiled_sums.binned(np.ascontiguousarray(p), truth.astype(np.int32), bins)
    sums = []
    for k, own in enumerate(p):
        with np.errstate(invalid="ignore"):  # NaN is refused by those who count it
            at = np.ceil(own * own.dtype.type(bins)).astype(np.int64)
        at = np.clip(at - 1, 0, bins - 1)
        weights = (None, truth == k, own.astype(np.float64))
        sums.append(np.stack([np.bincount(at, w, bins).astype(float) for w in weights], -1))
    return np.stack(sums)


def curves(positives: Array, negatives: Array, tpr: float = 0.95) -> Array:
    """Average precision, AUROC, and FPR at `tpr`, of many curves over the same bins.

    Args:
        positives: `(R, n)` float64 per curve and bin, in ascending order of scores.
        negatives: `(R, n)`.
        tpr: at which the false-positive rate is taken.

    Returns:
        `(R, 3)`; NaN for rows without positives or without negatives.
    """
    if compiled_serves():
        ours = np.ascontiguousarray(positives), np.ascontiguousarray(negatives)
        return compiled_sums.curves(*ours, tpr)
    return np.array([_curve(p[::-1], n[::-1], tpr) for p, n in zip(positives, negatives)])


def _curve(p: Array, n: Array, tpr: float) -> tuple[float, float, float]:
    """`curves` of one row, by descending score."""
    held = p + n != 0
    p, n = p[held], n[held]
    tp, fp = np.cumsum(p), np.cumsum(n)
    if not p.sum() or not n.sum():
        return np.nan, np.nan, np.nan
    total, others = tp[-1], fp[-1]
    within = (p * n / (total * others)).sum() / 2
    return (
        (p * tp / (tp + fp)).sum() / total,
        (n * (tp - p)).sum() / (total * others) + within,
        fp[np.searchsorted(tp / total, tpr, side="left")] / others,
    )


def ranked(
    positives: Array, negatives: Array, lowest: Array, single: Array
) -> tuple[Array, Array, Array]:
    """The bins that hold positives or negatives, the highest first.

    Args:
        positives: `(n,)` float64 by ascending bin.
        negatives: `(n,)`.
        lowest: `(n,)` float32, the lowest value of each.
        single: `(n,)` bool, whether each holds one number only.

    Returns:
        `(4, m)` positives, negatives, and the sums of each so far; `(m,)` lowest; `(m,)` single.
    """
    if compiled_serves():
        kinds = (np.float64, np.float64, np.float32, bool)
        given = zip((positives, negatives, lowest, single), kinds)
        return compiled_sums.ranked(*(np.ascontiguousarray(each, kind) for each, kind in given))
    held = np.flatnonzero(positives + negatives)[::-1]
    p, n = positives[held], negatives[held]
    return np.stack([p, n, np.cumsum(p), np.cumsum(n)]), lowest[held], single[held]


def areas(p: Array, n: Array, tp: Array, fp: Array, single: Array) -> Array:
    """What average precision and AUROC sum over bins as `ranked` has them, at least one.

    Within a bin whose order is unknown, no positive can have a precision above that of all
    the bin's positives ahead of its negatives, and the j-th none below that of j positives
    behind all negatives; the sums of these are the bounds.

    Returns:
        `(6,)`: positives times precision, the same where each bin's order is the worst and the
        best; then negatives times the positives before them, the share of pairs within one bin,
        and within one that holds several numbers.
    """
    if compiled_serves():
        counts = [np.ascontiguousarray(each, np.float64) for each in (p, n, tp, fp)]
        return compiled_sums.areas((*counts, np.ascontiguousarray(single, bool)))
    tied, within = p * tp / (tp + fp), p * n / (tp[-1] * fp[-1])
    best = p * tp / np.where(tp + fp > n, tp + fp - n, 1)
    worst = np.where(p > 1, p - fp * np.log1p(p / (tp - p + fp + 0.5)), tied)
    unsure = (p > 0) & ~single
    lower = np.where(unsure, np.minimum(worst, tied), tied)
    upper = np.where(unsure, np.maximum(best, tied), tied)
    terms = (tied, lower, upper, n * (tp - p), within, within * ~single)
    return np.array([term.sum() for term in terms])


def label_mask(mask: Array) -> tuple[Array, int]:
    """Number the 8-connected components of a mask.

    Args:
        mask: `(H, W)` bool.

    Returns:
        `(H, W)` int32, numbers from 1 in reading order of first pixels, 0 outside; how many.
    """
    if compiled_serves() and mask.size:
        return compiled_sums.label(np.ascontiguousarray(mask))
    labels, count = ndimage.label(mask, np.ones((3, 3), int))
    return labels, count
