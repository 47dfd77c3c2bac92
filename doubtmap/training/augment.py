"""Random views of an image with its labels: scale, flip, colour, crop.

Images are resized with blending, labels never (nearest); what a crop adds beyond the image is void.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""


@dataclass(frozen=True)
class Augmentation:
    """How far views may differ from the image.

    Args:
        scale: smallest and largest factor of the image's sides, drawn evenly in the logarithm.
        flip: probability of left for right.
        colour: brightness, contrast and saturation are each multiplied with a factor within
            `1 - colour` and `1 + colour`.
    """

    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    colour: float = 0.2


USUAL = Augmentation()
NONE = Augmentation(scale=(1.0, 1.0), flip=0.0, colour=0.0)
"""Only the crop."""


def view(
    image: Tensor,
    label: Tensor,
    crop: tuple[int, int],
    augmentation: Augmentation,
    generator: torch.Generator,
    *,
    void: int,
    fill: tuple[float, ...],
    carried: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw one view.

    Args:
        image: `(3, H, W)` uint8 RGB.
        label: `(H, W)`, integers.
        crop: height and width of the view, in pixels; smaller images are padded at the bottom
            and on the right.
        augmentation: how far the view may differ.
        generator: of everything random; the same draws whatever the image's size.
        void: label of the padding.
        fill: colour of the padding, in [0, 1].
        carried: `(K, h', w')` float32, maps that stand for the image's area and go where its
            pixels go: they become further channels, resized with blending, NaN in the padding.

    Returns:
        `(3 + K, h, w)` float32, the first three in [0, 1], and `(h, w)` int64.
    """
    size, flip, *rest = torch.rand(7, generator=generator).tolist()
    place, colour = rest[:2], rest[2:]
    low, high = augmentation.scale
    image = image.float() / 255
    if carried is not None:
        size_of_image = image.shape[-2:]
        carried = F.interpolate(carried[None], size_of_image, mode="bilinear")[0]
        image, fill = torch.cat([image, carried]), (*fill, *[math.nan] * len(carried))
    image, label = resized(image, label.long(), low * (high / low) ** size)
    image, label = cropped(image, label, crop, (place[0], place[1]), void, fill)
    if flip < augmentation.flip:
        image, label = image.flip(-1), label.flip(-1)
    if augmentation.colour:
        factors = (1 + augmentation.colour * (2 * c - 1) for c in colour)
        image = torch.cat([recoloured(image[:3], *factors), image[3:]])
    return image, label


def resized(image: Tensor, label: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """Multiply both sides with a factor: the image bilinear, the label nearest.

    Args:
        image: `(3, H, W)` float.
        label: `(H, W)`.
        factor: above 0.
    """
    height, width = image.shape[-2:]
    size = max(1, round(height * factor)), max(1, round(width * factor))
    if size == (height, width):
        return image, label
    bigger = F.interpolate(image[None], size, mode="bilinear", antialias=factor < 1)[0]
    rows, columns = (nearest(old, new) for old, new in zip((height, width), size))
    return bigger, label[rows][:, columns]


def nearest(old: int, new: int) -> Tensor:
    """`(new,)` indices into `old` samples, by their centres."""
    return ((torch.arange(new) + 0.5) * (old / new)).long().clamp(max=old - 1)


def cropped(
    image: Tensor,
    label: Tensor,
    crop: tuple[int, int],
    place: tuple[float, float],
    void: int,
    fill: tuple[float, ...],
) -> tuple[Tensor, Tensor]:
    """Cut out a window, `place` in [0, 1) saying where, and pad what is missing."""
    height, width = crop
    top, left = (int(p * (max(0, s - c) + 1)) for p, s, c in zip(place, label.shape, crop))
    image = image[:, top : top + height, left : left + width]
    label = label[top : top + height, left : left + width]
    if tuple(label.shape) == crop:
        return image, label
    colour = torch.tensor(fill, dtype=image.dtype).view(-1, 1, 1)
    canvas, blank = colour.repeat(1, height, width), label.new_full(crop, void)
    canvas[:, : label.shape[0], : label.shape[1]] = image
    blank[: label.shape[0], : label.shape[1]] = label
    return canvas, blank


def recoloured(image: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Multiply brightness, the distance to the mean grey, and the distance to each pixel's grey.

    Args:
        image: `(3, H, W)` in [0, 1].
        brightness: factor, as the others; 1 leaves the image as it is.
        contrast: factor.
        saturation: factor.

    Returns:
        The same shape, in [0, 1].
    """
    image = image * brightness
    weights = torch.tensor(LUMA).view(3, 1, 1)
    grey = (image * weights).sum(0, keepdim=True)
    image = grey + saturation * (image - grey)
    middle = grey.mean()
    return (middle + contrast * (image - middle)).clamp(0, 1)
