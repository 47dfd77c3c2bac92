"""What to expect of whole images without labels: mIoU and the share of wrong pixels.

Nothing here is fitted to images. Lines fitted to the images of one sequence made both expectations
worse on another (`docs/segments.md`).
"""

from __future__ import annotations

import numpy as np

from doubtmap.metrics.accumulator import Array
from doubtmap.segments.table import SegmentTable


def image_figures(table: SegmentTable, expected: Array) -> tuple[Array, Array]:
    """Expected mIoU and expected share of wrong pixels of each image.

    With the probabilities P(c) of pixels taken at their word, the IoU of a class is about
    `sum of P(c) where c is predicted / (pixels predicted c + sum of P(c) elsewhere)`. Meta
    regression expects the mean over its segments, weighted by size. The mIoU is the mean of both,
    over the classes predicted in the image. The share of wrong pixels is 1 - mean confidence, or
    the mean of the score `wrong` where the table has it; so a network that is sure of its mistakes
    needs a calibrator.

    Args:
        table: segments of all the images.
        expected: `(S,)` IoU that meta regression expects of each.

    Returns:
        `(I,)` and `(I,)`, in [0, 1].
    """
    images, classes = len(table.image_names), sum(n.startswith("probability:") for n in table.names)
    first = next(at for at, name in enumerate(table.names) if name.startswith("probability:"))
    size = table.features[:, table.names.index("size")]
    mass = table.features[:, first : first + classes] * size[:, None]
    own = mass[np.arange(len(table)), table.classes]
    cell = table.image * classes + table.classes
    predicted, meeting, meta = (
        np.bincount(cell, weights, images * classes).reshape(images, classes)
        for weights in (size, own, size * expected)
    )
    claimed = np.stack([np.bincount(table.image, m, images) for m in mass.T], 1)
    there = predicted > 0
    by_probability = meeting / np.where(there, predicted + claimed - meeting, 1)
    by_segments = meta / np.where(there, predicted, 1)
    miou = np.where(there, (by_probability + by_segments) / 2, 0).sum(1) / there.sum(1)
    wrong = size - own
    if "wrong:mean" in table.names:
        wrong = size * table.features[:, table.names.index("wrong:mean")]
    share = np.bincount(table.image, wrong, images) / predicted.sum(1)
    return np.clip(miou, 0, 1), np.clip(share, 0, 1)
