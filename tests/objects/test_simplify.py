"""Simplified outlines: near the exact ones, valid, and exact where they must be."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy import ndimage

from doubtmap.errors import UsageError
from doubtmap.objects import Polygon, outlines, simplified, simplify
from doubtmap.objects.polygons import signed_area
from doubtmap.objects.simplify import sound


def blob(seed, side=24, roughness=1.5, share=0.4):
    field = ndimage.gaussian_filter(
        np.random.default_rng(seed).normal(size=(side, side)), roughness
    )
    return field > np.quantile(field, 1 - share)


def crosses(one, other):
    """Whether two segments meet other than at a shared end, in exact arithmetic."""
    (a, b), (c, d) = one, other
    shared = {a, b} & {c, d}
    if len(shared) == 2:
        return True
    if shared:
        (s,) = shared
        p, q = ({a, b} - shared).pop(), ({c, d} - shared).pop()
        u, v = (p[0] - s[0], p[1] - s[1]), (q[0] - s[0], q[1] - s[1])
        return u[0] * v[1] == u[1] * v[0] and u[0] * v[0] + u[1] * v[1] > 0
    u, v = (b[0] - a[0], b[1] - a[1]), (d[0] - c[0], d[1] - c[1])
    w = (c[0] - a[0], c[1] - a[1])
    det = u[0] * v[1] - u[1] * v[0]
    if det:
        s = Fraction(w[0] * v[1] - w[1] * v[0], det)
        t = Fraction(w[0] * u[1] - w[1] * u[0], det)
        return 0 <= s <= 1 and 0 <= t <= 1
    if w[0] * u[1] != w[1] * u[0]:
        return False
    axis = 0 if u[0] else 1
    low, high = sorted((a[axis], b[axis]))
    return low <= max(c[axis], d[axis]) and min(c[axis], d[axis]) <= high


def edges_of(polygons):
    for polygon in polygons:
        for ring in polygon.rings:
            points = list(map(tuple, ring.tolist()))
            yield from itertools.pairwise(points)


def brute_sound(polygons):
    edges = list(edges_of(polygons))
    return not any(crosses(e, f) for k, e in enumerate(edges) for f in edges[k + 1 :])


def distance(point, ring):
    """From a point to a closed ring, one segment after the other."""
    nearest = np.inf
    for a, b in zip(ring[:-1].astype(float), ring[1:].astype(float)):
        t = np.clip((point - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        nearest = min(nearest, np.linalg.norm(point - a - t * (b - a)))
    return nearest


def douglas_peucker(ring, tolerance):
    """One ring on its own, by the book: from its start and the point farthest from it."""
    far = int(np.hypot(*(ring - ring[0]).T).argmax())
    kept, todo = {0, far, len(ring) - 1}, [(0, far), (far, len(ring) - 1)]
    while todo:
        first, last = todo.pop()
        chord = np.array([ring[first], ring[last]])
        away = [round(distance(point, chord), 9) for point in ring[first + 1 : last]]
        if away and max(away) > tolerance:
            middle = first + 1 + int(np.argmax(away))
            kept.add(middle)
            todo += [(first, middle), (middle, last)]
    if len(kept) < 4:
        away = [round(distance(point, ring[[0, far]]), 9) for point in ring]
        kept.add(int(np.argmax(away)))
    return ring[sorted(kept)]


def corners(polygons):
    return [{*map(tuple, ring.tolist())} for polygon in polygons for ring in polygon.rings]


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_larger_tolerance_keeps_some_of_the_corners_of_a_smaller(seed, rough):
    exact = outlines(blob(seed, roughness=0.7 if rough else 1.5, side=20, share=0.5))
    before = corners(exact)
    for tolerance in (0.2, 0.7, 1, 1.5, 1.6, 2, 4, 4.2, 100):
        found = simplified(exact, tolerance)
        after = corners(found)
        assert all(new <= old for new, old in zip(after, before, strict=True))
        assert brute_sound(found)
        before = after


def one_object(side, roughness, seed, share):
    mask = blob(seed, side, roughness, share)
    pieces, _ = ndimage.label(mask, np.ones((3, 3)))
    return pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()


def test_only_what_crosses_keeps_its_corners():
    """Once the tolerance of all rings was halved where any two crossed."""
    exact = outlines(one_object(120, 1.5, 1, 0.5))
    alone = [[douglas_peucker(ring, 3) for ring in polygon.rings] for polygon in exact]
    assert not sound([Polygon(first, tuple(rest)) for first, *rest in alone])
    count = sum(len(ring) - 1 for rings in alone for ring in rings)
    coarse, fine = (sum(map(len, corners(simplified(exact, t)))) for t in (3, 1.5))
    assert count < coarse < 1.1 * count < fine
    found = [ring for polygon in simplified(exact, 3) for ring in polygon.rings]
    for ring, own in zip(found, (ring for rings in alone for ring in rings), strict=True):
        assert {*map(tuple, own.tolist())} <= {*map(tuple, ring.tolist())}


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.25, 0.75, 1.0, 2.0, 4.25, 6.0]))
def test_where_nothing_crosses_it_is_what_the_paper_says(seed, tolerance):
    exact = outlines(blob(seed, side=30, roughness=3, share=0.3))
    alone = [[douglas_peucker(ring, tolerance) for ring in p.rings] for p in exact]
    steps = np.arange(0.25, tolerance + 0.25, 0.25)
    for rings in alone:
        assume(all(signed_area(ring) for ring in rings))
    for step in steps:
        rough = [[douglas_peucker(ring, step) for ring in p.rings] for p in exact]
        assume(sound([Polygon(first, tuple(rest)) for first, *rest in rough]))
    for polygon, rings in zip(simplified(exact, tolerance), alone, strict=True):
        for ring, own in zip(polygon.rings, rings, strict=True):
            np.testing.assert_array_equal(ring, own)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.7, 1.0, 2.0, 4.0]), st.booleans())
def test_simplified_outlines_are_near_and_valid(seed, tolerance, rough):
    exact = outlines(blob(seed, roughness=0.7 if rough else 1.5, side=16 if rough else 24))
    found = simplified(exact, tolerance)
    assert len(found) == len(exact)
    assert brute_sound(found)
    for polygon, before in zip(found, exact):
        assert len(polygon.holes) == len(before.holes)
        assert signed_area(polygon.outer) > 0
        assert all(signed_area(hole) < 0 for hole in polygon.holes)
        for ring, whole in zip(polygon.rings, before.rings):
            assert len(ring) >= 4 and (ring[0] == ring[-1]).all()
            assert {*map(tuple, ring.tolist())} <= {*map(tuple, whole.tolist())}
            assert max(distance(point, ring) for point in whole) <= tolerance + 1e-9


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 2.0, 5.0]))
def test_what_crosses_is_seen(seed, tolerance):
    exact = outlines(blob(seed, side=12, roughness=0.6, share=0.5))
    rings = [[douglas_peucker(r, tolerance) for r in p.rings] for p in exact]
    rough = [Polygon(first, tuple(rest)) for first, *rest in rings]
    turned = any(
        (signed_area(ring) > 0) != (place == 0) for part in rings for place, ring in enumerate(part)
    )
    if not brute_sound(rough) or turned:
        assert not sound(rough)
    assert sound(exact)


def test_a_staircase_becomes_a_line():
    mask = np.tri(20, dtype=bool)
    (exact,), (polygon,) = outlines(mask), simplified(outlines(mask), 1.0)
    assert len(exact.outer) > 40
    assert len(polygon.outer) <= 6
    assert polygon.area == pytest.approx(exact.area, rel=0.1)


def test_a_tolerance_of_nothing_changes_nothing():
    exact = outlines(blob(1))
    for polygon, before in zip(simplified(exact, 0), exact):
        for ring, whole in zip(polygon.rings, before.rings):
            np.testing.assert_array_equal(ring, whole)


def test_a_tolerance_beyond_the_object_leaves_a_triangle():
    (polygon,) = simplified(outlines(np.ones((3, 9), bool)), 100)
    assert len(polygon.outer) == 4 and polygon.area > 0


def test_a_hole_does_not_leave_its_polygon():
    mask = np.zeros((40, 40), bool)
    mask[10:35, 3:37] = True
    mask[35:40, 14:21] = True  # a knob that a large tolerance would cut off, with a hole in it
    mask[37:39, 16:19] = False
    exact = outlines(mask)
    assert douglas_peucker(exact[0].outer, 6)[:, 1].max() == 35
    (polygon,) = simplified(exact, 6)
    (hole,) = polygon.holes
    canvas = Image.new("1", (40, 40))
    ImageDraw.Draw(canvas).polygon(list(map(tuple, polygon.outer.tolist())), fill=1)
    x, y = hole[:-1].mean(0)
    assert canvas.getpixel((int(x), int(y)))


def ring(*points):
    return np.array([*points, points[0]])


SQUARE = ring((0, 0), (10, 0), (10, 10), (0, 10))


@pytest.mark.parametrize(
    "polygons",
    [
        [Polygon(SQUARE[::-1])],  # turned around
        [Polygon(ring((0, 0), (10, 10), (10, 0), (0, 12)))],  # crosses itself
        [Polygon(SQUARE, (ring((20, 20), (20, 22), (22, 22)),))],  # a hole outside
        [Polygon(SQUARE, (ring((8, 4), (8, 6), (12, 6)),))],  # a hole across the border
        [Polygon(SQUARE), Polygon(ring((2, 2), (4, 2), (4, 4)))],  # a piece inside another
        [Polygon(SQUARE), Polygon(ring((10, 2), (12, 2), (10, 8)))],  # along a common edge
        [Polygon(ring((0, 0), (10, 0), (10, 5), (10, 2), (5, 8)))],  # a spike
        [Polygon(SQUARE, (ring((5, 0), (4, 4), (6, 4)),))],  # touches in the middle of an edge
    ],
)
def test_faults_are_seen(polygons):
    assert not sound(polygons)


def test_touching_at_a_corner_is_no_fault():
    assert sound([Polygon(SQUARE), Polygon(SQUARE + 10)])
    assert sound([Polygon(SQUARE, (ring((0, 0), (2, 4), (4, 2)),))])


@pytest.mark.parametrize("tolerance", [-1, float("nan"), float("inf")])
def test_a_tolerance_that_is_no_distance_is_refused(tolerance):
    with pytest.raises(UsageError, match="simplify"):
        simplified([], tolerance)


def test_pairs_are_the_same_however_many_are_looked_at_together(monkeypatch):
    generator = np.random.default_rng(0)
    start = generator.integers(0, 9, 40)
    stop = np.maximum(start + generator.integers(-3, 6, 40), 0)
    expected = [(i, j) for i in range(40) for j in range(start[i], stop[i])]
    for at_once in (1, 7, 1 << 20):
        monkeypatch.setattr(simplify, "AT_ONCE", at_once)
        found = [pair for parts in simplify._pairs(start, stop) for pair in zip(*parts)]
        assert found == expected
        assert at_once > 100 or len(list(simplify._pairs(start, stop))) > 5


@pytest.mark.parametrize("at_once", [1, 50])
def test_faults_are_seen_in_parts_too(monkeypatch, at_once):
    monkeypatch.setattr(simplify, "AT_ONCE", at_once)
    assert sound(outlines(blob(3)))
    assert not sound([Polygon(SQUARE, (ring((8, 4), (8, 6), (12, 6)),))])
    assert not sound([Polygon(SQUARE, (ring((20, 20), (20, 22), (22, 22)),))])
