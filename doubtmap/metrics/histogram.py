"""A histogram of any real numbers in fixed memory, fine where the numbers are.

A float32 has a key of 32 bits whose order is the order of the numbers. The top 12 bits (sign,
exponent, three bits of mantissa) name a *page*, an eighth of an octave; only pages that numbers
fall into are kept. All pages have `2 ** level` bins, and `level` is the largest one at which the
pages in use fit the budget: up to 20, where each float32 has a bin of its own. So the bins depend
on the set of pages seen, not on the order, and two histograms add up exactly to the one that
would have seen everything. Each bin also remembers whether all its values were the same number,
so that ties stay ties at any level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from doubtmap.errors import DataError, UsageError
from doubtmap.metrics.accumulator import Array, ArrayLike, State, to_numpy

PAGES = 4096
FINEST = 20
EMPTY, MIXED = -1, -2
CHUNK = 1 << 18
"""Values taken at once: their keys and bins stay in the processor's cache."""


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


class Histogram:
    """Sums per bin of value, for one or several channels.

    Args:
        bins: the budget. Memory is `(8 * channels + 4) * bins` bytes at most (more only for a
            budget below 4096, the number of pages).
        shape: the channels' shape; `(2,)` for positives and negatives, say.
    """

    def __init__(self, bins: int = 1 << 20, shape: tuple[int, ...] = (2,)) -> None:
        self.bins = bins
        self.level = FINEST
        self.pages = np.empty(0, np.int64)
        self.counts = np.zeros((*shape, 0))
        self.only = np.empty(0, np.int32)
        """Per bin: the lowest bits of its only value, or `EMPTY`, or `MIXED`."""
        self.rounded = False
        self._slot = np.full(PAGES, -1, np.int32)

    def update(self, values: ArrayLike, channel: ArrayLike | int = 0, weight: float = 1.0) -> None:
        """Count values.

        Args:
            values: any shape, real, finite; float64 is sorted into float32's bins.
            channel: one channel for all, or one per value.
            weight: what each counts.

        Raises:
            DataError: for NaN or infinities.
        """
        values = to_numpy(values).reshape(-1)
        check_finite(values)
        channels = channel if isinstance(channel, int) else to_numpy(channel).reshape(-1)
        for start in range(0, len(values), CHUNK):
            part = slice(start, start + CHUNK)
            at = self.locate(values[part])
            self.add(at, channels if isinstance(channels, int) else channels[part], weight)

    def locate(self, values: Array) -> Array:
        """Bins of values, valid until the next `locate` or `+`; makes room for new pages."""
        check_finite(values)
        keys = self._keys(values)
        page = keys >> FINEST
        self._make_room(np.flatnonzero(np.bincount(page, minlength=PAGES)))
        low = FINEST - self.level
        within = ((keys & ((1 << FINEST) - 1)) >> low).astype(np.int32)
        at = np.asarray((self._slot[page] << self.level) | within)
        self._remember(at, (keys & ((1 << low) - 1)).astype(np.int32))
        return at

    def add(self, at: Array, channel: Array | int, weight: Array | float = 1.0) -> None:
        """Add weights to bins, as found by `locate`."""
        size = self.counts.shape[-1]
        if isinstance(channel, int):
            flat = at + np.int64(channel * size)
        else:
            flat = at + channel.astype(np.int64) * size
        np.add.at(self.counts.reshape(-1), flat, weight)

    def absorb(self, other: Histogram, weight: Array | float = 1.0) -> None:
        """Add another histogram's sums, times a weight that broadcasts with `(*channels, 1)`."""
        self._make_room(other.pages)
        self._set_level(min(self.level, other.level))
        levels = other.level - self.level
        slots = self._slot[other.pages]
        mine, only = self._by_page(self.counts), self._by_page(self.only)
        theirs = self._by_page(coarsen(other.counts, levels))
        mine[..., slots, :] += np.asarray(weight)[..., None] * theirs
        other_only = coarsen_only(other.only, levels, FINEST - other.level)
        only[slots] = join_only(only[slots], self._by_page(other_only))
        self.rounded |= other.rounded

    def __add__(self, other: Self) -> Self:
        if (self.bins, self.counts.shape[:-1]) != (other.bins, other.counts.shape[:-1]):
            raise UsageError(
                f"Histogram: expected two histograms of {self.bins} bins and channels "
                f"{self.counts.shape[:-1]}, got {other.bins} and {other.counts.shape[:-1]}."
            )
        total = type(self)(self.bins, self.counts.shape[:-1])
        total.absorb(self)
        total.absorb(other)
        return total

    def view(self) -> Bins:
        """The bins that hold anything, ascending."""
        order = np.argsort(self.pages)
        shape = self.counts.shape[:-1]
        counts = self._by_page(self.counts)[..., order, :].reshape(*shape, -1)
        held = np.flatnonzero(counts.any(axis=tuple(range(len(shape)))))
        page = self.pages[order][held >> self.level]
        within = held & ((1 << self.level) - 1)
        keys = (page << FINEST) | (within << (FINEST - self.level))
        single = self._by_page(self.only)[order].reshape(-1)[held] != MIXED
        return Bins(counts[..., held], value_of(keys), single & (not self.rounded))

    def state(self) -> State:
        """Everything, as named arrays: of the bins, those that hold anything."""
        flags = np.array([self.bins, self.level, self.rounded], np.int64)
        held = np.flatnonzero(self.only != EMPTY).astype(np.int32)
        counts, only = self.counts[..., held], self.only[held]
        return {"flags": flags, "pages": self.pages, "held": held, "counts": counts, "only": only}

    @classmethod
    def from_state(cls, state: State) -> Self:
        """The histogram whose `state()` this was."""
        bins, level, rounded = (int(flag) for flag in state["flags"])
        histogram = cls(bins, state["counts"].shape[:-1])
        histogram.level, histogram.pages = level, state["pages"].copy()
        room = len(histogram.pages) << level
        histogram.counts = np.zeros((*state["counts"].shape[:-1], room))
        histogram.only = np.full(room, EMPTY, np.int32)
        histogram.counts[..., state["held"]] = state["counts"]
        histogram.only[state["held"]] = state["only"]
        histogram.rounded = bool(rounded)
        histogram._slot[histogram.pages] = np.arange(len(histogram.pages))
        return histogram

    def _keys(self, values: Array) -> Array:
        """int64 keys of 32 bits in the order of the values."""
        if values.dtype != np.float32:
            values = self._round(values)
        # Adding zero turns -0.0 into 0.0: they are the same number.
        bits = (values + np.float32(0)).view(np.int32)
        flipped = bits ^ ((bits >> 31) & 0x7FFFFFFF)
        return np.asarray((flipped.view(np.uint32) ^ np.uint32(0x80000000)).astype(np.int64))

    def _round(self, values: Array) -> Array:
        limit = np.finfo(np.float32).max
        rounded = np.clip(values, -limit, limit).astype(np.float32)
        self.rounded |= bool((rounded != values).any())
        return rounded

    def _make_room(self, touched: Array) -> None:
        new = touched[self._slot[touched] < 0]
        if not new.size:
            return
        pages = len(self.pages) + len(new)
        self._set_level(min(self.level, max(0, (self.bins // pages).bit_length() - 1)))
        room = len(new) << self.level
        self.counts = np.concatenate([self.counts, np.zeros((*self.counts.shape[:-1], room))], -1)
        self.only = np.concatenate([self.only, np.full(room, EMPTY, np.int32)])
        self._slot[new] = np.arange(len(self.pages), pages)
        self.pages = np.concatenate([self.pages, new])

    def _set_level(self, level: int) -> None:
        self.counts = coarsen(self.counts, self.level - level)
        self.only = coarsen_only(self.only, self.level - level, FINEST - self.level)
        self.level = level

    def _by_page(self, bins: Array) -> Array:
        return bins.reshape(*bins.shape[:-1], -1, 1 << self.level)

    def _remember(self, at: Array, low: Array) -> None:
        """Note, for each bin, whether it still has one value only."""
        before = self.only[at]
        first = before == EMPTY
        if first.any():
            self.only[at[first]] = low[first]
            before = self.only[at]
        other = (before != low) & (before != MIXED)
        if other.any():
            self.only[at[other]] = MIXED


def check_finite(values: Array) -> None:
    """Raise where a value is NaN or infinite, before anything is counted."""
    finite = np.isfinite(values)
    if not finite.all():
        raise DataError(
            f"Histogram: expected finite scores, got {np.count_nonzero(~finite)} NaN or infinite "
            f"values. Leave these pixels out as void, or mend the score."
        )


def coarsen(counts: Array, levels: int) -> Array:
    """Sum neighbouring bins, `2 ** levels` at a time."""
    if levels == 0:
        return counts
    return np.asarray(counts.reshape(*counts.shape[:-1], -1, 1 << levels).sum(-1))


def coarsen_only(only: Array, levels: int, low: int) -> Array:
    """The only values of bins that grow `2 ** levels` wide; `low` bits were below them."""
    for level in range(levels):
        left, right = only[0::2], only[1::2].copy()
        right[right >= 0] |= 1 << (low + level)
        only = join_only(left, right)
    return only


def join_only(a: Array, b: Array) -> Array:
    """The only value of a bin that gets what two bins held."""
    return np.where(a == EMPTY, b, np.where((b == EMPTY) | (a == b), a, MIXED))


def value_of(keys: Array) -> Array:
    """The float32 numbers that keys stand for."""
    flipped = (keys.astype(np.uint32) ^ np.uint32(0x80000000)).view(np.int32)
    return np.asarray((flipped ^ ((flipped >> 31) & 0x7FFFFFFF)).view(np.float32))
