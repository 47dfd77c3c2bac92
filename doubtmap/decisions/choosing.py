"""Choosing a threshold: by F1, by a rate, or so that a share of missed pixels is kept below alpha.

Conformal risk control chooses the highest threshold with

    (n R + 1) / (n + 1) <= alpha,

R being the mean over n images of the image's share of missed pixels. Then the expected share of an
image that is exchangeable with those n, missed at that threshold, is at most alpha, whatever the
network and the score.

Reference:
    Conformal Risk Control (Angelopoulos, Bates, Fisch, Lei and Schuster, 2022),
    https://arxiv.org/abs/2208.02814
"""

from __future__ import annotations

import math

import numpy as np

from doubtmap.errors import DataError, UsageError
from doubtmap.metrics.accumulator import Array
from doubtmap.metrics.missed import Missed, threshold_at


def by_risk(missed: Missed, alpha: float, *, empty: bool = False) -> float:
    """The highest threshold whose missed share is kept below alpha, by conformal risk control.

    Images without any positive pixel say nothing about what is missed. They are left out, and the
    promise is about images that hold some; it is the stronger one, for it implies the promise over
    all images, where those without any have a share of 0 (`empty`).

    Args:
        missed: of the calibration images.
        alpha: tolerated share, in (0, 1).
        empty: count images without any positive, as having missed nothing.

    Returns:
        A float32 number; flagged is what has a score above it.

    Raises:
        UsageError: for alpha outside (0, 1).
        DataError: for too few images, with the number that is needed.
    """
    _check_share("alpha", alpha)
    _, last = missed.range
    images = int(missed.images[int(empty)])
    if not missed.images[0]:
        raise DataError(
            "risk: expected images that hold pixels to flag, found none. Pass images with some."
        )
    if 1 / (images + 1) > alpha:
        needed = math.ceil(1 / alpha - 1 - 1e-9)
        kind = "images" if empty else "images that hold any such pixel"
        raise DataError(
            f"risk: expected at least {needed} {kind} to keep the share below {alpha:g}, got "
            f"{images}. Take more images, or tolerate a larger share."
        )
    risk = bounded_risk(missed.shares, images)
    allowed = np.flatnonzero(risk <= alpha)
    return threshold_at(min(int(allowed[-1]), last + 1))


def bounded_risk(shares: Array, images: int | Array) -> Array:
    """`(n R + 1) / (n + 1)` for every threshold.

    Args:
        shares: `(..., K)` by step, summed over n images.
        images: n.

    Returns:
        `(..., K + 1)`, rising.
    """
    total = np.cumsum(shares, -1)
    total = np.concatenate([np.zeros_like(total[..., :1]), total], -1)
    result: Array = (total + 1) / (np.asarray(images)[..., None] + 1)
    return result


def by_f1(missed: Missed) -> float:
    """The threshold of the largest pooled F1; the highest of equal ones.

    Raises:
        DataError: where there is no positive or no negative pixel.
    """
    first, last = _both_kinds(missed)
    f1 = missed.f1[first : last + 2]
    return threshold_at(first + int(len(f1) - 1 - np.argmax(f1[::-1])))


def by_tpr(missed: Missed, rate: float) -> float:
    """The highest threshold that flags at least this share of all positives, pooled.

    Raises:
        UsageError: for a share outside (0, 1).
        DataError: where there is no positive or no negative pixel.
    """
    _check_share("tpr", rate)
    first, last = _both_kinds(missed)
    reached = np.flatnonzero(missed.tpr[first : last + 2] >= rate)
    return threshold_at(first + int(reached[-1]))


def by_fpr(missed: Missed, rate: float) -> float:
    """The lowest threshold that flags at most this share of all negatives, pooled.

    Raises:
        UsageError: for a share outside (0, 1).
        DataError: where there is no positive or no negative pixel.
    """
    _check_share("fpr", rate)
    first, last = _both_kinds(missed)
    kept = np.flatnonzero(missed.fpr[first : last + 2] <= rate)
    return threshold_at(first + int(kept[0]))


def _check_share(name: str, share: float) -> None:
    if not 0 < share < 1:
        raise UsageError(f"{name}: expected a share between 0 and 1, such as 0.1, got {share}.")


def _both_kinds(missed: Missed) -> tuple[int, int]:
    """The first and last step that hold pixels, where both kinds are there."""
    ends = missed.range
    positives, negatives = missed.positives.sum(), missed.negatives.sum()
    if not (positives and negatives):
        raise DataError(
            f"threshold: expected pixels to flag and pixels to leave, got {positives:.0f} and "
            f"{negatives:.0f}. Choose it on images that hold both, or by risk."
        )
    return ends
