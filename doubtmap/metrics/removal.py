"""What remains of a segmentation when the most doubtful pixels are set aside: mIoU and risk.

Of each class the sums hold, by bin of doubt, its right pixels, those of it that are taken for
others, and those of others that are taken for it: all that its IoU needs.

Reference:
    DUDES: Deep Uncertainty Distillation using Ensembles for Semantic Segmentation (Landgraf et al.,
    2024), https://arxiv.org/abs/2303.09843, whose figure of what remains this is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from doubtmap.kernels.tables import BinSums
from doubtmap.metrics.accumulator import Array, State
from doubtmap.metrics.histogram import Histogram, Keyed, keyed, sums_of

BINS = 1 << 11
"""Coarse: a pixel's place within its bin counts for nothing, as pixels of a bin count as mixed."""

CODES = 255
"""Channels that one pass can count in, beside one for all that it leaves out."""

Channels = list[tuple[Array, int]]
"""For each pass: `(N,)` uint8, and how many channels; the next one is of what it leaves out."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What a network said of the pixels of one image, for all its scores.

    Args:
        classes: C.
        channels: of all pixels: their class where they are right, C and it where they are not.
        wrong: `(n,)` places of the wrong pixels.
        taken: channels of these, what they are taken for.
    """

    classes: int
    channels: Channels
    wrong: Array
    taken: Channels

    @classmethod
    def of(cls, predicted: Array, wrong: Array, labels: Array, out: Array, classes: int) -> Self:
        """Sort pixels by label and answer.

        Args:
            predicted: `(N,)` in [0, C).
            wrong: `(n,)` places of the wrong ones.
            labels: `(n,)` of these, in [0, C).
            out: `(m,)` places of pixels without a class, which do not count.
            classes: C.
        """
        codes = predicted.astype(np.uint8 if 2 * classes <= CODES else np.int32)
        codes[wrong] = labels.astype(np.int32) + classes
        codes[out] = 2 * classes
        taken = _channels(predicted[wrong], classes)
        return cls(classes, _channels(codes, 2 * classes), wrong, taken)


class Removal:
    """Right and wrong pixels of each class by doubt, in fixed memory, to be added up.

    Args:
        bins: the budget, as of `Histogram`; memory is `(24 C + 4) * bins` bytes at most.

    Example:
        >>> found = Removal()
        >>> none = np.array([], int)
        >>> answers = Answers.of(np.array([0, 0, 1, 1]), np.array([3]), np.array([0]), none, 2)
        >>> found.take(np.float32([0.1, 0.2, 0.3, 0.9]), answers)
        >>> [part.tolist() for part in found.remaining(np.array([0, 0.25]), [0, 1])]
        [[0.5833333333333333, 1.0], [0.25, 0.0], [2, 2]]
    """

    def __init__(self, bins: int = BINS) -> None:
        self.bins = bins
        self.sums: Histogram | None = None
        """Of 3 C channels: right, taken for others, others taken for it. None before the first."""

    def take(self, values: Array, answers: Answers, own: Keyed | None = None) -> None:
        """Take an image.

        Args:
            values: `(N,)` float32, doubt.
            answers: of the same pixels.
            own: the values sorted, where somebody has done so.
        """
        every = _sums(own or keyed(values), answers.channels, self.bins)
        counts = np.zeros((len(every.numbers), 3 * answers.classes))
        counts[:, : 2 * answers.classes] = every.counts
        if len(answers.wrong):
            wrong = _sums(keyed(values[answers.wrong]), answers.taken, self.bins)
            wrong = wrong.wider(min(wrong.level, every.level))
            at = np.searchsorted(every.numbers, wrong.numbers)
            counts[at, 2 * answers.classes :] = wrong.counts
        self._of(counts.shape[1]).add(replace(every, counts=counts))

    def absorb(self, other: Removal) -> None:
        """Add what another has summed."""
        if other.sums is not None:
            self._of(*other.sums.shape).absorb(other.sums)

    def remaining(self, removed: Array, classes: Sequence[int]) -> tuple[Array, Array, Array]:
        """What is left of the pixels with a class without the most doubtful of them.

        Args:
            removed: `(n,)` shares of the pixels, in [0, 1).
            classes: over which the mean IoU is taken.

        Returns:
            `(n,)` each: the mean IoU over those of the classes that are labelled or predicted among
            the pixels that are left, NaN where there is none; the share of these pixels that is
            wrong; and how many classes the mean is over.
        """
        none = np.full(len(removed), np.nan)
        if self.sums is None:
            return none, none, np.zeros(len(removed), np.int64)
        right, missed, taken = self.left(removed)
        union = (right + missed + taken)[:, list(classes)]
        with np.errstate(invalid="ignore"):
            iou = np.where(union > 0, right[:, list(classes)] / union, 0.0)
            there = (union > 0).sum(1)
            wrong = missed.sum(1) / (right + missed).sum(1)
            return iou.sum(1) / there, wrong, there

    def left(self, removed: Array) -> Array:
        """`(3, n, C)` pixels that are left: right, taken for others, others taken for the class.

        Args:
            removed: `(n,)` shares of the pixels with a class, in [0, 1); of a bin that is cut, each
                class loses this share. At least one image was taken.
        """
        assert self.sums is not None
        counts = self.sums.view().counts.reshape(3, -1, len(self.sums.view().lowest))
        self.sums.forget()
        pixels = counts[:2].sum((0, 1))
        kept = np.round((1 - removed) * pixels.sum(), 6)  # 1 - 0.7 is a little above 0.3
        left = kept[:, None] - (np.cumsum(pixels) - pixels)
        shares = np.clip(left / np.maximum(pixels, 1), 0, 1)
        return np.stack([shares @ part.T for part in counts])

    def state(self) -> State:
        """The sums as named arrays; none before the first image."""
        return {} if self.sums is None else self.sums.state()

    @classmethod
    def from_state(cls, state: State) -> Self:
        """The sums whose `state()` this was, of as many bins."""
        found = cls()
        found.sums = Histogram.from_state(state) if state else None
        return found

    def _of(self, channels: int) -> Histogram:
        if self.sums is None:
            self.sums = Histogram(self.bins, (channels,))
        return self.sums


def _channels(codes: Array, count: int) -> Channels:
    """Codes in [0, count), and `count` for what is left out, as passes count them."""
    if count <= CODES:
        return [(codes.astype(np.uint8, copy=False), count)]
    found = []
    for start in range(0, count, CODES):
        width = min(CODES, count - start)
        own = codes - start
        inside = (own >= 0) & (own < width)
        found.append((np.where(inside, own, width).astype(np.uint8), width))
    return found


def _sums(own: Keyed, channels: Channels, bins: int) -> BinSums:
    """By bin, in a row of all channels, of every bin that any of the values falls into."""
    found = [sums_of(own, bins, width + 1, channel) for channel, width in channels]
    return replace(found[0], counts=np.concatenate([each.counts[:, :-1] for each in found], 1))
