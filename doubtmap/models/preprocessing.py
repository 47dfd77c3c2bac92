"""From RGB images in [0, 1] to what a network wants: size, normalisation, order, padding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.errors import UsageError
from doubtmap.kernels import recording

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

GREY = (0.299, 0.587, 0.114)
"""ITU-R 601's weights of red, green and blue, as Pillow's mode L has them."""
Resample = Literal["bilinear", "bicubic", "nearest"]
Resize = Literal["float", "pil"]
"""Resized values as they come, or rounded to 1/255 after each axis, as Pillow has them."""

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
    """The shorter side becomes `shortest` pixels, unless the longer one would pass `longest`.

    Without `shortest` the longer side becomes `longest`. The other side is cut to whole pixels, as
    transformers does, not rounded.
    """

    shortest: int | None
    longest: int | None = None

    def __call__(self, size: tuple[int, int]) -> tuple[int, int]:
        """The network's size for an image of `size`, its shape kept up to whole pixels."""
        low, high = min(size), max(size)
        short, long = self._sides(low, high)
        return (short, long) if size[0] <= size[1] else (long, short)

    def _sides(self, low: int, high: int) -> tuple[int, int]:
        short, long = self.shortest, self.longest
        if short is None:
            assert long is not None
            return max(1, int(long * low / high)), long
        exact: float = short
        if long is not None and high / low * short > long:
            exact = long * low / high
            short = max(1, round(exact))
        return (low, high) if low == short else (short, max(1, int(exact * high / low)))

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
class ScaledSize:
    """Sides by another rule, times a factor, in whole pixels."""

    rule: FixedSize | EdgeSize | ImageSize | ScaledSize
    factor: float

    def __call__(self, size: tuple[int, int]) -> tuple[int, int]:
        """The network's size for an image of `size`."""
        height, width = (max(1, round(side * self.factor)) for side in self.rule(size))
        return height, width

    def describe(self) -> object:
        """For results files."""
        return {"rule": self.rule.describe(), "factor": self.factor}


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its images.

    Args:
        mean, std: for RGB in [0, 1].
        size: from the image's `(H, W)` to the network's.
        divisor: sides are padded up to a multiple of it; None: only where the network refuses.
        bgr: whether the network wants blue first.
        origin: where mean and std come from; `assumed` where nobody said them.
        bands: which of an image's bands the network gets, from 1, in its order; empty: all.
        resample: how images are resized.
        window: side, in pixels, of the squares that alone the network takes: they lie evenly along
            the longer side, and what of them the image does not fill is black; None: the image as
            a whole.
        levels: whether resized values are cut to [0, 1] and rounded to 1/255, as processors do
            that resize 8-bit images.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    size: FixedSize | EdgeSize | ImageSize | ScaledSize = ImageSize()
    divisor: int | None = None
    bgr: bool = False
    origin: str = "assumed"
    bands: tuple[int, ...] = ()
    resample: Resample = "bilinear"
    levels: bool = False
    window: int | None = None

    def __call__(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """Resize and normalise; padding comes later, since not every network needs it.

        Args:
            images: `(B, 3, H, W)`, float32 RGB in [0, 1]; or other bands, as many as `mean`.
            dtype: of the result.

        Returns:
            `(B, 3, h, w)`.

        Raises:
            UsageError: for images without the bands.
        """
        images = self._banded(images)
        size = self.size((images.shape[-2], images.shape[-1]))
        if recording(images) and not isinstance(self.size, ImageSize):
            images = self._resized_by_products(images, size)
        elif size != tuple(images.shape[-2:]):
            images = self._resized(images, size)
        if self.window is not None:
            bottom, right = (max(0, self.window - side) for side in images.shape[-2:])
            images = F.pad(images, (0, right, 0, bottom))
        mean, std = (torch.tensor(v).to(images).view(1, -1, 1, 1) for v in (self.mean, self.std))
        normalised = (images - mean) / std
        return (normalised.flip(1) if self.bgr else normalised).to(dtype)

    def windows(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Top and left of the squares that the network takes of an image of this size.

        Args:
            size: `(h, w)` after resizing.
        """
        assert self.window is not None
        side, longer = self.window, max(size)
        count = math.ceil(longer / side)
        overlap = (count * side - longer) / (count - 1) if count > 1 else 0
        starts = [int(number * (side - overlap)) for number in range(count)]
        return [(start, 0) if size[0] > size[1] else (0, start) for start in starts]

    def _banded(self, images: Tensor) -> Tensor:
        """The bands that the network wants; of RGB its grey, for a network of one band."""
        if self.bands and max(self.bands) <= images.shape[1]:
            images = images[:, [band - 1 for band in self.bands]]
        elif self.bands:
            raise UsageError(
                f"segmenter: expected images with band {max(self.bands)}, got {images.shape[1]} "
                f"bands. Name bands that the images have with bands= (--bands)."
            )
        wanted = len(self.mean)
        if wanted == 1 and images.shape[1] == 3:
            grey = torch.tensor(GREY).to(images).view(1, 3, 1, 1)
            return (images * grey).sum(1, keepdim=True)
        if images.shape[1] != wanted:
            raise UsageError(
                f"segmenter: expected images of {wanted} bands, as many as mean has values, got "
                f"{images.shape[1]}. Pass mean= and std= with {images.shape[1]} values, or bands= "
                f"with {wanted} numbers."
            )
        return images

    def _resized(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        if self.resample == "nearest":
            return F.interpolate(images, size, mode="nearest-exact")
        if not self.levels:
            return F.interpolate(images, size, mode=self.resample, antialias=True).clamp(0, 1)
        for step in ((images.shape[-2], size[1]), size):  # Pillow rounds after each axis
            images = F.interpolate(images, step, mode=self.resample, antialias=True)
            images = (images.clamp(0, 1) * 255).round() / 255
        return images

    def _resized_by_products(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """The same for a graph, whose operators know no antialiasing, or not the same one."""
        if self.resample == "nearest":
            return self._resized(images, size)
        down, across = (
            shares(side, to, self.resample).to(images) for side, to in zip(images.shape[-2:], size)
        )
        images = images @ across.T
        images = (images.clamp(0, 1) * 255).round() / 255 if self.levels else images
        images = (down @ images).clamp(0, 1)
        return (images * 255).round() / 255 if self.levels else images


def shares(side: int, to: int, resample: Resample) -> Tensor:
    """What each pixel of an axis gives to each of its resized pixels, antialiased.

    Args:
        side: pixels of the axis.
        to: pixels that it is resized to.
        resample: `bilinear`, or `bicubic` with a = -0.5, as Pillow and PyTorch have it.

    Returns:
        `(to, side)` float64; rows sum to 1.
    """
    step = side / torch.tensor(to, dtype=torch.float64)
    wide = step.clamp_min(1)
    centre = (torch.arange(to, dtype=torch.float64) + 0.5) * step
    pixel = torch.arange(side, dtype=torch.float64) + 0.5
    away = ((pixel - centre[:, None]) / wide).abs()
    if resample == "bilinear":
        weights = (1 - away).clamp_min(0)
    else:
        near = (1.5 * away - 2.5) * away * away + 1
        far = ((-0.5 * away + 2.5) * away - 4) * away + 2
        weights = torch.where(away < 1, near, far) * (away < 2)
    return weights / weights.sum(1, keepdim=True)


def checked_images(images: Tensor, bands: int = 3) -> Tensor:
    """Check a batch at the door and bring it to floating point.

    Args:
        images: `(B, 3, H, W)` RGB, float in [0, 1] or uint8.
        bands: 3, or 0 where images may have any number.

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
    if len(shape) != 4 or (bands == 3 and shape[1] != 3) or 0 in shape:
        hint = "Add a batch axis with x[None]." if len(shape) == 3 else "Put RGB on axis 1."
        if len(shape) == 4 and shape[-1] != 3:
            hint += " For other bands pass mean= and std= with as many values, or bands=."
        raise UsageError(f"segmenter: expected images (B, 3, H, W), got {shape}. {hint}")
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not images.is_floating_point():
        raise UsageError(
            f"segmenter: expected float images in [0, 1] or uint8, got {images.dtype}. Convert "
            f"with images.to(torch.uint8)."
        )
    if recording(images):
        return images.float()
    low, high = (bound.item() for bound in images.aminmax())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise UsageError(
            f"segmenter: expected float images in [0, 1], got values from {low:.4g} to "
            f"{high:.4g}. Pass RGB before normalisation, or uint8 for 0 to 255."
        )
    return images.float()


def mirrored(x: Tensor, margin: int) -> Tensor:
    """Images with `margin` mirrored pixels on every side; repeated ones where they are smaller."""
    if not margin:
        return x
    mode = "reflect" if margin < min(x.shape[-2:]) else "replicate"
    return F.pad(x, (margin,) * 4, mode=mode)


def padded_to(x: Tensor, divisor: int) -> Tensor:
    """Repeat the last row and column until both sides are multiples of `divisor`.

    Args:
        x: `(B, 3, H, W)`.
        divisor: in pixels.

    Returns:
        `(B, 3, H', W')`, the image in its top left corner.
    """
    if recording(x):
        return _padded_by_choice(x, divisor)
    bottom, right = (math.ceil(side / divisor) * divisor - side for side in x.shape[-2:])
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x


def _padded_by_choice(x: Tensor, divisor: int) -> Tensor:
    """The same for a graph, in which an image of another size may need no padding."""
    if divisor == 1:
        return x
    for axis in (2, 3):
        side = x.shape[axis]
        places = torch.arange((side + divisor - 1) // divisor * divisor, device=x.device)
        x = x.index_select(axis, places.clamp(max=side - 1))
    return x


def sent(images: Tensor, device: torch.device) -> Tensor:
    """Images on a device; to one of CUDA by pinned memory, so that nobody waits for the copy."""
    if device.type != "cuda" or images.is_cuda:
        return images.to(device)
    return images.pin_memory().to(device, non_blocking=True)
