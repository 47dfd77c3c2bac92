"""What the segmenter asks of a network's run time, so that a new one is a small thing to add.

A backend runs one tensor and reports what chosen layers saw and said (a `Tap` each).

A network just opened, with all that its file or folder says about itself.

`Runner` puts images through a backend as the network wants them: padded, in batches of its size.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from doubtmap.errors import ModelError, first_line, is_out_of_memory
from doubtmap.kernels import recording
from doubtmap.models.preprocessing import Preprocessing, mirrored, padded_to
from doubtmap.prediction import PIXEL, Window

DIVISORS = (8, 16, 32, 64, 128)
"""Sides are padded to multiples of these, in turn, when a network refuses a size."""


@dataclass(frozen=True, eq=False)
class Tap:
    """One call of a layer during one run.

    Args:
        name: the layer's name in the network.
        input: `(B, D, h, w)`, or `(B, N, D)` or `(B, h, w, D)` of a linear layer.
        output: `(B, C, h, w)`, likewise.
    """

    name: str
    input: Tensor
    output: Tensor


@dataclass(frozen=True)
class LastLayer:
    """A layer that could be the last one with weights, whose outputs are the classes.

    Args:
        channels: of its output.
        kind: a convolution, a linear layer on tokens, or a transposed convolution whose kernel is
            its stride, so that each output pixel sees one input pixel.
        window: what of its input a convolution sees for one pixel.
    """

    channels: int
    kind: Literal["convolution", "linear", "transposed"] = "convolution"
    window: Window = PIXEL


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
    def last_layers(self) -> Mapping[str, LastLayer]:
        """Layers that could be the classifier, by name."""
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
            taps: names from `last_layers` to listen to.

        Returns:
            The network's output as it is, and the calls of the named layers in order.

        Raises:
            RuntimeError, ValueError or AssertionError: for an input that the network refuses.
        """
        ...


@dataclass(frozen=True, eq=False)
class Source:
    """What the openers (module, folder, ONNX ...) return.

    Args:
        backend: runs the network.
        name: what the user called it.
        kind: `module`, `huggingface`, `onnx`, `exported`, `torchscript`, `smp`, `python`, `trained`
            or `demo`.
        preprocessing: from RGB in [0, 1] to the network's input.
        class_names: one per class, or empty where unknown.
        notes: what a reader of the results should know, a sentence each.
        sha256: of the weights, where they are one file.
        names_given: whether the class names are the user's own.
        code: hash of the code or the configuration that makes the network of its weights.
    """

    backend: Backend
    name: str
    kind: str
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sha256: str | None = None
    names_given: bool = False
    code: str | None = None


def weights_of(backend: Backend) -> str | None:
    """A hash of the weights that a network holds now; None where it does not show them."""
    holder = getattr(backend, "module", None)
    if not callable(getattr(holder, "state_dict", None)):
        return None
    assert holder is not None
    digest = hashlib.blake2b(digest_size=16)
    for name, part in sorted(holder.state_dict().items()):
        if isinstance(part, Tensor):
            digest.update(f"{name} {tuple(part.shape)} {part.dtype} ".encode())
            plain = part.detach().dequantize() if part.is_quantized else part.detach()
            plain = plain if plain.layout == torch.strided else plain.to_dense()
            plain = plain.cpu().contiguous().reshape(-1)
            digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fixed_notes(size: tuple[int, int] | None, batch: int | None) -> tuple[str, ...]:
    """What results should say of an export with fixed axes."""
    sized = size and f"The file accepts only {size[0]}x{size[1]} pixels; images are resized to it."
    batched = batch and f"The file accepts only batches of {batch}."
    return tuple(note for note in (sized, batched) if note)


@dataclass(frozen=True, eq=False)
class Answer:
    """What one run of a network gave.

    Args:
        given: `(B, 3, H, W)`, what the network was given: normalised and padded.
        parts: its raw outputs, one for each run; several where it takes only so many at once.
        calls: of the layers that were listened to, one list for each run.
        at_once: images of each run; the last ones may be filling.
    """

    given: Tensor
    parts: tuple[object, ...]
    calls: tuple[list[Tap], ...]
    at_once: int

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of what the network was given."""
        return self.given.shape[-2], self.given.shape[-1]

    def call(self, name: str) -> Tap | None:
        """What a layer saw and said of the batch: its last call, or those of one image each."""
        if recording(self.given):
            return next((tap for tap in reversed(self.calls[0]) if tap.name == name), None)
        taps = [_of_batch([c for c in run if c.name == name], self.at_once) for run in self.calls]
        found = [tap for tap in taps if tap is not None]
        if len(found) != len(taps) or not found:
            return None
        if len(found) == 1 and self.at_once == len(self.given):
            return found[0]
        seen, said = torch.cat([t.input for t in found]), torch.cat([t.output for t in found])
        return Tap(name, seen[: len(self.given)], said[: len(self.given)])

    def last_calls(self) -> list[Tap]:
        """What every layer that was listened to saw and said, in the order of their last calls."""
        names = dict.fromkeys(call.name for call in reversed(self.calls[0]))
        taps = [self.call(name) for name in names]
        return [tap for tap in reversed(taps) if tap is not None]


def _of_batch(calls: list[Tap], images: int) -> Tap | None:
    """The last call; of a network that takes its images one by one, the last of each."""
    if not calls:
        return None
    each = len(calls) // images
    said: object = calls[-1].output
    if not isinstance(said, Tensor) or len(said) == images or len(calls) % images:
        return calls[-1]
    last = calls[each - 1 :: each]
    if any(len(tap.output) != 1 or tap.output.shape != said.shape for tap in last):
        return calls[-1]
    seen, spoken = torch.cat([t.input for t in last]), torch.cat([t.output for t in last])
    return Tap(calls[-1].name, seen, spoken)


class Runner:
    """Runs a network on normalised images, padding sides where it refuses them.

    Args:
        backend: the network.
        divisor: of the sides, where it is known; None: found out.

    Attributes:
        margin: pixels that the network's output lacks on every side; images are mirrored by them.
        stretched: whether a grid that is no whole fraction of the image was seen to stand for it.
    """

    def __init__(self, backend: Backend, divisor: int | None = None) -> None:
        self.backend, self.divisor, self._given = backend, divisor, divisor is not None
        self.margin = 0
        self.stretched = False

    def copy(self, backend: Backend) -> Runner:
        """The same for another backend, with what was found out."""
        other = Runner(backend, self.divisor)
        other._given, other.margin, other.stretched = self._given, self.margin, self.stretched
        return other

    def alone(self, x: Tensor) -> Answer:
        """Run one batch as it is, without padding.

        Raises:
            RuntimeError, ValueError or AssertionError: where the size is refused.
        """
        return self._in_batches(x, ())

    def __call__(self, x: Tensor, taps: Collection[str] = ()) -> Answer:
        """Run the network, with sides padded where it refuses the size.

        Args:
            x: `(B, 3, H, W)`, normalised.
            taps: names of the layers to listen to.

        Raises:
            ModelError: where every size is refused.
        """
        x = mirrored(x, self.margin)
        known = self.divisor or 1
        if recording(x):
            padded = padded_to(x, known)
            output, calls = self.backend.run(padded, taps)
            return Answer(padded, (output,), (calls,), padded.shape[0])
        tried = [known] if self._given else [known, *(d for d in DIVISORS if d > known)]
        refusal: Exception | None = None
        shapes: set[torch.Size] = set()
        for divisor in tried:
            padded = padded_to(x, divisor)
            if padded.shape in shapes:
                continue
            shapes.add(padded.shape)
            try:
                answer = self._in_batches(padded, taps)
            except (RuntimeError, ValueError, AssertionError) as error:
                if is_out_of_memory(error):
                    raise
                refusal = refusal or error
                continue
            self.divisor = divisor if divisor > 1 else self.divisor
            return answer
        raise ModelError(_refused(x, tried, refusal)) from refusal

    def _in_batches(self, x: Tensor, names: Collection[str]) -> Answer:
        """Run as many images at once as the network takes; the last run may hold filling."""
        at_once = self.backend.fixed_batch or len(x)
        runs = []
        for chunk in torch.split(x, at_once):
            filler = chunk[-1:].expand(at_once - len(chunk), -1, -1, -1)
            filled = torch.cat([chunk, filler]) if len(filler) else chunk
            runs.append(self.backend.run(filled, names))
        return Answer(x, tuple(raw for raw, _ in runs), tuple(taps for _, taps in runs), at_once)


def _refused(x: Tensor, tried: list[int], refusal: Exception | None) -> str:
    padding = [str(divisor) for divisor in tried if divisor > 1]
    also = f", also with sides padded to multiples of {', '.join(padding)}" if padding else ""
    cause = first_line(refusal) if refusal else "no reason given"
    wanted = re.search(
        r"expected input\[.*\] to have (\d+) channels|Got: \d+ Expected: (\d+)", str(refusal)
    )
    bands = next((int(n) for n in wanted.groups() if n), 0) if wanted else 0
    if wanted and bands != x.shape[1]:
        return (
            f"network: it takes images of {bands} bands, got {x.shape[1]} ({cause}). Pass images "
            f"of {bands} bands, with {bands} values each for mean and std (for RGB images: wrap it "
            f"in a module that takes (B, 3, H, W))."
        )
    return (
        f"network: it refused an image of {x.shape[-2]}x{x.shape[-1]} pixels{also} ({cause}). "
        f"Pass input_size=(H, W), a size it was made for."
    )
