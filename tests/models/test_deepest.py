"""Where an encoder ends, as the sizes of what its layers give tell."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import doubtmap as dm
from doubtmap.errors import UsageError
from doubtmap.scoring import deepest


class Pyramid(nn.Module):
    """An encoder of stride 8, a pooling pyramid that is coarser, and a decoder on both grids."""

    def __init__(self):
        super().__init__()
        stages = [nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())]
        stages += [nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())]
        stages += [
            nn.Sequential(
                nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()
            )
        ]
        self.backbone = nn.Sequential(*stages)
        self.bins = nn.Conv2d(32, 8, 1)
        self.bottleneck = nn.Conv2d(40, 16, 3, padding=1)
        self.lateral = nn.Conv2d(16, 16, 1)
        self.classifier = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        quarter = self.backbone[1](self.backbone[0](x))
        deep = self.backbone[2](quarter)
        pooled = self.bins(F.adaptive_avg_pool2d(deep, 2))
        pooled = F.interpolate(pooled, deep.shape[-2:])
        head = self.bottleneck(torch.cat([deep, pooled], 1))
        head = F.interpolate(head, quarter.shape[-2:]) + self.lateral(quarter)
        return F.interpolate(self.classifier(head), x.shape[-2:], mode="bilinear")


class Wrapped(nn.Module):
    """The same within something else, as exports and trainers leave it."""

    def __init__(self):
        super().__init__()
        self.net = Pyramid()

    def forward(self, x):
        return self.net(x)


IMAGE = torch.rand(1, 3, 96, 128)


@pytest.mark.parametrize(
    ("network", "name"), [(Pyramid, "backbone.2"), (Wrapped, "net.backbone.2")]
)
def test_the_end_of_the_encoder_not_the_pyramid_nor_the_head(network, name):
    segmenter = dm.load(network())
    assert deepest(segmenter, IMAGE) == name
    assert segmenter.listening([name])(IMAGE).layers[name].shape == (1, 32, 12, 16)


def test_of_plain_layers_in_a_row_the_last_one():
    network = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())
    assert deepest(dm.load(nn.Sequential(*network, nn.Conv2d(6, 4, 1))), IMAGE) == "3"


def test_several_networks_have_no_deepest_layer():
    with pytest.raises(UsageError, match="one network whose inner layers"):
        deepest(dm.load("demo,demo"), IMAGE)
