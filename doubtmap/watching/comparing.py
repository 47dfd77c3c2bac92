"""What changed: figures of new images beside those of the reference, and a test of all at once.

Two groups of images, many figures of each. The test asks whether the groups differ in any figure;
its p-values are corrected for how many figures there are, and hold for one look that was planned,
not for looking again and again.

Reference:
    Resampling-Based Multiple Testing (Westfall and Young, 1993): the largest statistic of all
    figures, under permutations of the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from doubtmap.metrics.accumulator import Array

DRAWS, FEWEST = 1999, 199
"""Permutations; fewer where there are so many numbers that these would take more than `WORK`."""
WORK, TOGETHER = 1 << 27, 1 << 21
"""Numbers that are looked at in all, and at once."""


@dataclass(frozen=True)
class Change:
    """One figure, before and now.

    Args:
        name: of the figure.
        before: mean over the images of the reference.
        now: mean over the new ones.
        effect: difference in standard deviations (pooled); inf where all of each group are alike.
        p: of the two-sample test, corrected for all figures.
    """

    name: str
    before: float
    now: float
    effect: float
    p: float


def changes(
    names: Sequence[str], reference: Array, new: Array, *, seed: int = 0, draws: int | None = None
) -> tuple[Change, ...]:
    """How far each figure has changed, the largest effect first.

    Args:
        names: of the K figures.
        reference: `(n, K)` by image.
        new: `(m, K)`, m at least 1.
        seed: of the permutations.
        draws: how many permutations; default: `DRAWS`, of very many images fewer.
    """
    statistic, p = two_sample(reference, new, seed=seed, draws=draws)
    before, now = reference.mean(0), new.mean(0)
    effect = _effects(reference, new)
    order = sorted(range(len(names)), key=lambda k: (-abs(effect[k]), -statistic[k], k))
    return tuple(
        Change(names[k], float(before[k]), float(now[k]), float(effect[k]), float(p[k]))
        for k in order
    )


def two_sample(
    reference: Array, new: Array, *, seed: int = 0, draws: int | None = None
) -> tuple[Array, Array]:
    """Kolmogorov and Smirnov's statistics of K figures, and their p-values for all K together.

    A p-value is the share of permutations of the images in which the *largest* statistic of all
    figures is at least the figure's own: the probability of any p-value at or below a level is at
    most the level where the groups do not differ, however the figures hang together.

    Args:
        reference: `(n, K)`.
        new: `(m, K)`.
        seed: of the permutations.
        draws: how many permutations; default: `DRAWS`, of very many images fewer.

    Returns:
        Statistics in [0, 1] and p-values in (0, 1], `(K,)` each.
    """
    pooled = np.concatenate([reference, new])
    order = np.argsort(pooled, 0, kind="stable")
    ranked = np.take_along_axis(pooled, order, 0)
    last = np.concatenate([ranked[1:] != ranked[:-1], np.ones((1, ranked.shape[1]), bool)])
    member = np.arange(len(pooled)) >= len(reference)
    own = _largest_gaps(member[None], order, last)[0]
    draws = draws or min(DRAWS, max(FEWEST, WORK // pooled.size))
    generator, together = np.random.default_rng(seed), max(1, TOGETHER // pooled.size)
    above = np.zeros(len(own))
    for start in range(0, draws, together):
        count = min(together, draws - start)
        drawn = generator.permuted(np.tile(member, (count, 1)), axis=1)
        most = _largest_gaps(drawn, order, last).max(1)
        above += (most[:, None] >= own - 1e-12).sum(0)
    return own, (above + 1) / (draws + 1)


def _largest_gaps(member: Array, order: Array, last: Array) -> Array:
    """`(B, K)`: largest distance between the two distribution functions of each figure.

    Args:
        member: `(B, N)` whether an image is new.
        order: `(N, K)` of the images by each figure.
        last: `(N, K)` whether a value is the last of those that are equal.
    """
    taken = member[:, order]
    new = taken.cumsum(1) / member.sum(1)[:, None, None]
    old = (~taken).cumsum(1) / (~member).sum(1)[:, None, None]
    found: Array = (np.abs(new - old) * last).max(1)
    return found


def _effects(reference: Array, new: Array) -> Array:
    difference = new.mean(0) - reference.mean(0)
    squares = ((reference - reference.mean(0)) ** 2).sum(0) + ((new - new.mean(0)) ** 2).sum(0)
    deviation = np.sqrt(squares / max(len(reference) + len(new) - 2, 1))
    still = deviation <= 1e-12 * np.maximum(np.abs(reference).max(0), 1e-300)
    alike = np.abs(difference) <= 1e-12
    infinite = np.where(alike, 0.0, np.copysign(np.inf, difference))
    found: Array = np.where(still, infinite, difference / np.where(still, 1, deviation))
    return found
