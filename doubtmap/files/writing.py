"""Files appear whole or not at all: written beside their place, then moved into it."""

from __future__ import annotations

import errno
import os
import re
import secrets
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from doubtmap.errors import DataError

try:
    import fcntl
except ImportError:  # pragma: no cover - on Windows, where nobody can remove an open file
    fcntl = None  # type: ignore[assignment]


def write_atomically(
    path: str | Path, content: bytes, *, option: str = "--out", durable: bool = False
) -> None:
    """Write a file in one step, making the folders that lead to it.

    Args:
        path: where the file shall be; an older one is replaced.
        content: all of it.
        option: by which the user chose the place.
        durable: wait until it is on the disk, so that it outlives a loss of power.

    Raises:
        DataError: where the place cannot be written.
    """
    target = Path(path)
    with writing_to(target, option):
        target.parent.mkdir(parents=True, exist_ok=True)
        with beside(target) as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())


@contextmanager
def beside(target: Path) -> Iterator[IO[bytes]]:
    """A file that takes its place when the block ends, and goes where the block fails.

    A process that is killed leaves it, hidden, for `sweep`; while it lives it holds a lock on it.

    Raises:
        OSError: where it cannot be written.
    """
    part = target.with_name(f"{_start(target)}{secrets.token_hex(8)}.part")
    try:
        with part.open("wb") as file:
            with suppress(OSError):  # of a disk that knows no locks
                _lock(file)
            yield file
        part.replace(target)
    finally:
        with suppress(OSError):
            part.unlink()


def sweep(folder: Path, target: Path | None = None) -> None:
    """Remove what killed processes left half written in a folder; what another one writes stays.

    Args:
        folder: looked through, not what lies below it; it need not be there.
        target: the file whose left parts go; default: those of all.
    """
    start = "." if target is None else _start(target)
    for part in folder.glob(f"{start}*.part"):
        with suppress(OSError), part.open("rb") as file:
            _lock(file)
            part.unlink()


def _lock(file: IO[bytes]) -> None:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _start(target: Path) -> str:
    """Of the names that parts of a file have; short, since the file's own may be the longest."""
    return f".{zlib.crc32(os.fsencode(target.name)):08x}-"


FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def cell(text: str) -> str:
    """A text for a table that spreadsheets open, in which nothing becomes a formula.

    Reference:
        OWASP, CSV Injection, https://owasp.org/www-community/attacks/CSV_Injection
    """
    return f"'{text}" if text.startswith(FORMULA) else text


def plain_xml(text: str) -> str:
    """A text without the characters that no XML file may hold, each of them a question mark.

    Example:
        >>> plain_xml("pole" + chr(0) + "<b>")
        'pole?<b>'
    """
    return re.sub("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)


def utf8(text: str) -> bytes:
    """A text for a file; odd bytes of names that are not UTF-8 are spelt as JSON spells them."""
    return text.encode("utf-8", "backslashreplace")


def check_place(path: str | Path) -> None:
    """Refuse, before any work, a file that could not be written.

    Raises:
        DataError: for a place that cannot be made or written.
    """
    target = Path(path)
    with writing_to(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(21, "is a folder")
        if not os.access(target.parent, os.W_OK):
            raise PermissionError(13, "is not writable")
    sweep(target.parent, target)


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Of errors: the disk, the user's share of it, or the largest file that it takes, is full."""


@contextmanager
def writing_to(target: Path, option: str = "--out") -> Iterator[None]:
    """Turn trouble with the disk into one sentence.

    Args:
        target: the file or folder that is written.
        option: by which the user chose the place.

    Raises:
        DataError: where the block raises `OSError`.
    """
    try:
        yield
    except OSError as error:
        way = "Make room, or choose" if error.errno in FULL else "Choose"
        raise DataError(
            f"{target}: cannot be written ({error.strerror or error}). {way} another {option}."
        ) from error
