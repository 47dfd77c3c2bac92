"""The invertible layers of a flow: each maps forth with its log-determinant, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

STEEPEST = 2.0
"""Largest logarithm of the factor by which a coupling stretches a value."""


class Invertible(Protocol):
    """A layer that can be undone: `y, log_determinant = layer(x)`, `x = layer.inverse(y)`."""

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Forth: `(B, C, h, w)` to the same shape, and `(B,)` or `()`, log |dy / dx|."""
        ...

    def inverse(self, y: Tensor) -> Tensor:
        """Back: `(B, C, h, w)`."""
        ...


class ActNorm(nn.Module):
    """`y = exp(s) (x + b)` for each channel.

    Args:
        channels: of the images.

    Reference:
        Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma, Dhariwal, 2018),
        https://arxiv.org/abs/1807.03039, section 3.1. Departure: the start from data is asked
        for, with `start`; it never happens by itself.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Forth."""
        pixels = x.shape[-2] * x.shape[-1]
        return self.log_scale.exp() * (x + self.bias), pixels * self.log_scale.sum()

    def inverse(self, y: Tensor) -> Tensor:
        """Back."""
        return y * (-self.log_scale).exp() - self.bias

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Give every channel of `x` mean 0 and deviation 1."""
        self.bias.copy_(-x.mean((0, 2, 3), keepdim=True))
        deviation = x.std((0, 2, 3), keepdim=True, correction=0)
        self.log_scale.copy_(-(deviation + 1e-6).log())


class Mixing(nn.Module):
    """`y = W x` at each pixel, with any `W` that can be inverted; it starts as a rotation.

    Args:
        channels: of the images.

    Reference:
        Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma, Dhariwal, 2018),
        https://arxiv.org/abs/1807.03039, section 3.2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(channels, channels))[0])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Forth."""
        pixels = x.shape[-2] * x.shape[-1]
        log_determinant = torch.linalg.slogdet(self.weight)[1]
        return torch.einsum("ij,bjhw->bihw", self.weight, x), pixels * log_determinant

    def inverse(self, y: Tensor) -> Tensor:
        """Back."""
        return torch.einsum("ij,bjhw->bihw", torch.linalg.inv(self.weight), y)


class Coupling(nn.Module):
    """`y_2 = exp(s(x_1)) x_2 + t(x_1)`, `y_1 = x_1`, for the two halves of the channels.

    `s = STEEPEST tanh(r / STEEPEST)` of what a small network says, which starts with 0, so that
    the layer starts as the identity.

    Args:
        channels: of the images, an even number.
        hidden: channels of the network's two hidden layers.

    Reference:
        Density estimation using Real NVP (Dinh, Sohl-Dickstein, Bengio, 2016),
        https://arxiv.org/abs/1605.08803, with the network of Glow.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        last = nn.Conv2d(hidden, channels, 3, padding=1)
        nn.init.zeros_(last.weight)
        assert last.bias is not None
        nn.init.zeros_(last.bias)
        self.says = nn.Sequential(
            nn.Conv2d(channels // 2, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(),
            last,
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Forth."""
        first, second = x.chunk(2, 1)
        log_scale, shift = self._said(first)
        return torch.cat([first, log_scale.exp() * second + shift], 1), log_scale.sum((1, 2, 3))

    def inverse(self, y: Tensor) -> Tensor:
        """Back."""
        first, second = y.chunk(2, 1)
        log_scale, shift = self._said(first)
        return torch.cat([first, (second - shift) * (-log_scale).exp()], 1)

    def _said(self, first: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self.says(first).chunk(2, 1)
        return STEEPEST * torch.tanh(raw / STEEPEST), shift


class Step(nn.Module):
    """`ActNorm`, `Mixing`, `Coupling`: one step of a flow."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.norm, self.mixing = ActNorm(channels), Mixing(channels)
        self.coupling = Coupling(channels, hidden)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Forth."""
        return through((self.norm, self.mixing, self.coupling), x)

    def inverse(self, y: Tensor) -> Tensor:
        """Back."""
        back: Tensor = self.norm.inverse(self.mixing.inverse(self.coupling.inverse(y)))
        return back


def through(layers: Sequence[Invertible], x: Tensor) -> tuple[Tensor, Tensor]:
    """`x` through layers one after the other, and the sum of their log-determinants `(B,)`."""
    total = x.new_zeros(len(x))
    for layer in layers:
        x, log_determinant = layer(x)
        total = total + log_determinant
    return x, total
