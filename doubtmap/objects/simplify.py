"""Outlines with fewer corners, none farther from the exact outline than a tolerance allows.

Reference:
    Algorithms for the reduction of the number of points required to represent a digitized line or
    its caricature (Douglas and Peucker, 1973), https://doi.org/10.3138/FM57-6770-U75U-7727

Departs from the paper: distances are to the segment, not to the line through it, and outlines that
would cross themselves or one another are simplified less, in halves of the tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from doubtmap.errors import UsageError
from doubtmap.metrics.accumulator import Array
from doubtmap.objects.outlines import Polygon, Ring, signed_area

FINEST = 0.25
"""Tolerance in pixels below which the exact outline is kept."""
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
        tolerance: in pixels, how far a corner that is left out may be from the new outline; 0: as
            they are.

    Returns:
        As many polygons and rings, of at least three corners each, which do not cross; the exact
        ones where the tolerance allows no others.

    Raises:
        UsageError: for a tolerance below 0 or not finite.
    """
    check_tolerance(tolerance)
    while tolerance >= FINEST:
        rough = [
            Polygon(*_parted([simplified_ring(ring, tolerance) for ring in polygon.rings]))
            for polygon in polygons
        ]
        if sound(rough):
            return rough
        tolerance /= 2
    return list(polygons)


def simplified_ring(ring: Ring, tolerance: float) -> Ring:
    """One closed ring `(n + 1, 2)` with fewer corners, at least three."""
    far = int(_distances(ring, ring[0], ring[0]).argmax())
    kept = np.zeros(len(ring), bool)
    kept[[0, far, -1]] = True
    todo = [(0, far), (far, len(ring) - 1)]
    while todo:
        first, last = todo.pop()
        if last - first < 2:
            continue
        distances = _distances(ring[first + 1 : last], ring[first], ring[last])
        middle = first + 1 + int(distances.argmax())
        if distances.max() > tolerance:
            kept[middle] = True
            todo += [(first, middle), (middle, last)]
    if kept.sum() < 4:
        kept[int(_distances(ring, ring[0], ring[far]).argmax())] = True
    return ring[kept]


def sound(polygons: Sequence[Polygon]) -> bool:
    """Whether rings keep their direction and their place, and touch at shared corners only."""
    rings = [ring for polygon in polygons for ring in polygon.rings]
    outer = np.array([ring is polygon.outer for polygon in polygons for ring in polygon.rings])
    if any((signed_area(ring) > 0) != out for ring, out in zip(rings, outer)):
        return False
    segments = np.concatenate([np.concatenate([ring[:-1], ring[1:]], 1) for ring in rings])
    if _cross(segments):
        return False
    # a hole lies in one other ring, a piece in none, or in a hole and what is around it
    owner = np.repeat(np.arange(len(rings)), [len(ring) - 1 for ring in rings])
    middles = np.array([(ring[0] + ring[1]) / 2 for ring in rings])
    return bool((_around(segments, owner, middles) % 2 != outer).all())


def _parted(rings: list[Ring]) -> tuple[Ring, tuple[Ring, ...]]:
    return rings[0], tuple(rings[1:])


def _distances(points: Array, start: Array, end: Array) -> Array:
    """`(n,)`, from points `(n, 2)` to the segment between two points."""
    along = (end - start).astype(np.float64)
    length = float(along @ along)
    place = np.clip((points - start) @ along / length, 0, 1) if length else np.zeros(len(points))
    gap: Array = points - start - place[:, None] * along
    return np.hypot(gap[:, 0], gap[:, 1])


def _around(segments: Array, owner: Array, points: Array) -> Array:
    """`(n,)`, how many edges of other rings a ray from each ring's point to the right crosses."""
    order = np.argsort(points[:, 1], kind="stable")
    heights = points[order, 1]
    low, high = segments[:, [1, 3]].min(1), segments[:, [1, 3]].max(1)
    crossed = np.zeros(len(points), np.int64)
    # an edge is crossed at heights in (low, high]
    for edge, place in _pairs(*(np.searchsorted(heights, end, "right") for end in (low, high))):
        point = order[place]
        x, y, x2, y2 = segments[edge].T
        right = points[point, 0] < x + (points[point, 1] - y) * (x2 - x) / (y2 - y)
        np.add.at(crossed, point[right & (owner[edge] != point)], 1)
    return crossed


def _cross(segments: Array) -> bool:
    """Whether any two of the segments `(n, 4)` meet but at an end that they share.

    Only pairs that lie in one cell of a grid are looked at. Whole numbers, so that nothing is
    rounded.
    """
    low, high = (
        np.stack([end(segments[:, [0, 2]], 1), end(segments[:, [1, 3]], 1)], 1)
        for end in (np.min, np.max)
    )
    side = max(2, int(2 * (high - low).mean()))
    segment, cell = _cells(low // side, high // side)
    last = np.searchsorted(cell, cell, side="right")
    for one, other in _pairs(np.arange(len(cell)) + 1, last):
        first, second = segment[one], segment[other]
        near = (low[first] <= high[second]).all(1) & (low[second] <= high[first]).all(1)
        a, b = segments[first[near]], segments[second[near]]
        if _meet(a[:, :2], a[:, 2:], b[:, :2], b[:, 2:]).any():
            return True
    return False


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
