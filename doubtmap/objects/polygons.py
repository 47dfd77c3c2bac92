"""Exact outlines of a mask, along the edges of its pixels, as polygons with holes.

Corners of the mask's boundary are paired along rows and along columns; following the pairs in turn
gives the rings. Where two pixels of the mask meet at a corner only, that corner is taken so that
every ring passes each point once and every polygon's inside is in one piece: what GIS tools and
databases take as valid. An object whose pixels hang together at corners only is several polygons.

Outlines with fewer corners, none farther from the exact outline than a tolerance allows.

Reference:
    Algorithms for the reduction of the number of points required to represent a digitized line or
    its caricature (Douglas and Peucker, 1973), https://doi.org/10.3138/FM57-6770-U75U-7727

Departs from the paper: distances are to the segment, not to the line through it, and outlines that
would cross themselves or one another are simplified less, in halves of the tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from doubtmap.errors import UsageError
from doubtmap.metrics.accumulator import Array

Ring = NDArray[np.int64]
"""`(n + 1, 2)`: x and y of n >= 3 corners in pixels from the image's upper left, the first again
at the end."""


@dataclass(frozen=True, eq=False)
class Polygon:
    """One piece of an object.

    Args:
        outer: the ring around it, clockwise to the eye; with y downward its shoelace is positive.
        holes: rings around what is left out, the other way round.
    """

    outer: Ring
    holes: tuple[Ring, ...] = ()

    @property
    def rings(self) -> tuple[Ring, ...]:
        """The outer ring, then the holes."""
        return self.outer, *self.holes

    @property
    def area(self) -> float:
        """In pixels, without the holes."""
        return sum(map(signed_area, self.rings))


def signed_area(ring: NDArray[np.generic]) -> float:
    """Area of a closed ring `(n + 1, 2)` by the shoelace formula.

    Positive where it turns from the x axis toward the y axis: clockwise to the eye with y
    downward, counter-clockwise on a map.
    """
    x, y = (ring - ring[0]).astype(np.float64).T  # near the origin, so that nothing cancels
    return float(x[:-1] @ y[1:] - x[1:] @ y[:-1]) / 2


def outlines(mask: Array, origin: tuple[int, int] = (0, 0)) -> list[Polygon]:
    """Trace a mask.

    Args:
        mask: `(H, W)` bool.
        origin: x and y of its upper left pixel in the image.

    Returns:
        A polygon for each piece that hangs together along edges. Filling them gives the mask back,
        and their areas add up to its pixels.

    Raises:
        UsageError: for anything but a bool mask `(H, W)`.

    Example:
        >>> (polygon,) = outlines(np.array([[True, True, False]]))
        >>> polygon.outer.tolist()
        [[0, 0], [2, 0], [2, 1], [0, 1], [0, 0]]
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise UsageError(f"outlines: expected a bool mask (H, W), got {mask.dtype} {mask.shape}.")
    pieces, count = ndimage.label(np.pad(mask, 1))
    corners, following, owner = _corners(pieces)
    outer: list[Ring | None] = [None] * count
    holes: list[list[Ring]] = [[] for _ in range(count)]
    for places in _cycles(following):
        ring = corners[[*places, places[0]]] + np.array(origin)
        piece = int(owner[places[0]]) - 1
        if signed_area(ring) > 0:
            outer[piece] = ring
        else:
            holes[piece].append(ring)
    return [Polygon(ring, tuple(inner)) for ring, inner in zip(outer, holes) if ring is not None]


def _corners(pieces: Array) -> tuple[Array, Array, Array]:
    """Corners of the boundary as x and y, the place of the next one, and the piece of each.

    A corner at which two pixels meet diagonally is there twice, the left one first.
    """
    nw, ne, sw, se = (
        pieces[:-1, :-1],
        pieces[:-1, 1:],
        pieces[1:, :-1],
        pieces[1:, 1:],
    )
    odd = (nw > 0) ^ (ne > 0) ^ (sw > 0) ^ (se > 0)
    falling, rising = (nw > 0) & (se > 0), (ne > 0) & (sw > 0)
    diagonal = (falling ^ rising) & ~odd
    places = np.argwhere(odd | diagonal)
    places = np.repeat(places, 1 + diagonal[places[:, 0], places[:, 1]], axis=0)
    y, x = places.T
    twice = diagonal[y, x]
    right = np.zeros(len(x), bool)
    right[1:] = twice[1:] & (x[1:] == x[:-1]) & (y[1:] == y[:-1])
    # the two parts of one piece are joined at the corner, two pieces are kept apart
    joined = np.where(falling, nw == se, ne == sw)[y, x]
    left_is_upper = falling[y, x] ^ joined
    lower = twice & (right == left_is_upper)
    across = np.arange(len(x)) ^ 1  # along a row, corners lie in pairs
    down = np.lexsort((lower, y, x))
    along = np.empty_like(down)
    along[down] = down[across]
    # a row's pair starts at its left end where the piece lies below it, else at its right end
    first = across & ~1
    below = se[y[first], x[first]] > 0
    starts = below ^ (across % 2 == 0)
    owner = np.where(below, se[y[first], x[first]], ne[y[first], x[first]])
    return np.stack([x, y], 1), np.where(starts, across, along), owner


def _cycles(following: Array) -> list[list[int]]:
    """The cycles of a permutation, each from its lowest place on."""
    after = following.tolist()
    seen = bytearray(len(after))
    found = []
    for start in range(len(after)):
        place, cycle = start, []
        while not seen[place]:
            seen[place] = 1
            cycle.append(place)
            place = after[place]
        if cycle:
            found.append(cycle)
    return found


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
