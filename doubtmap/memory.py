"""Memory: what is free goes back to the system, and that there is too little is said in a sentence.

Freed blocks stay with the C library, which keeps them for the next ones; glibc can be asked to give
them back. Otherwise a long run looks as if it grew.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import sys
from collections.abc import Callable

MARKS = (
    *("allocate memory", "out of memory", "not enough memory", "bad_alloc", "bad allocation"),
    *("can't start new thread", "failed to map segment"),
)
"""What PyTorch, Python and the loader of libraries say where there is too little memory."""


def give_back() -> None:
    """Give freed memory back to the system, where the C library can."""
    trim = _trim()
    if trim is not None:
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """Glibc's `malloc_trim`; other C libraries have none."""
    if not sys.platform.startswith("linux"):
        return None
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim


def is_too_little(error: BaseException) -> bool:
    """Whether an error says that there is too little memory, in whoever's words.

    Example:
        >>> is_too_little(RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"))
        True
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError | ImportError) and any(mark in said for mark in MARKS)
