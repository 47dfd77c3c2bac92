"""Which images to look at, or to label, of those that were ranked: the first, or unlike ones.

Neighbouring frames of a film are as doubtful as each other and show the same. Of images that are
unlike, each is chosen that has much doubt and lies far from those that were chosen before.

Reference:
    The distance that a new image keeps is that of the greedy core sets of Active Learning for
    Convolutional Neural Networks (Sener and Savarese, 2018), https://arxiv.org/abs/1708.00489.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from doubtmap.engine.splitting import sequences_of
from doubtmap.errors import UsageError
from doubtmap.metrics.accumulator import Array

RUNS_FOR_EACH = 2
"""Runs of consecutive images for each image that is chosen, of which each gives one at most."""


def unlike(badness: Array, features: Array, names: Sequence[str], budget: int) -> Array:
    """Choose images that are doubtful and unlike each other.

    The first is the worst. Each next one has the largest `rank of its badness x distance to the
    nearest that is chosen`, with features scaled to one deviation. Of a run of consecutive images
    of a sequence one is chosen, until there is none left.

    Args:
        badness: `(I,)`, higher = look sooner, finite.
        features: `(I, D)` of whole images.
        names: of the images, which say their sequences.
        budget: how many.

    Returns:
        `(min(budget, I),)` indices, in the order in which they were chosen.

    Raises:
        UsageError: for no budget, or rows that do not fit.
    """
    count = len(badness)
    if budget < 1 or not count == len(features) == len(names):
        raise UsageError(
            f"unlike: expected a budget from 1 on and a row for each of {count} images, got "
            f"{budget}, {len(features)} and {len(names)}."
        )
    rank = np.empty(count)
    rank[np.argsort(badness, kind="stable")] = np.arange(1, count + 1) / count
    deviation = features.std(0)
    scaled = features / np.where(deviation > 0, deviation, 1)
    runs = _runs(names, budget)
    away = np.full(count, np.inf)
    free, chosen = np.ones(count, bool), list[int]()
    while len(chosen) < min(budget, count):
        if not free.any():
            free[np.setdiff1d(np.arange(count), chosen)] = True
        worth = rank * np.where(np.isinf(away), 1, away)
        index = int(np.argmax(np.where(free, worth, -1)))
        chosen.append(index)
        free[runs == runs[index]] = False
        away = np.minimum(away, np.linalg.norm(scaled - scaled[index], axis=1))
    return np.array(chosen)


def _runs(names: Sequence[str], budget: int) -> Array:
    """`(I,)` number of the run of consecutive images that each lies in."""
    length = max(1, len(names) // (RUNS_FOR_EACH * budget))
    runs, number = np.zeros(len(names), np.int64), 0
    for sequence in sequences_of(names):
        for start in range(0, len(sequence), length):
            runs[sequence[start : start + length]] = number
            number += 1
    return runs
