"""Exact outlines of a mask, along the edges of its pixels, as polygons with holes.

Corners of the mask's boundary are paired along rows and along columns; following the pairs in turn
gives the rings. Where two pixels of the mask meet at a corner only, that corner is taken so that
every ring passes each point once and every polygon's inside is in one piece: what GIS tools and
databases take as valid. An object whose pixels hang together at corners only is several polygons.
"""

from __future__ import annotations

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
