"""The value object: its checks at the door, and how maps come to the image's size."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from doubtmap.errors import DataError, UsageError
from doubtmap.kernels import resize
from doubtmap.prediction import Prediction, as_prediction


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def interpolate(maps, size, align_corners=False):
    return F.interpolate(maps, size, mode="bilinear", align_corners=align_corners)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("native", [(4, 6), (1, 1), (1, 5), (40, 60)])
def test_without_padding_resize_is_interpolate(native, align_corners):
    maps = torch.randn(2, 3, *native)
    expected = interpolate(maps, (17, 23), align_corners)
    torch.testing.assert_close(resize(maps, (17, 23), None, align_corners), expected)
    torch.testing.assert_close(resize(maps, (17, 23), (17.0, 23.0), align_corners), expected)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    native=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    padding=st.tuples(st.integers(0, 15), st.integers(0, 15)),
    align_corners=st.booleans(),
)
def test_padded_area_is_interpolated_and_cropped(native, size, padding, align_corners):
    maps = torch.randn(2, 3, *native, dtype=torch.float64)
    covered = (size[0] + padding[0], size[1] + padding[1])
    expected = interpolate(maps, covered, align_corners)[:, :, : size[0], : size[1]]
    found = resize(maps, size, covered, align_corners)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_a_float32_map_as_large_as_a_photograph_is_placed_precisely():
    ramp = torch.arange(512.0).expand(1, 1, 2, 512)
    expected = interpolate(ramp.double(), (8, 2056))[:, :, :3, :2048]
    found = resize(ramp, (3, 2048), (8, 2056))
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("align_corners", [False, True])
def test_an_area_of_fractional_pixels_is_sampled_where_it_says(align_corners):
    # a ramp along the columns: the sampled value is the position itself
    samples, pixels, covered = 9, 13, 20.5
    ramp = torch.arange(samples, dtype=torch.float64).expand(1, 1, 2, samples)
    found = resize(ramp, (4, pixels), (4, covered), align_corners)[0, 0, 0]
    pixel = torch.arange(pixels, dtype=torch.float64)
    position = (pixel + 0.5) * samples / covered - 0.5
    if align_corners:
        position = pixel * (samples - 1) / (covered - 1)
    torch.testing.assert_close(found, position.clamp(0, samples - 1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_prediction_resizes_its_logits_by_its_own_rule(align_corners):
    native = torch.randn(2, 4, 5, 6)
    prediction = Prediction(native, size=(18, 20), covered=(24, 24), align_corners=align_corners)
    expected = interpolate(native, (24, 24), align_corners)[:, :, :18, :20]
    torch.testing.assert_close(prediction.logits, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(prediction.probabilities, expected.softmax(1), rtol=1e-4, atol=1e-5)
    assert torch.equal(prediction.classes, prediction.logits.argmax(1))
    assert prediction.classes.dtype == torch.int64
    features = torch.randn(2, 3, 5, 6)
    torch.testing.assert_close(
        prediction.to_size(features),
        interpolate(features, (24, 24), align_corners)[:, :, :18, :20],
        rtol=1e-5,
        atol=1e-5,
    )


def test_native_size_logits_are_passed_on_untouched():
    native = torch.randn(1, 3, 4, 4)
    assert Prediction(native, size=(4, 4)).logits is native
    assert as_prediction(native).size == (4, 4)
    prediction = Prediction(native, size=(4, 4))
    assert as_prediction(prediction) is prediction


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_resized_in_float32(dtype):
    native = torch.randn(1, 3, 4, 4).to(dtype)
    for covered in (None, (12, 12)):
        logits = Prediction(native, size=(9, 9), covered=covered).logits
        assert logits.dtype == torch.float32
    torch.testing.assert_close(
        Prediction(native, size=(9, 9)).logits, interpolate(native.float(), (9, 9))
    )


def test_other_logits_make_a_new_prediction_of_the_same_image():
    first = Prediction(
        torch.randn(1, 3, 4, 4),
        size=(9, 9),
        covered=(10, 10),
        align_corners=True,
        features=torch.rand(1, 2, 4, 4),
        class_names=("a", "b", "c"),
    )
    before = first.logits.clone()
    other = replace(first, native_logits=first.native_logits * 2)
    torch.testing.assert_close(other.logits, 2 * before)
    assert torch.equal(first.logits, before)
    assert (other.size, other.covered, other.align_corners) == ((9, 9), (10, 10), True)
    assert other.features is first.features
    assert other.class_names == first.class_names


@pytest.mark.parametrize(
    "shape",
    [(), (3,), (3, 4), (3, 4, 4), (1, 1, 4, 4), (0, 3, 4, 4), (1, 3, 0, 4), (1, 1, 3, 4, 4)],
)
def test_logits_of_another_shape_are_a_usage_error(shape):
    with pytest.raises(UsageError, match="Prediction: expected logits"):
        Prediction(torch.zeros(shape), size=(4, 4))


def test_classes_instead_of_logits_are_a_usage_error():
    with pytest.raises(UsageError, match="floating-point"):
        Prediction(torch.zeros(1, 3, 4, 4, dtype=torch.int64), size=(4, 4))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_are_a_data_error(bad):
    logits = torch.zeros(1, 3, 4, 4)
    logits[0, 2, 3, 1] = bad
    with pytest.raises(DataError, match="finite"):
        Prediction(logits, size=(4, 4))


def test_class_names_must_match_the_classes():
    with pytest.raises(UsageError, match=r"expected 3 class names.*got 2: a, b"):
        Prediction(torch.zeros(1, 3, 4, 4), size=(4, 4), class_names=("a", "b"))


@pytest.mark.parametrize("shape", [(1, 8, 2, 2), (2, 8, 4, 4), (8, 4, 4), (1, 1, 8, 4, 4)])
def test_features_must_lie_on_the_grid_of_the_logits(shape):
    with pytest.raises(UsageError, match="features and logits on one grid"):
        Prediction(torch.zeros(1, 3, 4, 4), size=(4, 4), features=torch.zeros(shape))
