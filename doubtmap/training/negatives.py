"""Negatives: patches that are pasted into known images, and taught to be unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.datasets import Outlines, collect_images, open_outlines, read_image
from doubtmap.errors import UsageError
from doubtmap.training.flow import Flow

KINDS = ("flow", "real:FOLDER", "noise", "shuffled", "none")
BLOCK = 8
"""Side of the blocks that `Shuffled` puts in another order, in pixels."""

Drawn = tuple[Tensor, Tensor]
"""Patches `(B, 3, h, w)` in [0, 1], and `(B, h, w)` bool: which of their pixels are pasted."""


class Source(Protocol):
    """Where negatives come from: `patches, mask = source(content)`."""

    def __call__(self, content: Tensor) -> Drawn:
        """Patches in place of `content`, `(B, 3, h, w)` in [0, 1]."""
        ...


class Noise:
    """Every value evenly from [0, 1]: the plainest negative."""

    def __call__(self, content: Tensor) -> Drawn:
        """Patches of `content`'s shape."""
        return torch.rand(content.shape).to(content), everywhere(content)


class Shuffled:
    """The content itself, its blocks in another order: the same colours and the same seams.

    A control: what is learnt from it is that a patch was pasted, not what it shows.
    """

    def __call__(self, content: Tensor) -> Drawn:
        """Patches of `content`'s shape, sides divisible by 8."""
        height, width = content.shape[-2:]
        blocks = F.unfold(content, BLOCK, stride=BLOCK)
        orders = torch.rand(len(content), 1, blocks.shape[-1]).argsort(-1).to(content.device)
        blocks = blocks.gather(2, orders.expand(blocks.shape))
        return F.fold(blocks, (height, width), BLOCK, stride=BLOCK), everywhere(content)


@dataclass(frozen=True, eq=False)
class FlowSamples:
    """Samples of a flow, which the loss reaches through them.

    Args:
        flow: any size divisible by 8.
    """

    flow: Flow

    def __call__(self, content: Tensor) -> Drawn:
        """Patches of `content`'s shape, sides divisible by 8."""
        size = (content.shape[-2], content.shape[-1])
        return self.flow.sample(len(content), size), everywhere(content)


@dataclass(frozen=True, eq=False)
class Objects:
    """Real things, cut out along their outlines and scaled to fit into the patch.

    Args:
        outlines: of things that the network does not know.
    """

    outlines: Outlines

    def __call__(self, content: Tensor) -> Drawn:
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
class Photographs:
    """Windows of real photographs, without regard to what they show.

    Args:
        paths: of the images.
    """

    paths: tuple[Path, ...]

    def __call__(self, content: Tensor) -> Drawn:
        """Patches of `content`'s shape; a photograph that is smaller is scaled up."""
        size = (content.shape[-2], content.shape[-1])
        patches = [self._window(size) for _ in content]
        return torch.stack(patches).to(content), everywhere(content)

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


@dataclass(frozen=True, eq=False)
class Mixture:
    """Each patch from one of several sources, evenly.

    Args:
        sources: two or more.
    """

    sources: tuple[Source, ...]

    def __call__(self, content: Tensor) -> Drawn:
        """Patches of `content`'s shape."""
        which = torch.randint(len(self.sources), (len(content),))
        parts = {k: self.sources[k](content[which == k]) for k in sorted(set(which.tolist()))}
        taken = {k: iter(zip(*drawn)) for k, drawn in parts.items()}
        patches, masks = zip(*(next(taken[k]) for k in which.tolist()))
        return torch.stack(patches), torch.stack(masks)


def everywhere(content: Tensor) -> Tensor:
    """The mask of a patch that is pasted whole."""
    return torch.ones_like(content[:, 0], dtype=torch.bool)


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


def parse_negatives(text: str) -> tuple[str, ...]:
    """The kinds of a text such as `flow,real:FOLDER`; empty for `none`.

    Raises:
        UsageError: for other kinds, one twice, or `none` beside others.
    """
    kinds = tuple(part.strip() for part in text.split(",") if part.strip())
    known = {"flow", "noise", "shuffled", "none"}
    wrong = [k for k in kinds if k not in known and not (k[:5] == "real:" and k[5:])]
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
    kinds: Sequence[str], flow: Flow | None, class_names: Sequence[str]
) -> tuple[Source, tuple[str, ...]]:
    """The source of negatives that a text means, and what the user should know of it.

    Args:
        kinds: as `parse_negatives` gives them, at least one.
        flow: whose samples `flow` are.
        class_names: of the network; real things of these classes are left out where their
            outlines say what they are.

    Raises:
        UsageError: for `flow` without a flow.
        DataError: for a folder without negatives.
    """
    sources: list[Source] = []
    notes: list[str] = []
    for kind in kinds:
        if kind == "flow":
            if flow is None:
                raise UsageError("nflowjs: expected a flow. Give --flow FILE.")
            sources.append(FlowSamples(flow))
        elif kind.startswith("real:"):
            source, note = real_negatives(kind.removeprefix("real:"), class_names)
            sources.append(source)
            notes += [note] if note else []
        else:
            sources.append(Noise() if kind == "noise" else Shuffled())
    return sources[0] if len(sources) == 1 else Mixture(tuple(sources)), tuple(notes)


def real_negatives(text: str, class_names: Sequence[str]) -> tuple[Source, str]:
    """Real things of a folder with outlines, else windows of its photographs, and a note.

    Args:
        text: `FOLDER`, or with outlines `FOLDER:train` or `FOLDER:test`, a half of its images.
        class_names: what the network knows.

    Raises:
        DataError: for a folder without images, or with none but known things.
    """
    root, _, half = text.rpartition(":")
    folder = Path(root if root and half in ("train", "test") else text)
    if (folder / "polygons").is_dir():
        outlines, note = open_outlines(text).foreign_to(class_names)
        return Objects(outlines), note
    paths = tuple(collect_images([folder]))
    return Photographs(paths), (
        f"{folder}: {len(paths)} photographs without outlines are taken as negatives. Where they "
        f"show {', '.join(class_names)}, the network is taught to doubt what it knows."
    )
