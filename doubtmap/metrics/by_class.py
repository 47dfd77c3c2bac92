"""Scores of pixels class by class, each class held against the same other pixels.

Pooled figures of several classes hide that one is found and another is not. The sums of a class
are finer than those of all pixels, or as fine, so that they fall into the same bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from doubtmap.metrics.accumulator import Array, Figure, State
from doubtmap.metrics.bootstrap import BootstrapHistogram
from doubtmap.metrics.histogram import Bins, Histogram, bin_numbers, keyed, sums_of
from doubtmap.metrics.ranking import RankingCurve


@dataclass(eq=False)
class ClassSums:
    """The scores of one class's pixels.

    Args:
        pixels: by score.
        images: that have any.
        replicates: of the bootstrap over images.
    """

    pixels: Histogram
    images: int
    replicates: BootstrapHistogram

    def absorb(self, other: ClassSums) -> None:
        """Add what another has summed."""
        self.pixels.absorb(other.pixels)
        self.images += other.images
        self.replicates.absorb(other.replicates)

    @property
    def count(self) -> int:
        """Pixels of the class."""
        return int(self.pixels.view().counts.sum())

    def curve(self, bins: Bins, level: int, others: Array) -> RankingCurve:
        """The pixels of the class against others.

        Args:
            bins: the view of all pixels, among which are those of the class.
            level: of these bins.
            others: `(n,)` negatives in each bin.
        """
        own = self.pixels.sums().wider(level)
        positives = np.zeros(len(bins.lowest))
        positives[np.searchsorted(bin_numbers(bins.lowest, level), own.numbers)] = own.counts[:, 0]
        return RankingCurve.from_bins(bins, positives, others)

    def drawn(self, all_pixels: BootstrapHistogram) -> Array:
        """`(R, n)`: pixels of the class in each replicate, by the bins of all pixels'."""
        numbers, counts = self.replicates.numbered(all_pixels.level)
        there, every = all_pixels.numbered(all_pixels.level)
        positives = np.zeros((len(every), len(there)))
        positives[:, np.searchsorted(there, numbers)] = counts[:, 0]
        return positives

    def recall(self, threshold: float) -> Figure:
        """Share of the pixels whose score is above a threshold; NaN without pixels.

        Of a bin of several numbers that the threshold parts, half counts, and the bounds say so.
        """
        (sure,), (there,) = self.pixels.above(threshold)
        with np.errstate(invalid="ignore"):
            low, middle, high = np.array([sure, sure + there / 2, sure + there]) / self.count
        return Figure(float(middle), (float(low), float(high)))


class ByClass:
    """The scores of pixels, by the number of their class.

    Args:
        replicates: of the bootstrap over images.
        bins: the budget, that of the histogram of all pixels.

    Example:
        >>> import numpy as np
        >>> found = ByClass(2)
        >>> found.take(np.float32([0.9, 0.1, 0.8]), np.array([4, 4, 7]), np.ones(2))
        >>> float(found.of[4].recall(0.5))
        0.5
    """

    def __init__(self, replicates: int, bins: int = 1 << 21) -> None:
        self.replicates, self.bins = replicates, bins
        self.of: dict[int, ClassSums] = {}

    def take(self, values: Array, classes: Array, weights: Array) -> None:
        """Take an image.

        Args:
            values: `(N,)` float32, scores.
            classes: `(N,)` numbers of their classes.
            weights: `(R,)` how often the image counts in each replicate.
        """
        for number in np.unique(classes).tolist():
            own, sums = keyed(values[classes == number]), self._sums(number)
            sums.pixels.update(own)
            sums.images += 1
            drawn = sums.replicates
            drawn.add(sums_of(own, drawn.total.bins, 1), weights)

    def absorb(self, other: ByClass) -> None:
        """Add what another has summed."""
        for number, sums in other.of.items():
            self._sums(number).absorb(sums)

    def state(self) -> State:
        """The sums as named arrays."""
        return {
            f"{number}/{part}/{name}": array
            for number, sums in self.of.items()
            for part, state in (
                ("pixels", sums.pixels.state()),
                ("images", {"count": np.array([sums.images], np.int64)}),
                ("replicates", sums.replicates.state()),
            )
            for name, array in state.items()
        }

    def restore(self, state: State) -> Self:
        """Take the sums whose `state()` this was, of as many replicates and bins."""
        parts: dict[int, dict[str, State]] = {}
        for path, array in state.items():
            number, part, name = path.split("/")
            parts.setdefault(int(number), {}).setdefault(part, {})[name] = array
        for at, own in parts.items():
            pixels = Histogram.from_state(own["pixels"])
            drawn = BootstrapHistogram.from_state(own["replicates"])
            self.of[at] = ClassSums(pixels, int(own["images"]["count"][0]), drawn)
        return self

    def _sums(self, number: int) -> ClassSums:
        if number not in self.of:
            drawn = BootstrapHistogram(self.replicates, 1)
            self.of[number] = ClassSums(Histogram(self.bins, (1,)), 0, drawn)
        return self.of[number]
