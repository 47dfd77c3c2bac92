"""What to expect of whole images without labels: mIoU and the share of wrong pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from doubtmap.errors import DataError
from doubtmap.metrics.accumulator import Array
from doubtmap.segments.table import SegmentTable


@dataclass(frozen=True, eq=False)
class ImageLines:
    """From what segments say to what held-out images with labels had, by least squares.

    Args:
        miou: `(3,)` offset, weight of the mIoU that the probabilities expect, and of the one that
            meta regression expects.
        wrong: `(3,)` offset, weight of the doubt that the probabilities leave, and of the share
            of pixels outside of what meta regression expects to meet.
    """

    miou: Array
    wrong: Array

    @classmethod
    def fit(cls, table: SegmentTable, expected: Array, miou: Array, wrong: Array) -> ImageLines:
        """Fit to labelled images.

        Args:
            table: their segments.
            expected: `(S,)` IoU that a model expects which was not fitted to the same image.
            miou: `(I,)` of the images; NaN for one without labels, which is left out.
            wrong: `(I,)` share of the labelled pixels that are wrong.

        Raises:
            DataError: for fewer than four labelled images.
        """
        seen = image_features(table, expected)
        kept = np.isfinite(miou) & np.isfinite(wrong)
        if kept.sum() < 4:
            raise DataError(
                f"segments: expected at least 4 images with labels to fit image figures to, got "
                f"{int(kept.sum())}. Give more images."
            )
        lines = []
        for columns, target in ((seen[:, :2], miou), (seen[:, 2:], wrong)):
            design = np.column_stack([np.ones(kept.sum()), columns[kept]])
            lines.append(np.linalg.lstsq(design, target[kept], rcond=1e-6)[0])
        return cls(*lines)

    def __call__(self, table: SegmentTable, expected: Array) -> tuple[Array, Array]:
        """Expected mIoU and expected share of wrong pixels, each `(I,)` in [0, 1]."""
        seen = image_features(table, expected)
        miou = self.miou[0] + seen[:, :2] @ self.miou[1:]
        wrong = self.wrong[0] + seen[:, 2:] @ self.wrong[1:]
        return np.clip(miou, 0, 1), np.clip(wrong, 0, 1)


def image_features(table: SegmentTable, expected: Array) -> Array:
    """`(I, 4)`: two expectations of the mIoU and two of the share of wrong pixels.

    With the probabilities P(c) of pixels taken at their word, the expected IoU of a class is
    about `sum of P(c) where c is predicted / (pixels predicted c + sum of P(c) elsewhere)`; the
    mean is over the classes that are predicted in the image. Meta regression's is the mean over
    them of the expected IoU of their segments, weighted by size. Doubt is 1 - mean confidence;
    the last column is 1 - mean expected IoU of the segments, weighted by size.
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
    with np.errstate(invalid="ignore"):
        by_probability = np.where(there, meeting / (predicted + claimed - meeting), 0)
        by_segments = np.where(there, meta / predicted, 0)
    pixels = predicted.sum(1)
    return np.column_stack(
        [
            by_probability.sum(1) / there.sum(1),
            by_segments.sum(1) / there.sum(1),
            1 - meeting.sum(1) / pixels,
            1 - meta.sum(1) / pixels,
        ]
    )
