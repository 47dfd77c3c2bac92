"""Intervals for any figure that follows from sums over images, by resampling the images.

Every image counts Poisson(1) times in each replicate, the streaming form of drawing as many
images as there are with replacement, so that memory does not grow with the number of images. All
accumulators of one run share the weights; so differences between scores are paired.

Reference:
    Bootstrap Methods: Another Look at the Jackknife (Efron, 1979); the Poisson form:
    Estimating Uncertainty for Massive Data Streams (Chamandy et al., 2012).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Self

import numpy as np

from doubtmap.kernels.counted import add_columns
from doubtmap.kernels.tables import BinSums, level_of
from doubtmap.metrics.accumulator import Array, State, narrowed
from doubtmap.metrics.histogram import Bins, Histogram


class Weights:
    """How often each image counts in each replicate; depends on seed and image number only.

    Args:
        replicates: R.
        seed: of the run.
    """

    def __init__(self, replicates: int = 300, seed: int = 0) -> None:
        self.replicates, self.seed = replicates, seed

    def __call__(self, image: int) -> Array:
        """`(R,)` small whole numbers."""
        generator = np.random.default_rng([self.seed, image])
        return generator.poisson(1.0, self.replicates).astype(np.float64)


STEPS = float(1 << 44)
"""Into how many steps of 1 an image's fractions are rounded."""


class BootstrapSums:
    """The replicates of named sums: `state[name]` with a leading axis R.

    Whole numbers and fractions, these in steps of `2 ** -44`, are summed apart, both without
    rounding up to 9e15: the sums do not depend on the order of the images, nor on how they were
    parted, to the last bit.
    """

    def __init__(self, replicates: int) -> None:
        self.replicates = replicates
        self._whole: State = {}
        self._steps: State = {}

    def add(self, state: State, weights: Array) -> None:
        """Add one image's sums."""
        for name, array in state.items():
            whole = np.floor(array)
            steps = np.rint((array - whole) * STEPS)
            by_image = weights.reshape(-1, *[1] * array.ndim)
            self._add(name, by_image * whole, by_image * steps if steps.any() else None)

    def absorb(self, other: BootstrapSums) -> None:
        """Add what another has summed."""
        for name, whole in other._whole.items():
            self._add(name, whole, other._steps.get(name))

    @property
    def sums(self) -> State:
        """The sums by name, `(R, ...)`."""
        return {
            name: whole + self._steps[name] / STEPS if name in self._steps else whole
            for name, whole in self._whole.items()
        }

    def each(self) -> Iterator[State]:
        """The sums of every replicate."""
        sums = self.sums
        for replicate in range(self.replicates):
            yield {name: array[replicate] for name, array in sums.items()}

    def figures(self, figure: Callable[[State], float]) -> Array:
        """`(R,)`: a figure of every replicate."""
        return np.array([figure(state) for state in self.each()])

    def state(self) -> State:
        """The sums as named arrays."""
        steps = {f"{name}.steps": array for name, array in self._steps.items()}
        return {name: narrowed(whole) for name, whole in self._whole.items()} | steps

    @classmethod
    def from_state(cls, state: State, replicates: int) -> Self:
        """The replicates whose `state()` this was."""
        bootstrap = cls(replicates)
        for name, array in state.items():
            into = bootstrap._steps if name.endswith(".steps") else bootstrap._whole
            # never written into, see `_add`
            into[name.removesuffix(".steps")] = array.astype(np.float64, copy=False)
        return bootstrap

    def _add(self, name: str, whole: Array, steps: Array | None) -> None:
        self._whole[name] = self._whole[name] + whole if name in self._whole else whole.copy()
        if steps is not None:
            steps = self._steps[name] + steps if name in self._steps else steps.copy()
            carried = np.floor(steps / STEPS)
            self._whole[name] += carried
            self._steps[name] = steps - carried * STEPS


class BootstrapHistogram:
    """The replicates of a histogram, coarse: it shows how figures vary, not what they are.

    Images are taken some at a time, as one matrix product.

    Args:
        replicates: R.
        channels: of each histogram.
        bins: the budget. Memory is `8 * bins * R * channels` bytes at most.
    """

    TOGETHER = 64

    def __init__(self, replicates: int, channels: int, bins: int = 1 << 11) -> None:
        self.replicates = replicates
        self.total = Histogram(bins, shape=(channels,))
        """Of all images that were taken, each once: it says which bins there are."""
        self._numbers = np.empty(0, np.int64)
        self._sums = np.zeros((replicates, channels, 0))
        self._shared = True
        """Whether others may hold the same array, which is then not written into."""
        self._waiting: list[tuple[BinSums, Array]] = []

    def add(self, image: Histogram | BinSums, weights: Array) -> None:
        """Add one image's histogram, of whose channels, in a row, the first are taken."""
        sums = image.sums() if isinstance(image, Histogram) else image
        level = min(sums.level, level_of(self.total.bins, len(sums.pages)))
        self._waiting.append((sums.wider(level, self.total.shape[0]), weights))
        if len(self._waiting) == self.TOGETHER:
            self._settle()

    def absorb(self, other: BootstrapHistogram) -> None:
        """Add what another has summed."""
        self._settle()
        if other._waiting:
            other._settle()
        before, finer = self.total.level, other.total.level
        self.total.absorb(other.total)
        level = self.total.level
        numbers, sums = _coarser(self._numbers, self._sums, before - level)
        theirs = other._numbers >> (finer - level)
        every = np.union1d(numbers, theirs)
        if len(every) != len(numbers):
            wide = np.zeros((*sums.shape[:2], len(every)))
            wide[..., np.searchsorted(every, numbers)] = sums
            numbers, sums = every, wide
        elif self._shared:
            sums = sums.copy()
        add_columns(sums, np.searchsorted(numbers, theirs), other._sums)
        self._numbers, self._sums, self._shared = numbers, sums, False

    def figures(self, figure: Callable[[Bins], float | list[float]]) -> Array:
        """`(R,)` or `(R, k)`: figures of every replicate, from bins with counts `(channels, n)`."""
        bins = self.view()
        return np.array([figure(Bins(counts, bins.lowest, bins.single)) for counts in bins.counts])

    def view(self) -> Bins:
        """The bins of all replicates, counts `(R, channels, n)`."""
        self._settle()
        bins = self.total.view()
        return Bins(self._sums, bins.lowest, bins.single)

    @property
    def level(self) -> int:
        """Of the bins: the larger, the finer."""
        self._settle()
        return self.total.level

    def numbered(self, level: int) -> tuple[Array, Array]:
        """Numbers of the bins at a level no finer than this, `(n,)`, and counts `(R, channels, n)`.

        Level and numbers as of `BinSums`.
        """
        self._settle()
        return _coarser(self._numbers, self._sums, self.total.level - level)

    def state(self) -> State:
        """The sums as named arrays."""
        self._settle()
        self._shared = True
        return self.total.state() | {
            "numbers": self._numbers,
            "sums": narrowed(self._sums),
        }

    @classmethod
    def from_state(cls, state: State) -> Self:
        """The replicates whose `state()` this was."""
        total = Histogram.from_state(state)
        replicates, channels = state["sums"].shape[:2]
        bootstrap = cls(replicates, channels, total.bins)
        bootstrap.total = total
        bootstrap._numbers, bootstrap._sums = state["numbers"], state["sums"]
        return bootstrap

    def _settle(self) -> None:
        """Take the images that wait, as one product: replicates by images by bins."""
        if self._sums.dtype != np.float64:  # as a state told them
            self._sums, self._shared = self._sums.astype(np.float64), False
        if not self._waiting:
            return
        replicates, channels = self._sums.shape[:2]
        before = self.total.level
        for image, _ in self._waiting:
            self.total.add(image)
        level = self.total.level
        self._numbers, self._sums = _coarser(self._numbers, self._sums, before - level)
        found = [image.wider(level) for image, _ in self._waiting]
        numbers = np.unique(np.concatenate([self._numbers, *(own.numbers for own in found)]))
        counts = np.zeros((len(found), channels, len(numbers)))
        for one, own in zip(counts, found):
            one[:, np.searchsorted(numbers, own.numbers)] = own.counts.T
        weights = np.stack([weights for _, weights in self._waiting], 1)
        sums = _product(weights, counts.reshape(len(found), -1)).reshape(replicates, channels, -1)
        if len(numbers) == len(self._numbers):
            sums += self._sums
        else:
            add_columns(sums, np.searchsorted(numbers, self._numbers), self._sums)
        self._numbers, self._sums = numbers, sums
        self._waiting.clear()


def _product(weights: Array, counts: Array) -> Array:
    """`weights @ counts`, of which many columns are empty."""
    some = np.flatnonzero(counts.any(0))
    sums = np.zeros((len(weights), counts.shape[1]))
    sums[:, some] = weights @ counts[:, some]
    return sums


def _coarser(numbers: Array, sums: Array, steps: int) -> tuple[Array, Array]:
    """Sum bins that have become one."""
    if not steps or not len(numbers):
        return numbers, sums
    numbers, first = np.unique(numbers >> steps, return_index=True)
    return numbers, np.add.reduceat(sums, first, axis=-1)


def interval(
    value: float | None, replicates: Array, limits: tuple[float, float] = (-np.inf, np.inf)
) -> list[float] | None:
    """The 95 % interval around a value: the replicates' percentiles, centred on the value.

    Percentiles are moved so that the replicates' median falls on the value: replicates of an
    absolute gap such as ECE lie above it on average, and those of coarse histograms beside it.

    Args:
        value: the figure of all images, None where it is not defined.
        replicates: `(R,)` the figure of the replicates; undefined ones (NaN) are left out.
        limits: between which the figure lies by its nature.

    Returns:
        `[lower, upper]`, or None where fewer than nine in ten replicates define the figure.
    """
    defined = replicates[np.isfinite(replicates)]
    if value is None or len(defined) < 0.9 * len(replicates):
        return None
    lower, middle, upper = np.percentile(defined, [2.5, 50, 97.5])
    lower, upper = np.clip((value + lower - middle, value + upper - middle), *limits)
    return [float(lower), float(upper)]
