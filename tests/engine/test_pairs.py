"""What fitted things learn from: every image with its labels in the model's classes."""

import pytest
import torch

import doubtmap as dm
from doubtmap.engine import Pairs


def test_pairs_are_every_image_with_its_labels_as_often_as_asked():
    segmenter, streets = dm.load("demo"), dm.open_dataset("synthetic:3")
    told = []
    pairs = Pairs(segmenter, streets, progress=lambda *state: told.append(state))
    first, second = list(pairs), list(pairs)
    assert len(pairs) == len(first) == len(second) == 3
    for prediction, label in first:
        assert label.shape == (1, *prediction.size) and label.dtype == torch.int64
        assert label.max() < len(segmenter.class_names)
    assert told[:3] == [("fit", 1, 3), ("fit", 2, 3), ("fit", 3, 3)]


def test_pairs_of_chosen_images():
    segmenter, streets = dm.load("demo"), dm.open_dataset("synthetic:3")
    whole = [label for _, label in Pairs(segmenter, streets)]
    (_, label), *rest = Pairs(segmenter, streets, indices=[2])
    assert not rest
    assert (label == whole[2]).all()


def test_pairs_refuse_what_is_no_segmenter():
    with pytest.raises(dm.UsageError, match="expected a segmenter"):
        Pairs(lambda images: images, dm.open_dataset("synthetic:1"))
