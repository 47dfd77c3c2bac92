"""Sparse tables of sums by bin, into which numbers are counted that were sorted once.

The door to `tables.c`; where it is not built, NumPy does the same, to the last digit.

A float32 has a key of 32 bits whose order is the order of the numbers. The top 12 bits name its
*page*. A table of level l divides each page into `2 ** l` bins; 64 neighbouring bins are a block,
which has memory once a number falls into it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doubtmap.kernels import compiled_sums
from doubtmap.kernels.compiled import SumsTable
from doubtmap.kernels.fused import compiled_serves

Array = NDArray[Any]

PAGES = 4096
FINEST = 20
EMPTY, MIXED = -1, -2
BLOCK = 6
"""Of the bins' numbers, the bits within a block."""


@dataclass(frozen=True, eq=False)
class Keys:
    """Numbers by their keys, page by page: so what lies together in a table comes together.

    Args:
        entries: `(N,)` uint64: the key in the upper 32 bits, and in the lower where the number
            stood; ascending by page, and within a page as they stood.
        of_pages: `(4096,)`, how many fall into each page.
        infinite: how many numbers were NaN or infinite.
    """

    entries: Array
    of_pages: Array
    infinite: int

    @property
    def pages(self) -> Array:
        """Those that any number falls into, ascending."""
        return np.flatnonzero(self.of_pages)

    def between(self, first: int, end: int) -> Array:
        """The entries of keys from `first` on and before `end`, ascending."""
        pages = first >> FINEST, (end - 1 >> FINEST) + 1
        start, stop = (int(self.of_pages[:page].sum()) for page in pages)
        near = self.entries[start:stop]
        keys = near >> np.uint64(32)
        return np.sort(near[(keys >= first) & (keys < end)])

    @property
    def keys(self) -> Array:
        """`(N,)` uint32."""
        return (self.entries >> np.uint64(32)).astype(np.uint32)

    @property
    def order(self) -> Array:
        """`(N,)` uint32, where each number stood."""
        return self.entries.astype(np.uint32)


def level_of(bins: int, pages: int) -> int:
    """The level at which so many pages fit a budget of bins; 0 where they do not."""
    return min(FINEST, max(0, (bins // max(pages, 1)).bit_length() - 1))


def keys_of(values: Array) -> Array:
    """Keys of float32 numbers `(N,)` as they stand, uint32; -0.0 is 0.0."""
    bits = (values + np.float32(0)).view(np.int32)
    return np.asarray((bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.uint32) ^ np.uint32(1 << 31))


def sorted_keys(values: Array) -> Keys:
    """Float32 numbers `(N,)`, below 2^32 of them, by their pages."""
    pages = np.zeros(PAGES, np.uint32)
    if compiled_serves():
        entries, infinite = compiled_sums.sort(np.ascontiguousarray(values), pages)
        return Keys(entries, pages, infinite)
    keys = keys_of(values)
    order = np.argsort(keys >> FINEST, kind="stable")
    entries = (keys[order].astype(np.uint64) << np.uint64(32)) | order.astype(np.uint64)
    pages += np.bincount(keys >> FINEST, minlength=PAGES).astype(np.uint32)
    return Keys(entries, pages, int(np.count_nonzero(~np.isfinite(values))))


@dataclass(frozen=True, eq=False)
class Counting:
    """What is counted of numbers.

    Args:
        keys: of the numbers.
        channel: in which a number counts; one, or one for each, uint8.
        weight: what each counts.
        more: `(N,)` float32 or float64, added in another channel in the same pass.
        more_channel: which.
    """

    keys: Keys
    channel: Array | int = 0
    weight: float = 1.0
    more: Array | None = None
    more_channel: int = 0

    def compiled(self) -> compiled_sums.Counted:
        """For the pass in C."""
        channel = self.channel
        if not isinstance(channel, int):
            channel = np.ascontiguousarray(channel, np.uint8)
        more = self.more
        if more is not None:
            single = more.dtype == np.float32
            more = np.ascontiguousarray(more, np.float32 if single else np.float64)
        return compiled_sums.counted(
            self.keys.entries, channel, self.weight, more, self.more_channel
        )


@dataclass(frozen=True, eq=False)
class BinSums:
    """Sums by bin, of the bins that hold anything, ascending.

    Args:
        level: of the bins, 0 to 20.
        numbers: `(n,)` int64, of the bins over all pages.
        counts: `(n, C)` float64, or unsigned and of up to 32 bits.
        only: `(n,)` int32, as `Table.only` has it.
        rounded: whether a number was no float32, so that equal ones may have differed.
    """

    level: int
    numbers: Array
    counts: Array
    only: Array
    rounded: bool = False

    @cached_property
    def pages(self) -> Array:
        """Those that hold anything, ascending."""
        pages: Array = self.numbers >> self.level
        new = np.ones(len(pages), bool)
        np.not_equal(pages[1:], pages[:-1], out=new[1:])
        return pages[new]

    @property
    def edges(self) -> Array:
        """`(n + 1,)` int64, the lowest key of each bin, and where the last one ends."""
        ends: Array = np.append(self.numbers, self.numbers[-1:] + 1)
        return np.asarray(ends << (FINEST - self.level))

    def wider(self, level: int, channels: int | None = None) -> BinSums:
        """Sums by bins of a level no finer than this, of those that hold anything.

        Args:
            level: of the bins.
            channels: of the sums, the first of these; default: all.
        """
        columns = self.counts.shape[1] if channels is None else channels
        steps = self.level - level
        if compiled_serves():
            arrays = self.numbers, np.ascontiguousarray(self.counts, np.float64), self.only
            found = compiled_sums.wider(arrays, columns, steps, FINEST - self.level)
            return BinSums(level, *found, self.rounded)
        held = np.flatnonzero(self.counts[:, :columns].any(1))
        fine, only = self.numbers[held], self.only[held]
        numbers, first, several = np.unique(fine >> steps, return_index=True, return_counts=True)
        counts = np.zeros((len(numbers), columns))
        np.add.at(counts, np.searchsorted(numbers, fine >> steps), self.counts[held, :columns])
        within = (fine[first] & ((1 << steps) - 1)).astype(np.int32) << (FINEST - self.level)
        alone = (several == 1) & (only[first] >= 0)
        one = np.where(alone, only[first] | within, MIXED).astype(np.int32)
        return BinSums(level, numbers, counts, one, self.rounded)


def bins_of(what: Counting, level: int, channels: int) -> BinSums:
    """What is counted of numbers, by bin of a level, in so many channels."""
    if compiled_serves():
        most = min(len(what.keys.entries), len(what.keys.pages) << level)
        return BinSums(level, *compiled_sums.bins_of(what.compiled(), level, channels, most))
    table = Table(level, channels)
    table.add_pages(what.keys.pages)
    table.count(what)
    return table.sums()


@dataclass(eq=False)
class Table:
    """Sums by bin, for the blocks that hold anything.

    Args:
        level: of the bins, 0 to 20; they are `2 ** (20 - level)` keys wide.
        channels: C, of the sums.
    """

    level: int
    channels: int
    used: int = 0
    pages: Array = field(default_factory=lambda: np.empty(0, np.int64))
    row_of_page: Array = field(default_factory=lambda: np.full(PAGES, -1, np.int32))
    directory: Array = field(default_factory=lambda: np.empty(0, np.int32))
    """Place of each block of each page in use, or -1."""
    blocks: Array = field(default_factory=lambda: np.empty(0, np.int64))
    """Number of the block at each place."""
    counts: Array = field(init=False)
    """`(capacity, C)`, by place and bin within the block."""
    only: Array = field(default_factory=lambda: np.empty(0, np.int32))
    """Per bin: the lowest bits of its only value, or `EMPTY`, or `MIXED`."""

    def __post_init__(self) -> None:
        self.counts = np.empty((0, self.channels))

    @property
    def block(self) -> int:
        """Bits of a bin's number within its block."""
        return min(BLOCK, self.level)

    @property
    def shift(self) -> int:
        """Bits of a block's number within its page."""
        return self.level - self.block

    @property
    def length(self) -> int:
        """How many bins have memory that is in use."""
        return self.used << self.block

    def relevel(self, level: int) -> None:
        """Take another level while nothing is counted yet."""
        self.level = level
        self.directory = np.full(len(self.pages) << self.shift, -1, np.int32)

    def add_pages(self, new: Array) -> None:
        """Take pages that are not in use yet into use."""
        total = len(self.pages) + len(new)
        self.row_of_page[new] = np.arange(len(self.pages), total)
        self.pages = np.concatenate([self.pages, new])
        more = np.full(len(new) << self.shift, -1, np.int32)
        self.directory = np.concatenate([self.directory, more])

    def add_blocks(self, blocks: Array) -> None:
        """Give blocks that have no memory yet some, by their numbers."""
        self._reserve(self.used + len(blocks))
        end = self.used + len(blocks)
        self.blocks[self.used : end] = blocks
        self.counts[self.length : end << self.block] = 0
        self.only[self.length : end << self.block] = EMPTY
        self.directory[self._entry(blocks)] = np.arange(self.used, end)
        self.used = end

    def count(self, what: Counting) -> None:
        """Count numbers, whose pages are in use."""
        if not compiled_serves():
            self._count(what)
            return
        done, counted = 0, what.compiled()
        while done < len(what.keys.entries):
            if self.used == len(self.blocks):
                self._reserve(self.used + 1)
            table = self._struct()
            done = compiled_sums.count(table, counted, done)
            self.used = table.used

    def absorb(self, other: Table) -> None:
        """Add the sums of another table, whose pages are in use and whose bins are no wider.

        Of its channels, which are no fewer, the first are taken.
        """
        if other.level - self.level > other.block or not compiled_serves():
            self.add(other.sums())
            return
        done, theirs = 0, other._struct()
        while done < other.used:
            if self.used == len(self.blocks):
                self._reserve(self.used + 1)
            table = self._struct()
            done = compiled_sums.absorb(table, theirs, done)
            self.used = table.used

    def add(self, bins: BinSums) -> None:
        """Add sums of bins no wider than these, on pages in use.

        Of their channels, which are no fewer, the first are taken.
        """
        if not compiled_serves():
            self._add(bins)
            return
        counts = np.ascontiguousarray(bins.counts)
        done = 0
        while done < len(bins.numbers):
            if self.used == len(self.blocks):
                self._reserve(self.used + 1)
            table = self._struct()
            arrays = bins.numbers, counts, bins.only
            done = compiled_sums.add(table, arrays, bins.level, done)
            self.used = table.used

    def at_level(self, level: int) -> Table:
        """The same with wider bins."""
        coarse = Table(level, self.channels)
        coarse.add_pages(self.pages)
        coarse.absorb(self)
        return coarse

    def held(self) -> tuple[Array, Array, Array]:
        """Of the bins that hold anything: keys, counts `(C, n)`, whether of one number only."""
        order = np.argsort(self.blocks[: self.used])
        if compiled_serves():
            return compiled_sums.held(self._struct(), order)
        at = ((order << self.block)[:, None] + np.arange(1 << self.block)).reshape(-1)
        at = at[self.counts[at].any(1)]
        keys = (self.numbers()[at] << (FINEST - self.level)).astype(np.uint32)
        return keys, np.ascontiguousarray(self.counts[at].T), self.only[at] != MIXED

    def sums(self) -> BinSums:
        """The sums of the bins that hold anything."""
        keys, counts, _ = self.held()
        numbers = (keys >> (FINEST - self.level)).astype(np.int64)
        at = self.places(numbers)
        return BinSums(self.level, numbers, counts.T, self.only[at])

    def numbers(self) -> Array:
        """`(length,)` the bins' numbers over all pages."""
        inside = np.arange(1 << self.block)
        return ((self.blocks[: self.used, None] << self.block) | inside).reshape(-1)

    def places(self, numbers: Array) -> Array:
        """Where bins lie in `counts`, by their numbers, of pages in use; made where they do not."""
        blocks = numbers >> self.block
        entry = self._entry(blocks)
        missing = np.unique(blocks[self.directory[entry] < 0])
        if missing.size:
            self.add_blocks(missing)
        start: Array = self.directory[entry].astype(np.int64) << self.block
        at: Array = start | (numbers & ((1 << self.block) - 1))
        return at

    def _entry(self, blocks: Array) -> Array:
        rows: Array = self.row_of_page[blocks >> self.shift].astype(np.int64)
        return (rows << self.shift) | (blocks & ((1 << self.shift) - 1))

    def _reserve(self, blocks: int) -> None:
        """Have room for so many blocks."""
        if blocks <= len(self.blocks):
            return
        every = 1 << (max(blocks, len(self.directory)) - 1).bit_length()
        room = min(every, 1024) if blocks <= 1024 else every
        bins, held = room << self.block, self.length
        # Left as it comes, so that it is not there before a block is made, and made empty.
        counts, only = np.empty((bins, self.channels)), np.empty(bins, np.int32)
        numbers = np.empty(room, np.int64)
        numbers[: self.used] = self.blocks[: self.used]
        if held:
            counts[:held], only[:held] = self.counts[:held], self.only[:held]
        self.blocks, self.counts, self.only = numbers, counts, only

    def _struct(self) -> SumsTable:
        arrays = (self.row_of_page, self.directory, self.blocks, self.counts, self.only)
        return SumsTable(
            *(array.ctypes.data for array in arrays),
            *(self.used, len(self.blocks), self.channels, self.level, self.block),
        )

    def _count(self, what: Counting) -> None:
        """`count` in NumPy."""
        low = FINEST - self.level
        keys, order = what.keys.keys, what.keys.order
        at = self.places(keys.astype(np.int64) >> low)
        channel = what.channel if isinstance(what.channel, int) else what.channel[order]
        flat: Array = at * self.channels + channel
        np.add.at(self.counts.reshape(-1), flat, what.weight)
        if what.more is not None:
            flat = at * self.channels + what.more_channel
            np.add.at(self.counts.reshape(-1), flat, what.more[order])
        self._hold(at, (keys & np.uint32((1 << low) - 1)).astype(np.int32))

    def _add(self, bins: BinSums) -> None:
        """`add` in NumPy."""
        steps = bins.level - self.level
        at = self.places(bins.numbers >> steps)
        np.add.at(self.counts, at, bins.counts[:, : self.channels])
        within = (bins.numbers & ((1 << steps) - 1)).astype(np.int32) << (FINEST - bins.level)
        self._hold(at, np.where(bins.only < 0, bins.only, bins.only | within))

    def _hold(self, at: Array, only: Array) -> None:
        """Let bins hold what others held as well, the only values of which are told."""
        first = self.only[at] == EMPTY
        self.only[at[first]] = only[first]
        self.only[at[self.only[at] != only]] = MIXED


def join_only(a: Array, b: Array) -> Array:
    """The only value of a bin that gets what two bins held."""
    return np.where(a == EMPTY, b, np.where((b == EMPTY) | (a == b), a, MIXED))
