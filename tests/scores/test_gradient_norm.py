"""Pixel-wise gradient norms against autograd, their identities, and their numbers' range."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from predictions import pixels, random_prediction, with_features

from doubtmap import scores
from doubtmap.errors import ModelError, UsageError
from doubtmap.prediction import Prediction
from doubtmap.scores import gradient, pixel_gradient_norm

ORDERS = [0.1, 0.3, 0.5, 1, 2, 3, math.inf]
C, D = 5, 7


def norm(values, p):
    """The p-norm over the axis of classes or features."""
    if math.isinf(p):
        return values.abs().amax(1)
    return values.abs().pow(p).sum(1).pow(1 / p)


def last_layer():
    """A 1x1 convolution without bias, and features with exact zeros as after a ReLU."""
    layer = torch.nn.Conv2d(D, C, 1, bias=False, dtype=torch.float64)
    features = torch.randn(2, D, 2, 3, dtype=torch.float64).relu()
    torch.nn.init.normal_(layer.weight)
    return layer, features


def autograd_norms(layer, features, label, p):
    """One backward pass for each pixel."""
    norms = torch.zeros(features.shape[0], *features.shape[2:], dtype=torch.float64)
    for index in np.ndindex(*norms.shape):
        b, i, j = index
        logits = layer(features)[b, :, i, j]
        target = F.one_hot(logits.argmax(), C).double()
        if label == "uniform":
            target = torch.full((C,), 1 / C, dtype=torch.float64)
        loss = F.cross_entropy(logits, target)
        (slope,) = torch.autograd.grad(loss, layer.weight)
        norms[index] = norm(slope.reshape(1, -1), p)
    return norms


@pytest.mark.parametrize("label", ["predicted", "uniform"])
@pytest.mark.parametrize("p", ORDERS)
def test_exact_norms_equal_autograd_pixel_by_pixel(p, label):
    layer, features = last_layer()
    with torch.no_grad():
        prediction = with_features(layer(features), features)
    found = pixel_gradient_norm(prediction, p, label)
    sign = -1 if label == "uniform" else 1
    expected = sign * autograd_norms(layer, features, label, p)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("label", ["predicted", "uniform"])
@pytest.mark.parametrize("p", ORDERS)
def test_published_norms_weigh_by_s_times_one_minus_y(p, label):
    prediction = random_prediction(classes=C, channels=D, dtype=torch.float64)
    s = prediction.probabilities
    y = torch.full_like(s, 1 / C)
    if label == "predicted":
        y = F.one_hot(s.argmax(1), C).movedim(-1, 1).double()
    expected = norm(s * (1 - y), p) * norm(prediction.features, p)
    found = pixel_gradient_norm(prediction, p, label, "published")
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("p", ORDERS[:-1])
def test_exact_and_published_differ_by_the_predicted_class_alone(p):
    prediction = random_prediction(channels=1, dtype=torch.float64)
    prediction = with_features(prediction.logits)  # features of one: the weights' norm alone
    exact, published = (
        pixel_gradient_norm(prediction, p, "predicted", variant).double()
        for variant in ("exact", "published")
    )
    missing = 1 - prediction.probabilities.amax(1)
    torch.testing.assert_close(exact**p, published**p + missing**p, rtol=1e-5, atol=1e-12)


def test_published_uniform_at_order_one_is_the_norm_of_the_features():
    prediction = random_prediction(classes=C, channels=D)
    found = pixel_gradient_norm(prediction, 1, "uniform", "published")
    torch.testing.assert_close(found, (C - 1) / C * prediction.features.abs().sum(1))


def test_exact_predicted_at_order_one_is_twice_the_missing_probability():
    prediction = random_prediction()
    found = pixel_gradient_norm(prediction, p=1)
    expected = 2 * scores.max_softmax(prediction) * prediction.features.abs().sum(1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("p", ORDERS)
def test_a_uniform_softmax_has_no_gradient_against_the_uniform_label(p):
    # four classes: 1/4 is exact in float32, so the difference is, too
    assert pixel_gradient_norm(with_features(pixels([0.0] * 4)), p, "uniform").item() == 0


@pytest.mark.parametrize("p", ORDERS)
def test_a_confident_pixel_pulls_least_at_its_own_label_and_most_at_the_uniform_one(p):
    sure, unsure = [200.0, 0.0, 0.0, 0.0], [1.0, 0.5, 0.0, 0.0]
    prediction = with_features(pixels(sure, unsure))
    own = pixel_gradient_norm(prediction, p).flatten()
    uniform = pixel_gradient_norm(prediction, p, "uniform").flatten()
    assert own[0] == pytest.approx(0, abs=1e-30) and own[0] < own[1]
    assert uniform[0] < uniform[1] < 0
    largest = norm(torch.tensor([[0.75, 0.25, 0.25, 0.25]]), p).item()
    assert uniform[0].item() == pytest.approx(-largest, rel=1e-5)


@pytest.mark.parametrize("scale", [1, 1e4, 1e8])
def test_small_orders_with_many_large_features_stay_finite_and_in_order(scale):
    logits = 3 * torch.randn(1, 150, 8, 16)
    features = scale * torch.randn(1, 2048, 8, 16).relu() * torch.rand(1, 1, 8, 16)
    found = pixel_gradient_norm(with_features(logits, features), p=0.1).flatten()
    assert found.isfinite().all() and (found > 0).all()
    s, f = logits.double().softmax(1), features.double()
    weights = s.scatter(1, s.argmax(1, keepdim=True), 1 - s.amax(1, keepdim=True))
    log_norm = (norm(weights, 0.1).log() + norm(f, 0.1).log()).flatten()
    assert log_norm.max() > math.log(1e30)  # where a plain power would leave float32 soon
    order = log_norm.argsort()
    clear = log_norm[order].diff() > 1e-4
    assert clear.sum() > 100
    assert (found[order].diff()[clear] > 0).all()


def test_norms_below_the_continuation_are_the_norms_themselves():
    prediction = random_prediction(channels=64, dtype=torch.float64)
    s = prediction.probabilities
    weights = s.scatter(1, s.argmax(1, keepdim=True), 1 - s.amax(1, keepdim=True))
    expected = norm(weights, 0.1) * norm(prediction.features, 0.1)
    assert 1e18 < expected.max() < 1e30
    found = pixel_gradient_norm(prediction, p=0.1).double()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("label", ["predicted", "uniform"])
@pytest.mark.parametrize("variant", ["exact", "published"])
@pytest.mark.parametrize("p", ORDERS)
def test_features_of_zero_give_a_norm_of_zero(p, label, variant):
    prediction = with_features(torch.randn(1, C, 2, 2), torch.zeros(1, D, 2, 2))
    assert pixel_gradient_norm(prediction, p, label, variant).eq(0).all()


@pytest.mark.parametrize("label", ["predicted", "uniform"])
@pytest.mark.parametrize("variant", ["exact", "published"])
@pytest.mark.parametrize("p", ORDERS)
def test_extreme_logits_and_features_give_finite_norms(p, label, variant):
    logits = 1e4 * torch.randint(-1, 2, (1, C, 4, 4)).float()
    features = 10.0 ** torch.randint(-30, 30, (1, D, 4, 4))
    prediction = with_features(logits, features, size=(9, 10))
    assert pixel_gradient_norm(prediction, p, label, variant).isfinite().all()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("label", ["predicted", "uniform"])
def test_the_native_map_is_resized_as_the_network_resizes(label, align_corners):
    native = random_prediction()
    bigger = with_features(
        native.logits, native.features, size=(19, 26), align_corners=align_corners
    )
    expected = F.interpolate(
        pixel_gradient_norm(native, label=label)[:, None],
        (19, 26),
        mode="bilinear",
        align_corners=align_corners,
    )[:, 0]
    torch.testing.assert_close(pixel_gradient_norm(bigger, label=label), expected)


@pytest.mark.parametrize("covered", [None, (24, 28.5)])
def test_at_full_resolution_logits_and_features_are_resized_first(covered):
    native = random_prediction()
    bigger = with_features(native.logits, native.features, size=(19, 26), covered=covered)
    full = with_features(bigger.logits, bigger.to_size(native.features))
    found = pixel_gradient_norm(bigger, p=1, full_resolution=True)
    torch.testing.assert_close(found, pixel_gradient_norm(full, p=1))
    assert not torch.allclose(found, pixel_gradient_norm(bigger, p=1))


def test_without_features_the_error_gives_the_reason():
    prediction = Prediction(
        torch.zeros(1, 2, 1, 1), size=(1, 1), features_missing="its last layer is 3x3"
    )
    with pytest.raises(ModelError, match=r"gradient: needs .* its last layer is 3x3"):
        gradient(prediction)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"p": 0}, "p > 0"),
        ({"p": -1}, "p > 0"),
        ({"p": float("nan")}, "p > 0"),
        ({"label": "truth"}, "label"),
        ({"variant": "repo"}, "variant"),
    ],
)
def test_a_bad_parameter_is_a_usage_error(settings, message):
    with pytest.raises(UsageError, match=message):
        gradient(random_prediction(), **settings)


def test_gradient_is_the_exact_norm_of_order_one_half_at_the_predicted_label():
    prediction = random_prediction()
    expected = pixel_gradient_norm(prediction, 0.5, "predicted", "exact", False)
    assert torch.equal(gradient(prediction), expected)


@pytest.mark.parametrize("p", [0.3, 1.0, 2.0])
def test_the_gradient_in_the_bias_is_autograds_and_needs_no_features(p):
    logits = torch.randn(1, 5, 3, 4)
    bias = torch.zeros(5, requires_grad=True)
    wanted = torch.zeros(3, 4)
    for i, j in ((a, b) for a in range(3) for b in range(4)):
        pixel = logits[:, :, i, j] + bias
        loss = torch.nn.functional.cross_entropy(pixel, logits[:, :, i, j].argmax(1))
        (gradient,) = torch.autograd.grad(loss, bias)
        wanted[i, j] = gradient.abs().pow(p).sum() ** (1 / p)
    found = pixel_gradient_norm(Prediction(logits, (3, 4)), p=p, of="bias")[0]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="of=weight or of=bias"):
        pixel_gradient_norm(Prediction(logits, (3, 4)), of="both")
