"""Does a confidence of 0.8 mean right four times in five? ECE and its relatives, Brier, NLL.

The same is asked of one event, such as *this pixel is wrong*: does what has a probability of 0.2
come true one time in five?
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from doubtmap.errors import DataError, UsageError
from doubtmap.kernels import at_least_float32
from doubtmap.kernels.counted import binned
from doubtmap.metrics.accumulator import Array, ArrayLike, State, Sums, same_shape, to_numpy
from doubtmap.metrics.bootstrap import BootstrapSums
from doubtmap.metrics.histogram import Histogram, keyed

ONCE = np.ones(1)


@dataclass
class ReliabilitySums(Sums):
    """Sums over pixels from which the binned figures follow; float64 throughout.

    Args:
        confidence: `(M, 3)`: by bin of the largest probability, pixels, right ones, and the sum
            of the probability. Bin m is `(m / M, (m + 1) / M]`.
        classwise: `(C, M, 3)`: the same for each class's own probability and label.
        losses: `(3,)`: pixels, sum of the Brier score, sum of the negative log-likelihood.
    """

    confidence: Array
    classwise: Array
    losses: Array

    @classmethod
    def empty(cls, classes: int, bins: int) -> Self:
        """Nothing seen yet."""
        return cls(np.zeros((bins, 3)), np.zeros((classes, bins, 3)), np.zeros(3))

    @property
    def pixels(self) -> float:
        """How many pixels were seen."""
        return float(self.losses[0])

    @property
    def ece(self) -> float:
        """Expected calibration error: mean over pixels of |accuracy - confidence| of their bin."""
        return mean_gap(self.confidence)

    @property
    def mce(self) -> float:
        """Maximum calibration error: the largest gap of any bin that holds pixels."""
        count, right, confidence = self.confidence.T
        held = count > 0
        if not held.any():
            return float("nan")
        return float((np.abs(right - confidence)[held] / count[held]).max())

    @property
    def classwise_ece(self) -> float:
        """Mean over classes of the ECE of each class's own probability."""
        return float(np.mean([mean_gap(sums) for sums in self.classwise]))

    @property
    def brier(self) -> float:
        """Mean over pixels of the squared distance of probabilities and one-hot label, [0, 2]."""
        return float(self.losses[1] / self.losses[0]) if self.pixels else float("nan")

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood of the label, in nats."""
        return float(self.losses[2] / self.losses[0]) if self.pixels else float("nan")

    def diagram(self) -> tuple[Array, Array, Array]:
        """Mean confidence, accuracy (NaN where empty) and share of pixels, each `(M,)`."""
        return diagram_of(self.confidence)


class Reliability:
    """Accumulates the calibration of class probabilities, in fixed memory.

    The binned figures and losses are exact; adaptive ECE and KS come from a fine histogram of
    the confidence (2^20 bins), within which pixels count as evenly mixed.

    Args:
        classes: C.
        bins: M, equal widths for ECE, MCE and class-wise ECE, equal shares for adaptive ECE.

    Reference:
        On Calibration of Modern Neural Networks (Guo et al., 2017),
        https://arxiv.org/abs/1706.04599 (ECE, MCE); Measuring Calibration in Deep Learning
        (Nixon et al., 2019), https://arxiv.org/abs/1904.01685 (adaptive, class-wise);
        Calibration of Neural Networks using Splines (Gupta et al., 2021),
        https://arxiv.org/abs/2006.12800 (KS)
    """

    def __init__(self, classes: int, bins: int = 15) -> None:
        self._sums = BootstrapSums(1)
        self._sums.add(ReliabilitySums.empty(classes, bins).state(), ONCE)
        self.doubts = Histogram(shape=(3,))
        """Of 1 - confidence: right pixels, wrong pixels, sum of 1 - confidence."""

    @property
    def sums(self) -> ReliabilitySums:
        """The sums of all frames, whatever their order was."""
        return ReliabilitySums(**next(self._sums.each()))

    def update(
        self,
        logits: Tensor,
        label: Tensor,
        valid: Tensor | None = None,
        classes: Tensor | None = None,
    ) -> None:
        """Take pixels.

        Args:
            logits: `(B, C, H, W)`, finite; for probabilities pass their logarithm.
            label: `(B, H, W)` class indices where valid.
            valid: `(B, H, W)` bool; the rest counts for nothing. Default: all.
            classes: `(B, H, W)` the predicted class, whose probability is the confidence.
                Default: the class of the largest logit, which rounding makes the first of equals
                where a calibrator has divided by a huge temperature.

        Raises:
            UsageError: for shapes that do not fit, or labels outside [0, C) where valid.
        """
        self.add(*self.measure(logits, label, valid, classes))

    def measure(
        self,
        logits: Tensor,
        label: Tensor,
        valid: Tensor | None = None,
        classes: Tensor | None = None,
    ) -> tuple[ReliabilitySums, Array, Array]:
        """What `add` takes: a frame's sums, and for each pixel 1 - confidence and wrong or not."""
        count, bins = self.sums.classwise.shape[:2]
        log_p, truth, chosen = _select(logits, label, valid, classes, count)
        # Softmax, not exp of log_softmax: PyTorch's exp differs in the last bit from run to run.
        p, of_truth = log_p.softmax(0), log_p.gather(0, truth[None])[0].double()
        right = p.gather(0, truth[None])[0].double()
        brier = p.to(torch.float64, copy=True).square_().sum(0) - 2 * right + 1
        told = (chosen != truth).cpu().numpy()
        classwise = binned(p.cpu().numpy(), truth.cpu().numpy(), bins)
        doubt = p.scatter_(0, chosen[None], 0.0).sum(0)
        sums = ReliabilitySums(
            binned((1 - doubt)[None].cpu().numpy(), told, bins)[0],
            classwise,
            np.array([truth.numel(), float(brier.sum()), float(-of_truth.sum())]),
        )
        return sums, doubt.cpu().numpy(), told

    def add(self, sums: ReliabilitySums, doubt: Array, wrong: Array) -> None:
        """Take a frame, as `measure` returns it."""
        keys = keyed(doubt)
        self._sums.add(sums.state(), ONCE)
        self.doubts.update(keys, wrong, more=(2, doubt))

    def __add__(self, other: Self) -> Self:
        total = type(self)(*self.sums.classwise.shape[:2])
        for one in (self, other):
            total.absorb(one)
        return total

    def absorb(self, other: Reliability) -> None:
        """Add what another has summed."""
        self._sums.absorb(other._sums)
        self.doubts.absorb(other.doubts)

    @property
    def ece(self) -> float:
        """Expected calibration error, pooled over all pixels."""
        return self.sums.ece

    @property
    def mce(self) -> float:
        """Maximum calibration error, pooled."""
        return self.sums.mce

    @property
    def classwise_ece(self) -> float:
        """Class-wise ECE, pooled."""
        return self.sums.classwise_ece

    @property
    def brier(self) -> float:
        """Mean Brier score, in [0, 2]."""
        return self.sums.brier

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood, in nats."""
        return self.sums.nll

    @property
    def adaptive_ece(self) -> float:
        """ECE with bins that hold equal shares of the pixels."""
        pixels, gap = self._cumulated()
        if not pixels[-1]:
            return float("nan")
        edges = np.linspace(0, pixels[-1], self.sums.classwise.shape[1] + 1)
        return float(np.abs(np.diff(np.interp(edges, pixels, gap))).sum() / pixels[-1])

    @property
    def ks(self) -> float:
        """Largest gap of confidence and accuracy, cumulated from the least confident pixel on."""
        pixels, gap = self._cumulated()
        return float(np.abs(gap[-1] - gap).max() / pixels[-1]) if pixels[-1] else float("nan")

    def state(self) -> State:
        """The sums as named arrays."""
        fine = {f"doubts.{name}": array for name, array in self.doubts.state().items()}
        return self._sums.state() | fine

    @classmethod
    def from_state(cls, state: State) -> Self:
        """The accumulator whose `state()` this was."""
        reliability = cls(*state["classwise"].shape[1:3])
        plain = {name: array for name, array in state.items() if not name.startswith("doubts.")}
        reliability._sums = BootstrapSums.from_state(plain, 1)
        fine = {n.removeprefix("doubts."): a for n, a in state.items() if n.startswith("doubts.")}
        reliability.doubts = Histogram.from_state(fine)
        return reliability

    def _cumulated(self) -> tuple[Array, Array]:
        """Pixels, and confidence minus accuracy, summed from the most confident pixel on."""
        right, wrong, doubt = self.doubts.view().counts
        pixels = np.cumsum(np.concatenate([[0], right + wrong]))
        # (1 - doubt) - right, summed: wrong pixels minus doubt.
        return pixels, np.cumsum(np.concatenate([[0], wrong - doubt]))


def brier_score(logits: Tensor, label: Tensor) -> Tensor:
    """Brier score of every pixel.

    Args:
        logits: `(B, C, H, W)`.
        label: `(B, H, W)` class indices in [0, C).

    Returns:
        `(B, H, W)` in [0, 2].
    """
    p = at_least_float32(logits).softmax(1)
    right = p.gather(1, label.long()[:, None])[:, 0]
    squares = p.square() if p.requires_grad else p.square_()
    return squares.sum(1) - 2 * right + 1


def _select(
    logits: Tensor, label: Tensor, valid: Tensor | None, classes: Tensor | None, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities `(C, N)`, labels and predicted classes `(N,)` of the valid pixels."""
    if logits.ndim != 4 or logits.shape[1] != count or label.shape != logits[:, 0].shape:
        raise UsageError(
            f"Reliability: expected logits (B, {count}, H, W) and labels (B, H, W), got "
            f"{tuple(logits.shape)} and {tuple(label.shape)}."
        )
    if classes is not None and classes.shape != label.shape:
        raise UsageError(
            f"Reliability: expected classes and labels of one shape, got {tuple(classes.shape)} "
            f"and {tuple(label.shape)}."
        )
    keep = torch.ones_like(label, dtype=torch.bool) if valid is None else valid.bool()
    if keep.shape != label.shape:
        raise UsageError(
            f"Reliability: expected valid and labels of one shape, got {tuple(keep.shape)} and "
            f"{tuple(label.shape)}."
        )
    places = keep.reshape(-1).nonzero()[:, 0]
    truth = label.reshape(-1).index_select(0, places).long()
    if truth.numel() and not 0 <= int(truth.min()) <= int(truth.max()) < count:
        raise UsageError(
            f"Reliability: expected labels in [0, {count}), got {int(truth.min())} to "
            f"{int(truth.max())}. Pass void pixels as valid=False."
        )
    selected = at_least_float32(logits.movedim(1, 0).flatten(1).index_select(1, places))
    # Of the logits: equal probabilities may have been different logits.
    if classes is None:
        chosen = selected.argmax(0)
    else:
        chosen = classes.reshape(-1).index_select(0, places).long()
    return selected.log_softmax(0), truth, chosen


def _count(at: Tensor, size: int, weight: Tensor | None = None) -> Array:
    weights = None if weight is None else weight.reshape(-1).double()
    return torch.bincount(at.reshape(-1), weights, minlength=size).double().cpu().numpy()


def confidence_sums(at: Tensor, right: Tensor, confidence: Tensor, size: int) -> Array:
    """`(size, 3)`: by bin pixels, right ones, and the sum of the confidence.

    Args:
        at: `(N,)` int64, the bin of each pixel.
        right: `(N,)`, bool.
        confidence: `(N,)`, in [0, 1].
        size: how many bins.
    """
    return np.stack([_count(at, size, weight) for weight in (None, right, confidence)], 1)


def mean_gap(sums: Array) -> float:
    """ECE from `(M, 3)`: by bin pixels, right ones, and the sum of the confidence; NaN if none."""
    count, right, confidence = sums.T
    total = count.sum()
    return float(np.abs(right - confidence).sum() / total) if total else float("nan")


def diagram_of(sums: Array) -> tuple[Array, Array, Array]:
    """Mean confidence, accuracy (NaN where empty) and share of pixels, each `(M,)`.

    Args:
        sums: `(M, 3)`: by bin pixels, right ones, and the sum of the confidence.
    """
    count, right, confidence = sums.T
    some = np.where(count > 0, count, np.nan)
    return confidence / some, right / some, count / max(count.sum(), 1)


@dataclass
class BinaryReliability(Sums):
    """Sums over pixels with a probability that they are positive; float64 throughout.

    Bins are those of `Reliability`: of the confidence, one minus the probability, with a pixel
    being right where it is not positive. So with the doubt of a softmax, and wrong for positive,
    `ece` is the same figure. It is exact; nothing is read off a finer histogram.

    Args:
        confidence: `(M, 3)`: by bin pixels, right ones, and the sum of the confidence. Bin m is
            `(m / M, (m + 1) / M]`, and 0 goes into the first.
        losses: `(2,)`: pixels, sum of the Brier score.

    Reference:
        Verification of Forecasts Expressed in Terms of Probability (Brier, 1950), of which this is
        half, as usual for two outcomes; ECE: On Calibration of Modern Neural Networks (Guo et al.,
        2017), https://arxiv.org/abs/1706.04599

    Example:
        >>> found = BinaryReliability.empty(bins=10)
        >>> found.update(np.array([0.25, 0.25, 0.75, 0.75]), np.array([True, False, True, True]))
        >>> found.ece, found.brier
        (0.25, 0.1875)
    """

    confidence: Array
    losses: Array

    @classmethod
    def empty(cls, bins: int = 15) -> Self:
        """Nothing seen yet.

        Raises:
            UsageError: for less than one bin.
        """
        if bins < 1:
            raise UsageError(f"BinaryReliability: expected at least 1 bin, got {bins}.")
        return cls(np.zeros((bins, 3)), np.zeros(2))

    def update(
        self, probability: ArrayLike, positive: ArrayLike, valid: ArrayLike | None = None
    ) -> None:
        """Take pixels.

        Args:
            probability: any shape, in [0, 1] where valid.
            positive: the same shape, bool.
            valid: the same shape, bool; the rest counts for nothing. Default: all.

        Raises:
            UsageError: where shapes differ.
            DataError: for NaN or values outside [0, 1] among the valid.
        """
        p, truth = to_numpy(probability), to_numpy(positive).astype(bool)
        same_shape("BinaryReliability", probability=p, positive=truth)
        if valid is not None:
            keep = to_numpy(valid).astype(bool)
            same_shape("BinaryReliability", probability=p, valid=keep)
            p, truth = p[keep], truth[keep]
        p, right = p.reshape(-1).astype(np.float64), ~truth.reshape(-1)
        _check(p)
        bins, confidence = len(self.confidence), 1 - p
        at = np.ceil(confidence * bins)
        at = np.clip(at - 1, 0, bins - 1, out=at).astype(np.int64)
        pixels = (np.bincount(some, minlength=bins) for some in (at, at[right]))
        self.confidence = self.confidence + np.stack(
            [*pixels, np.bincount(at, confidence, bins)], 1
        )
        self.losses = self.losses + np.array([len(p), np.square(p - ~right).sum()])

    @property
    def pixels(self) -> float:
        """How many pixels were seen."""
        return float(self.losses[0])

    @property
    def ece(self) -> float:
        """Mean over pixels of |share of positives - mean probability| of their bin; NaN if none."""
        return mean_gap(self.confidence)

    @property
    def brier(self) -> float:
        """Mean squared distance of probability and outcome, in [0, 1]; NaN without pixels."""
        return float(self.losses[1] / self.losses[0]) if self.pixels else float("nan")

    def diagram(self) -> tuple[Array, Array, Array]:
        """Mean confidence, accuracy (NaN where empty) and share of pixels, each `(M,)`."""
        return diagram_of(self.confidence)


def _check(p: Array) -> None:
    if p.size and not (p.min() >= 0 and p.max() <= 1):  # NaN is neither
        outside = ~((p >= 0) & (p <= 1))
        raise DataError(
            f"BinaryReliability: expected probabilities in [0, 1], got {p[outside][0]:g} and "
            f"{np.count_nonzero(outside) - 1} more outside. Mend the score, or leave these pixels "
            f"out as void."
        )
