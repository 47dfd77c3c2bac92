"""Images, outputs, errors and names that a network is not taken with."""

from dataclasses import replace

import pytest
import torch
from tiny_networks import CLASSES, Queries, Tiny
from torch import nn

from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.models import NetworkSegmenter, load

pytestmark = pytest.mark.usefixtures("seed")

NAN = torch.full((1, 3, 8, 8), float("nan"))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(3, 8, 8), "batch axis"),
        (torch.rand(1, 4, 8, 8), "RGB on axis 1"),
        (torch.rand(1, 3, 0, 8), "B, 3, H, W"),
        (torch.rand(1, 3, 8, 8) * 255, "uint8 for 0 to 255"),
        (torch.rand(1, 3, 8, 8) - 0.5, "before normalisation"),
        (NAN, "got values from nan"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "int64"),
        ("image.png", "expected a tensor"),
    ],
)
def test_wrong_images(images, message):
    with pytest.raises(UsageError, match=message):
        load(Tiny())(images)


def test_wrong_number_of_channels_is_not_blamed_on_the_size():
    with pytest.raises(ModelError, match=r"images of 4 bands, got 3.*RGB") as caught:
        load(nn.Conv2d(4, 5, 3))(torch.rand(1, 3, 32, 32))
    assert "input_size" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda x: x.argmax(1, keepdim=True), "before argmax"),
        (lambda x: x.flatten(1), "B, C, H, W"),
        (lambda x: {"seg": x.flatten(1)}, "dict with 'seg'"),
        (lambda x: "nothing", "got str"),
        (lambda x: (x.argmax(1),), "a class map"),
        (lambda x: x.mean(0, keepdim=True).repeat(3, 1, 1, 1), "one output for each"),
    ],
)
def test_outputs_that_are_not_logits(wrap, message):
    with pytest.raises(ModelError, match=message):
        load(Tiny(wrap))(torch.rand(2, 3, 32, 32))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite(value):
    segmenter = load(Tiny(lambda x: x.index_fill(1, torch.tensor([0]), value)))
    with pytest.raises(DataError, match="finite"):
        segmenter(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize("error", [TypeError, KeyError, IndexError])
def test_any_other_error_of_the_network_is_named(error):
    def fail(_):
        raise error("mask\nand more")

    with pytest.raises(ModelError, match=rf"it raised {error.__name__}: '?mask") as caught:
        load(Tiny(fail))(torch.rand(1, 3, 32, 32))
    assert isinstance(caught.value.__cause__, error)


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError, KeyboardInterrupt])
def test_lack_of_memory_and_interrupts_pass_through(error):
    def fail(_):
        raise error

    with pytest.raises(error):
        load(Tiny(fail))(torch.rand(1, 3, 32, 32))


class Queries2(Queries):
    def __init__(self):
        super().__init__()
        self.extra = nn.Conv2d(3, CLASSES, 1)


def test_given_classifier_is_checked():
    images = torch.rand(1, 3, 32, 32)
    segmenter = load(Tiny(auxiliary=True), classifier="classifier")
    assert segmenter(images).features is not None
    with pytest.raises(ModelError, match=r"auxiliary.*largest difference of [\d.]+ where"):
        load(Tiny(auxiliary=True), classifier="auxiliary")(images)
    with pytest.raises(ModelError, match="got shapes"):
        load(Tiny(), classifier="mix")(images)
    with pytest.raises(UsageError, match="Near names: classifier"):
        load(Tiny(), classifier="clasifier")
    with pytest.raises(UsageError, match=r"last layer .*got 'body\.0'"):
        load(Tiny(), classifier="body.0")
    with pytest.raises(ModelError, match="no per-pixel classifier"):
        load(Queries2(), classifier="extra")(images)


def test_class_names():
    names = ["a", "b", "c", "d", "e"]
    segmenter = load(Tiny(), classes=names)
    assert segmenter.class_names == tuple(names)
    assert segmenter(torch.rand(1, 3, 32, 32)).class_names == tuple(names)
    with pytest.raises(UsageError, match=r"expected 2 channels.*got 5"):
        load(Tiny(), classes=["a", "b"])(torch.rand(1, 3, 32, 32))


def test_a_folders_own_names_of_the_wrong_number_are_the_networks_fault():
    source = replace(load(Tiny()).source, class_names=("a", "b"))
    with pytest.raises(ModelError, match=r"expected 2 channels.*got 5"):
        NetworkSegmenter(source)(torch.rand(1, 3, 32, 32))
