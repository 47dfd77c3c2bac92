"""Calibration by counting: histogram binning and isotonic regression.

Both count every pixel, none is sampled, in a fixed number of fine cells of log-odds
`log p / (1 - p)`, where confidences crowded at 1 stay apart. What the cells say then becomes each
pixel's confidence, without changing which class is the likeliest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from torch import Tensor

from doubtmap.calibration.calibrator import Calibrator, Pairs, recalibrated
from doubtmap.calibration.pixels import check_extent, checked_label
from doubtmap.errors import DataError, UsageError
from doubtmap.files import Entry, Origin, Part
from doubtmap.prediction import Prediction
from doubtmap.scores.odds import CELLS, cells_of, counted, edges


def with_confidence(logits: Tensor, classes: Tensor, confidence: Tensor) -> Tensor:
    """Log-probabilities whose predicted class has the given probability.

    The other classes share the rest in the proportions that they had. Where that would put one
    of them above the predicted class, the uniform distribution is mixed in from there on, so the
    order of the classes stays. Confidence cannot go below 1 / C, where the class would no longer
    be the likeliest.

    Args:
        logits: `(B, C, H, W)`.
        classes: `(B, H, W)` int64, class of the largest logit.
        confidence: `(B, H, W)` in [0, 1].

    Returns:
        `(B, C, H, W)`, finite.
    """
    count = logits.shape[1]
    chosen = classes[:, None]
    others = logits.scatter(1, chosen, -torch.inf).softmax(1)  # among themselves
    wanted = confidence[:, None].to(others).clamp(1 / count, 1 - torch.finfo(others.dtype).eps)
    second = others.amax(1, keepdim=True)
    level = torch.maximum(wanted, second / (1 + second))  # no other class above the predicted one
    p = (others * (1 - level)).scatter(1, chosen, level)
    share = (wanted - 1 / count) / (level - 1 / count).clamp_min(torch.finfo(p.dtype).eps)
    share = torch.where(wanted < level, share.clamp(0, 1), 1.0)
    mixed = share * p + (1 - share) / count
    return mixed.clamp_min(torch.finfo(p.dtype).tiny).log()


def log_odds_of_confidence(logits: Tensor, classes: Tensor) -> Tensor:
    """`(B, H, W)`: log p / (1 - p) of the predicted class, without rounding near p = 1."""
    chosen = classes[:, None]
    others = logits.scatter(1, chosen, -torch.inf).logsumexp(1)
    return logits.gather(1, chosen)[:, 0] - others


Counts = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class HistogramBinning(Calibrator):
    """Confidence becomes the accuracy of the held-out pixels of alike confidence.

    Departs from the paper, which bins every class apart and may change predicted classes: the
    confidence of the predicted class is binned (top-label binning), the other classes share the
    rest (`with_confidence`), and the predicted class stays.

    Args:
        edges: `(M - 1,)` log-odds between the bins, ascending.
        accuracy: `(M,)` of the held-out pixels.

    Reference:
        Obtaining calibrated probability estimates from decision trees and naive Bayesian
        classifiers (Zadrozny and Elkan, 2001); Top-label calibration and multiclass-to-binary
        reductions (Gupta and Ramdas, 2022), https://arxiv.org/abs/2107.08353
    """

    edges: Tensor
    accuracy: Tensor

    PARTS: ClassVar[Mapping[str, Part | Entry]] = {
        "edges": Part("E"),
        "accuracy": Part("M", low=0, high=1),
    }

    def __post_init__(self) -> None:
        if len(self.accuracy) != len(self.edges) + 1 or bool((self.edges.diff() <= 0).any()):
            raise UsageError(
                f"histogram: expected ascending edges between {len(self.accuracy)} bins, got "
                f"{len(self.edges)} numbers."
            )

    @classmethod
    def fit(cls, pairs: Pairs, *, bins: int = 15) -> HistogramBinning:
        """Count the pixels of each bin; bins hold about equally many.

        Args:
            pairs: held-out predictions and labels, gone through once.
            bins: M.

        Raises:
            UsageError: for fewer than two bins, or more than there are cells.
            DataError: where labels are missing or all predictions are right.
        """
        if not 2 <= bins <= CELLS:
            raise UsageError(
                f"histogram: expected at least 2 bins and {CELLS} at most, got {bins}."
            )
        counts, channels, origin = _count(pairs, _of_confidence)
        total = np.cumsum(counts.sum(0))
        wanted = np.arange(1, bins) * total[-1] / bins
        cuts = np.unique(np.searchsorted(total, wanted) + 1)
        cuts = cuts[(cuts < CELLS) & (total[cuts - 1] < total[-1])]
        right, every = (np.add.reduceat(row, np.r_[0, cuts]) for row in (counts[1], counts.sum(0)))
        return cls(
            edges=torch.from_numpy(edges()[cuts - 1]).float(),
            accuracy=torch.from_numpy(right / np.maximum(every, 1)).float(),
            channels=channels,
            origin=origin,
        )

    def apply(self, prediction: Prediction) -> Prediction:
        """Look accuracies up."""
        logits, classes = prediction.logits, prediction.classes
        odds = log_odds_of_confidence(logits, classes)
        at = torch.bucketize(odds, self.edges.to(odds), right=True)
        confidence = self.accuracy.to(odds)[at]
        return recalibrated(prediction, with_confidence(logits, classes, confidence), keep=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Isotonic(Calibrator):
    """One rising map for the probabilities of all classes, then normalised.

    Rising, it keeps the order of the classes and so the predicted class.

    Args:
        levels: `(cells,)` log-probability for each cell of log-odds, ascending.

    Reference:
        Transforming classifier scores into accurate multiclass probability estimates (Zadrozny
        and Elkan, 2002); one map for all classes: Mix-n-Match (Zhang et al., 2020),
        https://arxiv.org/abs/2003.07329
    """

    levels: Tensor

    PARTS: ClassVar[Mapping[str, Part | Entry]] = {"levels": Part(str(CELLS), high=0)}

    @classmethod
    def fit(cls, pairs: Pairs) -> Isotonic:
        """Pool adjacent violators over the counts of all cells.

        Args:
            pairs: held-out predictions and labels, gone through once.

        Raises:
            DataError: where labels are missing or all predictions are right.
        """
        counts, channels, origin = _count(pairs, _of_every_class)
        hits, every = counts[1], counts.sum(0)
        held = every > 0
        rising = isotonic_regression(hits[held] / every[held], weights=every[held]).x
        half = 0.5 / every.sum()  # half a pixel, so that nothing is impossible
        rising = rising.clip(half, 1 - half)
        levels = np.interp(np.arange(CELLS), np.flatnonzero(held), np.log(rising))
        return cls(levels=torch.from_numpy(levels).float(), channels=channels, origin=origin)

    def apply(self, prediction: Prediction) -> Prediction:
        """Look probabilities up."""
        cells = cells_of(_of_every_class(prediction))
        logits = self.levels.to(prediction.logits)[cells]
        return recalibrated(prediction, logits, keep=True)


def _of_confidence(prediction: Prediction) -> Tensor:
    return log_odds_of_confidence(prediction.logits, prediction.classes)[:, None]


def _of_every_class(prediction: Prediction) -> Tensor:
    """`(B, C, H, W)`: log p / (1 - p) of every class."""
    log_p = prediction.logits.log_softmax(1)
    odds = log_p - torch.log1p(-log_p.exp().clamp_max(1 - 1e-7))
    classes = prediction.classes
    exact = log_odds_of_confidence(prediction.logits, classes)
    return odds.scatter(1, classes[:, None], exact[:, None])


def _count(pairs: Pairs, odds_of: Callable[[Prediction], Tensor]) -> tuple[Counts, int, Origin]:
    """`(2, cells)`: misses and hits of all pixels, by cell; number of classes; class names."""
    counts, channels, wrong = np.zeros((2, CELLS)), 0, 0
    names: tuple[str, ...] = ()
    for prediction, label in pairs:
        there = checked_label(label, prediction) >= 0
        check_extent(prediction)
        channels, names = prediction.native_logits.shape[1], names or prediction.class_names
        odds = odds_of(prediction)
        wrong += int((prediction.classes != label)[there].sum())
        every = torch.arange(channels, device=label.device)[None, :, None, None]
        asked = prediction.classes[:, None] if odds.shape[1] == 1 else every
        hit = (asked == label[:, None]).expand_as(odds)
        counts += counted(odds.movedim(1, -1)[there], hit.movedim(1, -1)[there])
    if not counts.sum():
        raise DataError(
            "calibrate: expected pixels labelled with a class of the model, found none. Pass "
            "labelled images whose class names are the model's."
        )
    if not wrong:
        raise DataError(
            "calibrate: expected some wrong pixels to learn from, but all are right. Fit on "
            "held-out images on which the network makes mistakes."
        )
    return counts, channels, Origin(class_names=names)
