"""Does the promise of conformal risk control hold? Calibrate on some images, measure on others."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from doubtmap.decisions.choosing import bounded_risk
from doubtmap.errors import DataError
from doubtmap.metrics.accumulator import Array
from doubtmap.metrics.missed import Missed


@dataclass
class MissedByImage:
    """The steps of each image apart, those that hold pixels.

    Memory grows with the images, by 24 bytes for each step that one of its pixels falls into: tens
    of kilobytes an image.
    """

    rows: list[tuple[Array, Array, Array]] = field(default_factory=list)
    """Of each image: steps, positives and negatives."""

    def take(self, image: Missed) -> None:
        """Take an image: a `Missed` that was updated once."""
        held = np.flatnonzero(image.positives + image.negatives)
        self.rows.append((held, image.positives[held], image.negatives[held]))

    def tables(self) -> tuple[Array, Array, Array]:
        """The steps that any image uses, `(K,)`, and positives and negatives, each `(n, K)`."""
        steps = np.unique(np.concatenate([row[0] for row in self.rows]))
        tables = np.zeros((2, len(self.rows), len(steps)))
        for number, (held, positives, negatives) in enumerate(self.rows):
            tables[:, number, np.searchsorted(steps, held)] = positives, negatives
        return steps, tables[0], tables[1]


@dataclass(frozen=True)
class Split:
    """One calibration and what it came to on other images.

    Args:
        missed: mean missed share of the test images that hold any positive pixel.
        flagged: share of the test images' pixels, pooled.
    """

    missed: float
    flagged: float


def risk_over_splits(
    found: MissedByImage, alpha: float, *, splits: int = 200, seed: int = 0, block: int = 1
) -> list[Split]:
    """Calibrate on one half of the images and measure on the other, at random, many times.

    Args:
        found: of all images.
        alpha: tolerated share, in (0, 1).
        splits: how many.
        seed: of the halves.
        block: so many consecutive images stay together, since neighbouring frames are alike.

    Raises:
        DataError: for too few images to calibrate on a half.
    """
    _, positives, negatives = found.tables()
    generator = np.random.default_rng(seed)
    blocks = -(-len(positives) // block)
    results = []
    for _ in range(splits):
        chosen = np.isin(np.arange(blocks), generator.permutation(blocks)[: blocks // 2])
        inside = np.repeat(chosen, block)[: len(positives)]
        halves = np.flatnonzero(inside), np.flatnonzero(~inside)
        results.append(transferred(positives, negatives, *halves, alpha))
    return results


def transferred(positives: Array, negatives: Array, fit: Array, test: Array, alpha: float) -> Split:
    """Calibrate on some images and measure on others.

    Args:
        positives: `(n, K)` by image and step, ascending.
        negatives: likewise.
        fit: indices of images to calibrate on; those without positives count for nothing.
        test: indices of images to measure on.
        alpha: tolerated share.

    Raises:
        DataError: for too few images that hold positives.
    """
    held = positives.sum(1) > 0
    pixels, fit, held_test = positives[test] + negatives[test], fit[held[fit]], test[held[test]]
    if not len(held_test) or 1 / (len(fit) + 1) > alpha:
        raise DataError(
            f"risk: expected enough images to calibrate on and others to measure, got {len(fit)} "
            f"and {len(held_test)} for a share of {alpha:g}. Take more images, or a larger share."
        )
    shares = positives / np.maximum(positives.sum(1, keepdims=True), 1)
    place = int(np.flatnonzero(bounded_risk(shares[fit].sum(0), len(fit)) <= alpha)[-1])
    missed = shares[held_test, :place].sum(1).mean()
    return Split(float(missed), float(pixels[:, place:].sum() / pixels.sum()))
