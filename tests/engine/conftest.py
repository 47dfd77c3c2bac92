"""A small network and small streets, so that whole runs take a second."""

import pytest
import torch
from torch import nn

import doubtmap as dm
from doubtmap.streets.synthetic import SyntheticStreets

CLASSES = ("road", "pavement", "building", "vegetation", "sky", "pole", "sign", "vehicle")


class TinyNetwork(nn.Module):
    """Two convolutions at stride 4 and a 1x1 classifier."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 5, 4, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1))
        self.classifier = nn.Conv2d(8, len(CLASSES), 1)

    def forward(self, x):
        logits = self.classifier(self.body(x).relu())
        return nn.functional.interpolate(logits, x.shape[-2:], mode="bilinear")


@pytest.fixture
def fresh_segmenter():
    """Makes segmenters that have seen no image yet."""
    return lambda: dm.load(TinyNetwork(), classes=CLASSES)


@pytest.fixture
def segmenter(fresh_segmenter):
    return fresh_segmenter()


@pytest.fixture
def streets():
    return SyntheticStreets(6, seed=3, size=(64, 96))
