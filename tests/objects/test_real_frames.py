"""Objects of real road scenes: every flagged pixel is in one, and the metric counts the same."""

import numpy as np
import pytest

import doubtmap as dm
from doubtmap.metrics import Components
from doubtmap.objects import ObjectRule, find_objects, outlines, simplified
from doubtmap.objects.simplify import sound


@pytest.mark.real_data
def test_objects_of_a_real_frame(shared):
    segmenter = dm.load(shared / "models" / "camvid9")
    image = dm.open_dataset(f"camvid:{shared / 'data' / 'camvid'}:test")[60].image
    prediction = segmenter(image[None])
    score, classes = dm.scores.entropy(prediction)[0].numpy(), prediction.classes[0].numpy()
    threshold = float(np.quantile(score, 0.9))
    everything = find_objects(score, classes, ObjectRule(threshold, 0))
    covered = np.zeros(score.shape, int)
    for thing in everything:
        x, y, width, height = thing.box
        covered[y : y + height, x : x + width] += thing.mask
    np.testing.assert_array_equal(covered, score > threshold)
    sums = Components()
    nothing = np.zeros(score.shape, bool)
    sums.update(score > threshold, nothing, ~nothing, 50)
    large = find_objects(score, classes, ObjectRule(threshold, 50))
    assert len(everything) > len(large) == sums.predicted[0] > 10
    for thing in large:
        exact = outlines(thing.mask, thing.box[:2])
        assert sum(polygon.area for polygon in exact) == thing.area
        rough = simplified(exact, 1.0)
        assert sound(rough)
        assert sum(map(corners, rough)) < sum(map(corners, exact))


def corners(polygon):
    return sum(len(ring) - 1 for ring in polygon.rings)
