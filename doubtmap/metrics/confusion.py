"""How often each class is taken for each: mIoU, IoU per class, accuracy, over the data set.

Where some pixels are refused as unknown, the open-set IoU counts what is refused as well.

Reference:
    Hybrid Open-set Segmentation with Synthetic Negative Data (Grcic and Segvic, 2023),
    https://arxiv.org/abs/2301.08555
"""

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


@dataclass
class OpenSet(Sums):
    """Counts pixels of K classes and of the unknown by label (rows) and by answer (columns).

    The answer is the predicted class, or `unknown` where the doubt lies above a threshold. The IoU
    of a class k is `TP / (TP + FP + FN)` over all K + 1 rows and columns: unknown pixels answered
    with k are false positives, pixels of k that were refused are false negatives. The mean is over
    the K classes; the unknown has no IoU of its own in it.

    Args:
        counts: `(K + 1, K + 1)` int64, the unknown last.

    Example:
        >>> found = OpenSet.empty(2)
        >>> found.update(
        ...     predicted=np.array([0, 1, 1, 0]),
        ...     label=np.array([0, 1, 1, -1]),
        ...     unknown=np.array([False, False, False, True]),
        ...     refused=np.array([False, False, True, False]),
        ... )
        >>> found.iou.tolist()
        [0.5, 0.5]
    """

    counts: Array

    @classmethod
    def empty(cls, classes: int) -> Self:
        """Nothing seen yet.

        Args:
            classes: K.
        """
        return cls(np.zeros((classes + 1, classes + 1), np.int64))

    def update(
        self,
        predicted: ArrayLike,
        label: ArrayLike,
        unknown: ArrayLike,
        refused: ArrayLike,
        valid: ArrayLike | None = None,
    ) -> None:
        """Count pixels.

        Args:
            predicted: class indices in [0, K), any shape.
            label: class indices in [0, K), the same shape; anything where unknown or not valid.
            unknown: bool, the same shape, labelled unknown.
            refused: bool, the same shape, doubt above the threshold.
            valid: bool, the same shape; the rest counts for nothing. Default: all.

        Raises:
            UsageError: for other shapes, or indices outside [0, K) where they count.
        """
        classes = len(self.counts) - 1
        rows, columns = to_numpy(label), to_numpy(predicted)
        strange, above = to_numpy(unknown).astype(bool), to_numpy(refused).astype(bool)
        same_shape("OpenSet", predicted=columns, label=rows, unknown=strange, refused=above)
        counted = np.ones(rows.shape, bool) if valid is None else to_numpy(valid).astype(bool)
        same_shape("OpenSet", label=rows, valid=counted)
        for name, index, where in (
            ("label", rows, counted & ~strange),
            ("predicted", columns, counted),
        ):
            held = index[where]
            if held.size and not 0 <= held.min() <= held.max() < classes:
                raise UsageError(
                    f"OpenSet: expected {name} in [0, {classes}), got {held.min()} to "
                    f"{held.max()}. Pass void pixels as valid=False, others as unknown=True."
                )
        confusion = Confusion(self.counts)
        confusion.update(
            np.where(above, classes, columns), np.where(strange, classes, rows), counted
        )

    @property
    def iou(self) -> Array:
        """`(K,)` open-set IoU; NaN for classes neither labelled nor answered."""
        return Confusion(self.counts).iou[:-1]

    @property
    def miou(self) -> float:
        """Mean of `iou` over the classes that are labelled or answered anywhere."""
        return self.mean_iou(range(len(self.counts) - 1))

    def mean_iou(self, classes: Iterable[int]) -> float:
        """Mean of `iou` over those of the classes that occur; NaN where none does.

        Raises:
            UsageError: for a class outside [0, K).
        """
        wanted = list(classes)
        if any(not 0 <= index < len(self.counts) - 1 for index in wanted):
            raise UsageError(
                f"OpenSet: expected classes in [0, {len(self.counts) - 1}), got {wanted}."
            )
        return Confusion(self.counts).mean_iou(wanted)

    @property
    def found(self) -> float:
        """Share of unknown pixels that were refused; NaN without any."""
        unknown = self.counts[-1]
        return float(unknown[-1] / unknown.sum()) if unknown.sum() else float("nan")

    @property
    def false_alarms(self) -> float:
        """Share of the pixels with a class that were refused; NaN without any."""
        known = self.counts[:-1]
        return float(known[:, -1].sum() / known.sum()) if known.sum() else float("nan")
