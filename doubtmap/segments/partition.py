"""A predicted map of classes as segments, and how well each of them meets the labels.

A segment is what hangs together of one predicted class.
"""

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


def adjusted_iou(partition: Partition, label: Tensor, valid: Tensor) -> Array:
    """The adjusted intersection over union of every predicted segment.

    With k the labelled pixels of a segment and K' those of all labelled components of its class
    that it touches: `|k and K'| / |k or (K' without other segments of this class)|`, so that a
    labelled component that two segments share is not held against either. It is 0 where the
    segment touches nothing of its class: a false positive as a whole.

    Args:
        partition: of the predicted classes.
        label: `(H, W)` class indices; any other value is something else, such as an unknown
            object, that no segment meets.
        valid: `(H, W)` bool; the rest counts for nothing. Segments are those of the whole
            prediction; the published code cuts void out of them before it finds them.

    Returns:
        `(S,)` in [0, 1]; NaN where a segment has no valid pixel.

    Raises:
        UsageError: for labels of another size.

    Reference:
        Rottmann et al. (2020), https://arxiv.org/abs/1811.00648, equation 8.
    """
    if label.shape != partition.labels.shape or valid.shape != label.shape:
        raise UsageError(
            f"adjusted_iou: expected labels of the segments' size {tuple(partition.labels.shape)}, "
            f"got {tuple(label.shape)} and {tuple(valid.shape)}."
        )
    label, valid = label.long(), valid.bool()
    kept = valid.cpu().numpy().reshape(-1)
    truth = label.cpu().numpy().reshape(-1)
    hidden = truth.max(initial=0) + 1
    things, count = segments_of(label.where(valid, hidden))
    thing, segment = things.numpy().reshape(-1)[kept], partition.labels.numpy().reshape(-1)[kept]
    truth, guess = truth[kept], partition.classes[segment]
    sizes = np.bincount(segment, minlength=len(partition))
    missed = np.bincount(thing, truth != guess, minlength=count)
    meet = truth == guess
    pairs = np.unique(segment[meet].astype(np.int64) * count + thing[meet])
    touching, touched = np.divmod(pairs, count)
    overlap = np.bincount(segment[meet], minlength=len(partition))
    beside = np.bincount(touching, missed[touched], minlength=len(partition))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(sizes > 0, overlap / (sizes + beside), np.nan))


def right_share(partition: Partition, label: Tensor, valid: Tensor) -> Array:
    """The share of every predicted segment that is right: what published meta regression expects.

    The authors' code calls it the adjusted IoU. It takes pixels of touched components off the
    union that lie in other segments of *any* class; every pixel lies in some segment, so that only
    the segment itself is left.

    Args:
        partition: as of `adjusted_iou`.
        label: as of `adjusted_iou`.
        valid: as of `adjusted_iou`.

    Returns:
        `(S,)` in [0, 1], above 0 where `adjusted_iou` is and never below it; NaN where a segment
        has no valid pixel.

    Reference:
        `evaluation/calculate.py` of https://github.com/tobiasriedlinger/uncertainty-gradients-seg
    """
    kept = valid.bool().cpu().numpy().reshape(-1)
    segment = partition.labels.numpy().reshape(-1)[kept]
    right = partition.classes[segment] == label.cpu().numpy().reshape(-1)[kept]
    sizes, rights = (
        np.bincount(segment, weights, minlength=len(partition)) for weights in (None, right)
    )
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(sizes > 0, rights / sizes, np.nan))
