"""Outlines with fewer corners, none farther from the exact outline than a tolerance allows.

The tolerance grows from the finest in small steps up to the one asked for. At each step a stretch
of corners that Douglas and Peucker (`reports/corners.py`) would leave out becomes one segment,
unless it would then cross an outline, turn its ring round or pass over another ring: then it stays
as it was at the step before. The steps do not depend on the tolerance asked for, so a larger one
goes on from the outlines of a smaller one and never has more corners.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from doubtmap.errors import UsageError
from doubtmap.metrics.accumulator import Array
from doubtmap.objects.polygons import Polygon, Ring, signed_area
from doubtmap.reports.corners import departures, distances

FINEST = 0.25
"""Tolerance in pixels below which the exact outline is kept; steps are as long up to 4 pixels."""


OCTAVE = 16
"""Steps between a tolerance above 4 pixels and its double."""


AT_ONCE = 1 << 20
"""Pairs of segments that are looked at together."""


def check_tolerance(tolerance: float) -> None:
    """Refuse what is no distance.

    Raises:
        UsageError: for a tolerance below 0 or not finite.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise UsageError(
            f"simplify: expected a tolerance in pixels from 0 (exact) on, got {tolerance}."
        )


def simplified(polygons: Sequence[Polygon], tolerance: float) -> list[Polygon]:
    """The outlines of one object with fewer corners.

    Args:
        polygons: as `outlines` gives them.
        tolerance: in pixels, how far a corner that is left out may be from the new outline; taken
            down to the next step (quarters of a pixel up to 4, sixteen an octave above). 0: as
            they are.

    Returns:
        As many polygons and rings, of at least three corners each, which do not cross; the exact
        ones where the tolerance allows no others. Their corners are among those of any smaller
        tolerance.

    Raises:
        UsageError: for a tolerance below 0 or not finite.
    """
    check_tolerance(tolerance)
    if tolerance < FINEST or not polygons:
        return list(polygons)
    shape = _Shape.of(polygons)
    kept = np.ones(len(shape.points), bool)
    reached = 0.0
    for step in _steps(min(tolerance, shape.coarsest)):
        if (kept & (shape.gone_from > reached) & (shape.gone_from <= step)).any():
            kept = shape.straightened(kept, kept & (shape.gone_from > step))
        reached = step
    rings = iter([part[keep] for part, keep in zip(*map(shape.parted, (shape.points, kept)))])
    return [Polygon(next(rings), tuple(next(rings) for _ in p.holes)) for p in polygons]


def _steps(tolerance: float) -> Iterator[float]:
    """The steps up to a tolerance; an octave has 16 from 4 pixels on."""
    step = FINEST
    while step <= tolerance:
        yield step
        step += max(FINEST, 2.0 ** math.floor(math.log2(step)) / OCTAVE)


@dataclass(frozen=True, eq=False)
class _Shape:
    """The rings of an object, one after the other.

    Args:
        points: `(n, 2)`, all rings.
        owner: `(n,)`, whose ring each point is of.
        outer: for each ring, whether it is an outer one.
        gone_from: `(n,)`, the tolerance from which on a corner is left out where nothing crosses.
        around: which ring lies in which, as `_around` gives it.
    """

    points: Array
    owner: Array
    outer: Array
    gone_from: Array
    around: Array

    @classmethod
    def of(cls, polygons: Sequence[Polygon]) -> _Shape:
        rings = [ring for polygon in polygons for ring in polygon.rings]
        outer = np.array([ring is polygon.outer for polygon in polygons for ring in polygon.rings])
        start = np.cumsum([0, *(len(ring) for ring in rings)])
        points = np.concatenate(rings)
        owner = np.repeat(np.arange(len(rings)), np.diff(start))
        kept = np.concatenate([lowest + _triangle(ring) for lowest, ring in zip(start, rings)])
        # the end of a ring and the start of the next are neighbours: no stretch lies between
        gone_from = departures(points, kept, FINEST)
        first, last = _stretches(owner, np.ones(len(points), bool))
        around = _around(_segments(points, first, last), owner[first], _middles(rings))
        return cls(points, owner, outer, gone_from, around)

    @property
    def coarsest(self) -> float:
        """The tolerance beyond which nothing more is left out."""
        finite = self.gone_from[np.isfinite(self.gone_from)]
        return 2 * float(finite.max(initial=FINEST))

    def parted(self, values: Array) -> list[Array]:
        """What belongs to each ring."""
        return np.split(values, np.flatnonzero(np.diff(self.owner)) + 1)

    def straightened(self, before: Array, wanted: Array) -> Array:
        """The corners wanted, and those of before where the segment between two is not sound."""
        while True:
            first, last = _stretches(self.owner, wanted)
            moved = np.diff(np.cumsum(before)[[first, last]], axis=0)[0] > 1
            bad = moved & self._unsound(first, last, moved, wanted)
            if not bad.any():
                return wanted
            stretch = np.searchsorted(first, np.arange(len(wanted)), "right") - 1
            wanted = wanted | (before & bad[stretch])

    def _unsound(self, first: Array, last: Array, moved: Array, kept: Array) -> Array:
        """Which segments cross, or belong to a ring that turned round or passed over another."""
        segments, owner = _segments(self.points, first, last), self.owner[first]
        crossing = _crossing(segments, moved)
        if crossing.any():
            return crossing
        rings = [part[keep] for part, keep in zip(*map(self.parted, (self.points, kept)))]
        bad = np.array([signed_area(ring) > 0 for ring in rings]) != self.outer
        changed = np.setxor1d(_around(segments, owner, _middles(rings)), self.around)
        bad[[*(changed // len(rings)), *(changed % len(rings))]] = True
        result: Array = bad[owner]
        return result


def _triangle(ring: Ring) -> Array:
    """Places of the corners of a ring that stay at any tolerance, with its end."""
    far = int(distances(ring, ring[0], ring[0]).argmax())
    third = int(distances(ring, ring[0], ring[far]).argmax())
    return np.array(sorted((0, far, third, len(ring) - 1)))


def _stretches(owner: Array, kept: Array) -> tuple[Array, Array]:
    """Places of both ends of each segment between kept corners that are neighbours on a ring."""
    place = np.flatnonzero(kept)
    first, last = place[:-1], place[1:]
    same = owner[first] == owner[last]
    return first[same], last[same]


def _segments(points: Array, first: Array, last: Array) -> Array:
    """`(n, 4)`, x and y of both ends."""
    return np.concatenate([points[first], points[last]], 1)


def _middles(rings: Sequence[Array]) -> Array:
    """A point on each ring that is no corner of another."""
    return np.array([(ring[0] + ring[1]) / 2 for ring in rings])


def sound(polygons: Sequence[Polygon]) -> bool:
    """Whether rings keep their direction and their place, and touch at shared corners only."""
    rings = [ring for polygon in polygons for ring in polygon.rings]
    outer = np.array([ring is polygon.outer for polygon in polygons for ring in polygon.rings])
    if any((signed_area(ring) > 0) != out for ring, out in zip(rings, outer)):
        return False
    segments = np.concatenate([np.concatenate([ring[:-1], ring[1:]], 1) for ring in rings])
    if _crossing(segments, np.ones(len(segments), bool)).any():
        return False
    # a hole lies in one other ring, a piece in none, or in a hole and what is around it
    owner = np.repeat(np.arange(len(rings)), [len(ring) - 1 for ring in rings])
    inside = _around(segments, owner, _middles(rings)) % len(rings)
    return bool((np.bincount(inside, minlength=len(rings)) % 2 != outer).all())


def _around(segments: Array, owner: Array, points: Array) -> Array:
    """Which ring lies around a point of which other ring.

    Returns:
        Ascending `around * rings + inside`, one for each pair.
    """
    order = np.argsort(points[:, 1], kind="stable")
    heights = points[order, 1]
    low, high = segments[:, [1, 3]].min(1), segments[:, [1, 3]].max(1)
    crossed = [np.empty(0, np.int64)]
    # an edge is crossed at heights in (low, high]
    for edge, place in _pairs(*(np.searchsorted(heights, end, "right") for end in (low, high))):
        point = order[place]
        x, y, x2, y2 = segments[edge].T
        right = points[point, 0] < x + (points[point, 1] - y) * (x2 - x) / (y2 - y)
        other = right & (owner[edge] != point)
        crossed.append(owner[edge[other]] * len(points) + point[other])
    pair, times = np.unique(np.concatenate(crossed), return_counts=True)
    result: Array = pair[times % 2 == 1]
    return result


def _crossing(segments: Array, moved: Array) -> Array:
    """Which of the segments `(n, 4)` meet another but at an end that they share.

    Only pairs that lie in one cell of a grid are looked at, and of which one has `moved`. Whole
    numbers, so that nothing is rounded.
    """
    found = np.zeros(len(segments), bool)
    low, high = (
        np.stack([end(segments[:, [0, 2]], 1), end(segments[:, [1, 3]], 1)], 1)
        for end in (np.min, np.max)
    )
    side = max(2, int(2 * (high - low).mean()))
    segment, cell = _cells(low // side, high // side)
    last = np.searchsorted(cell, cell, side="right")
    for one, other in _pairs(np.arange(len(cell)) + 1, last):
        first, second = segment[one], segment[other]
        asked = moved[first] | moved[second]
        first, second = first[asked], second[asked]
        near = (low[first] <= high[second]).all(1) & (low[second] <= high[first]).all(1)
        first, second = first[near], second[near]
        a, b = segments[first], segments[second]
        meet = _meet(a[:, :2], a[:, 2:], b[:, :2], b[:, 2:])
        found[first[meet]] = found[second[meet]] = True
    return found


def _cells(first: Array, last: Array) -> tuple[Array, Array]:
    """Segments and the grid cells that their extents reach into, sorted by cell."""
    wide, high = (last - first + 1).T
    count = wide * high
    segment = np.repeat(np.arange(len(count)), count)
    step = np.arange(len(segment)) - np.repeat(np.cumsum(count) - count, count)
    column = first[segment, 0] + step % wide[segment]
    row = first[segment, 1] + step // wide[segment]
    cell = row * (int(last[:, 0].max()) + 1) + column
    order = np.argsort(cell, kind="stable")
    return segment[order], cell[order]


def _pairs(start: Array, stop: Array) -> Iterator[tuple[Array, Array]]:
    """All `(i, j)` with `start[i] <= j < stop[i]`, some at a time."""
    count = np.maximum(stop - start, 0)
    part = np.cumsum(count) // AT_ONCE
    for chunk in np.split(np.arange(len(count)), np.flatnonzero(np.diff(part)) + 1):
        size = count[chunk]
        one = np.repeat(chunk, size)
        yield one, start[one] + np.arange(len(one)) - np.repeat(np.cumsum(size) - size, size)


def _meet(a: Array, b: Array, c: Array, d: Array) -> Array:
    """`(n,)` bool for segments a-b and c-d, `(n, 2)` each, whose extents overlap."""
    beside = _turn(a, b, c) * _turn(a, b, d) <= 0
    beside &= _turn(c, d, a) * _turn(c, d, b) <= 0
    for shared, end, start, tip in ((a, b, c, d), (a, b, d, c), (b, a, c, d), (b, a, d, c)):
        same = (shared == start).all(1)
        folded = (_turn(shared, end, tip) == 0) & (((end - shared) * (tip - shared)).sum(1) > 0)
        beside = np.where(same, folded, beside)
    return beside


def _turn(a: Array, b: Array, c: Array) -> Array:
    """Sign of the turn from a-b toward c."""
    first, second = b - a, c - a
    turn: Array = np.sign(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])
    return turn
