"""A predicted map of classes as segments: connected pixels of one class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from doubtmap.errors import UsageError
from doubtmap.kernels import edges_of, segments_of
from doubtmap.metrics.accumulator import Array


@dataclass(frozen=True, eq=False)
class Partition:
    """Which segment every pixel of one image lies in.

    Args:
        labels: `(H, W)` int32, number of the segment, from 0 in reading order.
        classes: `(S,)` predicted class of each segment.
        edge: `(H, W)` bool, pixels with one of another class among their 8 neighbours; where a
            segment fills the whole image, all its pixels.
        sizes: `(S, 2)` pixels of the interior and of the edge.
        boxes: `(S, 4)` left, top, width, height, in pixels.
    """

    labels: Tensor
    classes: Array
    edge: Tensor
    sizes: Array
    boxes: Array

    @classmethod
    def of(cls, classes: Tensor) -> Partition:
        """The 8-connected segments of a map of classes `(H, W)`.

        Raises:
            UsageError: for another shape, or an empty one.
        """
        if classes.ndim != 2 or not classes.numel():
            raise UsageError(
                f"Partition: expected classes (H, W) of one image, got {tuple(classes.shape)}. "
                f"Take prediction.classes[0]."
            )
        labels, count = segments_of(classes)
        edge = edges_of(labels)
        if count == 1:
            edge = torch.ones_like(edge)
        flat = labels.numpy().reshape(-1)
        sides = np.bincount(2 * flat + edge.numpy().reshape(-1), minlength=2 * count)
        of_segment = np.empty(count, np.int64)
        of_segment[flat] = classes.cpu().numpy().reshape(-1)
        return cls(labels, of_segment, edge, sides.reshape(count, 2), _boxes(labels))

    def __len__(self) -> int:
        return len(self.classes)


def _boxes(labels: Tensor) -> Array:
    rows_columns = ndimage.find_objects(labels.numpy() + 1)
    return np.array(
        [(c.start, r.start, c.stop - c.start, r.stop - r.start) for r, c in rows_columns]
    )
