"""The flow against normflows (Stimper et al., 2023, https://doi.org/10.21105/joss.05361).

`twin` builds the same function of that library's parts with our weights in them: Squeeze, GlowBlock
(ActNorm, Invertible1x1Conv, AffineCouplingBlock with its ConvNet2d), Merge, DiagGaussian and
MultiscaleFlow. So latent values, what leaves on each level, the determinant of every layer, their
sums, the density and the way back are all compared with the library's own. Two things are not: the
bound of the log-scale, for which it has no counterpart, is written out again in `Bounded`, and the
shift of images by one half is done by hand.
"""

import math

import pytest
import torch
from tiny_flows import flow_of
from torch import nn

from doubtmap.training.flow import ActNorm, FlowShape, Mixing, latent_shapes

nf = pytest.importorskip("normflows", reason="the oracle is not installed")

SIZES = [(8, 8), (16, 24), (32, 8)]
SHAPES = [FlowShape(3, 2, 8), FlowShape(2, 3, 6), FlowShape(1, 1, 4)]


class Bounded(nn.Module):
    """The network of a coupling, with `2 tanh(r / 2)` for each log-scale `r`, on odd channels."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        shift, raw = self.network(x).unflatten(1, (-1, 2)).unbind(2)
        return torch.stack([shift, 2 * torch.tanh(raw / 2)], 2).flatten(1, 2)


def copy_norm(ours, theirs):
    theirs.s.data, theirs.t.data = -ours.log_scale.detach(), -ours.bias.detach()
    theirs.data_dep_init_done = torch.tensor(1.0)


def copy_mixing(ours, theirs):
    theirs.W.data = ours.weight.detach()


def copy_network(ours, theirs):
    """Our log-scales and then shifts become shifts and log-scales in turns."""
    state = ours.state_dict()
    for name in ("4.weight", "4.bias"):
        raw, shift = state[name].chunk(2)
        state[name] = torch.stack([shift, raw], 1).flatten(0, 1)
    theirs.net.load_state_dict(state)


def block_of(step):
    """A step as the library's block, which maps back what ours maps forth, but for couplings."""
    first = step.coupling.says[0]
    block = nf.flows.GlowBlock(
        2 * first.in_channels, first.out_channels, scale_map="exp", use_lu=False
    ).double()
    coupling, mixing, norm = block.flows
    network = coupling.flows[1].param_map
    copy_norm(step.norm, norm)
    copy_mixing(step.mixing, mixing)
    copy_network(step.coupling.says, network)
    block.flows[0] = nf.flows.Reverse(nf.flows.AffineCouplingBlock(Bounded(network)))
    return block


def twin(flow, size):
    """The same flow of images less one half, of one size; the library's first level is our last."""
    shapes = latent_shapes(size, flow.shape.levels)[::-1]
    return nf.MultiscaleFlow(
        [nf.distributions.DiagGaussian(shape, trainable=False) for shape in shapes],
        [
            [*(block_of(step) for step in reversed(steps)), nf.flows.Squeeze()]
            for steps in reversed(flow.levels)
        ],
        [nf.flows.Merge() for _ in shapes[1:]],
        class_cond=False,
    ).double()


@pytest.fixture(params=SHAPES, ids=lambda shape: f"{shape.levels} levels")
def flow(request):
    return flow_of(3, request.param)


@pytest.mark.parametrize("size", SIZES)
def test_latent_values_determinant_and_density_are_those_of_the_library(flow, size):
    x, other = torch.rand(3, 3, *size, dtype=torch.float64), twin(flow, size)
    latents, log_determinant = flow.latents(x)
    theirs, their_determinant = other.inverse_and_log_det(x - 0.5)
    for ours, part in zip(latents, reversed(theirs), strict=True):
        torch.testing.assert_close(ours, part)
    torch.testing.assert_close(log_determinant, their_determinant)
    torch.testing.assert_close(flow.log_density(x), other.log_prob(x - 0.5, None))
    assert log_determinant.abs().max() > 1 and log_determinant.std() > 1e-3


@pytest.mark.parametrize("size", SIZES)
def test_images_are_those_of_the_library(flow, size):
    latents = [
        torch.randn(2, *shape, dtype=torch.float64)
        for shape in latent_shapes(size, flow.shape.levels)
    ]
    x, log_determinant = twin(flow, size).forward_and_log_det(latents[::-1])
    torch.testing.assert_close(flow.inverse(latents), x + 0.5)
    torch.testing.assert_close(flow.latents(x + 0.5)[1], -log_determinant)


def test_the_gradient_of_the_density_is_that_of_the_library():
    flow, size = flow_of(4), (16, 8)
    x = torch.rand(2, 3, *size, dtype=torch.float64, requires_grad=True)
    ours, theirs = (
        torch.autograd.grad(density.sum(), x)[0]
        for density in (flow.log_density(x), twin(flow, size).log_prob(x - 0.5, None))
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("size", [(3, 5), (1, 4)])
@pytest.mark.parametrize(
    ("ours", "theirs", "copy"),
    [
        (ActNorm, lambda: nf.flows.ActNorm((6, 1, 1)), copy_norm),
        (Mixing, lambda: nf.flows.Invertible1x1Conv(6), copy_mixing),
    ],
    ids=["ActNorm", "Mixing"],
)
def test_a_layers_determinant_is_that_of_the_library_at_every_size(ours, theirs, copy, size):
    torch.manual_seed(5)
    ours, theirs = ours(6).double(), theirs().double()
    for part in ours.parameters():
        part.data.add_(0.3 * torch.randn_like(part))
    copy(ours, theirs)
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    for one, other in zip(ours(x), theirs.inverse(x), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(ours.inverse(x), theirs.forward(x)[0])


def test_actnorm_starts_as_that_of_the_library():
    """But for its deviation, which divides by one value less."""
    x = 2 + 3 * torch.randn(4, 6, 5, 7, dtype=torch.float64)
    ours, theirs = ActNorm(6).double(), nf.flows.ActNorm((6, 1, 1)).double()
    ours.start(x)
    theirs.inverse(x)
    values = x[:, 0].numel()
    torch.testing.assert_close(ours.bias, -theirs.t)
    fewer = math.log(values / (values - 1)) / 2
    torch.testing.assert_close(ours.log_scale, fewer - theirs.s, atol=1e-6, rtol=0)
