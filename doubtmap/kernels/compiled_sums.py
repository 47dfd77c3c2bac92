"""The sums in C (`sums.c`, `tables.c`), through ctypes; the doors are `counted.py`, `tables.py`."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doubtmap.kernels.compiled import SumsTable, library


class Counted(ctypes.Structure):
    """`struct counted` of tables.c."""

    _fields_ = (
        ("entries", ctypes.c_void_p),
        ("n", ctypes.c_int64),
        ("channels", ctypes.c_void_p),
        ("channel", ctypes.c_int64),
        ("weight", ctypes.c_double),
        ("more", ctypes.c_void_p),
        ("more_bytes", ctypes.c_int64),
        ("more_channel", ctypes.c_int64),
    )


def sort(values: NDArray[np.float32], pages: NDArray[np.uint32]) -> tuple[NDArray[np.uint64], int]:
    """Entries of `tables.Keys`, after those of each page were counted; how many are not finite."""
    entries, spare = (np.empty(len(values), np.uint64) for _ in range(2))
    places = _at(entries), _at(spare), _at(pages)
    bad: int = _sums().doubtmap_sort(_at(values), len(values), *places)
    return entries, bad


def counted(
    entries: NDArray[np.uint64],
    channel: NDArray[np.uint8] | int,
    weight: float,
    more: NDArray[Any] | None,
    more_channel: int,
) -> Counted:
    """What is counted, which lives as long as these arrays, each in one piece, are kept."""
    found = Counted(_at(entries), len(entries), weight=weight, more_channel=more_channel)
    if isinstance(channel, int):
        found.channel = channel
    else:
        found.channels = _at(channel)
    if more is not None:
        found.more, found.more_bytes = _at(more), more.itemsize
    found.arrays = entries, channel, more
    return found


def means(values: NDArray[np.float32], size: int, whole: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Means of those squares of a map `(H, W)` that are `whole`, `(H // size, W // size)`."""
    found = np.empty(whole.size, np.float32)
    count = _sums().doubtmap_means(_at(values), *values.shape, size, _at(whole), _at(found))
    return found[:count]


def count(table: SumsTable, what: Counted, start: int) -> int:
    """Count from `start` on; the index reached, below the number of entries where room ran out."""
    reached: int = _sums().doubtmap_count(ctypes.byref(table), ctypes.byref(what), start)
    return reached


def bins_of(
    what: Counted, level: int, channels: int, most: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int32]]:
    """Numbers, counts and only values of at most so many bins, as of `tables.BinSums`."""
    page = np.empty((1 << level, channels)), np.empty(1 << level, np.int32)
    found = np.empty(most, np.int64), np.empty((most, channels)), np.empty(most, np.int32)
    places = [_at(array) for array in (*page, *found)]
    held = _sums().doubtmap_bins_of(ctypes.byref(what), level, channels, *places)
    numbers, counts, only = found
    return numbers[:held], counts[:held], only[:held]


def absorb(table: SumsTable, other: SumsTable, start: int) -> int:
    """Add the blocks of another table from `start` on; the block reached."""
    reached: int = _sums().doubtmap_absorb(ctypes.byref(table), ctypes.byref(other), start)
    return reached


def add(table: SumsTable, arrays: tuple[NDArray[Any], ...], level: int, start: int) -> int:
    """Add bins from `start` on: numbers, counts, only values, each in one piece. The next bin."""
    counts = arrays[1]
    reached: int = _sums().doubtmap_add(
        *(ctypes.byref(table), *map(_at, arrays), start, *counts.shape, counts.itemsize, level)
    )
    return reached


def wider(
    bins: tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int32]],
    channels: int,
    steps: int,
    low: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int32]]:
    """Numbers, counts and only values of bins `2 ** steps` times as wide as these."""
    n, columns = bins[1].shape
    found = np.empty(n, np.int64), np.empty((n, channels)), np.empty(n, np.int32)
    places = [[_at(array) for array in arrays] for arrays in (bins, found)]
    held = _sums().doubtmap_wider(*places[0], n, columns, channels, steps, low, *places[1])
    numbers, counts, only = found
    return numbers[:held], counts[:held], only[:held]


def add_columns(sums: NDArray[np.float64], at: NDArray[np.int64], more: NDArray[Any]) -> None:
    """Add columns, float64 or unsigned of up to 32 bits, to those of `sums` at these places."""
    columns = more.shape[-1]
    rows = more.size // max(columns, 1)
    width = sums.shape[-1]
    _sums().doubtmap_add_columns(_at(sums), width, _at(at), _at(more), more.itemsize, rows, columns)


def held(
    table: SumsTable, order: NDArray[np.int64]
) -> tuple[NDArray[np.uint32], NDArray[np.float64], NDArray[np.bool_]]:
    """Keys, counts `(channels, n)` and singleness of the bins that hold anything."""
    n = table.used << table.block
    keys, counts = np.empty(n, np.uint32), np.empty((table.channels, n))
    single = np.empty(n, bool)
    places = map(_at, (keys, counts, single))
    held = _sums().doubtmap_held(ctypes.byref(table), _at(order), n, *places)
    return keys[:held], counts[:, :held], single[:held]


def ranked(
    positives: NDArray[np.float64],
    negatives: NDArray[np.float64],
    lowest: NDArray[np.float32],
    single: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.bool_]]:
    """The bins that hold anything, the highest first; see `counted.ranked`."""
    n = len(lowest)
    sums, low, one = np.empty((4, n)), np.empty(n, np.float32), np.empty(n, bool)
    places = _at(positives), _at(negatives), _at(lowest), _at(single)
    held = _sums().doubtmap_ranked(*places, n, _at(sums), _at(low), _at(one))
    return sums[:, :held], low[:held], one[:held]


def areas(ranked: tuple[NDArray[Any], ...]) -> NDArray[np.float64]:
    """The six sums of `counted.areas`; of bins, at least one."""
    sums = np.empty(6)
    _sums().doubtmap_areas(*map(_at, ranked), len(ranked[0]), _at(sums))
    return sums


def binned(p: NDArray[np.float32], truth: NDArray[np.int32], bins: int) -> NDArray[np.float64]:
    """`(K, bins, 3)`, by bin of p `(K, n)`: pixels, those whose truth is k, and their summed p."""
    sums = np.zeros((len(p), bins, 3))
    _sums().doubtmap_bins(_at(p), *p.shape, _at(truth), bins, _at(sums))
    return sums


def curves(
    positives: NDArray[np.float64], negatives: NDArray[np.float64], tpr: float
) -> NDArray[np.float64]:
    """`(R, 3)`: average precision, AUROC and FPR at `tpr` of each row `(R, n)`."""
    rows, n = positives.shape
    figures, scratch = np.empty((rows, 3)), np.empty(3 * n)
    _sums().doubtmap_curves(
        *(_at(positives), _at(negatives), rows, n, tpr, np.nan, _at(scratch), _at(figures))
    )
    return figures


def label(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Numbers from 1 of the 8-connected components of a mask `(H, W)`, 0 outside; how many."""
    labels = np.empty(mask.shape, np.int32)
    found: int = _sums().doubtmap_label(_at(mask), *mask.shape, _at(labels))
    if found < 0:
        raise MemoryError("kernels: no memory left to find components.")
    return labels, found


@functools.cache
def _sums() -> ctypes.CDLL:
    loaded = library()
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    table, what = ctypes.POINTER(SumsTable), ctypes.POINTER(Counted)
    for name, arguments in {
        "sort": (pointer, number, pointer, pointer, pointer),
        "count": (table, what, number),
        "bins_of": (what, number, number, *(pointer,) * 5),
        "means": (pointer, number, number, number, pointer, pointer),
        "absorb": (table, table, number),
        "add": (table, *(pointer,) * 3, *(number,) * 5),
        "wider": (*(pointer,) * 3, *(number,) * 5, *(pointer,) * 3),
        "add_columns": (pointer, number, pointer, pointer, *(number,) * 3),
        "held": (table, pointer, number, pointer, pointer, pointer),
        "curves": (
            *(pointer, pointer, number, number),
            *(ctypes.c_double, ctypes.c_double, pointer, pointer),
        ),
        "ranked": (*(pointer,) * 4, number, *(pointer,) * 3),
        "areas": (*(pointer,) * 5, number, pointer),
        "bins": (pointer, number, number, pointer, number, pointer),
        "label": (pointer, number, number, pointer),
    }.items():
        function = getattr(loaded, f"doubtmap_{name}")
        function.argtypes = list(arguments)
        function.restype = None if name in ("add_columns", "areas", "bins", "curves") else number
    return loaded


def _at(array: NDArray[Any]) -> int:
    """Where an array's numbers lie."""
    return array.ctypes.data
