"""Calibrators as files: safetensors with a description in JSON; nothing in them is executed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from doubtmap.atomic import write_atomically
from doubtmap.calibration.calibrator import Calibrator, Origin
from doubtmap.calibration.judge import Judge
from doubtmap.calibration.methods import METHODS, name_of
from doubtmap.errors import DataError, DoubtmapError, UsageError

FORMAT = "1"


def parameters_sha256(calibrator: Calibrator) -> str:
    """SHA-256 of what a calibrator does, wherever it comes from."""
    tensors: dict[str, Tensor] = {}
    described = {
        field.name: _encode(getattr(calibrator, field.name), field.name, tensors)
        for field in fields(calibrator)
        if field.name != "origin"
    }
    text = json.dumps([name_of(type(calibrator)), described], sort_keys=True, default=repr)
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def save_calibrator(calibrator: Calibrator, path: str | Path) -> None:
    """Write a calibrator.

    Args:
        calibrator: fitted, of one of doubtmap's methods.
        path: the file; an older one is replaced.

    Raises:
        UsageError: for a class of your own, which could not be read back.
        DataError: where the file cannot be written.
    """
    if type(calibrator) not in METHODS.values():
        raise UsageError(
            f"save_calibrator: expected one of doubtmap's methods, {', '.join(METHODS)}; got "
            f"{type(calibrator).__name__}. Keep the parameters of your own in a file of your own."
        )
    tensors: dict[str, Tensor] = {}
    described = _encode(calibrator, "calibrator", tensors)
    metadata = {"doubtmap_calibrator": FORMAT, "calibrator": json.dumps(described)}
    # a file of safetensors needs a tensor
    tensors.setdefault("empty", torch.zeros(1))
    content = safetensors.torch.save(tensors, metadata)
    write_atomically(path, content)


def load_calibrator(path: str | Path) -> Calibrator:
    """Read a calibrator.

    Args:
        path: a file that `save_calibrator` or `doubtmap calibrate` wrote.

    Raises:
        DataError: where there is no such file, or it holds something else or something broken.
    """
    if not Path(path).is_file():
        raise DataError(
            f"{path}: expected a calibrator, found no file. Make one with doubtmap calibrate "
            f"MODEL DATA --out FILE."
        )
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get("doubtmap_calibrator") != FORMAT:
            raise ValueError(
                f"format {metadata.get('doubtmap_calibrator')}, where this version reads {FORMAT}"
            )
        if not all(bool(torch.isfinite(x).all()) for x in tensors.values()):
            raise ValueError("numbers that are not finite")
        calibrator = _decode(json.loads(metadata["calibrator"]), tensors)
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise _unreadable(path, error) from error
    except DoubtmapError as error:
        raise _unreadable(path, error) from error
    if not isinstance(calibrator, Calibrator):
        raise _unreadable(path, ValueError("no calibrator"))
    return calibrator


def _unreadable(path: str | Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: expected a calibrator, got something else ({error}). Make one with doubtmap "
        f"calibrate MODEL DATA --out FILE."
    )


def _encode(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(value, Calibrator | Judge | Origin):
        kind = name_of(type(value)) if isinstance(value, Calibrator) else type(value).__name__
        inside = {
            f.name: _encode(getattr(value, f.name), f"{name}.{f.name}", tensors)
            for f in fields(value)
        }
        return {"kind": kind, "fields": inside}
    if isinstance(value, tuple):
        return {"tuple": [_encode(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]}
    if isinstance(value, dict):
        return {"dict": value}
    return value


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "tuple" in value:
        return tuple(_decode(v, tensors) for v in value["tuple"])
    if "dict" in value:
        return dict(value["dict"])
    kinds: dict[str, Any] = {**METHODS, "Judge": Judge, "Origin": Origin}
    kind = kinds[value["kind"]]
    inside = {name: _decode(v, tensors) for name, v in value["fields"].items()}
    return kind(**inside)
