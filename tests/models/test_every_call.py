"""Nothing is believed that this call does not show: outputs, grids, classifiers, batches."""

import pytest
import torch
import torch.nn.functional as F
from tiny_networks import CLASSES, Tiny, UNet, normalised, own
from torch import nn

from doubtmap import scores
from doubtmap.errors import ModelError, UsageError
from doubtmap.models import MonteCarloDropout, load

pytestmark = pytest.mark.usefixtures("seed")


class ByContent(Tiny):
    """Doubles the logits of bright images after its classifier."""

    def forward(self, x):
        return super().forward(x) * (2 if x.mean() > 0 else 1)


def test_a_classifier_is_not_believed_on_an_image_that_denies_it():
    segmenter = load(network := ByContent())
    first, second = 0.1 * torch.rand(1, 3, 32, 32), 0.8 + 0.1 * torch.rand(1, 3, 32, 32)
    assert segmenter(first).features is not None
    prediction = segmenter(second)
    torch.testing.assert_close(prediction.logits, own(network, second), atol=1e-4, rtol=0)
    assert prediction.features is None
    with pytest.raises(ModelError, match="on this image 'classifier' does not reproduce"):
        scores.gradient(prediction)
    segmenter(second)
    late = [note for note in segmenter.description["notes"] if "does not reproduce" in note]
    assert len(late) == 1
    assert segmenter(first).features is not None


def test_a_classifier_that_is_not_called_is_not_needed():
    class Sometimes(Tiny):
        def forward(self, x):
            if x.shape[-1] < 40:
                return super().forward(x)
            return x[:, :1] * torch.arange(1, CLASSES + 1).view(1, -1, 1, 1)

    network = Sometimes()
    segmenter = load(network)
    segmenter(torch.rand(1, 3, 32, 32))
    images = torch.rand(1, 3, 48, 48)
    torch.testing.assert_close(segmenter(images).logits, own(network, images), atol=1e-4, rtol=0)


def test_a_network_that_is_random_in_evaluation_mode_says_so():
    class Random(Tiny):
        def forward(self, x):
            return super().forward(x) + 0.1 * torch.randn(1)

    segmenter = load(Random())
    segmenter(torch.rand(1, 3, 32, 32))
    assert any("random in evaluation mode" in note for note in segmenter.description["notes"])
    segmenter = load(Tiny())
    segmenter(torch.rand(1, 3, 32, 32))
    assert not any("random" in note for note in segmenter.description["notes"])


class Beside(nn.Module):
    """Dropout only in a head that is not used."""

    def __init__(self):
        super().__init__()
        self.net, self.drop = Tiny(), nn.Dropout(0.5)

    def forward(self, x):
        out = self.net(x)
        return {"out": out, "aux": self.drop(out)}


def test_passes_that_all_agree_have_nothing_to_say():
    images = torch.rand(1, 3, 32, 32)
    prediction = MonteCarloDropout(load(Beside()), passes=3)(images)
    with pytest.raises(ModelError, match=r"3 passes agree to the last bit.*--dropout-rate"):
        scores.mutual_information(prediction)


class TwoHeads(Tiny):
    """[auxiliary, main], as HRNet-OCR returns them; both by 1x1 convolutions."""

    def __init__(self):
        super().__init__(auxiliary=True)

    def forward(self, x):
        features, size = self.features(x), x.shape[-2:]
        heads = self.auxiliary(features), self.classifier(features)
        return [F.interpolate(y, size, mode="bilinear") for y in heads]


def test_two_outputs_that_could_both_be_meant_are_listed():
    images = torch.rand(1, 3, 32, 40)
    with pytest.raises(ModelError, match=r"0 \(1, 5, 32, 40\), 1 \(1, 5, 32, 40\).*--output"):
        load(TwoHeads())(images)
    segmenter = load(network := TwoHeads(), output=1)
    with torch.no_grad():
        expected = network(normalised(images))[1]
    torch.testing.assert_close(segmenter(images).logits, expected, atol=1e-4, rtol=0)
    assert segmenter.description["classifier"] == "classifier"
    with pytest.raises(UsageError, match=r"got 'gone'\. It returns 0"):
        load(TwoHeads(), output="gone")(images)


@pytest.mark.parametrize("size", [(64, 96), (45, 70)])
def test_padding_and_the_check_go_together(size):
    segmenter, images = load(UNet()), torch.rand(2, 3, *size)
    assert segmenter(images).features is not None
    assert segmenter(torch.rand(1, 3, 33, 90)).features is not None


def test_features_that_a_network_writes_into_are_kept():
    class Writes(Tiny):
        def forward(self, x):
            features = self.features(x)
            logits = self.classifier(features)
            features.neg_()
            return logits

    network, images = Writes(), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = network.features(normalised(images))
    segmenter = load(network)
    for _ in range(2):
        torch.testing.assert_close(segmenter(images).features, expected)
