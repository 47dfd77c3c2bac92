"""The form of a network's output: what its numbers are, which axis is which, what its grid covers.

Nothing is taken for something else in silence: what the numbers cannot tell is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from doubtmap.errors import ModelError
from doubtmap.kernels import at_least_float32, recording

Kind = Literal["logits", "softmax", "log_softmax", "sigmoid", "queries", "unknown"]
Activation = Literal["none", "softmax", "sigmoid"]

SUM_TOLERANCE = 1e-3
"""How far from one the sum of a float32 softmax over the classes may lie."""
STEP = 1 / 256
"""Of 8-bit probabilities; each class may be half of it off, here twice as much."""
LOOSEST = 0.25
"""How far from one a sum of rounded probabilities may lie, however many the classes."""
SCALES = (1.0, 255.0, 256.0, 100.0)
"""What probabilities may have been multiplied by."""
NEARLY = 0.9
"""Share of such a number that the largest of multiplied probabilities has at least."""
COMPARED = 9.5
"""Largest logit, least log-probability, of probabilities that are compared."""
DECIDED = 64
"""Pixels that must all be 0 or 1 before an output is called a map of decided classes."""
MASKED = -1e9
"""In place of minus infinity, for a class that is switched off."""
STRIDES = 32
"""Largest whole number by which a grid may be coarser or finer than the image."""
PADDINGS = (2, 4, 8, 16, 32, 64, 128)
"""Sides to whose multiples a network may pad or cut its images."""


@dataclass(frozen=True)
class Form:
    """What the numbers of an output are.

    Args:
        kind: `sigmoid`: one probability a class, or one channel; `unknown`: in [0, 1], but neither
            a softmax nor surely anything else.
        scale: by which probabilities are multiplied.
        rounded: whether they do not sum to one and are brought there.
    """

    kind: Kind
    scale: float = 1.0
    rounded: bool = False

    def logits(self, scores: Tensor) -> Tensor:
        """Scores as unnormalised log-probabilities, at least float32; one channel stays one."""
        x = at_least_float32(scores if scores.is_floating_point() else scores.float())
        if self.kind == "softmax":
            x = x / self.scale
            return logarithm(x / x.sum(1, keepdim=True) if self.rounded else x)
        if self.kind == "sigmoid":
            return (x / self.scale).logit(torch.finfo(torch.float32).eps)
        return x

    def through(self, logits: Tensor) -> Tensor:
        """What `logits` gives for the output of a network with these logits."""
        x = at_least_float32(logits)
        if self.kind == "softmax":
            return logarithm(x.softmax(1))
        if self.kind == "log_softmax":
            return x.log_softmax(1)
        return x.sigmoid().logit(torch.finfo(torch.float32).eps) if self.kind == "sigmoid" else x

    def compared(self, logits: Tensor) -> Tensor:
        """Logits within the range in which probabilities tell them apart.

        Beyond it half precision underflows, and one minus a probability has no digits left.
        """
        if self.kind == "softmax":
            return logits.clamp(min=-COMPARED)
        return logits.clamp(-COMPARED, COMPARED) if self.kind == "sigmoid" else logits


def logarithm(probabilities: Tensor) -> Tensor:
    """`log p` with `p` not smaller than the smallest normal float32."""
    return at_least_float32(probabilities).clamp(min=torch.finfo(torch.float32).tiny).log()


def form_of(scores: Tensor) -> Form:
    """Tell what the numbers are.

    Args:
        scores: `(B, C, h, w)`, finite.

    Returns:
        `unknown` for values in [0, 1] that do not sum to one.
    """
    x = at_least_float32(scores if scores.is_floating_point() else scores.float())
    low, high = (bound.item() for bound in x.aminmax())
    multiplied = scale_of(low, high, scores.dtype)
    if x.shape[1] == 1:
        return Form("unknown", multiplied) if multiplied else Form("logits")
    tolerance = _tolerance(scores, x)
    if low >= 0:
        total = x.sum(1)
        least, most = total.min().item(), total.max().item()
        for scale in SCALES:
            loose = max(tolerance, min(x.shape[1] * STEP, LOOSEST)) * scale
            if high <= scale * (1 + tolerance) and scale - loose <= least <= most <= scale + loose:
                off = max(most - scale, scale - least) > SUM_TOLERANCE * scale
                return Form("softmax", scale, off)
        return Form("unknown", multiplied) if multiplied else Form("logits")
    if high <= tolerance:
        total = x.exp().sum(1)
        if bool(((total - 1).abs() <= tolerance).all()):
            return Form("log_softmax")
    return Form("logits")


def scale_of(low: float, high: float, dtype: torch.dtype) -> float | None:
    """What numbers would be multiplied by, were they probabilities; None where they are not.

    Args:
        low: the least of them.
        high: the largest; of probabilities, some pixel is sure.
        dtype: of the output.
    """
    if low < 0:
        return None
    if dtype == torch.uint8:
        return 255.0
    return next((s for s in SCALES if high <= s and (s == 1 or high >= NEARLY * s)), None)


def given_form(scores: Tensor, activation: Activation) -> Form:
    """The form that the user says, with the scale that the numbers show."""
    if activation == "none":
        return Form("logits")
    low, high = (bound.item() for bound in scores.float().aminmax())
    high = min(high, 1.0) if high <= 1 + SUM_TOLERANCE else high
    scale = scale_of(low, high, scores.dtype) or 255.0
    if activation == "sigmoid" or scores.shape[1] == 1:
        return Form("sigmoid", scale)
    told = form_of(scores)
    return told if told.kind in ("softmax", "log_softmax") else Form("softmax", scale, True)


def _tolerance(scores: Tensor, x: Tensor) -> float:
    """For the sum over the classes, by the type that the numbers were rounded to."""
    dtype = scores.dtype if scores.is_floating_point() else torch.float32
    if dtype == torch.float32 and torch.equal(x, x.bfloat16().float()):
        dtype = torch.bfloat16
    elif dtype == torch.float32 and torch.equal(x, x.half().float()):
        dtype = torch.float16
    return max(SUM_TOLERANCE, 4 * torch.finfo(dtype).eps)


def refuse_decided(scores: Tensor) -> None:
    """Refuse maps of classes, masks and one-hot codes: they say nothing of doubt.

    Raises:
        ModelError: for each, with what to return in its place.
    """
    x, pixels = scores, scores[:, 0].numel()
    values = torch.unique(x) if x.shape[1] == 1 else x.flatten()[:0]
    whole = x.shape[1] == 1 and len(values) > 1 and bool((values == values.round()).all())
    if whole and values.min() >= 0 and values.max() > 1:
        raise ModelError(
            f"network: expected logits, got one channel of {len(values)} whole numbers, a class "
            f"map. Return (for a file: export) the scores before argmax."
        )
    if pixels < DECIDED or not bool(((x == 0) | (x == 1)).all()):
        return
    if x.shape[1] == 1 and len(values) == 2:
        raise ModelError(
            "network: expected logits or probabilities, got one channel of zeros and ones, a mask. "
            "Return (for a file: export) the scores before the threshold."
        )
    if x.shape[1] > 1 and bool((x.sum(1) == 1).all()) and len(torch.unique(x.argmax(1))) > 1:
        raise ModelError(
            "network: expected logits or probabilities, got one-hot classes, which say nothing of "
            "doubt. Return (for a file: export) the scores before argmax."
        )


def masked(scores: Tensor) -> tuple[Tensor, int]:
    """Scores in which classes that are minus infinity everywhere are only very unlikely.

    Returns:
        The scores, and how many classes are switched off.
    """
    if not scores.is_floating_point():
        return scores, 0
    if recording(scores):
        return scores.clamp_min(max(MASKED, torch.finfo(scores.dtype).min / 2)), 0
    if math.isfinite(scores.sum().item()):
        return scores, 0
    off = (scores == -math.inf).all(3).all(2).all(0)
    if not bool(off.any()) or bool(off.all()):
        return scores, 0
    low = max(MASKED, torch.finfo(scores.dtype).min / 2)
    return scores.masked_fill(off.view(1, -1, 1, 1), low), int(off.sum())


def channels_last(shape: tuple[int, ...], given: tuple[int, int], classes: int | None) -> bool:
    """Whether an output `(B, ?, ?, ?)` has its classes on the last axis.

    Args:
        shape: of the output.
        given: height and width of the network's input.
        classes: how many, where that is known.
    """
    first, last = fits(shape[2:], given), fits(shape[1:3], given)
    if first and last and classes:
        return shape[1] != classes == shape[3]
    return last and not first


def fits(grid: tuple[int, ...], given: tuple[int, int]) -> bool:
    """Whether a grid is the image's own, or a whole number coarser or finer on both axes."""
    pairs = list(zip(grid, given))
    return any(
        all(abs(out * k - side) < k for out, side in pairs)
        or all(abs(side * k - out) < k for out, side in pairs)
        for k in range(1, STRIDES + 1)
    )


def padded_inside(grid: tuple[int, ...], given: tuple[int, int]) -> Iterator[int]:
    """Numbers to whose multiples a network may pad, or cut, its images before it looks at them.

    Its output then stands for more, or less, than the image: `grid` times a whole number is the
    image's size brought to multiples of it. Images padded to these multiples before are exact.
    """
    for d in PADDINGS:
        up = [-(-side // d) * d for side in given]
        down = [side // d * d for side in given]
        for brought in (up, down):
            k = max(1, brought[0] // max(1, grid[0]))
            if all(out * k == side for out, side in zip(grid, brought)):
                yield d
