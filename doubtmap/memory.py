"""Memory: what is free goes back to the system.

Freed blocks stay with the C library, which keeps them for the next ones; glibc can be asked to give
them back. Otherwise a long run looks as if it grew.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable


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
