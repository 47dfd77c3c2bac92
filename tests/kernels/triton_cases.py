"""The Triton pass held to the reference: run by `test_triton.py` in a process of its own.

On the CUDA device where there is one, else in Triton's interpreter, which is slow: images are tiny,
and classes few, since each of them is one more turn of the same loop.
"""

import math

import pytest
import torch
from held_to_reference import (
    EXTREMES,
    ORDERS,
    compare_extremes,
    compare_norms,
    compare_statistics,
    compare_weights,
)

from doubtmap import kernels
from doubtmap.kernels import reference, triton_pass
from doubtmap.prediction import Prediction
from doubtmap.scores import pixel_gradient_norm

DEVICE = triton_pass.device_type()
SOME, MANY = (5, 24) if triton_pass.interpreted() else (19, 200)
PLACES = {
    "same grid": ((5, 7), None, False),
    "half a sample inside": ((11, 19), None, False),
    "aligned corners": ((11, 19), None, True),
    "padded": ((9, 18), (12.0, 20.5), False),
    "reduced": ((3, 4), None, False),
}
places = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def made(classes, spread=4.0, images=1):
    return torch.randn(images, classes, 5, 7).to(DEVICE) * spread


def test_triton_serves():
    assert kernels.available(DEVICE)["kernels"] == "triton"


@places
@pytest.mark.parametrize("classes", [2, SOME])
def test_statistics(classes, place):
    compare_statistics(made(classes), place, temperature=2.0)


@pytest.mark.parametrize("temperature", [0.5, 10.0])
def test_statistics_at_other_temperatures(temperature):
    compare_statistics(made(5, 30.0), PLACES["aligned corners"], temperature)


def test_statistics_of_many_classes():
    x = made(MANY)
    found = kernels.resized_statistics(x, *PLACES["padded"])
    expected = kernels.pixel_statistics(kernels.resize_logits(x.cpu().double(), *PLACES["padded"]))
    assert torch.equal(found.classes.cpu(), expected.classes)
    for one, other in zip(found[1:6], expected[1:6]):
        torch.testing.assert_close(one.cpu().double(), other, rtol=2e-5, atol=1e-5)


def test_the_divergence_of_many_classes():
    x = made(MANY)
    found = kernels.resized_divergence(x, 2.0, (5, 7)).cpu().double()
    expected = reference.uniform_divergence(x.cpu().double(), 2.0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_many_images_of_many_blocks():
    compare_statistics(torch.randn(2, 3, 20, 13).to(DEVICE) * 4, ((60, 11), None, False))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_as_it_is_read(dtype):
    x = made(6).to(dtype)
    for place in (PLACES["same grid"], PLACES["padded"]):
        half, single = (kernels.resized_statistics(t, *place) for t in (x, x.float()))
        assert half.entropy.dtype == torch.float32
        assert all(torch.equal(a, b) for a, b in zip(half[:6], single[:6]))


@pytest.mark.parametrize(
    "layout",
    [
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: x.repeat_interleave(2, 0).repeat_interleave(3, 3)[::2, :, :, ::3],
        lambda x: torch.nn.functional.pad(x, (3, 2, 1, 4))[:, :, 1:-4, 3:-2],
    ],
    ids=["channels last", "transposed", "every other", "cropped"],
)
def test_strides_change_nothing(layout):
    x = made(4, images=2)
    for place in (PLACES["same grid"], PLACES["padded"]):
        one, other = (kernels.resized_statistics(t, *place) for t in (x, layout(x)))
        assert all(torch.equal(a, b) for a, b in zip(one[:6], other[:6]))


@pytest.mark.parametrize("logits", EXTREMES[3:7])
def test_extreme_logits(logits):
    compare_extremes(logits, DEVICE)


def test_the_first_class_among_equals():
    found = kernels.resized_statistics(torch.zeros(1, 7, 3, 3, device=DEVICE), (6, 6))
    assert (found.classes == 0).all() and (found.margin == 1).all()


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("label", ["predicted", "uniform"])
@pytest.mark.parametrize("variant", ["exact", "published"])
def test_norms_of_weights(p, label, variant):
    compare_weights(made(5, 5.0), p, label, variant)


@places
def test_norms_of_resized_weights(place):
    for label in ("predicted", "uniform"):
        compare_weights(made(4), 0.5, label, "exact", place)


def test_confident_pixels_keep_their_order():
    gaps = torch.arange(1.0, 5000.0, 13.0)
    x = torch.stack([gaps, torch.zeros_like(gaps)]).reshape(1, 2, 1, -1).to(DEVICE)
    for p in ORDERS:
        norm = kernels.log_weight_norm(x, p, "predicted", "exact").flatten()
        assert (norm.diff() < 0).all()


def test_a_uniform_softmax_has_no_gradient_against_the_uniform_label():
    for classes in (2, 7):
        x = torch.full((1, classes, 2, 3), 0.3, device=DEVICE)
        assert (kernels.log_weight_norm(x, 0.5, "uniform", "exact") == -torch.inf).all()


@pytest.mark.parametrize("p", ORDERS)
def test_norms_of_features(p):
    features = torch.relu(made(6))
    compare_norms(
        kernels.log_feature_norm(features, p).cpu(),
        reference.log_feature_norm(features.cpu().double(), p),
        p,
    )


@places
def test_norms_of_resized_features(place):
    features = made(3).abs() + 0.1
    expected = reference.log_feature_norm(kernels.resize(features.cpu().double(), *place), 0.5)
    compare_norms(kernels.log_feature_norm(features, 0.5, *place).cpu(), expected, 0.5)


@pytest.mark.parametrize("p", ORDERS)
def test_features_of_any_size_have_a_norm(p):
    features = torch.tensor([1e-38, 1e-30, 1e-10, 1.0, 1e10, 1e30, 3e38])
    x = (features[:, None] * torch.tensor([1.0, -0.5, 0.25])).T.reshape(1, 3, 1, 7)
    found = kernels.log_feature_norm(x.to(DEVICE), p).cpu()
    compare_norms(found, reference.log_feature_norm(x.double(), p), p)


@pytest.mark.parametrize("p", ORDERS)
def test_zeros_infinities_and_nan_in_features_are_told(p):
    x = torch.tensor([[0.0, torch.inf, torch.nan, 2.0], [0.0, 1.0, 1.0, 0.0]]).reshape(1, 2, 1, 4)
    found = kernels.log_feature_norm(x.to(DEVICE), p).flatten()
    assert found[0] == -torch.inf and found[1] == torch.inf and found[2].isnan()
    assert found[3].item() == pytest.approx(math.log(2))


def test_what_it_does_not_take_goes_to_the_reference(monkeypatch):
    monkeypatch.setattr(triton_pass, "statistics", lambda *_, **__: pytest.fail("triton"))
    x = made(3).requires_grad_()
    kernels.resized_statistics(x, (5, 7)).energy.sum().backward()
    assert x.grad.abs().sum() > 0
    assert kernels.resized_statistics(made(3).double(), (5, 7)).energy.dtype == torch.float64
    assert kernels.resized_divergence(made(3), 1e35, (5, 7)).shape == (1, 5, 7)


def test_the_gradient_score_comes_from_it(monkeypatch):
    prediction = Prediction(made(3), size=(10, 14), features=made(4))
    found = pixel_gradient_norm(prediction).cpu()
    monkeypatch.setenv("DOUBTMAP_KERNELS", "reference")
    expected = pixel_gradient_norm(prediction).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.equal(found, expected)  # another arithmetic: it was not the reference twice
