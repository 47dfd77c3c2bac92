"""One run at a time writes into a folder; of a run that died nothing is left that holds others."""

from __future__ import annotations

import functools
import inspect
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, ParamSpec, TypeVar

from doubtmap.errors import DataError, UsageError

try:
    import fcntl
except ImportError:  # pragma: no cover - not on Windows, where two runs can meet unseen
    fcntl = None  # type: ignore[assignment]

P = ParamSpec("P")
T = TypeVar("T")
NAME = ".lock"
_held: dict[Path, int] = {}
"""Folders that this process holds, and the thread that does."""


@contextmanager
def held(folder: str | Path, *, inside: bool = False) -> Iterator[None]:
    """Keep a folder for one run while the block lasts.

    The operating system lets go of it when the process ends, however it ends.

    Args:
        folder: made if it is not there; removed again where nothing was written into it.
        inside: whether a block of the same thread that keeps it already may be around this one.

    Raises:
        UsageError: for a folder that another run is writing into.
        DataError: where it cannot be written.
    """
    place = Path(folder).resolve()
    if inside and _held.get(place) == threading.get_ident():
        yield
        return
    made = [part for part in (place, *place.parents) if not part.exists()]
    file = _locked(place, Path(folder))
    _held[place] = threading.get_ident()
    try:
        yield
    finally:
        del _held[place]
        with suppress(OSError):  # the folder may be gone
            (place / NAME).unlink()
        os.close(file)
        with suppress(OSError):  # nothing was written, as where what was asked for is refused
            for part in made:
                part.rmdir()


def alone(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function that writes into the folder `out` be the only one to do so while it runs."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        out = signature.bind(*args, **kwargs).arguments.get("out")
        if out is None:
            return function(*args, **kwargs)
        with held(out, inside=True):
            return function(*args, **kwargs)

    return run


def wait_for(file: IO[bytes]) -> None:
    """Wait until no other process has a file that is open here, as one that is about to end."""
    if fcntl is not None:
        with suppress(OSError):  # a disk that knows no locks
            fcntl.flock(file, fcntl.LOCK_EX)


def _locked(place: Path, said: Path) -> int:
    """The open lock file of a folder; one that its owner has just removed is made anew."""
    while True:
        try:
            place.mkdir(parents=True, exist_ok=True)
            file = os.open(place / NAME, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise DataError(
                f"{said}: cannot be written ({error.strerror or error}). Choose another --out."
            ) from error
        if place in _held or not _taken(file):
            os.close(file)
            raise UsageError(
                f"{said}: expected a folder of its own, but another run is using it. Wait for "
                f"it, or choose another --out."
            )
        with suppress(OSError):
            if os.path.samestat(os.fstat(file), (place / NAME).stat()):
                return file
        os.close(file)


def _taken(file: int) -> bool:
    """Whether this process has the lock now; where there are no locks, nobody is held up."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a disk that knows no locks
            return True
    return True
