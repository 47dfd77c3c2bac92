"""Objects against one loop per component, by hand, and what is refused."""

import sys

import numpy as np
import pytest
import torch
from flood_fill import pieces
from hypothesis import given, settings
from hypothesis import strategies as st

from doubtmap.errors import DataError, UsageError
from doubtmap.metrics import Components
from doubtmap.objects import ObjectRule, find_objects, to_supervision
from doubtmap.objects.find import RING, share_around, without_holes

FLAT = np.zeros((20, 30), np.int64)


def frame(seed, shape, share):
    rng = np.random.default_rng(seed)
    doubt = rng.normal(size=shape).astype(np.float32)
    classes = rng.integers(0, 4, shape)
    return doubt, classes, float(np.quantile(doubt, 1 - share))


@settings(deadline=None, max_examples=150, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    share=st.sampled_from([0.2, 0.4, 0.7]),
    smallest=st.integers(0, 5),
)
def test_objects_equal_a_loop_over_components(seed, shape, share, smallest):
    doubt, classes, threshold = frame(seed, shape, share)
    found = find_objects(doubt, classes, ObjectRule(threshold, smallest))
    expected = [p for p in pieces(doubt > threshold) if len(p) >= smallest]
    assert len(found) == len(expected)
    by_pixels = {frozenset(p): p for p in expected}
    for thing in found:
        whole = thing.on_image(shape)
        pixels = frozenset(zip(*np.nonzero(whole)))
        assert pixels in by_pixels
        rows, columns = np.nonzero(whole)
        x, y, width, height = thing.box
        assert (x, y) == (columns.min(), rows.min())
        assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1) == thing.mask.shape[::-1]
        assert thing.area == len(pixels)
        assert thing.score_mean == pytest.approx(doubt[whole].astype(float).mean())
        assert thing.score_max == doubt[whole].max()
        votes = np.bincount(classes[whole])
        assert votes[thing.predicted] == votes.max()
        assert thing.predicted_share == votes.max() / len(pixels)
    means = [thing.score_mean for thing in found]
    assert means == sorted(means, reverse=True)


def test_the_components_of_the_metric_are_the_objects():
    doubt, classes, threshold = frame(3, (60, 80), 0.3)
    nothing, everything = np.zeros((60, 80), bool), np.ones((60, 80), bool)
    for smallest in (0, 4, 20):
        sums = Components()
        sums.update(doubt > threshold, nothing, everything, smallest)
        found = find_objects(doubt, classes, ObjectRule(threshold, smallest))
        assert len(found) == sums.predicted[0] > 0


def test_a_pixel_at_the_threshold_is_not_flagged_and_the_threshold_is_exact():
    doubt = np.full((2, 3), np.float32(0.1))
    assert find_objects(doubt, np.zeros((2, 3), int), ObjectRule(float(np.float32(0.1)), 0)) == []
    # 0.1 in float32 lies above 0.1 in float64
    assert len(find_objects(doubt, np.zeros((2, 3), int), ObjectRule(0.1, 0))) == 1
    assert len(find_objects(doubt, np.zeros((2, 3), int), ObjectRule(-np.inf, 0))) == 1
    assert find_objects(doubt, np.zeros((2, 3), int), ObjectRule(np.inf, 0)) == []


def test_the_smallest_share_is_of_the_image():
    doubt = np.zeros((10, 10))
    doubt[0, :3] = doubt[5, :5] = 1
    classes = np.zeros((10, 10), int)
    areas = [t.area for t in find_objects(doubt, classes, ObjectRule(0.5, 0, smallest_share=0.05))]
    assert areas == [5]
    assert len(find_objects(doubt, classes, ObjectRule(0.5, 0, smallest_share=0.03))) == 2
    assert find_objects(doubt, classes, ObjectRule(0.5, 4, smallest_share=0.051)) == []


def ring_and_dot():
    doubt = np.zeros((20, 30))
    doubt[2:13, 2:13] = 1
    doubt[4:11, 4:11] = 0
    doubt[7, 7] = 1
    return doubt


def test_holes_are_filled_where_asked_with_what_lies_in_them():
    open_, closed = (
        find_objects(ring_and_dot(), FLAT, ObjectRule(0.5, 0, fill_holes=fill))
        for fill in (False, True)
    )
    assert sorted(thing.area for thing in open_) == [1, 11 * 11 - 7 * 7]
    (thing,) = closed
    assert (thing.area, thing.mask.all()) == (121, True)
    assert thing.score_mean == pytest.approx((121 - 48) / 121)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.5, 0.7]))
def test_filling_equals_scipys(seed, share):
    from scipy.ndimage import binary_fill_holes

    mask = np.random.default_rng(seed).random((9, 11)) < share
    np.testing.assert_array_equal(without_holes(mask), binary_fill_holes(mask))


def obstacle():
    """A box on the road, one in the sky, one half on each."""
    doubt, classes = np.zeros((40, 60)), np.zeros((40, 60), int)
    classes[20:] = 1
    doubt[28:33, 10:15] = doubt[5:10, 30:35] = doubt[17:23, 50:54] = 1
    return doubt, classes


def test_on_keeps_what_lies_on_a_class():
    doubt, classes = obstacle()

    def boxes(**rule):
        return {t.box[:2] for t in find_objects(doubt, classes, ObjectRule(0.5, **rule))}

    small = {"smallest": 5}
    assert boxes(**small) == {(10, 28), (30, 5), (50, 17)}
    assert boxes(**small, on=(1,)) == {(10, 28), (50, 17)}
    assert boxes(**small, on=(1,), on_share=0.5) == {(10, 28), (50, 17)}  # half is half
    assert boxes(**small, on=(1,), on_share=0.51) == {(10, 28)}
    assert boxes(**small, on=(0, 1), on_share=1.0) == {(10, 28), (30, 5), (50, 17)}
    assert boxes(**small, on=(7,), on_share=0.1) == set()


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_the_ring_equals_a_loop_over_pixels(seed):
    doubt, classes, threshold = frame(seed, (9, 13), 0.2)
    for thing in find_objects(doubt, classes, ObjectRule(threshold, 1)):
        own = set(zip(*np.nonzero(thing.on_image((9, 13)))))
        ring = {
            (i, j)
            for i in range(9)
            for j in range(13)
            if (i, j) not in own and any(max(abs(i - a), abs(j - b)) <= RING for a, b in own)
        }
        expected = np.mean([classes[place] in (1, 2) for place in ring]) if ring else 0.0
        assert share_around(thing, classes, (1, 2)) == pytest.approx(expected)


def test_an_object_that_is_the_image_lies_on_nothing():
    ones = np.ones((4, 5))
    (thing,) = find_objects(ones, np.zeros((4, 5), int), ObjectRule(0.5, 0))
    assert thing.box == (0, 0, 5, 4) and thing.mask.all()
    assert share_around(thing, np.zeros((4, 5), int), (0,)) == 0
    assert find_objects(ones, np.zeros((4, 5), int), ObjectRule(0.5, 0, on=(0,))) == []


def test_tensors_are_taken():
    doubt, classes, threshold = frame(0, (12, 12), 0.4)
    rule = ObjectRule(threshold, 2)
    one = find_objects(torch.tensor(doubt), torch.tensor(classes), rule)
    other = find_objects(doubt, classes, rule)
    assert [t.box for t in one] == [t.box for t in other] != []


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"threshold": float("nan")}, "NaN"),
        ({"threshold": 0, "smallest": -1}, "smallest: .*-1"),
        ({"threshold": 0, "smallest_share": 1.5}, "smallest_share: .*1.5"),
        ({"threshold": 0, "smallest_share": float("nan")}, "smallest_share"),
        ({"threshold": 0, "on_share": -0.1}, "on_share"),
        ({"threshold": 0, "on": (-1,)}, "on: "),
    ],
)
def test_rules_that_cannot_be_are_usage_errors(rule, words):
    with pytest.raises(UsageError, match=words):
        ObjectRule(**rule)


def test_maps_that_cannot_be_are_refused():
    doubt, classes, _ = frame(0, (4, 5), 0.3)
    for bad in (np.nan, np.inf):
        broken = doubt.copy()
        broken[1, 2] = bad
        with pytest.raises(DataError, match="finite"):
            find_objects(broken, classes, ObjectRule(0.0))
    with pytest.raises(UsageError, match=r"\(4, 5\) and \(5, 4\)"):
        find_objects(doubt, classes.T, ObjectRule(0.0))
    with pytest.raises(UsageError, match="of one image"):
        find_objects(doubt[None], classes[None], ObjectRule(0.0))
    with pytest.raises(DataError, match="from -2 on"):
        find_objects(doubt, classes - 2 - classes.min(), ObjectRule(0.0))
    with pytest.raises(DataError, match="float"):
        find_objects(doubt, classes.astype(float), ObjectRule(0.0))


def test_supervision_takes_them():
    supervision = pytest.importorskip("supervision", reason="supervision is not installed")
    doubt, classes = np.zeros((12, 20)), np.full((12, 20), 1)
    doubt[2:5, 3:9], doubt[7:11, 12:15], classes[7:11, 12:15] = 0.7, 0.9, 2
    things = find_objects(doubt, classes, ObjectRule(0.5, smallest=1))
    found = to_supervision(things, (12, 20), ["road", "sky", "car"])
    assert isinstance(found, supervision.Detections) and len(found) == 2
    np.testing.assert_array_equal(found.xyxy, [[12, 7, 15, 11], [3, 2, 9, 5]])
    np.testing.assert_array_equal(found.area, [12, 18])
    np.testing.assert_allclose(found.confidence, [0.9, 0.7])
    assert found["predicted"].tolist() == ["car", "sky"]
    boxes = supervision.mask_to_xyxy(found.mask)
    np.testing.assert_array_equal(np.add(boxes, (0, 0, 1, 1)), found.xyxy)  # theirs are pixels
    assert len(to_supervision([], (12, 20))) == 0


def test_without_supervision_it_says_how_to_have_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UsageError, match="pip install supervision"):
        to_supervision([], (2, 2))
