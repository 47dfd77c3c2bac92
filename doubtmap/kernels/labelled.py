"""Segments of a map of classes, and sums over them: in C where it is built, else NumPy and SciPy.

The door to `segments.c`, and to the pass of `pixels.c` that sums probabilities from native logits.
Both implementations number segments alike, and their sums agree but for rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from doubtmap.kernels import compiled
from doubtmap.kernels.fused import compiled_serves, for_compiled, grid_of
from doubtmap.kernels.resizing import resize_logits


def segments_of(classes: Tensor) -> tuple[Tensor, int]:
    """The 8-connected components of equal values.

    Args:
        classes: `(H, W)` integers, not empty.

    Returns:
        `(H, W)` int32 on the CPU, numbers from 0 in reading order of the first pixels; how many.
    """
    values = classes.to("cpu", torch.int32).contiguous()
    if compiled_serves():
        labels = torch.empty_like(values)
        return labels, compiled.components(values, labels)
    return _segments_of(values)


def edges_of(labels: Tensor) -> Tensor:
    """Which pixels have one of another label among their 8 neighbours.

    Args:
        labels: `(H, W)` int32 on the CPU.

    Returns:
        `(H, W)` bool; the image's border is no edge.
    """
    if compiled_serves():
        return compiled.edges(labels.contiguous())
    values = labels.numpy()
    around = np.ones((3, 3), bool)
    lowest = ndimage.minimum_filter(values, footprint=around, mode="nearest")
    highest = ndimage.maximum_filter(values, footprint=around, mode="nearest")
    return torch.from_numpy(lowest != highest)


def moments(labels: Tensor, edge: Tensor, maps: Sequence[Tensor], count: int) -> Tensor:
    """Sums and sums of squares of maps, of the interior and the edge of each segment.

    Args:
        labels: `(H, W)` int32 on the CPU, below `count`; pixels below 0 belong to no segment.
        edge: `(H, W)` bool.
        maps: each `(H, W)`, finite.
        count: of the segments.

    Returns:
        `(count, 2, M, 2)` float64: segment, interior or edge, map, first or second power.
    """
    values = [m.detach().to("cpu", torch.float32).contiguous() for m in maps]
    if compiled_serves():
        return compiled.summed_moments(labels.contiguous(), edge.contiguous(), values, count)
    parts = np.where(labels.numpy() < 0, 2 * count, 2 * labels.numpy() + edge.numpy()).reshape(-1)
    sums = np.zeros((2 * count + 1, len(values), 2))
    for index, value in enumerate(values):
        x = value.numpy().reshape(-1).astype(np.float64)
        for power in range(2):
            sums[:, index, power] = np.bincount(parts, x ** (power + 1), 2 * count + 1)
    return torch.from_numpy(sums[:-1].reshape(count, 2, len(values), 2))


def summed_probabilities(
    native_logits: Tensor,
    labels: Tensor,
    count: int,
    size: tuple[int, int],
    covered: tuple[float, float] | None = None,
    align_corners: bool = False,
) -> Tensor:
    """Sums of the probabilities of each class over the pixels of each segment.

    Compiled, the full-size logits are never made.

    Args:
        native_logits: `(1, C, h, w)`, finite.
        labels: `(H, W)` int32 on the CPU, below `count`; pixels below 0 belong to no segment.
        count: of the segments.
        size: `(H, W)` of the image.
        covered: as in `resize`.
        align_corners: as in `resize`.

    Returns:
        `(count, C)` float64.
    """
    if for_compiled(native_logits):
        grid = grid_of(native_logits, size, covered, align_corners)
        return compiled.summed_probabilities(grid, labels.contiguous(), count)
    p = resize_logits(native_logits, size, covered, align_corners)[0].softmax(0)
    at = torch.where(labels < 0, count, labels).reshape(-1).long().to(p.device)
    sums = p.new_zeros(len(p), count + 1, dtype=torch.float64)
    sums.index_add_(1, at, p.reshape(len(p), -1).double())
    return sums[:, :-1].T.cpu()


def _segments_of(values: Tensor) -> tuple[Tensor, int]:
    """`segments_of` class by class, then renumbered."""
    array = values.numpy()
    labels, count = np.zeros(array.shape, np.int32), 0
    for value in np.unique(array):
        found, more = ndimage.label(array == value, np.ones((3, 3), int))
        labels += np.where(found, found + count, 0)
        count += more
    labels -= 1
    _, first = np.unique(labels, return_index=True)
    number = np.empty(count, np.int32)
    number[np.argsort(first)] = np.arange(count, dtype=np.int32)
    return torch.from_numpy(number[labels]), count
