"""The file of a flow: its weights in safetensors, its shape and version in the header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from doubtmap.atomic import write_atomically
from doubtmap.errors import DataError
from doubtmap.training.flow import Flow, FlowShape
from doubtmap.version import __version__

FORMAT = 1
"""Raised whenever a flow of an older file would not be the same function."""


def write_flow(path: str | Path, flow: Flow, **about: Any) -> None:
    """Write a flow; the file is whole or not there.

    Args:
        path: where.
        flow: what.
        about: what a reader of the file should know, such as `bits`.

    Raises:
        DataError: where it cannot be written.
    """
    meta = {"doubtmap": __version__, "format": FORMAT, "kind": "flow", "shape": flow.described()}
    tensors = {name: part.detach().cpu().contiguous() for name, part in flow.state_dict().items()}
    content: bytes = save(tensors, {"doubtmap": json.dumps(meta | about)})
    write_atomically(path, content, durable=True)


def read_flow(path: str | Path) -> tuple[Flow, dict[str, Any]]:
    """Read what `write_flow` wrote.

    Returns:
        The flow on the CPU, and what its file says about it.

    Raises:
        DataError: for a file that is not there, is something else, of another version, or whose
            weights are not finite or cannot be inverted.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            about = (file.metadata() or {}).get("doubtmap")
            if about is None:
                raise ValueError("doubtmap did not write it")
            meta = json.loads(about)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if meta["kind"] != "flow" or meta["format"] != FORMAT:
            raise ValueError(f"it holds a {meta['kind']} of format {meta['format']}")
        flow = Flow(FlowShape(**meta["shape"]))
        if flow.divisor > 8:
            raise ValueError(f"it takes sides that are multiples of {flow.divisor}, not of 8")
        flow.load_state_dict(tensors)
        with torch.no_grad():
            if not bool(torch.isfinite(flow.log_density(torch.full((1, 3, 16, 16), 0.5))).all()):
                raise ValueError("its weights are not finite, or cannot be inverted")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{path}: expected a flow of format {FORMAT} that doubtmap train wrote, but it cannot "
            f"be used ({str(error).splitlines()[0] if str(error) else type(error).__name__}). "
            f"Leave --flow out to train one."
        ) from error
    return flow, meta
