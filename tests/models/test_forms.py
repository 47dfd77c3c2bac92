"""What the numbers of an output are is told, proven or asked for; never guessed in silence."""

import pytest
import torch
import torch.nn.functional as F
from tiny_networks import CLASSES, Tiny, normalised, own
from torch import nn

from doubtmap import scores
from doubtmap.errors import DataError, ModelError
from doubtmap.models import load

pytestmark = pytest.mark.usefixtures("seed")


def eighths(p):
    """Probabilities as an 8-bit network gives them."""
    return (p * 255).round() / 255


def of(wrap, **options):
    """Network, segmenter, and the probabilities that the network without `wrap` has."""
    network = Tiny()
    network.classifier.weight.data *= 8
    images = torch.rand(2, 3, 32, 40)
    with torch.no_grad():
        expected = network(normalised(images)).softmax(1)
    network.wrap = wrap
    return load(network, **options), images, expected


SOFTMAX = {
    "float32": (lambda x: x.softmax(1), 1e-5),
    "float16": (lambda x: x.softmax(1).half(), 2e-3),
    "bfloat16": (lambda x: x.softmax(1).bfloat16(), 1e-2),
    "bfloat16 as float32": (lambda x: x.softmax(1).bfloat16().float(), 1e-2),
    "8 bits": (lambda x: eighths(x.softmax(1)), 1e-2),
    "0 to 255": (lambda x: x.softmax(1) * 255, 1e-5),
    "bytes": (lambda x: (x.softmax(1) * 255).round().byte(), 1e-2),
    "percent": (lambda x: x.softmax(1) * 100, 1e-5),
    "logarithm": (lambda x: x.log_softmax(1), 1e-5),
    "half logarithm": (lambda x: x.log_softmax(1).half(), 1e-2),
    "channels last": (lambda x: x.softmax(1).movedim(1, -1), 1e-5),
}


@pytest.mark.parametrize(("wrap", "near"), SOFTMAX.values(), ids=SOFTMAX)
def test_probabilities_however_they_are_written(wrap, near):
    segmenter, images, expected = of(wrap)
    prediction = segmenter(images)
    torch.testing.assert_close(prediction.probabilities, expected, atol=near, rtol=0)
    assert any("probabilities" in note for note in segmenter.description["notes"])


def test_probabilities_without_their_logits_have_no_energy():
    segmenter, images, _ = of(lambda x: (2 * x).softmax(1))
    prediction = segmenter(images)
    assert prediction.features is None
    with pytest.raises(ModelError, match="returns probabilities, whose free energy is 0"):
        scores.energy(prediction)
    segmenter, images, _ = of(lambda x: x.softmax(1))
    expected = -segmenter(images).logits.logsumexp(1)
    torch.testing.assert_close(scores.energy(segmenter(images)), expected)


def test_one_sigmoid_a_class_is_proven_by_its_classifier():
    segmenter, images, expected = of(torch.sigmoid)
    prediction = segmenter(images)
    torch.testing.assert_close(prediction.probabilities, expected, atol=1e-5, rtol=0)
    assert prediction.features is not None
    assert any("one sigmoid a class" in note for note in segmenter.description["notes"])


ASKED = {
    "sigmoid": lambda x: (2 * x).sigmoid(),
    "softmax without its last class": lambda x: (2 * x).softmax(1)[:, :-1],
}


@pytest.mark.parametrize("wrap", ASKED.values(), ids=ASKED)
def test_what_cannot_be_told_is_asked_for(wrap):
    segmenter, images, _ = of(wrap)
    with pytest.raises(ModelError, match=r"could be one sigmoid a class.*--activation"):
        segmenter(images)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("none", lambda y: y.softmax(1)),
        ("sigmoid", lambda y: y.logit().softmax(1)),
        ("softmax", lambda y: y / y.sum(1, keepdim=True)),
    ],
)
def test_activation_decides(activation, expected):
    segmenter, images, _ = of(ASKED["sigmoid"], activation=activation)
    with torch.no_grad():
        y = segmenter.source.backend.module(normalised(images))
    got = segmenter(images).probabilities
    torch.testing.assert_close(got, expected(y), atol=1e-5, rtol=0)


def test_logits_between_0_and_1_are_proven_by_their_classifier():
    network, images = Tiny(), torch.rand(1, 3, 32, 32)
    network.classifier.weight.data *= 0.1
    network.classifier.bias.data.fill_(0.5)
    segmenter = load(network)
    torch.testing.assert_close(segmenter(images).logits, own(network, images), atol=1e-4, rtol=0)
    assert segmenter.description["form"] == "logits"


class Binary(Tiny):
    """One channel, the logit of the foreground; `wrap` comes last."""

    def __init__(self, wrap=lambda x: x, resize=True):
        super().__init__(wrap, resize=resize)
        self.classifier = nn.Conv2d(self.classifier.in_channels, 1, 1)
        self.classifier.weight.data *= 9


@pytest.mark.parametrize("wrap", [lambda x: x, torch.sigmoid], ids=["logit", "probability"])
def test_one_channel_is_two_classes_and_keeps_its_features(wrap):
    network, images = Binary(wrap), torch.rand(2, 3, 32, 40)
    segmenter = load(network, classes=["car"])
    prediction = segmenter(images)
    network.wrap = lambda x: x
    with torch.no_grad():
        x = network(normalised(images))
        features = network.features(normalised(images))
    assert segmenter.class_names == prediction.class_names == ("background", "car")
    torch.testing.assert_close(prediction.probabilities[:, 1:], x.sigmoid(), atol=1e-5, rtol=0)
    torch.testing.assert_close(prediction.features, features)
    assert scores.gradient(prediction).isfinite().all()


def test_one_channel_that_nothing_proves_is_noted():
    segmenter = load(Binary(lambda x: (2 * x).sigmoid()))
    segmenter(torch.rand(1, 3, 32, 32))
    assert any("--activation none" in note for note in segmenter.description["notes"])
    segmenter = load(Binary(lambda x: (2 * x).sigmoid()), activation="none")
    assert segmenter(torch.rand(1, 3, 32, 32)).logits.max() <= 1


def test_the_gradient_of_one_channel_is_that_of_two_with_a_row_of_zeros():
    network, images = Binary(resize=False), torch.rand(1, 3, 8, 8)
    prediction = load(network)(images)
    features = prediction.features[0, :, 0, 0]
    two = torch.zeros(2, len(features))
    two[1] = network.classifier.weight[0, :, 0, 0].detach()
    two.requires_grad_()
    logits = two @ features + torch.tensor([0.0, network.classifier.bias.item()])
    F.cross_entropy(logits[None], logits.argmax()[None]).backward()
    expected = two.grad.abs().sum()
    native = scores.gradient(prediction.__class__(
        prediction.native_logits, (2, 2), features=prediction.features), p=1)  # fmt: skip
    torch.testing.assert_close(native[0, 0, 0], expected, rtol=1e-4, atol=1e-5)


DECIDED = {
    "whole numbers": (lambda x: x.argmax(1), "before argmax"),
    "bytes": (lambda x: x.argmax(1).byte(), "before argmax"),
    "floats": (lambda x: x.argmax(1, keepdim=True).float(), "class map"),
    "mask": (lambda x: (x[:, :1] > x[:, 1:2]).float(), "mask"),
    "one-hot": (lambda x: F.one_hot(x.argmax(1), CLASSES).movedim(-1, 1).float(), "one-hot"),
}


@pytest.mark.parametrize(("wrap", "message"), DECIDED.values(), ids=DECIDED)
def test_decided_classes_say_nothing_of_doubt(wrap, message):
    segmenter, images, _ = of(wrap)
    with pytest.raises(ModelError, match=message):
        segmenter(images)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_channels_last_is_seen(stride):
    network = Tiny(lambda x: F.avg_pool2d(x, stride).movedim(1, -1))
    images = torch.rand(1, 3, 48, 64)
    segmenter = load(network)
    prediction = segmenter(images)
    network.wrap = lambda x: F.avg_pool2d(x, stride)
    torch.testing.assert_close(prediction.logits, own(network, images), atol=1e-4, rtol=0)
    assert any("last axis" in note for note in segmenter.description["notes"])


def test_a_fifth_axis_of_one_is_left_out():
    network, images = Tiny(lambda x: x[:, :, None]), torch.rand(1, 3, 32, 32)
    assert load(network)(images).logits.shape == (1, CLASSES, 32, 32)


def test_a_class_that_is_switched_off_by_minus_infinity():
    off = torch.tensor([0.0] * (CLASSES - 1) + [-float("inf")]).view(1, -1, 1, 1)
    segmenter, images, _ = of(lambda x: x + off)
    prediction = segmenter(images)
    assert prediction.probabilities[:, -1].max() == 0
    assert any("switched off" in note for note in segmenter.description["notes"])


def test_one_image_that_gives_nan_is_refused_and_the_next_is_not():
    def standardised(x):
        return (x - x.mean()) / x.std()

    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), Standardise(standardised))
    segmenter = load(network, mean=(0, 0, 0), std=(1, 1, 1))
    segmenter(torch.rand(1, 3, 16, 16))
    with pytest.raises(DataError, match="finite"):
        segmenter(torch.zeros(1, 3, 16, 16))
    assert segmenter(torch.rand(1, 3, 16, 16)).logits.isfinite().all()


class Standardise(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)
