"""Outlines: filling them gives the mask back, areas add up, and GIS tools would take them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from doubtmap.errors import UsageError
from doubtmap.objects import outlines
from doubtmap.objects.polygons import signed_area


def picture(*rows):
    return np.array([[c == "#" for c in row] for row in rows])


def masks():
    return hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def even_odd(rings, shape):
    """Pixels whose centre sees an odd number of vertical edges to its left; one loop per edge."""
    inside = np.zeros(shape, int)
    for ring in rings:
        for (x, y), (x2, y2) in itertools.pairwise(ring):
            assert (x == x2) != (y == y2)
            if x == x2:
                inside[min(y, y2) : max(y, y2), x:] += 1
    return inside % 2 == 1


@settings(deadline=None, max_examples=150, derandomize=True)
@given(masks())
def test_filling_the_rings_gives_the_mask_back_and_areas_add_up(mask):
    polygons = outlines(mask)
    rings = [ring for polygon in polygons for ring in polygon.rings]
    np.testing.assert_array_equal(even_odd(rings, mask.shape), mask)
    assert sum(polygon.area for polygon in polygons) == mask.sum()
    # each piece that hangs together along edges is one polygon, filled alone
    pieces, count = ndimage.label(mask)
    assert len(polygons) == count
    for number, polygon in enumerate(polygons, 1):
        np.testing.assert_array_equal(even_odd(polygon.rings, mask.shape), pieces == number)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(masks())
def test_rings_are_what_gis_tools_take_as_valid(mask):
    for polygon in outlines(mask):
        assert signed_area(polygon.outer) > 0
        assert all(signed_area(hole) < 0 for hole in polygon.holes)
        for ring in polygon.rings:
            assert len(ring) >= 5 and (ring[0] == ring[-1]).all()
            points = [tuple(point) for point in ring[:-1].tolist()]
            assert len(set(points)) == len(points)  # no point twice
            steps = np.diff(ring, axis=0)
            turns = (steps != 0).argmax(1)
            assert (turns[1:] != turns[:-1]).all()  # corners only
        # two rings of a polygon touch at one point at most: its inside is in one piece
        for one, ring in enumerate(polygon.rings):
            for other in polygon.rings[one + 1 :]:
                shared = set(map(tuple, ring.tolist())) & set(map(tuple, other.tolist()))
                assert len(shared) <= 1


@settings(deadline=None, max_examples=100, derandomize=True)
@given(masks())
def test_a_piece_has_a_hole_for_each_region_that_it_encloses(mask):
    pieces, _ = ndimage.label(mask)
    for number, polygon in enumerate(outlines(mask), 1):
        _, regions = ndimage.label(np.pad(pieces != number, 1, constant_values=True))
        assert len(polygon.holes) == regions - 1


@pytest.mark.parametrize(
    ("mask", "polygons", "holes"),
    [
        (picture("#"), 1, 0),
        (picture("###", "#.#", "###"), 1, 1),
        (picture("#.", ".#"), 2, 0),  # touching at a corner: two polygons
        (picture("###", "#.#", "##."), 1, 1),  # a hole that touches the outside at a corner
        (picture("####", "#..#", "#.##", "####"), 1, 1),
        (picture("#####", "#.#.#", "#####"), 1, 2),
        (picture("#####", "#.###", "##.##", "#####"), 1, 2),  # holes that touch at a corner
        (picture("#####", "#...#", "#.#.#", "#...#", "#####"), 2, 1),  # an island in a hole
        (picture("####", "#..#", "#.#.", "##.."), 2, 0),  # an island on a corner of an open bay
        (picture(".#.", "#.#", ".#."), 4, 0),  # a ring that hangs together at corners only
    ],
)
def test_known_shapes(mask, polygons, holes):
    found = outlines(mask)
    assert len(found) == polygons
    assert sum(len(polygon.holes) for polygon in found) == holes


def test_rings_by_hand_and_their_place_in_the_image():
    (polygon,) = outlines(picture("###", "#.#", "###"), origin=(10, 20))
    assert polygon.outer.tolist() == [[10, 20], [13, 20], [13, 23], [10, 23], [10, 20]]
    (hole,) = polygon.holes
    assert hole.tolist() == [[11, 21], [11, 22], [12, 22], [12, 21], [11, 21]]
    assert polygon.area == 8


def test_a_large_noisy_mask():
    mask = np.random.default_rng(0).random((120, 150)) < 0.55
    rings = [ring for polygon in outlines(mask) for ring in polygon.rings]
    np.testing.assert_array_equal(even_odd(rings, mask.shape), mask)


def test_areas_far_from_the_origin_do_not_cancel():
    ring = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) * 1e-7 + 6e6
    assert signed_area(ring) == pytest.approx(1e-14, rel=0.05)


def test_nothing_has_no_outline():
    assert outlines(np.zeros((3, 4), bool)) == []
    with pytest.raises(UsageError, match="bool mask"):
        outlines(np.zeros((3, 4)))
