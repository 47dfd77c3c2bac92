"""The file of a fitted score: tensors and what they mean, in safetensors, never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from doubtmap.atomic import write_atomically
from doubtmap.errors import DataError
from doubtmap.version import __version__

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
