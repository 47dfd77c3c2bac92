"""What the numbers of an output are is told, proven or asked for; never guessed in silence."""

import pytest
import torch
import torch.nn.functional as F
from tiny_networks import Tiny, normalised, own
from torch import nn

from doubtmap import scores
from doubtmap.errors import DataError, ModelError
from doubtmap.models import load

pytestmark = pytest.mark.usefixtures("seed")


def of(wrap, **options):
    """Network, segmenter, and the probabilities that the network without `wrap` has."""
    network = Tiny()
    network.classifier.weight.data *= 8
    images = torch.rand(2, 3, 32, 40)
    with torch.no_grad():
        expected = network(normalised(images)).softmax(1)
    network.wrap = wrap
    return load(network, **options), images, expected


def test_probabilities_without_their_logits_have_no_energy():
    segmenter, images, _ = of(lambda x: (2 * x).softmax(1))
    prediction = segmenter(images)
    assert prediction.features is None
    with pytest.raises(ModelError, match="returns probabilities, whose free energy is 0"):
        scores.energy(prediction)
    segmenter, images, _ = of(lambda x: x.softmax(1))
    expected = -segmenter(images).logits.logsumexp(1)
    torch.testing.assert_close(scores.energy(segmenter(images)), expected)


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
