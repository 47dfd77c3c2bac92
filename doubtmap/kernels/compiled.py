"""The per-pixel pass and the segments in C (`pixels.c`, `segments.c`), through ctypes.

The package's build compiles it where there is a compiler. Everything here trusts its arguments:
`fused.py` is the door.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from doubtmap.kernels.resizing import neighbours

_SCORES = ("max_softmax", "margin", "entropy", "max_logit", "energy")
_MAPS = (*_SCORES, "divergence", "log_norm")
FILE = "pixels.dll" if os.name == "nt" else "pixels.so"
"""As setup.py names it: it is no module of Python's, so that one serves every Python."""
BUILD = 9
"""`BUILD` of pixels.h: a library with another number was compiled from other sources."""
_STATISTICS, _NORM, _WEIGHT, _SHARES, _SQUARES, _OBSERVE = range(6)


class _Job(ctypes.Structure):
    """`struct job` of pixels.h."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("images", ctypes.c_int64),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("image_stride", ctypes.c_int64),
        ("channel_stride", ctypes.c_int64),
        ("row_stride", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("row_below", ctypes.c_void_p),
        ("column_below", ctypes.c_void_p),
        ("row_weight", ctypes.c_void_p),
        ("column_weight", ctypes.c_void_p),
        ("class_map", ctypes.c_void_p),
        ("maps", ctypes.c_void_p * len(_MAPS)),
        ("bytes", ctypes.c_void_p * len(_MAPS)),
        ("flags", ctypes.c_void_p * len(_MAPS)),
        ("low", ctypes.c_float * len(_MAPS)),
        ("steps", ctypes.c_float * len(_MAPS)),
        ("limit", ctypes.c_float * len(_MAPS)),
        ("segments", ctypes.c_void_p),
        ("sums", ctypes.c_void_p),
        ("probabilities", ctypes.c_void_p),
        ("labels", ctypes.c_void_p),
        ("predicted", ctypes.c_void_p),
        ("errors", ctypes.c_void_p),
        ("observed", ctypes.c_void_p),
        ("instructions", ctypes.c_char_p),
        ("factor", ctypes.c_float),
        ("inverse_temperature", ctypes.c_float),
        ("p", ctypes.c_float),
        ("sign", ctypes.c_float),
        ("operation", ctypes.c_int32),
        ("scores", ctypes.c_int32),
        ("uniform", ctypes.c_int32),
        ("published", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("class_bytes", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("square", ctypes.c_int32),
        ("bins", ctypes.c_int32),
        ("groups", ctypes.c_int32),
    )


class SumsTable(ctypes.Structure):
    """`struct table` of tables.c."""

    _fields_ = (
        ("row_of_page", ctypes.c_void_p),
        ("directory", ctypes.c_void_p),
        ("blocks", ctypes.c_void_p),
        ("counts", ctypes.c_void_p),
        ("only", ctypes.c_void_p),
        ("used", ctypes.c_int64),
        ("capacity", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("level", ctypes.c_int32),
        ("block", ctypes.c_int32),
    )


class Grid:
    """Values `(B, K, h, w)` and the image size that they are brought to.

    Args:
        values: float32 on the CPU.
        size: `(H, W)`, or None for the values' own grid.
        covered: as in `resize`.
        align_corners: as in `resize`.
    """

    def __init__(
        self,
        values: Tensor,
        size: tuple[int, int] | None = None,
        covered: tuple[float, float] | None = None,
        align_corners: bool = False,
    ) -> None:
        self.values = values if values.stride(3) == 1 else values.contiguous()
        images, channels, *native = self.values.shape
        height, width = size or native
        self.shape = (images, height, width)
        self.job = _Job(
            values=self.values.data_ptr(),
            images=images,
            channels=channels,
            rows=native[0],
            columns=native[1],
            image_stride=self.values.stride(0),
            channel_stride=self.values.stride(1),
            row_stride=self.values.stride(2),
            height=height,
            width=width,
            instructions=_asked.name,
            factor=1.0,
            sign=1.0,
            class_bytes=8,
            threads=torch.get_num_threads(),
        )
        if size is not None:
            area = covered or size
            self.rows = neighbours(height, native[0], area[0], align_corners)
            self.columns = neighbours(width, native[1], area[1], align_corners)
            self.job.row_below, self.job.row_weight = (t.data_ptr() for t in self.rows)
            self.job.column_below, self.job.column_weight = (t.data_ptr() for t in self.columns)


def statistics(
    grid: Grid, temperature: float | None = None, wanted: tuple[str, ...] = _SCORES
) -> Mapping[str, Tensor]:
    """Maps by name: `classes` and those of `wanted`, all or none; `divergence` if tempered."""
    maps = {}
    if wanted:
        maps["classes"] = torch.empty(grid.shape, dtype=torch.int64)
        grid.job.class_map = maps["classes"].data_ptr()
    for name in (*wanted, *(("divergence",) if temperature is not None else ())):
        maps[name] = _new_map(grid, name)
    grid.job.scores = bool(wanted)
    grid.job.inverse_temperature = 1 / temperature if temperature is not None else 0.0
    _run(grid, _STATISTICS)
    return maps


def log_norm(grid: Grid, p: float) -> Tensor:
    """Log of the p-norm over the channels."""
    norm = _new_map(grid, "log_norm")
    grid.job.p = _order(p)
    _run(grid, _NORM)
    return norm


def log_weight_norm(grid: Grid, p: float, uniform: bool, published: bool) -> Tensor:
    """Log of the p-norm of the gradient in the logits."""
    norm = _new_map(grid, "log_norm")
    grid.job.p, grid.job.uniform, grid.job.published = _order(p), uniform, published
    _run(grid, _WEIGHT)
    return norm


def summed_probabilities(grid: Grid, segments: Tensor, count: int) -> Tensor:
    """`(count, C)` float64, sums of the softmax over the pixels of each segment.

    `segments` is `(B, H, W)` int32, contiguous, below `count`; pixels below 0 belong to none.
    """
    sums = torch.zeros(count, grid.values.shape[1], dtype=torch.int64)
    grid.job.segments, grid.job.sums = segments.data_ptr(), sums.data_ptr()
    _run(grid, _SHARES)
    return sums.double() / 2**32


def squares(grid: Grid, side: int) -> tuple[Tensor, Tensor]:
    """Means of the softmax, `(B, C, h', w')`, and of its entropy, `(B, h', w')`, over squares."""
    images, channels, *native = grid.values.shape
    grid.job.height, grid.job.width = (-(-n // side) for n in native)
    grid.shape = images, grid.job.height, grid.job.width
    found = torch.empty(images, channels, *grid.shape[1:])
    entropy = _new_map(grid, "entropy")
    grid.job.square, grid.job.probabilities = side, found.data_ptr()
    _run(grid, _SQUARES)
    return found, entropy


def observe(
    grid: Grid, classes: Tensor, labels: Tensor, bins: int
) -> tuple[NDArray[np.float64], Tensor, Tensor]:
    """All sums of `observed.Observed` in a row, doubts and Brier scores, of one image.

    `classes` and `labels` are `(H, W)` int64, contiguous.
    """
    channels = grid.values.shape[1]
    size = 3 * bins * (1 + channels) + 3 + channels**2
    sums = np.zeros((max(1, min(64, 2**22 // size)), size))
    doubt, brier = _new_map(grid, "max_softmax"), torch.empty(grid.shape)
    grid.job.labels, grid.job.predicted = labels.data_ptr(), classes.data_ptr()
    grid.job.errors, grid.job.observed = brier.data_ptr(), sums.ctypes.data
    grid.job.bins, grid.job.groups = bins, len(sums)
    _run(grid, _OBSERVE)
    return sums.sum(0), doubt[0], brier[0]


def islands(p: Tensor, reaches: tuple[int, int, int], geometric: bool) -> Tensor:
    """`(B, h, w)`, of probabilities `(B, C, h, w)`, contiguous; see `squares.islands`."""
    found = torch.empty(p.shape[0], *p.shape[2:])
    places = p.data_ptr(), *p.shape, (ctypes.c_int64 * 3)(*reaches), geometric, found.data_ptr()
    if library().doubtmap_islands(_asked.name, *places, torch.get_num_threads()):
        raise MemoryError("kernels: no memory left to look for islands.")
    return found


def components(values: Tensor, labels: Tensor) -> int:
    """Number the 8-connected components of equal `values` `(H, W)`, both int32, contiguous."""
    found: int = library().doubtmap_components(values.data_ptr(), *values.shape, labels.data_ptr())
    if found < 0:
        raise MemoryError("kernels: no memory left to find components.")
    return found


def edges(labels: Tensor) -> Tensor:
    """`(H, W)` bool, whether a pixel has one of another label among its 8 neighbours."""
    edge = torch.empty(labels.shape, dtype=torch.bool)
    library().doubtmap_edges(labels.data_ptr(), *labels.shape, edge.data_ptr())
    return edge


def summed_moments(labels: Tensor, edge: Tensor, maps: list[Tensor], count: int) -> Tensor:
    """`(count, 2, M, 2)` float64: sum and sum of squares of the interior (0) and the edge (1)."""
    sums = torch.zeros(count, 2, len(maps), 2, dtype=torch.float64)
    pointers = (ctypes.c_void_p * len(maps))(*(m.data_ptr() for m in maps))
    threads = torch.get_num_threads()
    library().doubtmap_moments(
        labels.data_ptr(),
        edge.data_ptr(),
        labels.numel(),
        pointers,
        len(maps),
        sums.data_ptr(),
        threads,
    )
    return sums


class _Asked:
    """Which of the processor's instructions the pass uses; None: the widest."""

    name: bytes | None = None


_asked = _Asked()


def instructions(wanted: str | None = None) -> str | None:
    """Name of the processor's instructions in use, after choosing those `wanted`.

    `avx512`, `avx2` or `baseline`; None where the processor does not have those wanted.
    """
    asked = wanted.encode() if wanted else _asked.name
    name: bytes | None = library().doubtmap_instructions(asked)
    if name is not None:
        _asked.name = asked
    return name.decode() if name else None


def exponential_and_logarithm(x: Tensor) -> tuple[Tensor, Tensor]:
    """The pass's own approximations, of float32 numbers."""
    x = x.contiguous()
    results = torch.empty_like(x), torch.empty_like(x)
    library().doubtmap_functions(
        _asked.name, x.data_ptr(), x.numel(), *(r.data_ptr() for r in results)
    )
    return results


@functools.cache
def missing() -> str | None:
    """Why the library cannot be used, one sentence, or None where it can."""
    try:
        library()
    except OSError as error:
        return str(error)
    return None


def _why_missing(file: Path) -> str:
    """The sources of a clone come first in their own folder, whatever is installed beside them."""
    if (file.parents[2] / "setup.py").exists():
        return (
            "it was not built in these sources; build it with: python setup.py build_ext --inplace"
        )
    return "it was not built when doubtmap was installed (no C compiler?)"


@functools.cache
def library() -> ctypes.CDLL:
    """The library, loaded once.

    Raises:
        OSError: where it is not there, or of other sources.
    """
    file = Path(__file__).with_name(FILE)
    if not file.exists():
        raise OSError(_why_missing(file))
    loaded = ctypes.CDLL(str(file))
    built = loaded.doubtmap_build() if hasattr(loaded, "doubtmap_build") else "none"
    same = built == BUILD and loaded.doubtmap_job_bytes() == ctypes.sizeof(_Job)
    if not same or loaded.doubtmap_table_bytes() != ctypes.sizeof(SumsTable):
        raise OSError(
            f"{file.name} was built from another version of doubtmap (build {built}, expected "
            f"{BUILD}); build it again with: pip install --force-reinstall --no-deps doubtmap, or, "
            f"in its sources, python setup.py build_ext --inplace"
        )
    loaded.doubtmap_instructions.argtypes = [ctypes.c_char_p]
    loaded.doubtmap_instructions.restype = ctypes.c_char_p
    loaded.doubtmap_run.argtypes = [ctypes.POINTER(_Job)]
    pointer = ctypes.c_void_p
    loaded.doubtmap_functions.argtypes = [
        ctypes.c_char_p,
        pointer,
        ctypes.c_int64,
        pointer,
        pointer,
    ]
    loaded.doubtmap_functions.restype = None
    sides = [ctypes.c_int64, ctypes.c_int64]
    loaded.doubtmap_islands.argtypes = [ctypes.c_char_p, pointer, *sides, *sides, pointer]
    loaded.doubtmap_islands.argtypes += [ctypes.c_int32, pointer, ctypes.c_int32]
    loaded.doubtmap_components.argtypes = [pointer, *sides, pointer]
    loaded.doubtmap_components.restype = ctypes.c_int64
    loaded.doubtmap_edges.argtypes = [pointer, *sides, pointer]
    loaded.doubtmap_edges.restype = None
    loaded.doubtmap_moments.argtypes = [
        *(pointer, pointer, ctypes.c_int64, pointer, ctypes.c_int64, pointer, ctypes.c_int32)
    ]
    loaded.doubtmap_moments.restype = None
    return loaded


def _new_map(grid: Grid, name: str) -> Tensor:
    new = torch.empty(grid.shape, dtype=torch.float32)
    grid.job.maps[_MAPS.index(name)] = new.data_ptr()
    return new


def _order(p: float) -> float:
    return 0.0 if p == float("inf") else p


def _run(grid: Grid, operation: int) -> None:
    grid.job.operation = operation
    if library().doubtmap_run(ctypes.byref(grid.job)):
        raise MemoryError("kernels: no memory left for the pixel pass.")
