"""Files appear whole or not at all: written beside their place, then moved into it."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from doubtmap.errors import DataError


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file in one step, making the folders that lead to it.

    Args:
        path: where the file shall be; an older one is replaced.
        content: all of it.

    Raises:
        DataError: where the place cannot be written.
    """
    target = Path(path)
    beside = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(content)
        beside.replace(target)
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written ({error.strerror or error}). Choose another --out."
        ) from error
    finally:
        with suppress(OSError):
            beside.unlink()
