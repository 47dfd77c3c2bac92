"""Negatives: patches that are pasted into known images, and taught to be unknown.

They are samples of a flow, or real: things and photographs of elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.datasets import Outlines, collect_images, open_outlines, read_image
from doubtmap.datasets.cutouts import HALVES, half_of
from doubtmap.datasets.fingerprints import fingerprint_of
from doubtmap.datasets.reading import read_size
from doubtmap.errors import DataError, UsageError
from doubtmap.training.flow import Flow
from doubtmap.training.trust import TrustRegion

Drawn = tuple[Tensor, Tensor]
"""Patches `(B, 3, h, w)` in [0, 1], and `(B, h, w)` bool: which of their pixels are pasted."""


@dataclass(frozen=True, eq=False)
class Objects:
    """Real things, cut out along their outlines and scaled to fit into the patch.

    Args:
        outlines: of things that the network does not know.
        notes: what the user should know of them.
    """

    outlines: Outlines
    notes: tuple[str, ...] = ()

    def files(self) -> list[Path]:
        """The photographs that the things are cut from."""
        return sorted({outline.image for outline in self.outlines.outlines})

    def __call__(self, content: Tensor, clean: Tensor) -> Drawn:
        """Patches of `content`'s shape; the mask is the thing, in the middle."""
        size = (content.shape[-2], content.shape[-1])
        patches, masks = torch.zeros_like(content), torch.zeros_like(content[:, 0])
        for number in range(len(content)):
            cut_out = self.outlines[int(torch.randint(len(self.outlines), ()))]
            image, mask = cut_out.image.to(content) / 255, cut_out.mask.to(content)[None]
            height, width = fitting((image.shape[-2], image.shape[-1]), size)
            top, left = (size[0] - height) // 2, (size[1] - width) // 2
            window = (slice(top, top + height), slice(left, left + width))
            patches[(number, slice(None), *window)] = scaled(image, (height, width))
            masks[(number, *window)] = scaled(mask, (height, width))[0]
        return patches, masks > 0.5


@dataclass(frozen=True, eq=False)
class PhotographPatches:
    """Windows of real photographs, without regard to what they show.

    Args:
        paths: of the images.
        notes: what the user should know of them.
    """

    paths: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    def files(self) -> list[Path]:
        """The photographs."""
        return list(self.paths)

    def __call__(self, content: Tensor, clean: Tensor) -> Drawn:
        """Patches of `content`'s shape; a photograph that is smaller is scaled up."""
        size = (content.shape[-2], content.shape[-1])
        patches = torch.empty_like(content)
        for number in range(len(content)):
            patches[number] = self._window(size)
        return patches, everywhere(content)

    def _window(self, size: tuple[int, int]) -> Tensor:
        image = read_image(self.paths[int(torch.randint(len(self.paths), ()))]).float() / 255
        factor = max(1.0, *(wanted / side for wanted, side in zip(size, image.shape[-2:])))
        if factor > 1:
            bigger = tuple(max(w, round(s * factor)) for w, s in zip(size, image.shape[-2:]))
            image = scaled(image, (bigger[0], bigger[1]))
        top, left = (
            int(torch.randint(side - wanted + 1, ()))
            for side, wanted in zip(image.shape[-2:], size)
        )
        return image[:, top : top + size[0], left : left + size[1]]


def fitting(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """The largest size of the same shape that fits into a box, at least one pixel a side.

    Example:
        >>> fitting((100, 50), (40, 40))
        (40, 20)
    """
    factor = min(most / side for side, most in zip(size, box))
    height, width = (min(most, max(1, round(side * factor))) for side, most in zip(size, box))
    return height, width


def scaled(image: Tensor, size: tuple[int, int]) -> Tensor:
    """`(K, h, w)` resized with blending, in [0, 1]."""
    bigger = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    return bigger.clamp(0, 1)


def everywhere(content: Tensor) -> Tensor:
    """The mask of a patch that is pasted whole."""
    return torch.ones_like(content[:, 0], dtype=torch.bool)


def open_real(
    text: str, class_names: Sequence[str], held_out: Sequence[str] = ()
) -> Objects | PhotographPatches:
    """Real things of a folder with outlines, else windows of its photographs.

    Args:
        text: `FOLDER`, or `FOLDER:train` or `FOLDER:test`, a half of its images.
        class_names: what the network knows.
        held_out: what it shall be tested on, and so must not learn as unknown either.

    Raises:
        DataError: for a folder without images, or with none but known and held-out things, or a
            file that is no image; one whose pixels are damaged shows only when it is drawn.
    """
    root, _, half = text.rpartition(":")
    if not (root and half in HALVES):
        root, half = text, ""
    folder = Path(root).expanduser()
    if any((folder / name).is_dir() for name in ("polygons", "labels")):
        return _objects(text, class_names, held_out)
    inner = folder / "images"
    paths = collect_images([inner if inner.is_dir() else folder])
    kept = tuple(path for path in paths if not half or half_of(path.stem) == half)
    if not kept:
        raise DataError(
            f"{folder}: expected images in its half {half}, found none. Leave :{half} out, or give "
            f"more images."
        )
    for path in kept:
        read_size(path)
    taught = ", ".join([*class_names, *held_out])
    note = (
        f"{text}: {len(kept)} photographs without outlines are taken as negatives. Where they show "
        f"{taught}, the network is taught to doubt what it knows, or what it is to be tested on."
    )
    return PhotographPatches(kept, (note,))


def _objects(text: str, class_names: Sequence[str], held_out: Sequence[str]) -> Objects:
    """The things of other classes whose outlines hold a pixel, and notes of those left out."""
    outlines, note = open_outlines(text).foreign_to(class_names)
    notes = [note] if note else []
    if tested := outlines.known_to(held_out):
        foreign = outlines.without(tested)
        notes.append(
            f"{text}: {len(outlines) - len(foreign)} objects were left out too, since they are of "
            f"held-out classes: {', '.join(tested)}."
        )
        outlines = foreign
    whole = tuple(outline for outline in outlines.outlines if outline.mask()[0].size)
    if len(whole) < len(outlines):
        notes.append(f"{text}: {len(outlines) - len(whole)} outlines hold no pixel; left out.")
    if not whole:
        raise DataError(f"{text}: expected outlines that hold a pixel, found none. Check them.")
    return Objects(replace(outlines, outlines=whole), tuple(notes))


def fingerprints_of(source: Objects | PhotographPatches) -> set[str]:
    """A short hash of each image that things are taken from.

    Raises:
        DataError: for a file that cannot be read.
    """
    return {fingerprint_of(path) for path in source.files()}


def things_of(source: Objects | PhotographPatches) -> list[str]:
    """All that a draw of each thing depends on, in the order of the draw."""
    if isinstance(source, PhotographPatches):
        return [fingerprint_of(path) for path in source.paths]
    marks = {path: fingerprint_of(path) for path in source.files()}
    return [f"{marks[one.image]} {one.points.tolist()}" for one in source.outlines.outlines]


KINDS = ("flow", "real:FOLDER", "noise", "shuffled", "none")


BLOCK = 8
"""Side of the blocks that `Shuffled` puts in another order, in pixels."""


REAL = "real:"


class PatchSource(Protocol):
    """Where negatives come from: `patches, mask = source(content, clean)`."""

    def __call__(self, content: Tensor, clean: Tensor) -> Drawn:
        """Patches in place of `content`, `(B, 3, h, w)` in [0, 1].

        Args:
            content: what they replace.
            clean: `(B,)` bool, whether that is without void, and so known.
        """
        ...


class Noise:
    """Every value evenly from [0, 1]: the plainest negative."""

    def __call__(self, content: Tensor, clean: Tensor) -> Drawn:
        """Patches of `content`'s shape."""
        return torch.rand(content.shape).to(content), everywhere(content)


class Shuffled:
    """The content itself, its blocks in another order: the same colours and the same seams.

    A control: what is learnt from it is that a patch was pasted, not what it shows. Content with
    void is not pasted, so that no held-out class is among the negatives.
    """

    def __call__(self, content: Tensor, clean: Tensor) -> Drawn:
        """Patches of `content`'s shape, sides divisible by 8."""
        height, width = content.shape[-2:]
        blocks = F.unfold(content, BLOCK, stride=BLOCK)
        orders = torch.rand(len(content), 1, blocks.shape[-1]).argsort(-1).to(content.device)
        blocks = blocks.gather(2, orders.expand(blocks.shape))
        mixed = F.fold(blocks, (height, width), BLOCK, stride=BLOCK)
        return mixed, everywhere(content) & clean.to(content.device)[:, None, None]


@dataclass(frozen=True, eq=False)
class FlowSamples:
    """Samples of a flow, which the loss reaches through them, and of what it was before.

    Args:
        flow: any size divisible by 8.
        past: the flow as it was, frozen; each sample is drawn from one of all, evenly.
        region: beyond which nothing is drawn; None: anything is.
    """

    flow: Flow
    past: list[Flow] = field(default_factory=list)
    region: TrustRegion | None = None

    def __call__(self, content: Tensor, clean: Tensor) -> Drawn:
        """Patches of `content`'s shape, sides divisible by 8."""
        flows, patches = [self.flow, *self.past], torch.empty_like(content)
        which = torch.zeros(len(content), dtype=torch.int64)
        if self.past:
            which = torch.randint(len(flows), (len(content),))
        latents = self.flow.noise(len(content), (content.shape[-2], content.shape[-1]))
        for number, flow in enumerate(flows):
            own = (which == number).to(content.device)
            drawn = flow.drawn if self.region is None else partial(self.region.drawn, flow)
            patches[own] = drawn([part[own] for part in latents])
        return patches, everywhere(content)


@dataclass(frozen=True, eq=False)
class Mixture:
    """Each patch from one of several sources, evenly.

    Args:
        sources: two or more.
    """

    sources: tuple[PatchSource, ...]

    def __call__(self, content: Tensor, clean: Tensor) -> Drawn:
        """Patches of `content`'s shape."""
        which = torch.randint(len(self.sources), (len(content),)).to(content.device)
        patches, masks = torch.empty_like(content), everywhere(content)
        for number, source in enumerate(self.sources):  # in step with other processes, so all
            own = which == number
            patches[own], masks[own] = source(content[own], clean[own])
        return patches, masks


def parse_negatives(text: str) -> tuple[str, ...]:
    """The kinds of a text such as `flow,real:FOLDER`; empty for `none`.

    Raises:
        UsageError: for other kinds, one twice, or `none` beside others.
    """
    kinds = tuple(part.strip() for part in text.split(",") if part.strip())
    known = {"flow", "noise", "shuffled", "none"}
    wrong = [k for k in kinds if k not in known and not (k.startswith(REAL) and k != REAL)]
    if wrong or not kinds or len(set(kinds)) < len(kinds):
        raise UsageError(
            f"--negatives: expected some of {', '.join(KINDS)}, separated by commas, got {text!r}."
        )
    if "none" in kinds and len(kinds) > 1:
        raise UsageError(
            f"--negatives: expected none alone, got {text}. Leave none out, or the others."
        )
    return () if kinds == ("none",) else kinds


def open_source(
    kinds: Sequence[str],
    flow: FlowSamples | None,
    class_names: Sequence[str],
    held_out: Sequence[str] = (),
) -> tuple[PatchSource, tuple[str, ...]]:
    """The source of negatives that a text means, and what the user should know of it.

    Args:
        kinds: as `parse_negatives` gives them, at least one.
        flow: what `flow` is.
        class_names: of the network; real things of these classes are left out where their
            outlines say what they are.
        held_out: classes that are not learnt, and of which nothing may be pasted either.

    Raises:
        UsageError: for `flow` without a flow.
        DataError: for a folder without negatives.
    """
    sources: list[PatchSource] = []
    notes: list[str] = []
    for kind in kinds:
        if kind == "flow":
            if flow is None:
                raise UsageError("nflowjs: expected a flow. Give --flow FILE.")
            sources.append(flow)
        elif kind.startswith(REAL):
            real = open_real(kind.removeprefix(REAL), class_names, held_out)
            sources.append(real)
            notes += real.notes
        else:
            sources.append(Noise() if kind == "noise" else Shuffled())
    return sources[0] if len(sources) == 1 else Mixture(tuple(sources)), tuple(notes)
