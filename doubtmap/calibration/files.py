"""Calibrators as files, and a network with its calibrator behind one call.

The file is safetensors with a description in JSON; nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from doubtmap.calibration.calibrator import Calibrator, Origin
from doubtmap.calibration.judge import Judge
from doubtmap.calibration.methods import METHODS, name_of
from doubtmap.errors import DataError, DoubtmapError, ModelError, UsageError
from doubtmap.files import write_atomically
from doubtmap.prediction import Prediction, Segmenter, listening_to

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


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A segmenter whose predictions are calibrated; implements `Segmenter`.

    Args:
        segmenter: the network.
        calibrator: fitted for it.
        source: what the results call the calibrator, such as its file.

    Raises:
        UsageError: where both know class names and these differ.
    """

    segmenter: Segmenter
    calibrator: Calibrator
    source: str = ""

    def __post_init__(self) -> None:
        here, there = self.segmenter.class_names, self.calibrator.origin.class_names
        if here and there and here != there:
            raise UsageError(
                f"calibrator {self.source}: expected the classes it was fitted for, "
                f"{', '.join(there)}; got a network of {', '.join(here)}. Fit it anew for this "
                f"network with doubtmap calibrate."
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The network's."""
        return self.segmenter.class_names

    @property
    def calibrated_on(self) -> tuple[str, ...]:
        """Fingerprints of the images that the calibrator was fitted on."""
        return tuple(self.calibrator.origin.images)

    @property
    def description(self) -> dict[str, object]:
        """The network's, and the calibrator's method, file, parameters' hash and data."""
        about = {
            "method": name_of(type(self.calibrator)),
            "source": self.source,
            "sha256": parameters_sha256(self.calibrator),
            "fitted_on": self.calibrator.origin.data,
        }
        return {**self.segmenter.description, "calibrator": about}

    def listening(self, layers: Sequence[str]) -> Calibrated:
        """The same, whose predictions also carry the outputs of inner layers.

        Raises:
            UsageError: for a network that cannot be listened to, or without such a layer.
            ModelError: for a calibrator that works at the image's size, where there are none.
        """
        if not self.calibrator.keeps_grid:
            raise ModelError(
                f"layer: needs outputs of inner layers, but the calibrator "
                f"({name_of(type(self.calibrator))}) works at the image's size, where there are "
                f"none. Leave the calibrator out for this score, or take temperature."
            )
        return replace(self, segmenter=listening_to(self.segmenter, layers))

    def __call__(self, images: Tensor) -> Prediction:
        """Predict, then calibrate."""
        return self.calibrator(self.segmenter(images))
