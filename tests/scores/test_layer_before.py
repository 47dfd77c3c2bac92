"""Norms in the layer before the last, as `benchmarks/roads.py` has them, against autograd."""

import importlib
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import doubtmap as dm

C, D = 5, 6


@pytest.fixture(scope="module")
def roads():
    """The benchmark as a module."""
    yield importlib.import_module("roads")
    del sys.modules["roads"]


class Head(nn.Module):
    """A convolution, batch norm, an activation and a 1x1 convolution."""

    def __init__(self, activation):
        super().__init__()
        self.before = nn.Conv2d(3, D, 3, padding=2, dilation=2, bias=False)
        self.norm = nn.BatchNorm2d(D)
        self.activation = activation
        self.last = nn.Conv2d(D, C, 1)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)
        self.norm.running_var.uniform_(0.5, 2)
        nn.init.normal_(self.last.weight)

    def forward(self, x):
        return self.last(self.activation(self.norm(self.before(x))))


def autograd_norms(network, images, label, p):
    """One backward pass for each pixel, through to the weights."""
    norms = torch.zeros(len(images), *images.shape[2:], dtype=torch.float64)
    for b, i, j in np.ndindex(*norms.shape):
        logits = network(images)[b, :, i, j]
        target = F.one_hot(logits.argmax(), C).double()
        if label == "uniform":
            target = torch.full((C,), 1 / C).double()
        loss = F.cross_entropy(logits, target)
        (slope,) = torch.autograd.grad(loss, network.before.weight)
        norms[b, i, j] = slope.abs().pow(p).sum().pow(1 / p)
    return norms


@pytest.mark.parametrize("activation", [nn.ReLU(inplace=True), nn.GELU()], ids=str)
def test_norms_of_the_layer_before_the_last_are_those_of_autograd(roads, activation):
    torch.manual_seed(0)
    network = Head(activation).double().eval()
    names = ("before", "norm", "activation", "last")
    segmenter = roads.LayerBefore(dm.load(network, mean=(0, 0, 0), std=(1, 1, 1)), names)
    images = torch.rand(1, 3, 4, 5, dtype=torch.float64)
    prediction = segmenter(images)
    assert prediction.layers["norms"].shape == (1, len(roads.NORMS), 4, 5)
    for place, (label, p) in enumerate(roads.NORMS):
        found = roads.norm_before(place)(prediction)
        sign = -1 if label == "uniform" else 1
        expected = sign * autograd_norms(network, images, label, p)
        assert expected.abs().max() < 1e30 and expected.std() > 0
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
