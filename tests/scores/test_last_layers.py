"""Gradient norms of every kind of last layer are those of autograd."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doubtmap import scores
from doubtmap.errors import UsageError
from doubtmap.models import load

CLASSES, FEATURES = 4, 5


class Tokens(nn.Module):
    """A linear layer on tokens, before which come `before` others, as in Segmenter."""

    def __init__(self, before=0, shaped=False):
        super().__init__()
        self.body = nn.Conv2d(3, FEATURES, 4, 4)
        self.before, self.shaped = nn.Parameter(torch.randn(before, FEATURES)), shaped
        self.last = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.body(x)
        if self.shaped:
            return self.last(maps.movedim(1, -1)).movedim(-1, 1)
        first = self.before.expand(len(x), -1, -1)
        tokens = self.last(torch.cat([first, maps.flatten(2).mT], 1))[:, len(self.before) :]
        return tokens.mT.unflatten(2, maps.shape[-2:])


def convolution(kernel, **options):
    return nn.Sequential(
        nn.Conv2d(3, FEATURES, 3, 2, 1), nn.ReLU(), nn.Conv2d(FEATURES, CLASSES, kernel, **options)
    )


NETWORKS = {
    "1x1": lambda: convolution(1),
    "3x3": lambda: convolution(3, padding=1),
    "5x3": lambda: convolution((5, 3), padding=(2, 1)),
    "3x3, dilated": lambda: convolution(3, padding=2, dilation=2),
    "3x3, same": lambda: convolution(3, padding="same"),
    "3x3, reflecting": lambda: convolution(3, padding=1, padding_mode="reflect"),
    "3x3, replicating": lambda: convolution(3, padding=1, padding_mode="replicate"),
    "3x3, circular": lambda: convolution(3, padding=1, padding_mode="circular"),
    "tokens": Tokens,
    "tokens after two others": lambda: Tokens(2),
    "channels last": lambda: Tokens(shaped=True),
    "transposed": lambda: nn.Sequential(
        nn.Conv2d(3, FEATURES, 4, 4), nn.ReLU(), nn.ConvTranspose2d(FEATURES, CLASSES, 2, 2)
    ),
}


def weight_of(network):
    return [p for p in network.parameters() if p.ndim > 1][-1] if not isinstance(
        network, Tokens) else network.last.weight  # fmt: skip


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("p", [0.5, 1.0, 2.0, float("inf")])
def test_norms_are_those_of_autograd(make, p):
    torch.manual_seed(0)
    network, images = make().eval(), torch.rand(1, 3, 16, 24)
    prediction = load(network, mean=(0, 0, 0), std=(1, 1, 1))(images)
    assert prediction.features is not None
    grid = prediction.native_logits.shape[-2:]
    native = scores.gradient(
        prediction.__class__(
            prediction.native_logits,
            tuple(grid),
            features=prediction.features,
            window=prediction.window,
        ),
        p=p,
    )[0]
    output, weight = network(images), weight_of(network)
    for row, column in [(0, 0), (1, 2), (grid[0] - 1, grid[1] - 1), (2, 0)]:
        logits = output[:, :, row, column]
        loss = F.cross_entropy(logits, logits.argmax(1))
        (pull,) = torch.autograd.grad(loss, weight, retain_graph=True)
        expected = torch.linalg.vector_norm(pull.double().flatten(), p)
        got = native[row, column].double()
        torch.testing.assert_close(got, expected, rtol=2e-3, atol=1e-6)


def test_a_window_has_no_full_resolution():
    prediction = load(convolution(3, padding=1))(torch.rand(1, 3, 16, 16))
    with pytest.raises(UsageError, match="Leave full_resolution out"):
        scores.gradient(prediction, full_resolution=True)


def test_a_compiled_network_keeps_its_features():
    network = torch.compile(convolution(3, padding=1), backend="eager")
    assert load(network)(torch.rand(1, 3, 16, 16)).features is not None


@pytest.mark.parametrize("kernel", [2, 3])
def test_layers_whose_grid_is_not_kept_have_none(kernel):
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 4, kernel, kernel))
    prediction = load(network)(torch.rand(1, 3, 24, 24))
    assert prediction.features is None
    assert "density(layer=" in prediction.features_missing
