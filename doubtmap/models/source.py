"""A network just opened, with all that its file or folder says about itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from doubtmap.models.backend import Backend
from doubtmap.models.preprocessing import Preprocessing


@dataclass(frozen=True, eq=False)
class Source:
    """What the openers (module, folder, ONNX ...) return.

    Args:
        backend: runs the network.
        name: what the user called it.
        kind: `module`, `huggingface`, `onnx`, `exported`, `python` or `demo`.
        preprocessing: from RGB in [0, 1] to the network's input.
        class_names: one per class, or empty where unknown.
        notes: what a reader of the results should know, a sentence each.
        sha256: of the weights, where they are one file.
        names_given: whether the class names are the user's own.
    """

    backend: Backend
    name: str
    kind: str
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sha256: str | None = None
    names_given: bool = False


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fixed_notes(size: tuple[int, int] | None, batch: int | None) -> tuple[str, ...]:
    """What results should say of an export with fixed axes."""
    sized = size and f"The file accepts only {size[0]}x{size[1]} pixels; images are resized to it."
    batched = batch and f"The file accepts only batches of {batch}."
    return tuple(note for note in (sized, batched) if note)
