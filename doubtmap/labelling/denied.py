"""Parts of predicted segments that labels deny: things that a network sees and the labels do not.

Rottmann and Reese look at predicted segments that meet nothing of their class. Such a segment is
found here as a whole; and so is the part of one that is denied where the rest is not, as when of
two cars that touch in the prediction one lacks in the labels. Strips along borders, where a
labeller's hand and a network's grid differ by some pixels, are not looked at.

Reference:
    Automated Detection of Label Errors in Semantic Segmentation Datasets via Deep Learning and
    Uncertainty Quantification (Rottmann and Reese, 2022), https://arxiv.org/abs/2207.06104
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from doubtmap.errors import UsageError
from doubtmap.kernels import segments_of
from doubtmap.metrics.accumulator import Array


@dataclass(frozen=True)
class DenialRule:
    """Which disagreements with labels are looked at.

    Args:
        smallest: pixels that one has at least.
        thinnest: pixels across that one is everywhere at least; what is thinner is cut off.
        surest: mean confidence of the network that one has at least, in [0, 1].

    Raises:
        UsageError: for values outside of these ranges.
    """

    smallest: int = 50
    thinnest: int = 5
    surest: float = 0.5

    def __post_init__(self) -> None:
        if self.smallest < 1 or self.thinnest < 1:
            raise UsageError(
                f"labels: expected pixels from 1 on, got smallest={self.smallest} and "
                f"thinnest={self.thinnest}."
            )
        if not 0 <= self.surest <= 1:
            raise UsageError(f"labels: expected a share between 0 and 1, got surest={self.surest}.")


@dataclass(frozen=True, eq=False)
class Denied:
    """One part of a predicted segment that the labels deny.

    Args:
        image: index of the image in the data set.
        predicted: index of the class that the network sees.
        labelled: index of the class that most of its pixels are labelled as.
        box: left, top, width and height, in pixels.
        area: number of its pixels.
        score: by which all are ranked, mean evidence against the label over the pixels, in nats.
        confidence: mean probability of the predicted class, in [0, 1].
        label_probability: mean probability of the labelled classes, in [0, 1].
        probability_right: that the whole segment is right, as a meta model says; None without one.
        iou: adjusted IoU of the whole segment with the labels, in [0, 1].
        mask: `(height, width)` bool, its pixels within the box.
    """

    image: int
    predicted: int
    labelled: int
    box: tuple[int, int, int, int]
    area: int
    score: float
    confidence: float
    label_probability: float
    probability_right: float | None
    iou: float
    mask: NDArray[np.bool_]


def denied_parts(classes: Tensor, label: Tensor, rule: DenialRule) -> tuple[Tensor, Array]:
    """Find the parts of one image that the network sees otherwise than the labels.

    Args:
        classes: `(H, W)`, predicted, from 0.
        label: `(H, W)` class indices; below 0 counts for nothing, and nothing there is denied.
        rule: which are looked at; `surest` is not.

    Returns:
        `(H, W)` int32, number of the part that each pixel lies in, or -1; `(N,)` predicted classes
        of the parts.

    Raises:
        UsageError: for maps that are not of one shape.
    """
    if classes.ndim != 2 or classes.shape != label.shape or not classes.numel():
        raise UsageError(
            f"denied_parts: expected classes and labels (H, W) of one image, got "
            f"{tuple(classes.shape)} and {tuple(label.shape)}."
        )
    predicted, truth = (x.cpu().to(torch.int32).numpy() for x in (classes, label))
    seen = np.where((truth >= 0) & (truth != predicted), predicted, -1)
    seen = _opened(seen, rule.thinnest)
    found, count = segments_of(torch.from_numpy(seen))
    parts = found.numpy()
    of_part = np.empty(count, np.int64)
    of_part[parts.reshape(-1)] = seen.reshape(-1)
    kept = (of_part >= 0) & (np.bincount(parts.reshape(-1), minlength=count) >= rule.smallest)
    number = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
    return torch.from_numpy(number[parts]), of_part[kept]


def _opened(seen: NDArray[np.int32], thinnest: int) -> NDArray[np.int32]:
    """What squares of so many pixels a side cover of equal values; -1 elsewhere.

    The image goes on beyond its border as it is there, so that nothing is cut off along it.
    """
    if thinnest == 1:
        return seen
    half = thinnest // 2
    padded = np.pad(seen, half, mode="edge")
    lowest, highest = (
        f(padded, thinnest, mode="nearest")
        for f in (ndimage.minimum_filter, ndimage.maximum_filter)
    )
    inside = (lowest == highest) & (padded >= 0)
    # of an even square, the origin lies right of the middle, and the mirrored one covers it
    shift = -1 if thinnest % 2 == 0 else 0
    covered = ndimage.maximum_filter(inside, thinnest, mode="constant", origin=shift)
    height, width = seen.shape
    middle = covered[half : half + height, half : half + width]
    return np.asarray(np.where(middle, seen, -1))
