"""Parts of an image in which calibration is looked at on its own: boundary, inside, patches.

Reference:
    Local Temperature Scaling for Probability Calibration (Ding et al., 2021),
    https://arxiv.org/abs/2008.05105
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.errors import UsageError


def boundary_band(label: Tensor, width: int = 2) -> Tensor:
    """Pixels near a change from one class to another.

    Departs from the authors' code: void is no class, so its border is no boundary, and pixels at
    the image's edge may be in the band.

    Args:
        label: `(B, H, W)`, class indices; below 0 is void.
        width: how many pixels along rows and columns the other class may be away.

    Returns:
        `(B, H, W)` bool; False on void.

    Raises:
        UsageError: for a width below 1.

    Example:
        >>> boundary_band(torch.tensor([[[0, 0, 0, 1, 1, 1]]]), width=1).int().tolist()
        [[[0, 0, 1, 1, 0, 0]]]
    """
    if width < 1:
        raise UsageError(f"boundary_band: expected a width of at least 1 pixel, got {width}.")
    near = torch.zeros_like(label, dtype=torch.bool)
    for away in range(1, width + 1):
        for axis in (-2, -1):
            length = label.shape[axis]
            if length <= away:
                continue
            here = label.narrow(axis, 0, length - away)
            there = label.narrow(axis, away, length - away)
            change = (here != there) & (here >= 0) & (there >= 0)
            near |= _padded(change, axis, 0, away) | _padded(change, axis, away, 0)
    return near


def random_patches(
    shape: tuple[int, int], count: int = 10, side: int = 72, seed: int = 10
) -> list[tuple[slice, slice]]:
    """Places of square patches, all of them inside the image.

    Args:
        shape: `(H, W)` in pixels.
        count: how many.
        side: in pixels; smaller where the image is.
        seed: the same seed and shape give the same places.

    Raises:
        UsageError: for a count or a side below 1.
    """
    if count < 1 or side < 1:
        raise UsageError(f"random_patches: expected numbers above 0, got {count} and {side}.")
    generator = torch.Generator().manual_seed(seed)
    height, width = min(side, shape[0]), min(side, shape[1])
    tops = torch.randint(shape[0] - height + 1, (count,), generator=generator).tolist()
    lefts = torch.randint(shape[1] - width + 1, (count,), generator=generator).tolist()
    return [(slice(t, t + height), slice(x, x + width)) for t, x in zip(tops, lefts)]


def _padded(change: Tensor, axis: int, before: int, after: int) -> Tensor:
    pad = (before, after) if axis == -1 else (0, 0, before, after)
    return F.pad(change, pad)
