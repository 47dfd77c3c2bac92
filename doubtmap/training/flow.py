"""A normalizing flow of image patches: exact likelihood and samples at any size divisible by 8.

It is fully convolutional and its prior is one standard normal for all values, so one set of
weights serves all sizes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doubtmap.errors import UsageError
from doubtmap.training.flow_layers import Step, through

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
        self._check(*size)
        like = next(self.parameters())
        noise = [
            torch.randn(count, *shape, generator=generator).to(like)
            for shape in latent_shapes(size, self.shape.levels)
        ]
        return softly_clamped(self.inverse(noise))

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
