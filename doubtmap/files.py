"""Files appear whole or not at all: written beside their place, then moved into it.

What was fitted is tensors and what they mean, in safetensors, never a pickle.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from doubtmap.errors import DataError
from doubtmap.version import __version__


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


FORMAT = 1


def write_fitted(
    path: str | Path, kind: str, tensors: Mapping[str, Tensor], options: Mapping[str, Any]
) -> None:
    """Write a fitted score; the file is whole or not there.

    Raises:
        DataError: where it cannot be written.
    """
    meta = {"doubtmap": __version__, "format": FORMAT, "kind": kind, "options": dict(options)}
    content = save(
        {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
        {"doubtmap": json.dumps(meta, default=list)},
    )
    write_atomically(path, content)


def read_fitted(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_fitted` wrote.

    Raises:
        DataError: for a file that is not there, is something else, or of a later version.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            meta = json.loads((file.metadata() or {})["doubtmap"])
            found, version, options = meta["kind"], int(meta["format"]), dict(meta["options"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: expected a file that doubtmap fit wrote, but it cannot be read "
            f"({error or type(error).__name__}). Fit it with: doubtmap fit {kind} MODEL DATA "
            f"--out FILE."
        ) from error
    if found != kind or version > FORMAT:
        raise DataError(
            f"{path}: expected a fitted {kind} of format {FORMAT}, got {found} of format "
            f"{version}. Fit it with: doubtmap fit {kind} MODEL DATA --out FILE."
        )
    return tensors, options
