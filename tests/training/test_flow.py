"""The flow: exact log-determinants, exact inverses, samples that carry gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_flows import SMALL, flow_of

from doubtmap.errors import DataError, UsageError
from doubtmap.files.fitted import metadata_of
from doubtmap.training.flow import (
    ActNorm,
    Coupling,
    Flow,
    FlowShape,
    Mixing,
    Step,
    latent_shapes,
    softly_clamped,
)
from doubtmap.training.flow_training import read_flow, write_flow


def flattened(flow, shape):
    """The flow as a function of vectors."""

    def function(x):
        latents, _ = flow.latents(x.reshape(1, *shape))
        return torch.cat([part.flatten() for part in latents])

    return function


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (8, 24)])
def test_the_log_determinant_is_that_of_the_jacobian(size):
    flow = flow_of()
    x = torch.rand(1, 3, *size, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(
        flattened(flow, x.shape[1:]), x.flatten(), vectorize=True
    )
    expected = torch.linalg.slogdet(jacobian)[1]
    assert flow.latents(x)[1].item() == pytest.approx(expected.item(), rel=1e-9)
    assert abs(expected.item()) > 1


@pytest.mark.parametrize("layer", [ActNorm(4), Mixing(4), Coupling(4, 8), Step(4, 8)])
def test_every_layer_is_exact(layer):
    torch.manual_seed(1)
    layer = layer.double()
    with torch.no_grad():
        for part in layer.parameters():
            part.add_(0.3 * torch.randn_like(part))
    x = torch.randn(1, 4, 3, 5, dtype=torch.float64)
    y, log_determinant = layer(x)
    jacobian = torch.autograd.functional.jacobian(
        lambda v: layer(v.reshape(x.shape))[0], x.flatten()
    )
    expected = torch.linalg.slogdet(jacobian.reshape(x.numel(), x.numel()))[1]
    assert log_determinant.item() == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(layer.inverse(y), x)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_images_come_back_from_their_latent_values_at_every_size(rows, columns, seed):
    flow = flow_of(seed, dtype=torch.float32)
    x = torch.rand(2, 3, 8 * rows, 8 * columns, generator=torch.Generator().manual_seed(seed))
    latents, log_determinant = flow.latents(x)
    assert sum(part[0].numel() for part in latents) == x[0].numel()
    assert [tuple(part.shape[1:]) for part in latents] == latent_shapes(x.shape[-2:], 3)
    assert (flow.inverse(latents) - x).abs().max() < 1e-4
    assert torch.isfinite(log_determinant).all() and log_determinant.shape == (2,)


def test_a_batch_is_its_images():
    flow = flow_of()
    x = torch.rand(3, 3, 16, 24, dtype=torch.float64)
    alone = torch.cat([flow.log_density(part) for part in x.split(1)])
    torch.testing.assert_close(flow.log_density(x), alone)


def test_the_density_is_the_normal_one_where_the_flow_is_a_known_linear_map():
    """A flow that only scales has a density that can be written down."""
    flow = Flow(FlowShape(1, 1, 4)).double()
    step = flow.levels[0][0]
    with torch.no_grad():
        step.mixing.weight.copy_(torch.eye(12))
        step.norm.log_scale.fill_(math.log(4))
    x = torch.rand(2, 3, 4, 6, dtype=torch.float64)
    normal = torch.distributions.Normal(0.5, 0.25)
    expected = normal.log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(flow.log_density(x), expected)


def test_bits_of_uniform_noise_are_what_a_normal_density_needs_for_it():
    """At its start the flow whitens: 8 bits, and log2(2 pi e / 12) / 2 for the wrong shape."""
    torch.manual_seed(0)
    flow = Flow(SMALL)
    images = torch.randint(256, (2, 64, 3, 16, 16)) / 255
    flow.start(images[0])
    expected = 8 + math.log2(2 * math.pi * math.e / 12) / 2
    assert flow.bits(images[1]).mean().item() == pytest.approx(expected, abs=0.01)


def test_bits_are_those_of_the_log_density_and_leave_the_images_alone():
    flow = flow_of()
    x = (torch.rand(2, 3, 8, 8, dtype=torch.float64) * 255).round() / 255
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(3)).double()
    dequantised = ((x * 255).round() + noise) / 256
    expected = 8 - flow.log_density(dequantised) / math.log(2) / (3 * 64)
    x.requires_grad_()
    bits = flow.bits(x, torch.Generator().manual_seed(3))
    torch.testing.assert_close(bits, expected)
    bits.sum().backward()
    assert x.grad is None


def test_after_the_start_latent_values_have_mean_zero_and_deviation_one():
    torch.manual_seed(0)
    flow = Flow(SMALL)
    x = 0.3 + 0.1 * torch.randn(32, 3, 16, 16)
    flow.start(x)
    for part in flow.latents(x)[0]:
        assert abs(part.mean().item()) < 0.1 and part.std().item() == pytest.approx(1, abs=0.1)


def test_gradients_reach_every_weight_through_the_samples():
    flow = flow_of(dtype=torch.float32)
    sample = flow.sample(2, (16, 24), torch.Generator().manual_seed(0))
    assert sample.shape == (2, 3, 16, 24) and sample.min() > 0 and sample.max() <= 1
    sample.square().sum().backward()
    assert all(part.grad.abs().sum() > 0 for part in flow.parameters())


def test_the_gradient_of_a_sample_is_the_numerical_one():
    flow = flow_of()
    weight = flow.levels[1][0].mixing.weight

    def mean():
        return flow.sample(1, (8, 8), torch.Generator().manual_seed(0)).square().sum()

    mean().backward()
    step = torch.zeros_like(weight)
    step[2, 3] = 1e-6
    with torch.no_grad():
        weight += step
        more = mean()
        weight -= 2 * step
        less = mean()
    assert weight.grad[2, 3].item() == pytest.approx(((more - less) / 2e-6).item(), rel=1e-5)


def test_samples_depend_on_the_generator_alone():
    flow = flow_of()
    one, two, three = (
        flow.sample(1, (8, 8), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(one, two) and not torch.equal(one, three)


@given(st.floats(-1, 2), st.floats(-1, 2))
def test_the_clamp_is_increasing_and_bounded(first, second):
    low, high = sorted((first, second))
    values = softly_clamped(torch.tensor([low, high], dtype=torch.float64))
    assert 0 <= values[0] <= values[1] <= 1
    if 0.05 <= low <= 0.95:
        assert values[0] == low


def test_the_clamp_has_no_kink_and_a_gradient_everywhere():
    x = torch.linspace(-0.2, 1.2, 1401, dtype=torch.float64, requires_grad=True)
    softly_clamped(x).sum().backward()
    assert (x.grad > 0.01).all() and (x.grad.diff().abs() < 0.05).all()


@pytest.mark.parametrize("size", [(12, 16), (0, 8), (16, 20)])
def test_sides_that_do_not_fit_are_refused(size):
    flow = flow_of()
    with pytest.raises(UsageError, match=f"multiples of 8, got {size[0]}x{size[1]}"):
        flow.sample(1, size)
    with pytest.raises(UsageError, match="multiples of 8"):
        flow.bits(torch.zeros(1, 3, *size, dtype=torch.float64))


def test_a_file_gives_the_flow_back(tmp_path):
    flow = flow_of(dtype=torch.float32)
    write_flow(tmp_path / "f.safetensors", flow, bits=3.5)
    again, about = read_flow(tmp_path / "f.safetensors")
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(flow.log_density(x), again.log_density(x))
    assert again.shape == SMALL and about["bits"] == 3.5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 3}, "format 3, where this version reads 1 to 2"),
        ({"kind": "density"}, "it holds 'density'"),
        (
            {"entries": {"shape": {"levels": 2, "steps": 1, "hidden": 4}, "about": {}}},
            "Error.s. in load",
        ),
        ({"entries": {"shape": {"depth": 2}, "about": {}}}, "its shape lacks levels"),
    ],
)
def test_files_of_another_version_are_refused(tmp_path, change, words):
    import json

    from safetensors import safe_open

    path = tmp_path / "f.safetensors"
    write_flow(path, flow_of(dtype=torch.float32))
    with safe_open(str(path), "pt") as file:
        meta = json.loads(file.metadata()["doubtmap"].partition("\n")[0])
    text, tensors = json.dumps(meta | change), load_file(path)
    save_file(tensors, path, metadata_of(text, tensors))
    with pytest.raises(DataError, match=rf"expected a flow that.*{words}.*--flow"):
        read_flow(path)


def test_files_that_are_no_flow_are_refused(tmp_path):
    with pytest.raises(DataError, match="Leave --flow out"):
        read_flow(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(DataError, match="cannot be read"):
        read_flow(tmp_path / "text.safetensors")
    flow = flow_of(dtype=torch.float32)
    flow.levels[0][0].mixing.weight.data.zero_()
    write_flow(tmp_path / "flat.safetensors", flow)
    with pytest.raises(DataError, match="cannot be inverted"):
        read_flow(tmp_path / "flat.safetensors")
