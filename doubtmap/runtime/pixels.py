"""`doubtmap_pixels.h` for NumPy: classes and doubts of every pixel, from native logits."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doubtmap.errors import DataError, ModelError, UsageError

HERE = Path(__file__).parents[1] / "kernels"
"""The header, the sources and the library are those of the kernels."""
SOURCES = ("doubtmap_pixels.c", "pixels.c", "pixels_threads.c")
DOUBTS = ("max_softmax", "margin", "entropy", "max_logit", "energy", "divergence")
"""In the order of the header."""
VERSION = 1
"""`DOUBTMAP_PIXELS_VERSION` of the header that this file was written for."""
NOT_FINITE, NO_MEMORY = 6, 7
Array = NDArray[Any]


@dataclass(frozen=True)
class Doubt:
    """How a doubt is wanted: as numbers, as bytes, or as flags, each under a name of its own.

    Args:
        step: of bytes that stand for `low + step * byte`; None: float32.
        low: what the byte 0 stands for.
        threshold: of flags, 1 where the doubt is above it; None: no flags.
        values: whether the doubt itself is wanted, not its flags alone.
    """

    step: float | None = None
    low: float = 0.0
    threshold: float | None = None
    values: bool = True


class _Doubt(ctypes.Structure):
    """`struct doubtmap_doubt`."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("bytes", ctypes.c_void_p),
        ("flags", ctypes.c_void_p),
        ("low", ctypes.c_float),
        ("step", ctypes.c_float),
        ("threshold", ctypes.c_float),
    )


class _Call(ctypes.Structure):
    """`struct doubtmap_call`."""

    _fields_ = (
        ("bytes", ctypes.c_size_t),
        ("logits", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("images", "classes", "rows", "columns")),
        *((name, ctypes.c_int64) for name in ("image_stride", "class_stride", "row_stride")),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("covered_height", ctypes.c_double),
        ("covered_width", ctypes.c_double),
        ("align_corners", ctypes.c_int32),
        ("temperature", ctypes.c_float),
        ("threads", ctypes.c_int32),
        ("class_bytes", ctypes.c_int32),
        ("class_map", ctypes.c_void_p),
        ("doubts", _Doubt * len(DOUBTS)),
    )


def doubts_of(
    logits: Array,
    size: tuple[int, int],
    wanted: Mapping[str, Doubt],
    *,
    covered: tuple[float, float] = (0.0, 0.0),
    align_corners: bool = False,
    temperature: float = 1.0,
    threads: int = 0,
) -> dict[str, Array]:
    """Classes and doubts at the image's size, without the logits of that size.

    Args:
        logits: `(B, C, h, w)` float32, at the network's own resolution.
        size: `(H, W)` of the images, in pixels.
        wanted: doubts of `DOUBTS`, by name.
        covered: height and width that the logits stand for, in pixels; 0: the images'.
        align_corners: as PyTorch has it.
        temperature: of calibration, by which logits are divided.
        threads: 0: those of OMP_NUM_THREADS, else one a processor.

    Returns:
        `classes`, `(B, H, W)` uint8, uint16 or int32, as small as holds them; each doubt, float32
        or uint8; and NAME_flags, uint8.

    Raises:
        UsageError: for what cannot be asked for.
        DataError: for logits that are not finite.
        ModelError: where the library is not there.
    """
    for name in wanted:
        if name not in DOUBTS:
            raise UsageError(
                f"runtime: expected some of {', '.join(DOUBTS)}, got {name}. Others are computed "
                f"in the graph: leave out --native when exporting."
            )
    if logits.ndim != 4:
        raise UsageError(
            f"runtime: expected logits (B, C, h, w), got {logits.shape}. Add a batch axis with "
            f"logits[None]."
        )
    if min(size) < 1 or not temperature > 0:
        raise UsageError(
            f"runtime: expected a size above 0 and a temperature above 0, got {size[0]}x{size[1]} "
            f"and {temperature}. Correct them."
        )
    given = np.ascontiguousarray(logits, np.float32)
    images, classes, rows, columns = given.shape
    call = _Call(
        *(ctypes.sizeof(_Call), given.ctypes.data, images, classes, rows, columns, 0, 0, 0),
        *(*size, *covered, align_corners, temperature, threads),
    )
    kind = np.uint8 if classes <= 1 << 8 else np.uint16 if classes <= 1 << 16 else np.int32
    shape = (images, *size)
    found: dict[str, Array] = {"classes": np.empty(shape, kind)}
    call.class_bytes, call.class_map = found["classes"].itemsize, found["classes"].ctypes.data
    for name, how in wanted.items():
        found |= _outputs(call.doubts[DOUBTS.index(name)], name, how, shape)
    _check(library().doubtmap_pixels(ctypes.byref(call)))
    return found


def _outputs(to: _Doubt, name: str, how: Doubt, shape: tuple[int, ...]) -> dict[str, Array]:
    """Memory for what is wanted of a doubt, told to the call."""
    found: dict[str, Array] = {}
    if how.values and how.step is None:
        found[name] = np.empty(shape, np.float32)
        to.values = found[name].ctypes.data
    elif how.values:
        found[name] = np.empty(shape, np.uint8)
        to.bytes, to.low, to.step = found[name].ctypes.data, how.low, how.step
    if how.threshold is not None:
        flags = found[f"{name}_flags"] = np.empty(shape, np.uint8)
        to.flags, to.threshold = flags.ctypes.data, how.threshold
    return found


def _check(code: int) -> None:
    if code == 0:
        return
    if code == NO_MEMORY:
        raise MemoryError("runtime: no memory left for the pixel pass.")
    kind = DataError if code == NOT_FINITE else UsageError
    raise kind(f"runtime: {library().doubtmap_pixels_message(code).decode()}.")


def library_file() -> Path:
    """The compiled library.

    Raises:
        ModelError: where it is not there.
    """
    found = HERE / ("pixels.dll" if os.name == "nt" else "pixels.so")
    if not found.exists():
        raise ModelError(
            "runtime: expected the compiled pass, but it was not built when doubtmap was "
            "installed. Install a C compiler and reinstall with: pip install --force-reinstall "
            "--no-deps doubtmap"
        )
    return found


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled library, opened.

    Raises:
        ModelError: where it is not there, or of another version.
    """
    opened = ctypes.CDLL(str(library_file()))
    known = hasattr(opened, "doubtmap_pixels_version")
    if not known or opened.doubtmap_pixels_version() != VERSION:
        raise ModelError(
            f"runtime: {library_file().name} was built from another version of doubtmap. Build it "
            f"again with: pip install --force-reinstall --no-deps doubtmap"
        )
    opened.doubtmap_pixels.argtypes = [ctypes.POINTER(_Call)]
    opened.doubtmap_pixels_message.argtypes = [ctypes.c_int32]
    opened.doubtmap_pixels_message.restype = ctypes.c_char_p
    return opened
