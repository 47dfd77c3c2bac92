"""What a threshold misses and what it costs, counted for all thresholds at once.

A pixel is flagged where its score is above the threshold; a wrong or unknown pixel that is not
flagged is missed. Counts are kept by step of the score's float32 (`doubtmap.kernels.steps`, 128 to
the octave), and only the top of a step is a threshold, so every figure is exact at every threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from doubtmap.errors import DataError, UsageError
from doubtmap.kernels.steps import STEPS, steps, top_of_step
from doubtmap.metrics.accumulator import Array, ArrayLike, Sums, same_shape, to_numpy


@dataclass
class Missed(Sums):
    """Sums over images, by step: positives are the pixels that should be flagged.

    Args:
        positives: `(65536,)` pixels.
        negatives: `(65536,)` pixels.
        shares: `(65536,)`, summed over images: the step's share of the image's positives.
        images: `(2,)`: images that hold any positive, and all.

    Example:
        >>> missed = Missed.empty()
        >>> missed.update(np.array([0.9, 0.2, 0.1]), np.array([True, True, False]))
        >>> missed.at(0.5)["tpr"]
        0.5
    """

    positives: Array
    negatives: Array
    shares: Array
    images: Array

    @classmethod
    def empty(cls) -> Self:
        """Nothing seen yet."""
        return cls(np.zeros(STEPS), np.zeros(STEPS), np.zeros(STEPS), np.zeros(2))

    def update(self, score: ArrayLike, positive: ArrayLike, valid: ArrayLike | None = None) -> None:
        """Take one image.

        Args:
            score: any shape, finite where valid; float64 is rounded to float32 first.
            positive: the same shape, bool.
            valid: the same shape, bool; the rest counts for nothing. Default: all.

        Raises:
            UsageError: where shapes differ.
            DataError: for NaN or infinities among the valid scores.
        """
        values, truth = to_numpy(score), to_numpy(positive).astype(bool)
        same_shape("Missed", score=values, positive=truth)
        if valid is not None:
            keep = to_numpy(valid).astype(bool)
            same_shape("Missed", score=values, valid=keep)
            values, truth = values[keep], truth[keep]
        if not values.size:
            return
        at = _steps(values.reshape(-1))
        found = np.bincount(at + STEPS * truth.reshape(-1), minlength=2 * STEPS)
        negatives, positives = found.reshape(2, STEPS).astype(np.float64)
        own = positives.sum()
        self.negatives = self.negatives + negatives
        self.positives = self.positives + positives
        self.shares = self.shares + positives / max(own, 1)
        self.images = self.images + np.array([own > 0, 1])

    @property
    def missed(self) -> Array:
        """`(65537,)`: mean missed share of the images that hold any, by threshold.

        Entry k is for the threshold below which the first k steps lie: the first flags every
        pixel, the last none. NaN without such images.
        """
        with np.errstate(invalid="ignore"):
            result: Array = np.minimum(_below(self.shares) / self.images[0], 1)
        return result

    @property
    def f1(self) -> Array:
        """`(65537,)`: F1 of the flagged pixels, pooled, by threshold; NaN without positives."""
        hits, false = self._above
        with np.errstate(invalid="ignore"):
            result: Array = 2 * hits / (hits + false + hits[0])
        return np.where(hits[0] > 0, result, np.nan)

    @property
    def tpr(self) -> Array:
        """`(65537,)`: flagged share of the positives, pooled, by threshold."""
        with np.errstate(invalid="ignore"):
            result: Array = self._above[0] / self._above[0][0]
        return result

    @property
    def fpr(self) -> Array:
        """`(65537,)`: flagged share of the negatives, pooled, by threshold."""
        with np.errstate(invalid="ignore"):
            result: Array = self._above[1] / self._above[1][0]
        return result

    @property
    def flagged(self) -> Array:
        """`(65537,)`: flagged share of all pixels that count, by threshold."""
        hits, false = self._above
        every = hits + false
        with np.errstate(invalid="ignore"):
            result: Array = every / every[0]
        return result

    @property
    def _above(self) -> tuple[Array, Array]:
        """Positives and negatives above each threshold."""
        positives, negatives = self.positives, self.negatives
        return positives.sum() - _below(positives), negatives.sum() - _below(negatives)

    @property
    def range(self) -> tuple[int, int]:
        """The first and the last step that holds any pixel.

        Raises:
            DataError: where nothing was counted.
        """
        held = np.flatnonzero(self.positives + self.negatives)
        if not held.size:
            raise DataError(
                "threshold: expected labelled pixels to choose it by, found none. Pass labelled "
                "images."
            )
        return int(held[0]), int(held[-1])

    def at(self, threshold: float) -> dict[str, float]:
        """The figures at a threshold that is the top of a step, or at the next one below.

        Returns:
            `missed`, `f1`, `tpr`, `fpr`, `precision` and `flagged`; NaN where not defined.
        """
        place = place_of(threshold)
        hits, false = (x[place] for x in self._above)
        names = ("missed", "f1", "tpr", "fpr", "flagged")
        found = {name: float(getattr(self, name)[place]) for name in names}
        return found | {"precision": hits / (hits + false) if hits + false else float("nan")}


def threshold_at(place: int) -> float:
    """The threshold below which the first `place` steps lie: a float32 number.

    Raises:
        UsageError: for a place outside of the finite numbers.
    """
    found = top_of_step(place - 1) if 0 < place <= STEPS else float("nan")
    if not np.isfinite(found):
        raise UsageError(f"threshold: expected a place among finite numbers, got {place}.")
    return found


def place_of(threshold: float) -> int:
    """How many steps lie wholly at or below a threshold.

    Example:
        >>> place_of(threshold_at(40000))
        40000
    """
    step = int(_steps(np.array([threshold], np.float32))[0])
    return step + (top_of_step(step) <= threshold)


def _below(by_step: Array) -> Array:
    return np.concatenate([[0.0], np.cumsum(by_step)])


def _steps(values: Array) -> Array:
    if not np.isfinite(values).all():
        raise DataError(
            f"Missed: expected finite scores, got NaN or infinity in "
            f"{np.count_nonzero(~np.isfinite(values))} pixels. Mend the score, or leave these "
            f"pixels out as void."
        )
    limit = np.finfo(np.float32).max
    exact = np.ascontiguousarray(np.clip(values, -limit, limit), np.float32)
    return np.asarray(steps(torch.from_numpy(exact)).numpy())
