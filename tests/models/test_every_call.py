"""Nothing is believed that this call does not show: outputs, grids, classifiers, batches."""

import pytest
import torch
import torch.nn.functional as F
from tiny_networks import CLASSES, FEATURES, Tiny, UNet, normalised, own
from torch import nn

from doubtmap import scores
from doubtmap.errors import ModelError, UsageError
from doubtmap.models import MonteCarloDropout, load

pytestmark = pytest.mark.usefixtures("seed")


class Sliding(Tiny):
    """Looks at windows of 32 pixels, as mmseg's slide mode does."""

    def forward(self, x):
        rows = [
            torch.cat([super(Sliding, self).forward(part) for part in row.split(32, 3)], 3)
            for row in x.split(32, 2)
        ]
        return torch.cat(rows, 2)


class OneByOne(Tiny):
    def forward(self, x):
        return torch.cat([super(OneByOne, self).forward(image[None]) for image in x])


class ByContent(Tiny):
    """Doubles the logits of bright images after its classifier."""

    def forward(self, x):
        return super().forward(x) * (2 if x.mean() > 0 else 1)


@pytest.mark.parametrize(
    ("network", "first", "second"),
    [
        (Sliding, torch.zeros(1, 3, 32, 32), torch.rand(1, 3, 64, 64)),
        (Sliding, torch.zeros(1, 3, 32, 32), torch.rand(2, 3, 32, 96)),
        (ByContent, 0.1 * torch.rand(1, 3, 32, 32), 0.8 + 0.1 * torch.rand(1, 3, 32, 32)),
    ],
)
def test_a_classifier_is_not_believed_on_an_image_that_denies_it(network, first, second):
    segmenter, network = load(made := network()), made
    first = first + 0.1 * torch.rand_like(first)
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


def test_a_network_that_takes_its_images_one_by_one_keeps_its_batch():
    network, images = OneByOne(), torch.rand(3, 3, 32, 40)
    prediction = load(network)(images)
    torch.testing.assert_close(prediction.logits, own(network, images), atol=1e-4, rtol=0)
    assert prediction.features.shape[:2] == (3, FEATURES)


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


class Inside(nn.Module):
    """Gives each pixel its own value after padding or cutting the image inside."""

    def __init__(self, before=lambda x: x, after=lambda x: x):
        super().__init__()
        self.layer = nn.Conv2d(3, CLASSES, 1)
        self.before, self.after = before, after

    def forward(self, x):
        return self.after(self.layer(self.before(x)))


def up_to(d, mode="replicate"):
    def pad(x):
        return F.pad(x, (0, -x.shape[3] % d, 0, -x.shape[2] % d), mode=mode)

    return pad


def down_to(d):
    return lambda x: x[..., : x.shape[2] // d * d, : x.shape[3] // d * d]


def pooled(k, before):
    return lambda x: F.avg_pool2d(before(x), k)


@pytest.mark.parametrize(
    "before",
    [up_to(64), up_to(32), up_to(8), down_to(16), down_to(32), up_to(2)],
    ids=["to 64", "to 32", "to 8", "down to 16", "down to 32", "to 2"],
)
@pytest.mark.parametrize("sizes", [((45, 71), (90, 150)), ((90, 150), (45, 71))])
def test_pads_and_cuts_inside_are_undone(before, sizes):
    segmenter = load(network := Inside(before))
    for size in sizes:
        images = torch.rand(2, 3, *size)
        prediction = segmenter(images)
        with torch.no_grad():
            expected = network.layer(normalised(images))
        torch.testing.assert_close(prediction.logits, expected, atol=1e-4, rtol=0)


def test_valid_convolutions_get_a_mirrored_border():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5), nn.ReLU(), nn.Conv2d(8, 8, 5), nn.ReLU(), nn.Conv2d(8, CLASSES, 1)
    )
    images = torch.rand(1, 3, 48, 64)
    segmenter = load(network)
    prediction = segmenter(images)
    with torch.no_grad():
        plain = network(normalised(images))
    inner = prediction.logits[..., 4:-4, 4:-4]
    torch.testing.assert_close(inner, plain, atol=1e-4, rtol=0)
    assert prediction.features.shape == (1, 8, 48, 64)
    assert any("lacks 4 pixels" in note for note in segmenter.description["notes"])
    assert segmenter(torch.rand(1, 3, 30, 40)).logits.shape == (1, CLASSES, 30, 40)


@pytest.mark.parametrize(
    "after",
    [lambda y: F.pad(y, (0, 40, 0, 8), mode="replicate"), lambda y: y[..., 3:, :-2]],
    ids=["a rim", "a cut on one side"],
)
def test_a_grid_that_is_not_the_image_stretched_is_refused(after):
    with pytest.raises(ModelError, match="the image stretched, got a grid of"):
        load(Inside(after=after))(torch.rand(1, 3, 48, 64))


def test_a_grid_in_another_ratio_is_the_image_stretched_and_says_so():
    def after(y):
        return F.interpolate(y, scale_factor=4 / 7, mode="bilinear")

    network, images = Inside(after=after), torch.rand(1, 3, 70, 140)
    segmenter = load(network)
    torch.testing.assert_close(segmenter(images).logits, own(network, images), atol=1e-4, rtol=0)
    assert any("no whole fraction" in note for note in segmenter.description["notes"])


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


OUTPUTS = {
    "out and aux": (lambda x: {"aux": -x, "out": x}, {}),
    "logits and features": (lambda x: {"features": x, "logits": x}, {}),
    "one with a name of its own": (lambda x: {"segmentation": x}, {}),
    "nested": (lambda x: [{"deep": (x, x.mean((2, 3)))}], {}),
    "with a depth": (lambda x: (x[:, :1], x), {}),
    "by the number of classes": (
        lambda x: (torch.cat([x, x], 1), x),
        {"classes": list("abcde")},
    ),
    "by the classifier": (lambda x: [3 * x + 1, x], {}),
    "by place": (lambda x: [x.flip(1), x], {"output": 1}),
    "by place from the end": (lambda x: [x.flip(1), x], {"output": -1}),
    "by name": (lambda x: {"a": x.flip(1), "b": x}, {"output": "b"}),
    "argmax beside": (lambda x: (x, x.argmax(1)), {}),
}


@pytest.mark.parametrize(("wrap", "options"), OUTPUTS.values(), ids=OUTPUTS)
def test_which_of_several_outputs(wrap, options):
    network, images = Tiny(wrap), torch.rand(1, 3, 32, 40)
    prediction = load(network, **options)(images)
    network.wrap = lambda x: x
    torch.testing.assert_close(prediction.logits, own(network, images), atol=1e-4, rtol=0)


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


def test_boxes_with_prototypes_are_instances():
    network = Tiny(lambda x: (torch.rand(len(x), 116, 2100), torch.rand(len(x), 32, 40, 40)))
    with pytest.raises(ModelError, match="instance segmentation"):
        load(network)(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize("size", [(64, 96), (45, 70)])
def test_padding_and_the_check_go_together(size):
    segmenter, images = load(UNet()), torch.rand(2, 3, *size)
    assert segmenter(images).features is not None
    assert segmenter(torch.rand(1, 3, 33, 90)).features is not None
