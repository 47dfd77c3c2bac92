"""Files appear whole or not at all: written beside their place, then moved into it."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from doubtmap.errors import DataError


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
    beside = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(target)
    except OSError as error:
        raise _unwritable(target, error, option) from error
    finally:
        with suppress(OSError):
            beside.unlink()


FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def cell(text: str) -> str:
    """A text for a table that spreadsheets open, in which nothing becomes a formula.

    Reference:
        OWASP, CSV Injection, https://owasp.org/www-community/attacks/CSV_Injection
    """
    return f"'{text}" if text.startswith(FORMULA) else text


def utf8(text: str) -> bytes:
    """A text for a file; odd bytes of names that are not UTF-8 are spelt as JSON spells them."""
    return text.encode("utf-8", "backslashreplace")


def check_place(path: str | Path) -> None:
    """Refuse, before any work, a file that could not be written.

    Raises:
        DataError: for a place that cannot be made or written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(21, "is a folder")
        if not os.access(target.parent, os.W_OK):
            raise PermissionError(13, "is not writable")
    except OSError as error:
        raise _unwritable(target, error, "--out") from error


def _unwritable(target: Path, error: OSError, option: str) -> DataError:
    return DataError(
        f"{target}: cannot be written ({error.strerror or error}). Choose another {option}."
    )
