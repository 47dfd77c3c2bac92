"""Which corners of a line matter: Douglas and Peucker's tree, cut once for all tolerances.

A stretch of a line between two corners is replaced by one segment where no corner between them is
farther from the segment than a tolerance; else it is cut in two at the farthest. Where it is cut
does not depend on the tolerance, so each corner has one number: the tolerance from which on it is
left out. The corners that stay at a tolerance are those above it, and a larger one keeps a part of
them.

Reference:
    Algorithms for the reduction of the number of points required to represent a digitized line or
    its caricature (Douglas and Peucker, 1973), https://doi.org/10.3138/FM57-6770-U75U-7727

Departs from the paper: distances are to the segment, not to the line through it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]

DECIMALS = 9
"""Distances are rounded, so that corners of a grid that are equally far are so on any machine."""


def departures(points: Numbers, ends: Numbers, least: float) -> NDArray[np.float64]:
    """The tolerance from which on each corner is left out.

    Args:
        points: `(n, 2)`, lines one after the other.
        ends: places of the corners that stay at any tolerance, ascending, the first and last among
            them. Between neighbours lies one stretch.
        least: smallest tolerance that will be asked for; what is left out there is not told apart.

    Returns:
        `(n,)`: infinite at `ends`; at or below `least` for all that is left out at `least`.
    """
    result = np.zeros(len(points))
    result[ends] = np.inf
    first, last = ends[:-1], ends[1:]
    above = np.full(len(first), np.inf)
    while True:
        inner = last - first > 1
        first, last, above = first[inner], last[inner], above[inner]
        if not len(first):
            return result
        middle, farthest = _farthest(points, first, last)
        # a corner cannot outlive the one whose cut made its stretch
        above = np.minimum(above, farthest)
        result[middle] = above
        cut = farthest > least
        first, last = (
            np.concatenate([first[cut], middle[cut]]),
            np.concatenate([middle[cut], last[cut]]),
        )
        above = np.concatenate([above[cut], above[cut]])


def distances(points: Numbers, start: Numbers, end: Numbers) -> NDArray[np.float64]:
    """`(n,)`, from points `(n, 2)` to segments between two points, `(2,)` or `(n, 2)` each."""
    along = end - start
    length = np.maximum((along * along).sum(-1), 1e-12)
    share = np.clip(((points - start) * along).sum(-1) / length, 0, 1)
    gap = points - start - share[..., None] * along
    result: NDArray[np.float64] = np.linalg.norm(gap, axis=-1).round(DECIMALS)
    return result


def _farthest(points: Numbers, first: Numbers, last: Numbers) -> tuple[Numbers, Numbers]:
    """Of each stretch with corners inside: the farthest from its segment, and how far it is."""
    count = last - first - 1
    start = np.cumsum(count) - count
    stretch = np.repeat(np.arange(len(first)), count)
    place = np.arange(len(stretch)) - start[stretch] + first[stretch] + 1
    away = distances(points[place], points[first[stretch]], points[last[stretch]])
    farthest = np.maximum.reduceat(away, start)
    hits = np.flatnonzero(away == farthest[stretch])
    _, earliest = np.unique(stretch[hits], return_index=True)
    return place[hits[earliest]], farthest
