"""What the segmenter asks of a network's run time, so that a new one is a small thing to add.

A backend runs one tensor and reports what chosen 1x1 convolutions saw and said (a `Tap` each).

A network just opened, with all that its file or folder says about itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from doubtmap.models.preprocessing import Preprocessing


@dataclass(frozen=True, eq=False)
class Tap:
    """One call of a 1x1 convolution during one run.

    Args:
        name: the layer's name in the network.
        input: `(B, D, h, w)`.
        output: `(B, C, h, w)`.
    """

    name: str
    input: Tensor
    output: Tensor


class Backend(Protocol):
    """A network that can be run and listened to."""

    @property
    def device(self) -> torch.device:
        """Where inputs are wanted."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type that inputs are wanted in."""
        ...

    @property
    def convolutions(self) -> Mapping[str, int]:
        """Number of output channels of each ungrouped 1x1 convolution, by name."""
        ...

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """Height and width, in pixels, of the only input accepted; None where sizes are free."""
        ...

    @property
    def fixed_batch(self) -> int | None:
        """The only batch size accepted; None where it is free."""
        ...

    def run(self, x: Tensor, taps: Collection[str] = ()) -> tuple[object, list[Tap]]:
        """Run the network once.

        Args:
            x: `(B, 3, H, W)`, normalised, on `device`, of `dtype`.
            taps: names from `convolutions` to listen to.

        Returns:
            The network's output as it is, and the calls of the named layers in order.

        Raises:
            RuntimeError, ValueError or AssertionError: for an input that the network refuses.
        """
        ...


def first_line(error: BaseException) -> str:
    """The first line of somebody else's error, short enough for a sentence of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return (text if len(text) <= 200 else text[:197] + "...").rstrip(".")


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
