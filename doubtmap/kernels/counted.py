"""Sparse tables of sums over pixels, bins of probabilities, and components of a mask.

The door to `sums.c`; where it is not built, NumPy and SciPy do the same, to the last digit.

A float32 has a key of 32 bits whose order is the order of the numbers. The top 12 bits name its
*page*. A table of level l divides each page into `2 ** l` bins; 64 neighbouring bins are a block,
which has memory once a number falls into it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

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
    """Numbers as keys.

    Args:
        keys: `(N,)` uint32, ascending as the numbers are.
        pages: those that any falls into, ascending.
        infinite: how many numbers were NaN or infinite.
    """

    keys: Array
    pages: Array
    infinite: int


def keys_of(values: Array) -> Keys:
    """Keys of float32 numbers `(N,)`; -0.0 is 0.0."""
    if not compiled_serves():
        bits = (values + np.float32(0)).view(np.int32)
        keys = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.uint32) ^ np.uint32(0x80000000)
        pages = np.flatnonzero(np.bincount(keys >> FINEST, minlength=PAGES))
        return Keys(keys, pages, int(np.count_nonzero(~np.isfinite(values))))
    values, seen = np.ascontiguousarray(values), np.zeros(PAGES, np.uint8)
    keys = np.empty(len(values), np.uint32)
    infinite = compiled_sums.keys(values, keys, seen)
    return Keys(keys, np.flatnonzero(seen), infinite)


def means(values: Array, size: int, whole: Array) -> Array:
    """Mean of each square of a map that is `whole`, in float32.

    Args:
        values: `(H, W)` float32.
        size: of the squares, in pixels.
        whole: `(H // size, W // size)` bool.

    Returns:
        `(n,)` float32, in reading order.
    """
    if compiled_serves() and whole.size:
        arrays = np.ascontiguousarray(values), size, np.ascontiguousarray(whole)
        return compiled_sums.means(*arrays)
    rows, columns = whole.shape
    inside = values[: rows * size, : columns * size].reshape(rows, size, columns, size)
    squares = inside.transpose(0, 2, 1, 3).reshape(rows, columns, size * size)
    sums = np.cumsum(squares, -1, dtype=np.float32)[whole, -1]  # one after the other
    return np.asarray(sums / np.float32(size * size))


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

    def count(
        self,
        keys: Array,
        channel: Array | int,
        weight: float = 1.0,
        more: Array | None = None,
        more_channel: int = 0,
    ) -> None:
        """Add a weight for each key, whose page is in use.

        Args:
            keys: `(N,)` uint32.
            channel: of the weight; one, or one for each, uint8.
            weight: the same for all.
            more: `(N,)` float64, added in another channel in the same pass.
            more_channel: which.
        """
        if not compiled_serves():
            self._count(keys, channel, weight, more, more_channel)
            return
        if not isinstance(channel, int):
            channel = np.ascontiguousarray(channel, np.uint8)
        if more is not None:
            more = np.ascontiguousarray(more, np.float64)
        done, total = 0, len(keys)
        while done < total:
            if self.used == len(self.blocks):
                self._reserve(self.used + 1)
            table = self._struct()
            done = compiled_sums.count(table, keys, done, channel, weight, more, more_channel)
            self.used = table.used

    def absorb(self, other: Table) -> None:
        """Add the sums of another table, whose pages are in use and whose bins are no wider.

        Of its channels, which are no fewer, the first are taken.
        """
        if other.level - self.level > other.block or not compiled_serves():
            only = other.only[: other.length]
            held = np.flatnonzero(only != EMPTY).astype(np.int32)
            counts = other.counts[held, : self.channels]
            self.add(other.blocks[: other.used], held, counts, only[held], other.level)
            return
        done, theirs = 0, other._struct()
        while done < other.used:
            if self.used == len(self.blocks):
                self._reserve(self.used + 1)
            table = self._struct()
            done = compiled_sums.absorb(table, theirs, done)
            self.used = table.used

    def add(self, blocks: Array, held: Array, counts: Array, only: Array, level: int) -> None:
        """Add the sums of some bins, no wider than these, of blocks on pages in use.

        Args:
            blocks: their numbers, each there once.
            held: `(n,)` int32, which bins of these blocks, in their order; each holds something.
            counts: `(n, C)` float64, or unsigned and of up to 32 bits.
            only: `(n,)` int32, as of `only`.
            level: of the bins.
        """
        if not compiled_serves():
            self._add(blocks, held, counts, only, level)
            return
        told = compiled_sums.Told(blocks, held, np.ascontiguousarray(counts), only, level)
        done = 0
        while done < len(held):
            if self.used == len(self.blocks):
                self._reserve(self.used + 1)
            table = self._struct()
            done = compiled_sums.add(table, told, done)
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

    def _count(
        self,
        keys: Array,
        channel: Array | int,
        weight: float,
        more: Array | None,
        more_channel: int,
    ) -> None:
        """`count` in NumPy."""
        low = FINEST - self.level
        at = self.places(keys.astype(np.int64) >> low)
        flat: Array = at * self.channels + channel
        np.add.at(self.counts.reshape(-1), flat, weight)
        if more is not None:
            np.add.at(self.counts.reshape(-1), at * self.channels + more_channel, more)
        self._hold(at, (keys & np.uint32((1 << low) - 1)).astype(np.int32))

    def _add(self, blocks: Array, held: Array, counts: Array, only: Array, level: int) -> None:
        """`add` in NumPy."""
        block, steps = min(BLOCK, level), level - self.level
        numbers = (blocks[held >> block] << block) | (held & ((1 << block) - 1))
        at = self.places(numbers >> steps)
        np.add.at(self.counts, at, counts)
        within = (numbers & ((1 << steps) - 1)).astype(np.int32) << (FINEST - level)
        self._hold(at, np.where(only < 0, only, only | within))

    def _hold(self, at: Array, only: Array) -> None:
        """Let bins hold what others held as well, the only values of which are told."""
        first = self.only[at] == EMPTY
        self.only[at[first]] = only[first]
        self.only[at[self.only[at] != only]] = MIXED


def join_only(a: Array, b: Array) -> Array:
    """The only value of a bin that gets what two bins held."""
    return np.where(a == EMPTY, b, np.where((b == EMPTY) | (a == b), a, MIXED))


def add_columns(sums: Array, at: Array, more: Array) -> None:
    """Add columns `(..., n)`, float64 or unsigned of up to 32 bits, to others at places `(n,)`."""
    if compiled_serves():
        compiled_sums.add_columns(sums, at, np.ascontiguousarray(more))
    else:
        np.add.at(np.moveaxis(sums, -1, 0), at, np.moveaxis(more, -1, 0))


def binned(p: Array, truth: Array, bins: int) -> Array:
    """Sums over the pixels by bin of their p, for each of K probabilities.

    Args:
        p: `(K, N)` in [0, 1]. Bin m is `(m / bins, (m + 1) / bins]`, 0 in the first.
        truth: `(N,)`, whole numbers.
        bins: how many.

    Returns:
        `(K, bins, 3)` float64: pixels, those whose truth is k, and the sum of p.
    """
    if p.dtype == np.float32 and compiled_serves():
        return compiled_sums.binned(np.ascontiguousarray(p), truth.astype(np.int32), bins)
    sums = []
    for k, own in enumerate(p):
        with np.errstate(invalid="ignore"):  # NaN is refused by those who count it
            at = np.ceil(own * own.dtype.type(bins)).astype(np.int64)
        at = np.clip(at - 1, 0, bins - 1)
        weights = (None, truth == k, own.astype(np.float64))
        sums.append(np.stack([np.bincount(at, w, bins).astype(float) for w in weights], -1))
    return np.stack(sums)


def curves(positives: Array, negatives: Array, tpr: float = 0.95) -> Array:
    """Average precision, AUROC, and FPR at `tpr`, of many curves over the same bins.

    Args:
        positives: `(R, n)` float64 per curve and bin, in ascending order of scores.
        negatives: `(R, n)`.
        tpr: at which the false-positive rate is taken.

    Returns:
        `(R, 3)`; NaN for rows without positives or without negatives.
    """
    if compiled_serves():
        ours = np.ascontiguousarray(positives), np.ascontiguousarray(negatives)
        return compiled_sums.curves(*ours, tpr)
    return np.array([_curve(p[::-1], n[::-1], tpr) for p, n in zip(positives, negatives)])


def _curve(p: Array, n: Array, tpr: float) -> tuple[float, float, float]:
    """`curves` of one row, by descending score."""
    held = p + n != 0
    p, n = p[held], n[held]
    tp, fp = np.cumsum(p), np.cumsum(n)
    if not p.sum() or not n.sum():
        return np.nan, np.nan, np.nan
    total, others = tp[-1], fp[-1]
    within = (p * n / (total * others)).sum() / 2
    return (
        (p * tp / (tp + fp)).sum() / total,
        (n * (tp - p)).sum() / (total * others) + within,
        fp[np.searchsorted(tp / total, tpr, side="left")] / others,
    )


def ranked(
    positives: Array, negatives: Array, lowest: Array, single: Array
) -> tuple[Array, Array, Array]:
    """The bins that hold positives or negatives, the highest first.

    Args:
        positives: `(n,)` float64 by ascending bin.
        negatives: `(n,)`.
        lowest: `(n,)` float32, the lowest value of each.
        single: `(n,)` bool, whether each holds one number only.

    Returns:
        `(4, m)` positives, negatives, and the sums of each so far; `(m,)` lowest; `(m,)` single.
    """
    if compiled_serves():
        kinds = (np.float64, np.float64, np.float32, bool)
        given = zip((positives, negatives, lowest, single), kinds)
        return compiled_sums.ranked(*(np.ascontiguousarray(each, kind) for each, kind in given))
    held = np.flatnonzero(positives + negatives)[::-1]
    p, n = positives[held], negatives[held]
    return np.stack([p, n, np.cumsum(p), np.cumsum(n)]), lowest[held], single[held]


def areas(p: Array, n: Array, tp: Array, fp: Array, single: Array) -> Array:
    """What average precision and AUROC sum over bins as `ranked` has them, at least one.

    Within a bin whose order is unknown, no positive can have a precision above that of all
    the bin's positives ahead of its negatives, and the j-th none below that of j positives
    behind all negatives; the sums of these are the bounds.

    Returns:
        `(6,)`: positives times precision, the same where each bin's order is the worst and the
        best; then negatives times the positives before them, the share of pairs within one bin,
        and within one that holds several numbers.
    """
    if compiled_serves():
        counts = [np.ascontiguousarray(each, np.float64) for each in (p, n, tp, fp)]
        return compiled_sums.areas((*counts, np.ascontiguousarray(single, bool)))
    tied, within = p * tp / (tp + fp), p * n / (tp[-1] * fp[-1])
    best = p * tp / np.where(tp + fp > n, tp + fp - n, 1)
    worst = np.where(p > 1, p - fp * np.log1p(p / (tp - p + fp + 0.5)), tied)
    unsure = (p > 0) & ~single
    lower = np.where(unsure, np.minimum(worst, tied), tied)
    upper = np.where(unsure, np.maximum(best, tied), tied)
    terms = (tied, lower, upper, n * (tp - p), within, within * ~single)
    return np.array([term.sum() for term in terms])


def label_mask(mask: Array) -> tuple[Array, int]:
    """Number the 8-connected components of a mask.

    Args:
        mask: `(H, W)` bool.

    Returns:
        `(H, W)` int32, numbers from 1 in reading order of first pixels, 0 outside; how many.
    """
    if compiled_serves() and mask.size:
        return compiled_sums.label(np.ascontiguousarray(mask))
    labels, count = ndimage.label(mask, np.ones((3, 3), int))
    return labels, count
