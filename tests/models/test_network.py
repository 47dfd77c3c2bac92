from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_networks import CLASSES, FEATURES, Queries, Tiny, UNet, normalised, own
from torch import nn

from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.models import NetworkSegmenter, load
from doubtmap.prediction import Segmenter

WRAPS = {
    "tensor": lambda x: x,
    "out": lambda x: {"out": x, "aux": x[:, :1]},
    "logits": lambda x: {"logits": x},
    "tuple": lambda x: (x, x[:, :1]),
    "list": lambda x: [x.flatten(1), x],
    "object": lambda x: SimpleNamespace(logits=x),
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_every_kind_of_output(wrap):
    network, images = Tiny(wrap), torch.rand(2, 3, 32, 40)
    prediction = load(network)(images)
    with torch.no_grad():
        features = network.features(normalised(images))
    network.wrap = WRAPS["tensor"]
    torch.testing.assert_close(prediction.logits, own(network, images), atol=1e-4, rtol=0)
    torch.testing.assert_close(prediction.features, features)
    assert prediction.native_logits.shape == (2, CLASSES, 8, 10)


@pytest.mark.parametrize("align_corners", [False, True])
def test_align_corners_is_found(align_corners):
    segmenter, images = load(Tiny(align_corners=align_corners)), torch.rand(1, 3, 33, 47)
    prediction = segmenter(images)
    assert prediction.align_corners is align_corners
    assert prediction.features.shape[1] == FEATURES
    network = segmenter.source.backend.module
    torch.testing.assert_close(prediction.logits, own(network, images), atol=1e-4, rtol=0)


def test_native_output_is_its_own_classifier():
    segmenter, images = load(Tiny(resize=False)), torch.rand(1, 3, 32, 32)
    prediction = segmenter(images)
    assert segmenter.description["classifier"] == "classifier"
    assert segmenter.description["stride"] == 4
    assert not prediction.align_corners
    network = segmenter.source.backend.module
    torch.testing.assert_close(prediction.logits, own(network, images), atol=1e-4, rtol=0)


@pytest.mark.parametrize("align_corners", [False, True])
def test_output_between_native_and_image_keeps_features(align_corners):
    segmenter = load(Tiny(resize="half", align_corners=align_corners))
    images = torch.rand(1, 3, 32, 48)
    prediction, network = segmenter(images), segmenter.source.backend.module
    assert prediction.native_logits.shape[-2:] == (16, 24)
    with torch.no_grad():
        again = network.classifier(prediction.features)
    torch.testing.assert_close(again, prediction.native_logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(prediction.logits, own(network, images), atol=1e-4, rtol=0)


def test_auxiliary_head_called_last_is_not_taken():
    segmenter = load(Tiny(auxiliary=True))
    segmenter(torch.rand(1, 3, 32, 32))
    assert segmenter.description["classifier"] == "classifier"


def test_no_fitting_convolution_falls_back_to_the_output():
    segmenter, images = load(Tiny(resize="scaled")), torch.rand(1, 3, 32, 32)
    prediction = segmenter(images)
    network = segmenter.source.backend.module
    torch.testing.assert_close(prediction.logits, own(network, images), atol=1e-4, rtol=0)
    assert "no 1x1 convolution" in segmenter.description["features_missing"]
    with pytest.raises(ModelError, match="x: needs the network's features, but no 1x1 conv"):
        prediction.require_features("x")


def test_constant_output_gives_align_corners_false():
    network = Tiny(align_corners=True)
    nn.init.zeros_(network.classifier.weight)
    assert load(network)(torch.rand(1, 3, 32, 32)).align_corners is False


def test_an_image_that_cannot_tell_is_followed_by_another_search():
    segmenter, images = load(Tiny(align_corners=True)), torch.rand(1, 3, 32, 32)
    assert segmenter(torch.rand(1, 3, 4, 4)).align_corners is False  # one native pixel
    assert segmenter(images).align_corners is True
    assert segmenter(torch.rand(1, 3, 4, 4)).align_corners is True
    torch.testing.assert_close(
        segmenter(images).logits, own(segmenter.source.backend.module, images), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("resize", [True, False])
def test_a_decided_image_is_searched_once(resize, monkeypatch):
    segmenter = load(Tiny(resize=resize))
    segmenter(torch.rand(1, 3, 32, 32))
    monkeypatch.setattr(segmenter, "_study", None)
    segmenter(torch.rand(1, 3, 32, 32))


def test_layer_called_twice_uses_the_last_call():
    class Twice(Tiny):
        def forward(self, x):
            super().forward(x.flip(-1))
            return super().forward(x)

    network, images = Twice(), torch.rand(2, 3, 32, 32)
    prediction = load(network)(images)
    torch.testing.assert_close(prediction.features, network.features(normalised(images)).detach())


@pytest.mark.parametrize("scale", [1, 200])
def test_softmax_output(scale):
    network = Tiny(lambda x: (scale * x).softmax(1))
    images = torch.rand(2, 3, 32, 32)
    segmenter = load(network)
    prediction = segmenter(images)
    with torch.no_grad():
        expected = network(normalised(images))
    torch.testing.assert_close(prediction.probabilities, expected, atol=1e-5, rtol=0)
    assert "probabilities" in segmenter.description["notes"][0]
    assert (prediction.features is not None) == (scale == 1)


def test_log_softmax_output_keeps_its_classifier():
    network, images = Tiny(lambda x: x.log_softmax(1)), torch.rand(1, 3, 32, 32)
    prediction = load(network)(images)
    with torch.no_grad():
        expected = network(normalised(images)).exp()
    torch.testing.assert_close(prediction.probabilities, expected, atol=1e-5, rtol=0)
    assert prediction.features is not None


def test_queries_become_the_logarithm_of_the_semantic_score():
    network, images = Queries(), torch.rand(2, 3, 32, 32)
    prediction = load(network)(images)
    with torch.no_grad():
        output = network(normalised(images))
    classes = output.class_queries_logits.softmax(-1)[..., :-1]
    masks = output.masks_queries_logits.sigmoid()
    scores = (classes[..., None, None] * masks[:, :, None]).sum(1)
    torch.testing.assert_close(prediction.native_logits, scores.log())
    share = scores / scores.sum(1, keepdim=True)
    torch.testing.assert_close(prediction.native_logits.softmax(1), share)
    with pytest.raises(ModelError, match="queries"):
        prediction.require_features("x")


@given(
    height=st.integers(9, 50),
    width=st.integers(9, 50),
    align_corners=st.booleans(),
    resize=st.sampled_from([True, False, "half"]),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_logits_equal_the_networks_own_resized(height, width, align_corners, resize):
    network, images = (
        Tiny(align_corners=align_corners, resize=resize),
        torch.rand(1, 3, height, width),
    )
    prediction = load(network)(images)
    torch.testing.assert_close(prediction.logits, own(network, images), atol=1e-4, rtol=0)
    assert prediction.features is not None


@pytest.mark.parametrize("options", [{}, {"divisor": 32}])
def test_refused_sizes_are_padded_and_cropped(options):
    network, images = UNet(), torch.rand(2, 3, 45, 70)
    segmenter = load(network, **options)
    prediction = segmenter(images)
    with torch.no_grad():
        padded = F.pad(normalised(images), (0, 26, 0, 19), mode="replicate")
        expected = network(padded)[..., :45, :70]
    torch.testing.assert_close(prediction.logits, expected, atol=1e-4, rtol=0)
    assert prediction.covered == (64, 96)
    assert segmenter.description["divisor"] == 32
    assert prediction.features.shape == (2, 4, 64, 96)


@pytest.mark.parametrize("align_corners", [False, True])
def test_padding_of_a_network_with_a_coarse_classifier(align_corners):
    class Picky(Tiny):
        def forward(self, x):
            if x.shape[-1] % 16:
                raise ValueError("width must be divisible by 16")
            return super().forward(x)

    network, images = Picky(align_corners=align_corners), torch.rand(1, 3, 45, 70)
    prediction = load(network)(images)
    with torch.no_grad():
        padded = F.pad(normalised(images), (0, 10, 0, 3), mode="replicate")
        expected = network(padded)[..., :45, :70]
    assert prediction.native_logits.shape[-2:] == (12, 20)
    torch.testing.assert_close(prediction.logits, expected, atol=1e-4, rtol=0)


def test_refusal_at_every_size_tells_to_set_input_size():
    class Square(Tiny):
        def forward(self, x):
            if tuple(x.shape[-2:]) != (48, 48):
                raise RuntimeError("The size of tensor a (9) must match")
            return super().forward(x)

    images = torch.rand(1, 3, 45, 70)
    with pytest.raises(ModelError, match=r"45x70.*size of tensor a.*input_size"):
        load(Square())(images)
    assert load(Square(), input_size=(48, 48))(images).logits.shape[-2:] == (45, 70)


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


def test_wrong_number_of_channels_is_not_blamed_on_the_size():
    with pytest.raises(ModelError, match=r"RGB images.*to have 4 channels") as caught:
        load(nn.Conv2d(4, 5, 3))(torch.rand(1, 3, 32, 32))
    assert "input_size" not in str(caught.value)


def test_what_a_network_prints_goes_to_stderr(capsys):
    load(Tiny(lambda x: print("hello") or x))(torch.rand(1, 3, 32, 32))
    out, err = capsys.readouterr()
    assert (out, "hello" in err) == ("", True)


def test_input_size_brings_native_logits_to_the_images_own_size():
    network, images = Tiny(), torch.rand(2, 3, 50, 61)
    prediction = load(network, input_size=(32, 40))(images)
    small = F.interpolate(images, (32, 40), mode="bilinear", antialias=True)
    with torch.no_grad():
        features = network.features(normalised(small))
        native = network.classifier(features)
    torch.testing.assert_close(prediction.features, features)
    expected = F.interpolate(native, (50, 61), mode="bilinear")
    torch.testing.assert_close(prediction.logits, expected, atol=1e-4, rtol=0)


def test_input_size_and_padding_combine():
    network, images = UNet(), torch.rand(1, 3, 80, 100)
    prediction = load(network, input_size=(40, 50))(images)
    assert prediction.covered == (128, 128)
    small = F.interpolate(images, (40, 50), mode="bilinear", antialias=True)
    with torch.no_grad():
        output = network(F.pad(normalised(small), (0, 14, 0, 24), mode="replicate"))
    expected = F.interpolate(output, (128, 128), mode="bilinear")[..., :80, :100]
    torch.testing.assert_close(prediction.logits, expected, atol=1e-4, rtol=0)


def test_uint8_and_float_give_the_same():
    segmenter = load(Tiny())
    images = torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8)
    assert torch.equal(segmenter(images).logits, segmenter(images.float() / 255).logits)


def test_half_precision_network_keeps_its_features():
    segmenter = load(Tiny().bfloat16())
    prediction = segmenter(torch.rand(1, 3, 32, 32))
    assert prediction.logits.dtype == torch.float32
    assert prediction.features is not None


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


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda x: x[:, :1], "two classes"),
        (lambda x: x.argmax(1, keepdim=True), "before argmax"),
        (lambda x: x.flatten(1), "B, C, H, W"),
        (lambda x: {"seg": x}, "dict with 'seg'"),
        (lambda x: "nothing", "got str"),
        (lambda x: (x.argmax(1),), "tuple of Tensor"),
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
    with pytest.raises(UsageError, match=r"1x1 convolution, got 'body\.0'"):
        load(Tiny(), classifier="body.0")
    with pytest.raises(ModelError, match="no per-pixel classifier"):
        load(Queries2(), classifier="extra")(images)


class Queries2(Queries):
    def __init__(self):
        super().__init__()
        self.extra = nn.Conv2d(3, CLASSES, 1)


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


def test_is_a_segmenter_that_leaves_no_hooks_and_runs_in_evaluation_mode():
    network = nn.Sequential(nn.Dropout(0.5), Tiny())
    segmenter, images = load(network), torch.rand(1, 3, 32, 32)
    assert isinstance(segmenter, Segmenter)
    assert isinstance(segmenter, NetworkSegmenter)
    first = segmenter(images)
    network.train()
    assert torch.equal(first.logits, segmenter(images).logits)
    assert not first.logits.requires_grad
    assert not any(layer._forward_hooks for layer in network.modules())


def test_description_tells_what_was_found():
    segmenter = load(Tiny(), input_size=(32, 32), mean=(0, 0, 0), std=(1, 1, 1))
    assert segmenter.description["classes"] is None
    segmenter(torch.rand(1, 3, 50, 60))
    assert segmenter.description == {
        "source": "Tiny",
        "kind": "module",
        "classes": CLASSES,
        "classifier": "classifier",
        "features": FEATURES,
        "features_missing": None,
        "stride": 4,
        "align_corners": False,
        "input_size": [32, 32],
        "divisor": None,
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
        "channels": "rgb",
        "notes": [],
        "sha256": None,
    }
