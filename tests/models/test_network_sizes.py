"""Images of every size: resized, padded where the network refuses them, brought to a given one."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_networks import Tiny, UNet, normalised, own

from doubtmap.errors import ModelError, UsageError
from doubtmap.models import Ensemble, load
from doubtmap.models.ensemble import resizing

pytestmark = pytest.mark.usefixtures("seed")


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


def test_resized_like_pillow():
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    picture = Image.fromarray(pixels).resize((20, 16), Image.Resampling.BILINEAR)
    wanted = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    segmenter = load(Tiny(), input_size=(16, 20), mean=(0, 0, 0), std=(1, 1, 1))
    plain = segmenter.source.preprocessing(image / 255, torch.float32)
    rounded = segmenter.resizing("pil")
    found = rounded.source.preprocessing(image / 255, torch.float32)
    assert (found - wanted).abs().max() < 1.01 / 255
    assert (found == wanted).float().mean() > 0.98 > (plain == wanted).float().mean()
    assert torch.equal(found * 255, (found * 255).round())
    again = rounded.resizing("float")
    torch.testing.assert_close(again(image).native_logits, segmenter(image).native_logits)
    kinds = (segmenter, rounded, again)
    assert [s.description["asked"]["resize"] for s in kinds] == [None, "pil", "float"]


def test_what_cannot_be_resized_like_pillow():
    pair = Ensemble([load(Tiny()), load(Tiny())])
    members = resizing(pair, "pil").description["members"]
    assert {member["asked"]["resize"] for member in members} == {"pil"}
    with pytest.raises(UsageError, match="expected float or pil, got 'near'"):
        resizing(pair, "near")
    with pytest.raises(UsageError, match="Leave --resize out"):
        resizing(object(), "pil")
