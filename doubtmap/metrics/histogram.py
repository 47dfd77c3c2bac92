"""A histogram of any real numbers in fixed memory, fine where the numbers are.

A float32 has a key of 32 bits whose order is the order of the numbers. The top 12 bits (sign,
exponent, three bits of mantissa) name a *page*, an eighth of an octave; only pages that numbers
fall into are kept. All pages have `2 ** level` bins, and `level` is the largest one at which the
pages in use fit the budget: up to 20, where each float32 has a bin of its own. So the bins depend
on the set of pages seen, not on the order, and two histograms add up exactly to the one that
would have seen everything. Each bin also remembers whether all its values were the same number,
so that ties stay ties at any level. Memory is taken as bins are touched.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Self

import numpy as np

from doubtmap.errors import DataError, UsageError
from doubtmap.kernels.tables import (
    BLOCK,
    EMPTY,
    FINEST,
    MIXED,
    BinSums,
    Counting,
    Keys,
    Table,
    bins_of,
    join_only,
    keys_of,
    level_of,
    sorted_keys,
)
from doubtmap.metrics.accumulator import Array, ArrayLike, State, narrowed, to_numpy


@dataclass(frozen=True)
class Bins:
    """The bins that hold anything, in ascending order of their values.

    Args:
        counts: `(*shape, n)` float64, what was added to each bin.
        lowest: `(n,)` float32, the lowest value that each bin can hold.
        single: `(n,)` bool, whether all values of the bin were the same number.
    """

    counts: Array
    lowest: Array
    single: Array


@dataclass(frozen=True, eq=False)
class Keyed:
    """Values that were sorted once, for several histograms.

    Args:
        keys: of the values, all of them finite, by page.
        rounded: whether a value was no float32.
    """

    keys: Keys
    rounded: bool = False


def keyed(values: ArrayLike) -> Keyed:
    """Sort values by their pages.

    Args:
        values: any shape, real, finite; float64 is sorted into float32's bins.

    Raises:
        DataError: for NaN or infinities.
    """
    values = to_numpy(values).reshape(-1)
    rounded = values
    if values.dtype != np.float32:
        check_finite(values)
        limit = np.finfo(np.float32).max
        rounded = np.clip(values, -limit, limit).astype(np.float32)
    keys = sorted_keys(rounded)
    if keys.infinite:
        check_finite(values)
    return Keyed(keys, rounded is not values and bool((rounded != values).any()))


class Histogram:
    """Sums per bin of value, for one or several channels.

    Args:
        bins: the budget. Memory is `(8 * channels + 4) * bins` bytes at most (more only for a
            budget below 4096, the number of pages).
        shape: the channels' shape; `(2,)` for positives and negatives, say.
    """

    def __init__(self, bins: int = 1 << 20, shape: tuple[int, ...] = (2,)) -> None:
        self.bins = bins
        self.shape = shape
        self.rounded = False
        self._own = Table(FINEST, prod(shape))
        self._told: State | None = None
        """What `from_state` was given, until more is done with it than to add it to another."""
        self._seen: Bins | None = None

    @property
    def _table(self) -> Table:
        if self._told is not None:
            self._own, self._told = _unpacked(self._told), None
        return self._own

    @property
    def level(self) -> int:
        """Every page has `2 ** level` bins."""
        return self._table.level if self._told is None else int(self._told["flags"][1])

    @property
    def pages(self) -> Array:
        """Those in use."""
        return self._table.pages if self._told is None else self._told["pages"]

    def update(
        self,
        values: ArrayLike | Keyed,
        channel: ArrayLike | int = 0,
        weight: float = 1.0,
        more: tuple[int, Array] | None = None,
    ) -> None:
        """Count values.

        Args:
            values: any shape, real, finite; float64 is sorted into float32's bins.
            channel: one channel for all, or one per value.
            weight: what each counts.
            more: another channel, and numbers, one per value, to add there: float32 or float64.

        Raises:
            DataError: for NaN or infinities.
        """
        found = values if isinstance(values, Keyed) else keyed(values)
        self._make_room(found.keys.pages)
        self.rounded |= found.rounded
        self._table.count(_counting(found, channel, weight, more))

    def add(self, bins: BinSums) -> None:
        """Add sums by bin, of whose channels, in a row, the first are taken.

        Args:
            bins: of any level; where they are wider than these, these become as wide.
        """
        self._make_room(bins.pages)
        self._set_level(min(self.level, bins.level))
        self.rounded |= bins.rounded
        self._table.add(bins)

    def sums(self) -> BinSums:
        """The sums of the bins that hold anything, in a row of channels."""
        return replace(self._table.sums(), rounded=self.rounded)

    def absorb(self, other: Histogram, weight: Array | float = 1.0) -> None:
        """Add another histogram's sums, times a weight that broadcasts with `(*channels, 1)`.

        Of one with more channels in a row the first are taken.
        """
        plain = isinstance(weight, float | int) and weight == 1
        self._make_room(other.pages)
        self._set_level(min(self.level, other.level))
        self.rounded |= other.rounded
        if plain and self.shape == other.shape and other._told is not None:
            self._absorb_told(other._told)
            return
        flat = len(self.shape) == len(other.shape) == 1 and self.shape <= other.shape
        if plain and (flat or self.shape == other.shape):
            self._table.absorb(other._table)
            return
        theirs = other._table.at_level(self.level)
        sums = theirs.counts[: theirs.length].T.reshape(*other.shape, -1)
        weighted = np.broadcast_to(np.asarray(weight) * sums, (*self.shape, theirs.length))
        at, only = self._table.places(theirs.numbers()), theirs.only[: theirs.length]
        self._table.counts[at] += weighted.reshape(-1, theirs.length).T
        self._table.only[at] = join_only(self._table.only[at], only)

    def above(self, threshold: float) -> tuple[Array, Array]:
        """Sums of the values above a threshold, and of those that may be: `(channels,)` each.

        Only a bin of several numbers, between which the threshold lies, may be.
        """
        table, first = self._table, _key_above(threshold)
        held = np.flatnonzero(table.only[: table.length] != EMPTY)
        only, counts, shift = table.only[held], table.counts[held], FINEST - table.level
        low = table.numbers()[held] << shift
        high = low + (1 << shift) - 1
        one = (only != MIXED) & (not self.rounded)
        low, high = np.where(one, low | only, low), np.where(one, low | only, high)
        return counts[low >= first].sum(0), counts[(low < first) & (high >= first)].sum(0)

    def __add__(self, other: Self) -> Self:
        if (self.bins, self.shape) != (other.bins, other.shape):
            raise UsageError(
                f"Histogram: expected two histograms of {self.bins} bins and channels "
                f"{self.shape}, got {other.bins} and {other.shape}."
            )
        total = type(self)(self.bins, self.shape)
        total.absorb(self)
        total.absorb(other)
        return total

    def view(self) -> Bins:
        """The bins that hold anything, ascending."""
        if self._seen is None:
            keys, counts, single = self._table.held()
            counts = counts.reshape(*self.shape, -1)
            self._seen = Bins(counts, value_of(keys), single & (not self.rounded))
        return self._seen

    def forget(self) -> None:
        """Let go of what `view` keeps until the next update."""
        self._seen = None

    def state(self) -> State:
        """Everything, as named arrays: of the bins, those that hold anything."""
        table = self._table
        held = np.flatnonzero(table.only[: table.length] != EMPTY).astype(np.int32)
        return {
            "flags": np.array([self.bins, self.level, self.rounded], np.int64),
            "pages": table.pages,
            "blocks": table.blocks[: table.used],
            "held": held,
            "counts": narrowed(table.counts[held]).reshape(-1, *self.shape),
            "only": table.only[held],
        }

    @classmethod
    def from_state(cls, state: State) -> Self:
        """The histogram whose `state()` this was."""
        bins, _, rounded = (int(flag) for flag in state["flags"])
        histogram = cls(bins, state["counts"].shape[1:])
        histogram.rounded = bool(rounded)
        histogram._told = state
        return histogram

    def _absorb_told(self, told: State) -> None:
        """Add what a state says, bin by bin, whose pages are in use and whose bins are no wider."""
        level, held = int(told["flags"][1]), told["held"].astype(np.int64)
        block = min(BLOCK, level)
        numbers = (told["blocks"][held >> block] << block) | (held & ((1 << block) - 1))
        counts = told["counts"].reshape(-1, prod(self.shape))
        self._table.add(BinSums(level, numbers, counts, told["only"]))

    def _make_room(self, touched: Array) -> None:
        self._seen = None
        new = touched[self._table.row_of_page[touched] < 0]
        if not new.size:
            return
        pages = len(self.pages) + len(new)
        self._set_level(min(self.level, level_of(self.bins, pages)))
        self._table.add_pages(new)

    def _set_level(self, level: int) -> None:
        self._seen = None
        if level != self.level and not self._table.used:
            self._table.relevel(level)
        elif level != self.level:
            self._own = self._table.at_level(level)


def sums_of(
    values: Keyed,
    bins: int,
    channels: int,
    channel: ArrayLike | int = 0,
    more: tuple[int, Array] | None = None,
) -> BinSums:
    """What a histogram of their own would hold of values, to be added to several others.

    Args:
        values: sorted.
        bins: the histogram's budget.
        channels: how many, in a row.
        channel: as of `Histogram.update`.
        more: as there.
    """
    level = level_of(bins, len(values.keys.pages))
    found = bins_of(_counting(values, channel, 1.0, more), level, channels)
    return replace(found, rounded=values.rounded)


def _counting(
    values: Keyed, channel: ArrayLike | int, weight: float, more: tuple[int, Array] | None
) -> Counting:
    if not isinstance(channel, int):
        channel = to_numpy(channel).reshape(-1).astype(np.uint8, copy=False)
    to, numbers = more or (0, None)
    return Counting(values.keys, channel, weight, numbers, to)


def bin_numbers(lowest: Array, level: int) -> Array:
    """Numbers, as of `BinSums`, of the bins at a level whose lowest values these are."""
    return (keys_of(lowest) >> (FINEST - level)).astype(np.int64)


def _unpacked(state: State) -> Table:
    """The sums that a state tells."""
    table = Table(int(state["flags"][1]), prod(state["counts"].shape[1:]))
    table.add_pages(state["pages"])
    table.add_blocks(state["blocks"])
    table.counts[state["held"]] = state["counts"].reshape(-1, table.channels)
    table.only[state["held"]] = state["only"]
    return table


def check_finite(values: Array) -> None:
    """Raise where a value is NaN or infinite, before anything is counted."""
    finite = np.isfinite(values)
    if not finite.all():
        raise DataError(
            f"Histogram: expected finite scores, got {np.count_nonzero(~finite)} NaN or infinite "
            f"values. Leave these pixels out as void, or mend the score."
        )


def _key_above(threshold: float) -> int:
    """The key of the lowest float32 above a threshold."""
    above = np.float32(threshold)
    if float(above) <= threshold:
        above = np.nextafter(above, np.float32(np.inf))
    return int(keys_of(np.array([above], np.float32))[0])


def value_of(keys: Array) -> Array:
    """The float32 numbers that keys stand for."""
    flipped = (keys.astype(np.uint32) ^ np.uint32(0x80000000)).view(np.int32)
    return np.asarray((flipped ^ ((flipped >> 31) & 0x7FFFFFFF)).view(np.float32))
