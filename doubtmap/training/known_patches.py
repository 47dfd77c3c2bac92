"""Patches of known content: cut from views where no pixel is void, so that a flow learns no other.

Void is what labels leave open, held-out classes, and the rim that a crop adds beyond the image.
"""

from __future__ import annotations

import torch
from torch import Tensor

TRIES = 8
"""Places that are drawn for each patch; the one with the least void is taken."""


def places(
    labels: Tensor, size: tuple[int, int], generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw a place for a patch in every image, of some places the one with the least void.

    Args:
        labels: `(B, H, W)`, below 0 where void.
        size: height and width of the patch, at most those of the labels.
        generator: of the places, on the CPU.

    Returns:
        `(B, 2)` int64, top and left, and `(B,)` bool: whether the place is without void.
    """
    height, width = size
    most = torch.tensor([labels.shape[1] - height + 1, labels.shape[2] - width + 1])
    drawn = torch.rand(len(labels), TRIES, 2, generator=generator)
    tried = (drawn * most).long().to(labels.device)
    sums = summed((labels < 0).to(torch.int32))
    image = torch.arange(len(labels), device=labels.device)[:, None]
    top, left = tried.unbind(-1)
    void = sums[image, top + height, left + width] - sums[image, top, left + width]
    void += sums[image, top, left] - sums[image, top + height, left]
    least, best = void.min(1)
    return tried[image[:, 0], best], least == 0


def summed(counts: Tensor) -> Tensor:
    """`(B, H + 1, W + 1)`, sums of `(B, H, W)` over all above and left of a corner."""
    return torch.nn.functional.pad(counts, (1, 0, 1, 0)).cumsum(1).cumsum(2)


def cut(images: Tensor, corners: Tensor, size: tuple[int, int]) -> Tensor:
    """`(B, 3, h, w)`, the patch of `size` at each image's corner `(B, 2)`."""
    parts = [
        image[:, top : top + size[0], left : left + size[1]]
        for image, (top, left) in zip(images, corners.tolist())
    ]
    return torch.stack(parts)
