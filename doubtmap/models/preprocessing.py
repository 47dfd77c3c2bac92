"""From RGB images in [0, 1] to what a network wants: size, normalisation, order, padding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.errors import UsageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

ROUNDING = 1e-3
"""How far outside [0, 1] an image may lie, as resampling leaves it."""


@dataclass(frozen=True)
class FixedSize:
    """Every image is brought to one size, in pixels, whatever its shape."""

    height: int
    width: int

    def __call__(self, size: tuple[int, int]) -> tuple[int, int]:
        """The network's size for an image of `size`."""
        return self.height, self.width

    def describe(self) -> object:
        """For results files."""
        return [self.height, self.width]


@dataclass(frozen=True)
class EdgeSize:
    """The shorter side becomes `shortest` pixels, unless the longer one would pass `longest`."""

    shortest: int
    longest: int | None = None

    def __call__(self, size: tuple[int, int]) -> tuple[int, int]:
        """The network's size for an image of `size`, its shape kept up to rounding."""
        scale = self.shortest / min(size)
        if self.longest is not None:
            scale = min(scale, self.longest / max(size))
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    def describe(self) -> object:
        """For results files."""
        return {"shortest_edge": self.shortest, "longest_edge": self.longest}


@dataclass(frozen=True)
class ImageSize:
    """Every image keeps its own size."""

    def __call__(self, size: tuple[int, int]) -> tuple[int, int]:
        """The network's size for an image of `size`."""
        return size

    def describe(self) -> object:
        """For results files."""
        return "image"


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its images.

    Args:
        mean, std: for RGB in [0, 1].
        size: from the image's `(H, W)` to the network's.
        divisor: sides are padded up to a multiple of it; None: only where the network refuses.
        bgr: whether the network wants blue first.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    size: FixedSize | EdgeSize | ImageSize = ImageSize()
    divisor: int | None = None
    bgr: bool = False

    def __call__(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """Resize and normalise; padding comes later, since not every network needs it.

        Args:
            images: `(B, 3, H, W)`, float32 RGB in [0, 1].
            dtype: of the result.

        Returns:
            `(B, 3, h, w)`.
        """
        size = self.size((images.shape[-2], images.shape[-1]))
        if size != tuple(images.shape[-2:]):
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        mean, std = (torch.tensor(v).to(images).view(1, 3, 1, 1) for v in (self.mean, self.std))
        normalised = (images - mean) / std
        return (normalised.flip(1) if self.bgr else normalised).to(dtype)


def checked_images(images: Tensor) -> Tensor:
    """Check a batch at the door and bring it to floating point.

    Args:
        images: `(B, 3, H, W)` RGB, float in [0, 1] or uint8.

    Returns:
        `(B, 3, H, W)` float32 in [0, 1].

    Raises:
        UsageError: for another type, shape or range.
    """
    if not isinstance(images, Tensor):
        raise UsageError(
            f"segmenter: expected a tensor (B, 3, H, W), got {type(images).__name__}. Convert "
            f"with torch.from_numpy(image).permute(2, 0, 1)[None]."
        )
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != 3 or 0 in shape:
        hint = "Add a batch axis with x[None]." if len(shape) == 3 else "Put RGB on axis 1."
        raise UsageError(f"segmenter: expected images (B, 3, H, W), got {shape}. {hint}")
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not images.is_floating_point():
        raise UsageError(
            f"segmenter: expected float images in [0, 1] or uint8, got {images.dtype}. Convert "
            f"with images.to(torch.uint8)."
        )
    low, high = (bound.item() for bound in images.aminmax())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise UsageError(
            f"segmenter: expected float images in [0, 1], got values from {low:.4g} to "
            f"{high:.4g}. Pass RGB before normalisation, or uint8 for 0 to 255."
        )
    return images.float()


def padded_to(x: Tensor, divisor: int) -> Tensor:
    """Repeat the last row and column until both sides are multiples of `divisor`.

    Args:
        x: `(B, 3, H, W)`.
        divisor: in pixels.

    Returns:
        `(B, 3, H', W')`, the image in its top left corner.
    """
    bottom, right = (math.ceil(side / divisor) * divisor - side for side in x.shape[-2:])
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x
