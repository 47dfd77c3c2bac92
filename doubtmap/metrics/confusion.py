"""How often each class is taken for each: mIoU, IoU per class, accuracy, over the data set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from doubtmap.errors import UsageError
from doubtmap.metrics.accumulator import Array, ArrayLike, Sums, same_shape, to_numpy


@dataclass
class Confusion(Sums):
    """Counts pixels by label (rows) and predicted class (columns).

    Args:
        counts: `(C, C)` int64.

    Example:
        >>> confusion = Confusion.empty(2)
        >>> confusion.update(np.array([0, 1, 1]), np.array([0, 1, 0]))
        >>> confusion.miou
        0.5
    """

    counts: Array

    @classmethod
    def empty(cls, classes: int) -> Self:
        """Nothing seen yet."""
        return cls(np.zeros((classes, classes), np.int64))

    def update(
        self, predicted: ArrayLike, label: ArrayLike, valid: ArrayLike | None = None
    ) -> None:
        """Count pixels.

        Args:
            predicted: class indices, any shape.
            label: class indices, the same shape.
            valid: bool, the same shape; the rest counts for nothing. Default: all.

        Raises:
            UsageError: for other shapes, or indices outside [0, C) where valid.
        """
        classes = len(self.counts)
        rows, columns = to_numpy(label), to_numpy(predicted)
        same_shape("Confusion", predicted=columns, label=rows)
        if valid is not None:
            keep = to_numpy(valid).astype(bool)
            same_shape("Confusion", label=rows, valid=keep)
            rows, columns = rows[keep], columns[keep]
        for name, index in (("label", rows), ("predicted", columns)):
            if index.size and not 0 <= index.min() <= index.max() < classes:
                raise UsageError(
                    f"Confusion: expected {name} in [0, {classes}), got {index.min()} to "
                    f"{index.max()}. Pass void pixels as valid=False."
                )
        pairs = rows.reshape(-1).astype(np.int64) * classes + columns.reshape(-1)
        self.counts += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    @property
    def iou(self) -> Array:
        """`(C,)` intersection over union; NaN for classes neither labelled nor predicted."""
        intersection = np.diag(self.counts)
        union = self.counts.sum(0) + self.counts.sum(1) - intersection
        return np.where(union > 0, intersection / np.maximum(union, 1), np.nan)

    @property
    def miou(self) -> float:
        """Mean of `iou` over the classes that are labelled or predicted anywhere."""
        return self.mean_iou(range(len(self.counts)))

    def mean_iou(self, classes: Iterable[int]) -> float:
        """Mean of `iou` over those of the classes that occur; NaN where none does."""
        iou = self.iou[list(classes)]
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")

    @property
    def accuracy(self) -> float:
        """Share of pixels whose predicted class is their label; NaN without pixels."""
        total = self.counts.sum()
        return float(np.trace(self.counts) / total) if total else float("nan")
