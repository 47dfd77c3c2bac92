"""Bounds of a mean that hold at every time at once, from a few labelled images.

A gambler bets for each mean m that the values were drawn from a larger, or a smaller one. Of the
true mean his capital is a martingale that starts with 1, so it ever reaches 1 / rate with a
probability of at most the rate. The means that have not made him rich are the interval; it may be
looked at after each image.

Reference:
    Estimating means of bounded random variables by betting (Waudby-Smith and Ramdas, 2024),
    https://arxiv.org/abs/2010.09686: the hedged capital process with predictable plug-in bets.
"""

from __future__ import annotations

import numpy as np

from doubtmap.errors import UsageError
from doubtmap.metrics.accumulator import Array

CELLS = 1000
"""Into how many parts the range of the mean is cut; ends are rounded outwards."""
MOST = 0.75
"""Share of the capital that one bet may lose: the paper names 1/2 and 3/4."""


def mean_bounds(
    values: Array, rate: float = 0.05, *, low: float = 0.0, high: float = 1.0
) -> tuple[Array, Array]:
    """An interval of the mean after each value; all of them hold at once with 1 - rate.

    The values need not be independent: it is enough that the mean of each, given those before, is
    the same.

    Args:
        values: `(T,)` in [low, high].
        rate: probability that any of the intervals may miss the mean, in (0, 1).
        low: least value there can be.
        high: largest.

    Returns:
        Lower and upper ends, `(T,)` each; the intervals shrink.

    Raises:
        UsageError: for values out of range, or a rate that is none.
    """
    values = np.asarray(values, np.float64)
    if not 0 < rate < 1 or not low < high:
        raise UsageError(
            f"mean_bounds: expected a rate between 0 and 1 and low < high, got {rate}, {low} and "
            f"{high}."
        )
    if not ((values >= low) & (values <= high)).all():
        raise UsageError(f"mean_bounds: expected values from {low} to {high}, got others.")
    scaled = (values - low) / (high - low)
    means = np.linspace(0, 1, CELLS + 1)[:, None]
    bets = _bets(scaled, rate)
    with np.errstate(divide="ignore"):
        up = np.minimum(bets, MOST / means)
        down = np.minimum(bets, MOST / (1 - means))
    enough = np.log(2 / rate)
    larger = np.maximum.accumulate(np.cumsum(np.log1p(up * (scaled - means)), 1), 1) >= enough
    smaller = np.maximum.accumulate(np.cumsum(np.log1p(-down * (scaled - means)), 1), 1) >= enough
    first = larger.sum(0).clip(1) - 1
    last = CELLS - (smaller.sum(0).clip(1) - 1)
    return low + means[first, 0] * (high - low), low + means[last, 0] * (high - low)


def _bets(values: Array, rate: float) -> Array:
    """How much to bet on each value, from those before it only."""
    count = np.arange(1, len(values) + 1)
    mean = (0.5 + np.cumsum(values)) / (count + 1)
    variance = (0.25 + np.cumsum((values - mean) ** 2)) / (count + 1)
    before = np.concatenate([[0.25], variance[:-1]])
    found: Array = np.sqrt(2 * np.log(2 / rate) / (before * count * np.log(count + 1)))
    return found
