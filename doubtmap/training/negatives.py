"""Negatives: patches that are pasted into known images, and taught to be unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.errors import UsageError
from doubtmap.training.flow import Flow
from doubtmap.training.real_negatives import Drawn, everywhere, open_real

KINDS = ("flow", "real:FOLDER", "noise", "shuffled", "none")
BLOCK = 8
"""Side of the blocks that `Shuffled` puts in another order, in pixels."""

REAL = "real:"


class Source(Protocol):
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
    """Samples of a flow, which the loss reaches through them.

    Args:
        flow: any size divisible by 8.
    """

    flow: Flow

    def __call__(self, content: Tensor, clean: Tensor) -> Drawn:
        """Patches of `content`'s shape, sides divisible by 8."""
        size = (content.shape[-2], content.shape[-1])
        return self.flow.sample(len(content), size), everywhere(content)


@dataclass(frozen=True, eq=False)
class Mixture:
    """Each patch from one of several sources, evenly.

    Args:
        sources: two or more.
    """

    sources: tuple[Source, ...]

    def __call__(self, content: Tensor, clean: Tensor) -> Drawn:
        """Patches of `content`'s shape."""
        which = torch.randint(len(self.sources), (len(content),))
        parts = {
            k: self.sources[k](content[which == k], clean[which == k])
            for k in sorted(set(which.tolist()))
        }
        taken = {k: iter(zip(*drawn)) for k, drawn in parts.items()}
        patches, masks = zip(*(next(taken[k]) for k in which.tolist()))
        return torch.stack(patches), torch.stack(masks)


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
    flow: Flow | None,
    class_names: Sequence[str],
    held_out: Sequence[str] = (),
) -> tuple[Source, tuple[str, ...]]:
    """The source of negatives that a text means, and what the user should know of it.

    Args:
        kinds: as `parse_negatives` gives them, at least one.
        flow: whose samples `flow` are.
        class_names: of the network; real things of these classes are left out where their
            outlines say what they are.
        held_out: classes that are not learnt, and of which nothing may be pasted either.

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
        elif kind.startswith(REAL):
            real = open_real(kind.removeprefix(REAL), class_names, held_out)
            sources.append(real)
            notes += real.notes
        else:
            sources.append(Noise() if kind == "noise" else Shuffled())
    return sources[0] if len(sources) == 1 else Mixture(tuple(sources)), tuple(notes)
