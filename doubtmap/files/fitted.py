"""The one door for whatever was fitted.

A score, a calibrator, a threshold, a meta model, a flow, a second head: each is tensors and what
they mean, in safetensors or JSON, never a pickle. A `FileKind` says what its file must hold, so a
damaged or foreign file is one sentence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from doubtmap.errors import DataError, DoubtmapError, UsageError
from doubtmap.files.afar import path_of
from doubtmap.files.tables import (
    TABLE,
    TEXT,
    TEXTS,
    Entry,
    Part,
    all_within,
    hold_entries,
    hold_parts,
)
from doubtmap.files.writing import write_atomically
from doubtmap.version import __version__

T = TypeVar("T")
FORMAT = 2


ORIGIN = {
    "data": TEXT,
    "images": TEXTS,
    "class_names": TEXTS,
    "facts": TABLE,
    "command": TEXT,
    "network": TABLE,
    "fingerprint": all_within(),
    "version": TEXT,
}


@dataclass(frozen=True)
class Origin:
    """Where something fitted comes from.

    Args:
        data: name of the data set it was fitted on.
        images: fingerprints of the images it has seen, see `doubtmap.datasets.fingerprints`.
        class_names: of the model, or empty.
        facts: what else a reader should know, such as ECE before and after; JSON values.
        command: how it was made.
        network: what the network's predictions depend on, as far as can be told; JSON values.
        fingerprint: mean features, or logits, of a fixed probe image, by which another network is
            recognised; empty where it was not taken.
        version: of doubtmap that fitted it.
    """

    data: str = ""
    images: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    network: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: tuple[float, ...] = ()
    version: str = __version__

    def told(self) -> dict[str, Any]:
        """For a reader of results: all but the fingerprints."""
        known = asdict(self)
        del known["images"], known["fingerprint"]
        return {**known.pop("facts"), **known}

    @classmethod
    def of(cls, known: object) -> Origin:
        """From what a file says.

        Raises:
            ValueError: for anything else.
        """
        hold_entries(known, ORIGIN, "the origin")
        assert isinstance(known, dict)
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in known.items()
        }
        return cls(**plain)


@dataclass(frozen=True)
class FileKind:
    """What the files of one kind hold.

    Args:
        name: as the file says it.
        what: in a sentence, such as `a fitted density`.
        again: the sentence that says how to make one.
        entries: its values.
        parts: its tensors; `*` stands for all that have no name here. None: who reads it checks.
        plain: whether it is JSON, which people may read and edit, instead of safetensors.
        error: what is raised for a file that cannot be read.
    """

    name: str
    what: str
    again: str
    entries: Mapping[str, Entry]
    parts: Mapping[str, Part] | None = None
    plain: bool = False
    error: type[DoubtmapError] = DataError


@dataclass(frozen=True, eq=False)
class Content:
    """What a file holds: values, tensors on the CPU, and where it comes from."""

    entries: dict[str, Any]
    tensors: dict[str, Tensor]
    origin: Origin


def write(path: str | Path, kind: FileKind, content: Content, *, durable: bool = False) -> None:
    """Write something fitted; the file is whole or not there.

    Raises:
        DataError: where it cannot be written.
    """
    write_atomically(path, encoded(kind, content), durable=durable)


def encoded(kind: FileKind, content: Content) -> bytes:
    """What `write` writes."""
    about: dict[str, Any] = {"doubtmap": __version__, "kind": kind.name, "format": FORMAT}
    origin = asdict(content.origin)
    if kind.plain:
        text = json.dumps(about | content.entries | {"origin": origin}, indent=1, default=list)
        return f"{text}\n".encode()
    text = json.dumps(about | {"origin": origin, "entries": content.entries}, default=list)
    tensors = {name: x.detach().cpu().contiguous() for name, x in content.tensors.items()}
    # a file of safetensors needs a tensor
    kept = tensors or {"empty": torch.zeros(1)}
    written: bytes = save(kept, metadata_of(text, kept))
    return written


def read(path: str | Path, kind: FileKind, build: Callable[[Content], T]) -> T:
    """Read what `write` wrote, or an earlier version of doubtmap.

    Args:
        path: of the file.
        kind: what it should be.
        build: makes it of what the file holds, once that is what the kind says.

    Raises:
        DataError, or the kind's own error: for a file that is not there, is damaged, is something
            else, or of a later version: one sentence.
    """
    try:
        name, content = (_plain if kind.plain else _tensors)(path_of(path))
        if name != kind.name:
            raise ValueError(f"it holds {name!r}")
        hold_entries(content.entries, kind.entries, "it")
        if kind.parts is not None:
            hold_parts(content.tensors, kind.parts)
        return build(content)
    except _TROUBLE as error:
        raise kind.error(
            f"{path}: expected {kind.what}, but it cannot be read ({_why(error)}). {kind.again}"
        ) from error


def kind_of(path: str | Path) -> str:
    """What a file says it holds, such as `threshold`; empty for one that `write` did not write.

    Raises:
        DataError: for a file that is not there.
    """
    file = path_of(path)
    if not file.is_file():
        raise DataError(f"{path}: expected a file, found none there. Check the path.")
    for look in (_plain, _tensors):
        try:
            return look(file)[0]
        except _TROUBLE:
            continue
    return ""


_TROUBLE = (
    *(OSError, SafetensorError, LookupError, TypeError, ValueError, ArithmeticError),
    *(AttributeError, RuntimeError, UsageError),
)
"""What a damaged file may raise, here or in what is made of it."""


def _why(error: Exception) -> str:
    """In words, on one line; what Python says of its own types helps nobody."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, LookupError | TypeError | AttributeError):
        return "its parts do not fit together"
    text = next(iter(str(error).splitlines()), "").rstrip(".") or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]} ..."


def _plain(path: Path) -> tuple[str, Content]:
    known = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(known, dict) or "kind" not in known:
        raise ValueError("doubtmap did not write it")
    name, version = _header(known)
    del known["doubtmap"]
    if version == 1:
        return name, _first_plain(known)
    return name, Content(known, {}, Origin.of(known.pop("origin")))


def _tensors(path: Path) -> tuple[str, Content]:
    if path.is_dir():
        raise IsADirectoryError("a folder")
    content = path.read_bytes()  # by its path only names in UTF-8 can be opened
    tensors = load(content)
    size = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
    if not {"doubtmap", "doubtmap_calibrator"} & metadata.keys():
        raise ValueError("doubtmap did not write it")
    text, _, digest = metadata.get("doubtmap", "").partition("\n")
    known = _first_header(metadata | {"doubtmap": text})
    name, version = _header(known)
    if version == 1:
        return name, _first_tensors(name, known, tensors)
    if digest != checksum(text, tensors):
        raise ValueError("it is damaged: its checksum is another")
    if tensors.keys() == {"empty"}:
        tensors = {}
    return name, Content(known["entries"], tensors, Origin.of(known["origin"]))


def _header(known: dict[str, Any]) -> tuple[str, int]:
    """Kind and format; both leave the table."""
    name, version = known.pop("kind"), known.pop("format")
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise ValueError(f"format {version!r}, where this version reads 1 to {FORMAT}")
    return str(name), version


def metadata_of(text: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The header and its checksum as one entry, since several come in an order of chance."""
    return {"doubtmap": f"{text}\n{checksum(text, tensors)}"}


def checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a header and tensors, by which damage is noticed."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _first_header(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The header, and that of kinds that had one of their own in format 1."""
    if "doubtmap_calibrator" in metadata:
        version = int(metadata["doubtmap_calibrator"])
        inside = json.loads(metadata["calibrator"])
        return {"kind": "calibrator", "format": version, "options": {"calibrator": inside}}
    known = json.loads(metadata["doubtmap"])
    if not isinstance(known, dict):
        raise ValueError("its header is no table")
    return {"kind": "second head"} | known if "classifier" in known else known


def _first_tensors(name: str, known: dict[str, Any], tensors: dict[str, Tensor]) -> Content:
    """What a file of format 1 holds: its origin lay among other things."""
    known.pop("doubtmap", None)
    if name == "flow":
        return Content({"shape": known.pop("shape"), "about": known}, tensors, Origin())
    if name == "second head":
        return Content({"layers": {}} | known, tensors, Origin())
    entries = _ADDED.get(name, {}) | known["options"]
    if name == "calibrator":
        tensors = {key: x for key, x in tensors.items() if key != "empty"}
        inside = entries["calibrator"]["fields"].pop("origin")
        about = {k: v["tuple"] if k in _TUPLES else v for k, v in inside["fields"].items()}
        about["facts"] = about.pop("figures")["dict"]
        return Content(entries, tensors, Origin.of(_BLANK | about))
    about = dict(entries.pop("about"))
    names = about.pop("class_names", [])
    hold_parts({"fingerprint": tensors["fingerprint"]}, {"fingerprint": Part("D", torch.float32)})
    origin = {
        "data": about.pop("data", ""),
        "images": about.pop("seen", []),
        "class_names": entries.pop("class_names", names),
        "command": about.pop("command", ""),
        "network": about.pop("model", {}),
        "version": about.pop("doubtmap", "0.1.0"),
        "fingerprint": tensors.pop("fingerprint").tolist(),
    }
    return Content(entries, tensors, Origin.of(origin | {"facts": about}))


def _first_plain(known: dict[str, Any]) -> Content:
    """What a threshold of format 1 holds."""
    of = {"data": "data", "images": "seen", "command": "command", "network": "network"}
    origin = {name: known.pop(key) for name, key in (of | {"fingerprint": "fingerprint"}).items()}
    known.pop("images")
    about = dict(origin["network"])
    origin |= {"network": about["model"], "class_names": about["class_names"]}
    return Content(known, {}, Origin.of(_BLANK | origin))


_BLANK: dict[str, Any] = {
    part.name: list(value) if isinstance(value := getattr(Origin(), part.name), tuple) else value
    for part in fields(Origin)
}
_TUPLES = ("images", "class_names")
_ADDED: dict[str, dict[str, Any]] = {"density": {"smooth": 0.0, "labels": "given"}}
"""Entries that files of format 1 had not yet, by kind, as they were meant."""
