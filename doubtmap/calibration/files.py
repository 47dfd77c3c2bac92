"""Calibrators as files, and a network with its calibrator behind one call.

The file is safetensors with a description in JSON; nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import Field, dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from doubtmap.calibration.calibrator import Calibrator
from doubtmap.calibration.judge import Judge
from doubtmap.calibration.methods import FORMER, METHODS, name_of
from doubtmap.errors import ModelError, UsageError
from doubtmap.files import Content, Entry, FileKind, Origin, Part, read, write
from doubtmap.files.tables import TABLE, hold_entries, hold_parts, optional, whole
from doubtmap.prediction import Prediction, Segmenter, listening_to
from doubtmap.shown import ShownSegmenter

FILE = FileKind(
    "calibrator",
    "a calibrator",
    "Make one with: doubtmap calibrate MODEL DATA --out FILE.",
    {"calibrator": TABLE},
    {"*": Part()},
)
CHANNELS = optional(whole(2, 1 << 20))


def parameters_sha256(calibrator: Calibrator) -> str:
    """SHA-256 of what a calibrator does, wherever it comes from."""
    tensors: dict[str, Tensor] = {}
    described = {
        field.name: _encode(getattr(calibrator, field.name), field.name, tensors)
        for field in _fields(calibrator)
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
    write(path, FILE, Content({"calibrator": described}, tensors, calibrator.origin))


def load_calibrator(path: str | Path) -> Calibrator:
    """Read a calibrator.

    Args:
        path: a file that `save_calibrator` or `doubtmap calibrate` wrote.

    Raises:
        DataError: where there is no such file, or it holds something else or something broken.
    """
    return read(path, FILE, _calibrator)


def _calibrator(content: Content) -> Calibrator:
    found = _decode(content.entries["calibrator"], content.tensors)
    if not isinstance(found, Calibrator):
        raise ValueError("no calibrator")
    tensors: dict[str, Tensor] = {}
    _encode(found, "calibrator", tensors)
    if len(tensors) < len(content.tensors):
        raise ValueError("tensors that no part of it has")
    names = content.origin.class_names
    if names and found.channels not in (None, len(names)):
        raise ValueError(f"{len(names)} class names for {found.channels} classes")
    return replace(found, origin=content.origin)


def _fields(value: Calibrator | Judge | type[Calibrator] | type[Judge]) -> list[Field[Any]]:
    """What it does, without where it comes from."""
    return [field for field in fields(value) if field.name != "origin"]


def _encode(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(value, Calibrator | Judge):
        kind = name_of(type(value)) if isinstance(value, Calibrator) else type(value).__name__
        inside = {
            f.name: _encode(getattr(value, f.name), f"{name}.{f.name}", tensors)
            for f in _fields(value)
        }
        return {"kind": kind, "fields": inside}
    if isinstance(value, tuple):
        return {"tuple": [_encode(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]}
    return value


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "tuple" in value:
        return tuple(_decode(v, tensors) for v in value["tuple"])
    kinds: dict[str, Any] = {**METHODS, "Judge": Judge}
    kind = kinds[FORMER.get(str(value["kind"]), str(value["kind"]))]
    given = {key: each for key, each in dict(value["fields"]).items() if key != "origin"}
    inside = {name: _decode(v, tensors) for name, v in given.items()}
    if inside.keys() != {field.name for field in _fields(kind)}:
        raise ValueError(f"other fields than those of {value['kind']}: {', '.join(inside)}")
    if kind is not Judge:
        _hold(kind, inside)
    return kind(**inside)


def _hold(kind: type[Calibrator], found: dict[str, Any]) -> None:
    """Refuse numbers that are not those of a method.

    Raises:
        ValueError: for them.
    """
    hold_entries({"channels": found["channels"]}, {"channels": CHANNELS}, kind.__name__)
    sizes = {} if found["channels"] is None else {"C": int(found["channels"])}
    for name, value in found.items():
        wanted = kind.PARTS.get(name)
        if isinstance(wanted, Part):
            hold_parts({name: value}, {name: wanted}, sizes)
        elif isinstance(wanted, Entry):
            hold_entries({name: value}, {name: wanted}, kind.__name__)
        elif name != "channels" and not isinstance(value, Calibrator | Judge):
            raise ValueError(f"{name}: expected a part of {kind.__name__}, got {str(value)[:60]!r}")


@dataclass(frozen=True, eq=False)
class Calibrated(ShownSegmenter):
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
    def origin(self) -> Origin:
        """Where the calibrator comes from."""
        return self.calibrator.origin

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

    @property
    def content(self) -> object:
        """Hashes of what the network is; the calibrator's is in the description."""
        return getattr(self.segmenter, "content", None)

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
