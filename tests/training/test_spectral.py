import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from doubtmap.errors import ModelError, UsageError
from doubtmap.models.demo import build_demo_network
from doubtmap.training.spectral import (
    Operator,
    SpectralBound,
    bound,
    convolution_norm,
    fold,
    norms,
    settle,
)

LAYERS = {
    "same": {"kernel_size": 3, "padding": 1},
    "strided": {"kernel_size": 3, "stride": 2, "padding": 1},
    "dilated": {"kernel_size": 3, "padding": 4, "dilation": 4},
    "strided-and-dilated": {"kernel_size": 3, "stride": 2, "dilation": 2},
    "grouped": {"kernel_size": 3, "groups": 2},
    "depthwise": {"kernel_size": 3, "groups": 4, "out_channels": 4},
    "1x1": {"kernel_size": 1},
    "1x1-strided": {"kernel_size": 1, "stride": 2},
    "patches": {"kernel_size": 4, "stride": 4},
    "row": {"kernel_size": (1, 5), "padding": (0, 2)},
    "embedding": {"kernel_size": 7, "stride": 4, "padding": 3},
    "gaps": {"kernel_size": 2, "stride": 3},
    "stem": {"kernel_size": 7, "stride": 2, "padding": 3},
}


def layer_of(seed=0, **options):
    torch.manual_seed(seed)
    return nn.Conv2d(4, options.pop("out_channels", 6), **options).double()


def matrix_of(function, shape):
    """A linear function of images as a matrix (inputs, outputs)."""
    size = torch.Size(shape).numel()
    return function(torch.eye(size, dtype=torch.float64).view(size, *shape)).flatten(1)


def symbol_norm(weight, size):
    """Largest singular value of the kernel's Fourier transform at `size` frequencies an axis."""
    transformed = torch.fft.fft2(weight, s=(size, size)).permute(2, 3, 0, 1)
    return torch.linalg.matrix_norm(transformed, 2).max().item()


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_norm_is_the_largest_singular_value_of_the_explicit_matrix(options):
    layer = layer_of(**options)
    operator = Operator.of(layer, 4)
    matrix = matrix_of(lambda x: operator(x, layer.weight), (4, *operator.size))
    exact = torch.linalg.matrix_norm(matrix, 2).item()
    measured = convolution_norm(layer, 4, 800)
    assert measured == pytest.approx(exact, rel=5e-4) and measured <= exact * (1 + 1e-9)


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_back_is_the_transpose(options):
    layer = layer_of(**options)
    operator = Operator.of(layer, 4)
    matrix = matrix_of(lambda x: operator(x, layer.weight), (4, *operator.size))
    shape = operator(torch.zeros(1, 4, *operator.size).double(), layer.weight).shape[1:]
    torch.testing.assert_close(matrix_of(lambda y: operator.back(y, layer.weight), shape), matrix.T)


@pytest.mark.parametrize(("kernel", "grids"), [(3, (6, 12, 24)), (4, (8, 16)), (5, (10, 20))])
def test_norm_at_stride_1_is_the_largest_of_the_symbol(kernel, grids):
    layer = layer_of(kernel_size=kernel)
    weight = layer.weight.detach()
    measured = [convolution_norm(layer, grid, 1000) for grid in grids]
    assert measured == pytest.approx([symbol_norm(weight, grid) for grid in grids], rel=1e-4)
    limit = symbol_norm(weight, 96 if kernel == 3 else 80)
    assert sorted([*measured, limit]) == pytest.approx([*measured, limit], rel=1e-4)
    assert measured[-1] > 0.98 * limit


@pytest.mark.parametrize("size", [3, 6, 9])
def test_zero_padded_images_are_stretched_less_than_the_symbol_says(size):
    layer = layer_of(kernel_size=3)
    weight = layer.weight.detach()
    matrix = matrix_of(lambda x: F.conv2d(x, weight, padding=1), (4, size, size))
    padded = torch.linalg.matrix_norm(matrix, 2).item()
    largest = symbol_norm(weight, 60)
    assert 0.6 * largest < padded <= largest


def test_dilation_changes_no_norm_at_stride_1():
    plain, dilated = layer_of(kernel_size=3), layer_of(kernel_size=3, dilation=3)
    assert convolution_norm(dilated) == pytest.approx(convolution_norm(plain), rel=1e-9)
    images = matrix_of(
        lambda x: F.conv2d(
            F.pad(x, (6, 0, 6, 0), mode="circular"), dilated.weight.detach(), dilation=3
        ),
        (4, 9, 9),
    )
    undilated = matrix_of(
        lambda x: F.conv2d(F.pad(x, (2, 0, 2, 0), mode="circular"), plain.weight.detach()),
        (4, 3, 3),
    )
    assert torch.linalg.matrix_norm(images, 2).item() == pytest.approx(
        torch.linalg.matrix_norm(undilated, 2).item(), rel=1e-9
    )


def test_known_norms():
    mean = nn.Conv2d(1, 1, 3, padding=1)
    mean.weight.data.fill_(1 / 9)
    assert convolution_norm(mean) == pytest.approx(1)
    edge = nn.Conv2d(1, 1, (1, 2))
    edge.weight.data = torch.tensor([[[[1.0, -1.0]]]])
    assert convolution_norm(edge) == pytest.approx(2)
    point = nn.Conv2d(4, 6, 1)
    exact = torch.linalg.matrix_norm(point.weight.detach()[:, :, 0, 0], 2).item()
    assert convolution_norm(point) == pytest.approx(exact, rel=1e-5)
    grouped = nn.Conv2d(4, 4, 1, groups=2)
    blocks = torch.linalg.matrix_norm(grouped.weight.detach().view(2, 2, 2), 2)
    assert convolution_norm(grouped, iterations=2000) == pytest.approx(blocks.max().item(), 1e-5)


@given(st.floats(-8, 8).filter(lambda x: abs(x) > 1e-3))
@settings(max_examples=10, deadline=None)
def test_norm_scales_with_the_weight(factor):
    layer = layer_of(kernel_size=3)
    before = convolution_norm(layer, 4, 20)
    layer.weight.data *= factor
    assert convolution_norm(layer, 4, 20) == pytest.approx(abs(factor) * before, rel=1e-6)


def test_a_layer_below_the_coefficient_stays_and_one_above_comes_down_to_it():
    layer = layer_of(kernel_size=3)
    weight, sigma = layer.weight.detach().clone(), convolution_norm(layer, 32, 1000)
    for coefficient in (2 * sigma, sigma / 3):
        bounded = copy.deepcopy(layer)
        bound(bounded, coefficient)
        settle(bounded)
        expected = weight / max(1, sigma / coefficient)
        torch.testing.assert_close(bounded.eval().weight.detach(), expected, rtol=1e-3, atol=0)
    assert convolution_norm(bounded, 32, 1000) == pytest.approx(sigma / 3, rel=1e-3)


def unstrided(layer):
    """The kernel of a layer as one of stride 1 without dilation, over the pixels of each step."""
    (down, across), weight = layer.stride, layer.weight.detach()
    rows, columns = (d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size))
    spread = weight.new_zeros(
        *weight.shape[:2], -(-rows // down) * down, -(-columns // across) * across
    )
    spread[..., : rows : layer.dilation[0], : columns : layer.dilation[1]] = weight
    parts = spread.unflatten(3, (-1, across)).unflatten(2, (-1, down))
    return parts.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


def test_a_strided_layer_is_its_unstrided_kernel_over_the_pixels_of_a_step():
    layer = layer_of(**LAYERS["strided-and-dilated"])
    x = torch.randn(2, 4, 14, 14, dtype=torch.float64)
    steps = F.pixel_unshuffle(x, 2)
    expected = F.conv2d(x, layer.weight, None, 2, 0, 2)
    torch.testing.assert_close(F.conv2d(steps, unstrided(layer)), expected)


@pytest.mark.parametrize(
    "name", ["same", "strided", "strided-and-dilated", "dilated", "grouped", "stem"]
)
def test_the_folded_norm_is_at_the_bound_at_frequencies_between_too(name):
    """On the grid of the training alone some lay nine percent above it."""
    for seed in range(3):
        layer = layer_of(seed, **LAYERS[name])
        layer.weight.data *= 8
        network = nn.Sequential(layer)
        bound(network, 3.0)
        settle(network)
        fold(network)
        parts = unstrided(network[0]).chunk(network[0].groups)
        found = max(symbol_norm(part, 48) for part in parts)
        assert 3 * 0.99 <= found <= 3 * 1.01


@pytest.mark.parametrize(
    "name", ["embedding", "row", "depthwise", "gaps", "patches", "1x1-strided"]
)
def test_refining_finds_what_power_iteration_does(name):
    layer = layer_of(**LAYERS[name])
    rule = SpectralBound(layer, 1.0)
    rule.refine(layer.weight.detach(), 24, 100)
    expected = SpectralBound(layer, 1.0)
    expected.operator = rule.operator
    expected.image = torch.randn(rule.image.shape, dtype=torch.float64)
    for _ in range(800):
        expected.improve(layer.weight.detach())
    sigma = expected.eval().norm(layer.weight).item()
    assert rule.eval().norm(layer.weight).item() == pytest.approx(sigma, rel=2e-3)
    assert rule.image.norm().item() == pytest.approx(1)


def test_gradients_are_those_of_the_formula():
    layer = layer_of(kernel_size=3)
    rule = SpectralBound(layer, 0.3, grid=4).eval()
    weight = layer.weight.detach().requires_grad_()
    assert torch.autograd.gradcheck(rule, (weight,))


def test_gradient_through_a_settled_1x1_layer_is_that_through_the_matrix_norm():
    layer = layer_of(kernel_size=1)
    rule, weight = SpectralBound(layer, 0.3), layer.weight.detach().requires_grad_()
    for _ in range(500):
        rule.improve(weight.detach())
    target = torch.randn(weight.shape, dtype=torch.float64)
    (ours,) = torch.autograd.grad((rule.eval()(weight) * target).sum(), weight)
    sigma = torch.linalg.matrix_norm(weight[:, :, 0, 0], 2)
    (exact,) = torch.autograd.grad((weight / (sigma / 0.3) * target).sum(), weight)
    torch.testing.assert_close(ours, exact, rtol=1e-6, atol=1e-8)


def trained(network, steps=25, **options):
    torch.manual_seed(0)
    bound(network, 0.7, **options)
    optimizer = torch.optim.SGD(network.parameters(), 0.05)
    images, labels = torch.randn(2, 3, 32, 32), torch.randint(0, 8, (2, 32, 32))
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return network


@pytest.fixture(scope="module")
def bounded_demo():
    torch.manual_seed(1)
    return trained(build_demo_network(), batch_norm=True)


def test_all_norms_stay_at_the_coefficient_in_training(bounded_demo):
    measured = norms(bounded_demo, iterations=60)
    assert len(measured) == 20
    assert max(measured.values()) <= 0.7 * 1.05
    assert sum(value > 0.69 for value in measured.values()) > 10  # the bound is felt


def test_a_folded_copy_is_plain_and_gives_the_same_outputs(bounded_demo):
    network = copy.deepcopy(bounded_demo).eval()
    settle(network, grid=16)
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before = network(images)
        fold(network)
        after = network(images)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert set(network.state_dict()) == set(build_demo_network().state_dict())
    fold(network)  # nothing is left to be done
    assert max(norms(network, iterations=60).values()) <= 0.7 * 1.01
    program = torch.export.export(network, (images,))
    torch.testing.assert_close(program.module()(images), after)


def test_folding_a_copy_leaves_the_original_in_training(bounded_demo):
    fold(copy.deepcopy(bounded_demo))
    bounded_demo.train()
    bounded_demo.zero_grad()
    bounded_demo(torch.randn(2, 3, 32, 32)).sum().backward()
    gradient = bounded_demo.classifier.parametrizations["weight"].original.grad
    assert gradient is not None and gradient.abs().sum() > 0


def test_batch_norms_are_bounded_where_asked(bounded_demo):
    network = copy.deepcopy(bounded_demo)
    fold(network)
    found = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    gains = [(m.weight.abs() * (m.running_var + m.eps).rsqrt()).max().item() for m in found]
    assert max(gains) <= 0.7 * 1.001
    assert sum(gain > 0.69 for gain in gains) > 3


def test_a_weight_of_zeros_stays_and_has_finite_gradients():
    layer = nn.Conv2d(2, 2, 3)
    bound(layer, 3.0)
    nn.init.zeros_(layer.parametrizations["weight"].original)
    layer(torch.randn(1, 2, 5, 5)).sum().backward()
    assert torch.isfinite(layer.parametrizations["weight"].original.grad).all()
    assert torch.isfinite(layer.weight).all()


@pytest.mark.parametrize("coefficient", [0, -1, float("nan"), float("inf")])
def test_a_coefficient_must_be_one(coefficient):
    with pytest.raises(UsageError, match="coefficient above 0"):
        bound(nn.Conv2d(3, 3, 3), coefficient)


def test_a_network_must_have_convolutions():
    with pytest.raises(ModelError, match="with convolutions, found none"):
        bound(nn.Linear(3, 3), 3.0)
