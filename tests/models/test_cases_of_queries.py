"""Networks that predict by queries answer as the papers' own inference does."""

import importlib
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from cases import NONE
from torch import nn

from doubtmap import scores
from doubtmap.models import load


@pytest.fixture(scope="module")
def networks():
    """The benchmark as a module."""
    yield importlib.import_module("networks")
    sys.modules.pop("networks", None)


@pytest.mark.parametrize("stride", [4, 8])
@pytest.mark.parametrize("sharp", [1.0, 4.0], ids=["soft", "sharp"])
@pytest.mark.parametrize("seen", [(96, 128), (72, 96), (120, 160)], ids=str)
def test_labels_and_probabilities_are_the_papers(networks, stride, sharp, seen):
    label = networks.SyntheticStreets(1, seed=3, size=(96, 128))[0].label
    row = networks.judged(torch.as_tensor(label), stride, sharp, seen)
    assert row["labels_equal"] >= 0.999
    assert row["probabilities_equal"] >= 0.999


class Padded(nn.Module):
    """Refuses sides that are not divisible by 32, as Swin's windows may."""

    def __init__(self):
        super().__init__()
        self.masks = nn.Conv2d(3, 5, 4, 4)
        self.classes = nn.Parameter(3 * torch.randn(5, 4))

    def forward(self, x):
        if any(side % 32 for side in x.shape[-2:]):
            raise ValueError("sides must be divisible by 32")
        classes = self.classes.expand(len(x), -1, -1)
        return SimpleNamespace(pred_logits=classes, pred_masks=9 * self.masks(x))


@pytest.mark.parametrize("input_size", [None, (40, 70)])
def test_padding_is_cut_before_scores_are_resized(input_size):
    """As `sem_seg_postprocess` of Detectron2: padded, put together, cut, resized."""
    torch.manual_seed(0)
    network, images = Padded(), torch.rand(2, 3, 50, 90)
    segmenter = load(network, input_size=input_size, **NONE)
    prediction = segmenter(images)
    given = segmenter.source.preprocessing(images, torch.float32)
    height, width = given.shape[-2:]
    with torch.no_grad():
        output = network(F.pad(given, (0, -width % 32, 0, -height % 32), mode="replicate"))
    padded = (height + -height % 32, width + -width % 32)
    masks = F.interpolate(output.pred_masks, padded, mode="bilinear").sigmoid()
    classes = output.pred_logits.softmax(-1)[..., :-1]
    shares = torch.einsum("bqc,bqhw->bchw", classes, masks)[..., :height, :width]
    shares = F.interpolate(shares, (50, 90), mode="bilinear")
    expected = shares / shares.sum(1, keepdim=True)
    torch.testing.assert_close(prediction.probabilities, expected, atol=1e-5, rtol=0)
    assert scores.rejected(prediction).shape == (2, 50, 90)
