"""A normalizing flow of image patches: exact likelihood and samples at any size divisible by 8.

It is fully convolutional and its prior is one standard normal for all values, so one set of
weights serves all sizes. Each of its layers maps forth with its log-determinant, and back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doubtmap.errors import UsageError

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


LEVELS = 256
"""Values of an 8-bit image."""


MARGIN = 0.05
"""Where, from the ends of [0, 1], `softly_clamped` begins to bend."""


@dataclass(frozen=True)
class FlowShape:
    """How large a flow is.

    Args:
        levels: how often the image is folded 2 x 2 into channels; sides are multiples of
            `2^levels`.
        steps: on each level.
        hidden: channels of each coupling's network.
    """

    levels: int = 3
    steps: int = 4
    hidden: int = 32


class Flow(nn.Module):
    """Glow: `z = flow.latents(x)`, `x = flow.inverse(z)`, `flow.bits(x)`, `flow.sample(...)`.

    On each level the image is folded 2 x 2 into channels and goes through the steps; half of the
    channels then leave as latent values, but on the last level, where all do. All latent values
    are independent standard normal.

    Args:
        shape: how large it is.

    Reference:
        Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma, Dhariwal, 2018),
        https://arxiv.org/abs/1807.03039. Departures: the prior of values that leave early is not
        learnt from the others; log-scales are bounded, as in DenseFlow (Grcić, Grubišić, Šegvić,
        2021), https://arxiv.org/abs/2106.04627, whose larger network NFlowJS takes.
    """

    def __init__(self, shape: FlowShape | None = None) -> None:
        super().__init__()
        self.shape = shape or FlowShape()
        levels = self.shape.levels
        self.levels = nn.ModuleList(
            nn.ModuleList(
                Step(channels_of(level), self.shape.hidden) for _ in range(self.shape.steps)
            )
            for level in range(levels)
        )

    @property
    def divisor(self) -> int:
        """What the sides of images are multiples of."""
        return 1 << self.shape.levels

    def latents(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """From images to latent values.

        Args:
            x: `(B, 3, h, w)`, about [0, 1].

        Returns:
            Of each level `(B, C, h', w')`, all together as many as `x` has values, and `(B,)`,
            the log-determinant of their derivative by `x`.

        Raises:
            UsageError: for sides that are no multiples of `divisor`.
        """
        self._check(x.shape[-2], x.shape[-1])
        rest, latents, total = x - 0.5, [], x.new_zeros(len(x))
        for number, steps in enumerate(self._steps(), 1):
            rest, log_determinant = through(steps, F.pixel_unshuffle(rest, 2))
            total = total + log_determinant
            if number < self.shape.levels:
                rest, leaving = rest.chunk(2, 1)
                latents.append(leaving)
        return [*latents, rest], total

    def inverse(self, latents: list[Tensor]) -> Tensor:
        """From latent values, as `latents` gives them, to images `(B, 3, h, w)`, unbounded."""
        rest = latents[-1]
        for number, steps in reversed(list(enumerate(self._steps(), 1))):
            if number < self.shape.levels:
                rest = torch.cat([rest, latents[number - 1]], 1)
            for step in reversed(steps):
                rest = step.inverse(rest)
            rest = F.pixel_shuffle(rest, 2)
        return rest + 0.5

    def log_density(self, x: Tensor) -> Tensor:
        """`(B,)`, in nats, for `x` of `(B, 3, h, w)`: `sum log N(z; 0, 1) + log |dz / dx|`."""
        latents, total = self.latents(x)
        for part in latents:
            total = total - 0.5 * (part.square() + math.log(2 * math.pi)).sum((1, 2, 3))
        return total

    def bits(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Bits per dimension that 8-bit images need: an upper bound, smaller is better.

        `log2 256 - log2 p(x) / D` at `x = (v + u) / 256` for values `v` of 0 to 255, with `u`
        evenly in [0, 1): uniform dequantization. No gradient reaches the images.

        Args:
            images: `(B, 3, h, w)` in [0, 1]; brought to 8 bits first.
            generator: of `u`.

        Returns:
            `(B,)`.

        Reference:
            A note on the evaluation of generative models (Theis, van den Oord, Bethge, 2016),
            section 3.1, https://arxiv.org/abs/1511.01844
        """
        values = (images.detach() * (LEVELS - 1)).round()
        noise = torch.rand(values.shape, generator=generator).to(values)
        density = self.log_density((values + noise) / LEVELS)
        return math.log2(LEVELS) - density / (math.log(2) * images[0].numel())

    def sample(
        self, count: int, size: tuple[int, int], generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw images, differentiable by the weights: nothing is rounded.

        Args:
            count: how many.
            size: height and width in pixels.
            generator: of the latent values, on the CPU.

        Returns:
            `(count, 3, h, w)` in [0, 1], softly clamped.

        Raises:
            UsageError: for sides that are no multiples of `divisor`.
        """
        return self.drawn(self.noise(count, size, generator))

    def noise(
        self, count: int, size: tuple[int, int], generator: torch.Generator | None = None
    ) -> list[Tensor]:
        """The latent values of as many images of a size; arguments as of `sample`.

        Raises:
            UsageError: for sides that are no multiples of `divisor`.
        """
        self._check(*size)
        like = next(self.parameters())
        return [
            torch.randn(count, *shape, generator=generator).to(like)
            for shape in latent_shapes(size, self.shape.levels)
        ]

    def drawn(self, latents: list[Tensor]) -> Tensor:
        """The images of latent values, `(B, 3, h, w)` in [0, 1], as `sample` draws them."""
        if not len(latents[0]):  # of which PyTorch's `pixel_shuffle` gives other sides
            height, width = latents[0].shape[2:]
            return latents[0].new_empty(0, 3, 2 * height, 2 * width)
        return softly_clamped(self.inverse(latents))

    @torch.no_grad()
    def start(self, images: Tensor) -> None:
        """Let every `ActNorm` start from images `(B, 3, h, w)` in [0, 1]."""
        self._check(images.shape[-2], images.shape[-1])
        rest = images - 0.5
        for steps in self._steps():
            rest = F.pixel_unshuffle(rest, 2)
            for step in steps:
                step.norm.start(rest)
                rest = step(rest)[0]
            rest = rest.chunk(2, 1)[0]

    def described(self) -> dict[str, Any]:
        """What its file says of its shape."""
        return asdict(self.shape)

    def _steps(self) -> list[list[Any]]:
        return [list(steps) for steps in self.levels]  # type: ignore[call-overload]

    def _check(self, height: int, width: int) -> None:
        if min(height, width) < 1 or height % self.divisor or width % self.divisor:
            raise UsageError(
                f"flow: expected sides that are multiples of {self.divisor}, got {height}x{width}. "
                f"Crop the image."
            )


def channels_of(level: int) -> int:
    """Channels of a level's steps, from level 0."""
    return 12 << level


def latent_shapes(size: tuple[int, int], levels: int) -> list[tuple[int, int, int]]:
    """Shapes of the latent values of an image of `size`, level by level.

    Example:
        >>> latent_shapes((16, 24), 3)
        [(6, 8, 12), (12, 4, 6), (48, 2, 3)]
    """
    shapes = []
    for level in range(levels):
        height, width = (side // 2 ** (level + 1) for side in size)
        channels = channels_of(level)
        shapes.append((channels if level == levels - 1 else channels // 2, height, width))
    return shapes


def softly_clamped(x: Tensor, margin: float = MARGIN) -> Tensor:
    """Bring values into [0, 1]: as they are between the margins, bent as a hyperbola beyond.

    Below `m` it is `m^2 / (2 m - x)`, above `1 - m` its mirror image: increasing everywhere and
    with a continuous derivative that never is 0, so that a gradient reaches values far outside.

    Example:
        >>> softly_clamped(torch.tensor([0.5, -0.15]))
        tensor([0.5000, 0.0100])
    """
    low = margin**2 / (2 * margin - x.clamp(max=margin))
    high = 1 - margin**2 / (2 * margin - 1 + x.clamp(min=1 - margin))
    return torch.where(x < margin, low, torch.where(x > 1 - margin, high, x))
