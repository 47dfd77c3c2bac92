"""COCO annotations, decoded again by a plain loop."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doubtmap.errors import UsageError
from doubtmap.objects import ObjectRule, find_objects, outlines, simplified
from doubtmap.objects.coco import annotation, check_encoding, run_lengths


def decoded(segmentation):
    """A mask from run lengths: down the columns, first off."""
    height, width = segmentation["size"]
    flat, value = [], False
    for count in segmentation["counts"]:
        flat += [value] * count
        value = not value
    assert len(flat) == height * width
    return np.array(flat).reshape(width, height).T


def things(seed, shape, share=0.5):
    rng = np.random.default_rng(seed)
    doubt = rng.random(shape)
    return find_objects(doubt, rng.integers(0, 3, shape), ObjectRule(1 - share, 1))


@settings(deadline=None, max_examples=150, derandomize=True)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 8), st.integers(1, 8)),
    st.sampled_from([0.2, 0.5, 0.8, 1.0]),
)
def test_run_lengths_give_the_mask_back(seed, shape, share):
    for thing in things(seed, shape, share):
        found = run_lengths(thing, shape)
        np.testing.assert_array_equal(decoded(found), thing.on_image(shape))
        assert all(count > 0 for count in found["counts"][1:])  # no run is cut in two
        assert sum(found["counts"][1::2]) == thing.area


def ring_and_bar():
    doubt = np.zeros((12, 20))
    doubt[2:7, 3:8] = 0.9
    doubt[4, 5] = 0
    doubt[9, 2:18] = 0.6
    classes = np.ones((12, 20), int)
    return find_objects(doubt, classes, ObjectRule(0.5, 1))


def test_an_annotation_by_hand():
    ring, bar = ring_and_bar()
    found = annotation(bar, outlines(bar.mask, bar.box[:2]), (12, 20), ("sky", "road"))
    assert found == {
        "category_id": 1,
        "bbox": [2, 9, 16, 1],
        "area": 16,
        "segmentation": [[2, 9, 18, 9, 18, 10, 2, 10]],
        "iscrowd": 0,
        "score": pytest.approx(0.6),
        "score_max": 0.6,
        "predicted_class": "road",
        "predicted_share": 1.0,
    }
    # a polygon of COCO has no holes
    found = annotation(ring, outlines(ring.mask, ring.box[:2]), (12, 20))
    np.testing.assert_array_equal(decoded(found["segmentation"]), ring.on_image((12, 20)))
    assert (found["predicted_class"], found["area"]) == ("1", 24)
    assert json.loads(json.dumps(found)) == found


def test_run_lengths_where_asked_and_exact_also_where_simplified():
    _, bar = ring_and_bar()
    shape = simplified(outlines(bar.mask, bar.box[:2]), 50)
    found = annotation(bar, shape, (12, 20), encoding="rle")
    np.testing.assert_array_equal(decoded(found["segmentation"]), bar.on_image((12, 20)))
    assert len(annotation(bar, shape, (12, 20))["segmentation"][0]) == 6


def test_an_object_that_meets_itself_at_a_corner_is_two_polygons_of_one_annotation():
    doubt = np.zeros((4, 4))
    doubt[0:2, 0:2] = doubt[2:4, 2:4] = 1
    (thing,) = find_objects(doubt, np.zeros((4, 4), int), ObjectRule(0.5, 1))
    found = annotation(thing, outlines(thing.mask), (4, 4))
    assert len(found["segmentation"]) == 2 and found["area"] == 8


def test_an_unknown_encoding_is_refused():
    assert check_encoding("rle") == "rle"
    with pytest.raises(UsageError, match="polygon, rle, got png"):
        check_encoding("png")
