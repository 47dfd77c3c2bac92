"""One tensor of per-pixel logits out of what networks return: tensors, dicts, tuples, queries.

Finding a network's classifier: the 1x1 convolution whose output, resized, is the network's own.

Nothing is believed that was not checked on an image: a candidate must reproduce the output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.errors import ModelError
from doubtmap.kernels import at_least_float32
from doubtmap.models.backend import Tap

Form = Literal["logits", "softmax", "log_softmax", "queries"]


SUM_TOLERANCE = 1e-3
"""How far from one the sum of a softmax over the classes may lie."""


@dataclass(frozen=True, eq=False)
class Output:
    """What a network returned, unwrapped.

    Args:
        scores: `(B, C, h, w)`, finite or not, as the network made them.
        queries: whether they were put together from class and mask queries.
    """

    scores: Tensor
    queries: bool = False


def unwrap(output: object) -> Output:
    """Find the per-pixel scores in what a network returned.

    Accepts a tensor, a dict with `out` or `logits`, an object with `.logits`, a tuple or list
    (its first floating-point tensor with four axes), and class and mask queries.

    Args:
        output: anything.

    Returns:
        Scores `(B, C, h, w)` with `C >= 2`.

    Raises:
        ModelError: for anything else, one channel, or class indices.
    """
    classes, masks = _part(output, "class_queries_logits"), _part(output, "masks_queries_logits")
    if classes is not None and masks is not None:
        return Output(query_scores(classes, masks), queries=True)
    scores = _scores(output)
    if scores is None:
        raise ModelError(
            f"network: expected a tensor (B, C, H, W), a dict with 'out' or 'logits', or an "
            f"object with .logits, got {_named(output)}. Wrap the network so that it returns "
            f"its logits."
        )
    if not scores.is_floating_point():
        raise ModelError(
            f"network: expected floating-point logits, got {scores.dtype}. Return the scores "
            f"before argmax."
        )
    if scores.ndim != 4:
        raise ModelError(
            f"network: expected an output (B, C, H, W), got {tuple(scores.shape)}. Return "
            f"per-pixel logits, or use a network for segmentation."
        )
    if scores.shape[1] < 2:
        raise ModelError(
            f"network: expected at least two classes, got an output {tuple(scores.shape)}. For "
            f"one sigmoid channel return torch.cat([torch.zeros_like(x), x], 1)."
        )
    return Output(scores)


def query_scores(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """Logarithm of the per-pixel class scores of a network that predicts queries.

    `s_c = sum_q softmax(class_q)_c sigmoid(mask_q)`, without the last class ("no object"), as
    the papers compute the semantic map. Its softmax is then `s_c / sum_k s_k`; taking the
    logarithm is our choice, since the papers need no logits.

    Args:
        class_logits: `(B, Q, C + 1)`.
        mask_logits: `(B, Q, h, w)`.

    Returns:
        `(B, C, h, w)`, at most `log Q`.

    Reference:
        Per-Pixel Classification is Not All You Need for Semantic Segmentation (Cheng, Schwing,
        Kirillov, 2021), section 3.4, https://arxiv.org/abs/2107.06278
    """
    classes = at_least_float32(class_logits).softmax(-1)[..., :-1]
    return logarithm(
        torch.einsum("bqc,bqhw->bchw", classes, at_least_float32(mask_logits).sigmoid())
    )


def form_of(output: Output) -> Form:
    """Whether scores are logits, probabilities, or log-probabilities already."""
    if output.queries:
        return "queries"
    scores = at_least_float32(output.scores)
    one = torch.ones((), device=scores.device)
    if bool((scores >= 0).all()) and _close(scores.sum(1), one):
        return "softmax"
    if bool((scores <= 0).all()) and _close(scores.exp().sum(1), one):
        return "log_softmax"
    return "logits"


def logarithm(probabilities: Tensor) -> Tensor:
    """`log p` with `p` not smaller than the smallest normal float32."""
    return at_least_float32(probabilities).clamp(min=torch.finfo(torch.float32).tiny).log()


def as_logits(scores: Tensor, form: Form) -> Tensor:
    """Scores of any form as unnormalised log-probabilities."""
    return logarithm(scores) if form == "softmax" else scores


def _close(x: Tensor, y: Tensor) -> bool:
    return bool(((x - y).abs() <= SUM_TOLERANCE).all())


def _part(output: object, name: str) -> Tensor | None:
    part = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
    return part if isinstance(part, Tensor) else None


def _scores(output: object) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, (tuple, list)) and not hasattr(output, "logits"):
        found = (x for x in output if isinstance(x, Tensor) and x.ndim == 4)
        return next((x for x in found if x.is_floating_point()), None)
    out = _part(output, "out") if isinstance(output, Mapping) else None
    return out if out is not None else _part(output, "logits")


def _named(output: object) -> str:
    name = type(output).__name__
    if isinstance(output, Mapping):
        return f"{name} with {', '.join(map(repr, output)) or 'nothing'}"
    if isinstance(output, (tuple, list)):
        return f"{name} of {', '.join(type(x).__name__ for x in output) or 'nothing'}"
    return name


TOLERANCE = 1e-3
"""Largest difference allowed, relative to the largest magnitude (at least 1) in the output."""


@dataclass(frozen=True)
class Classifier:
    """A 1x1 convolution that reproduces the network's output.

    Args:
        name: of the layer.
        align_corners: how the network resizes its output.
        decided: whether the image could tell the two ways of resizing apart.
    """

    name: str
    align_corners: bool
    decided: bool = True


@dataclass(frozen=True)
class Fit:
    """How well one candidate reproduces the output.

    Args:
        classifier: the candidate.
        difference: largest absolute difference, in logits.
        allowed: the largest difference that counts as reproduction.
    """

    classifier: Classifier
    difference: float
    allowed: float

    @property
    def good(self) -> bool:
        """Whether the candidate reproduces the output."""
        return self.difference <= self.allowed


def find_classifier(taps: Sequence[Tap], scores: Tensor, form: Form) -> Classifier | None:
    """The last-called layer that reproduces the network's own output.

    Auxiliary heads are often called after the main one, so the search walks backwards.

    Args:
        taps: calls of all candidates in order; of several calls of one layer the last counts.
        scores: `(B, C, H, W)`, the network's own output.
        form: what the scores are.

    Returns:
        The classifier, or None where nothing fits.
    """
    for tap in last_calls(taps):
        fit = fit_of(tap, scores, form)
        if fit is not None and fit.good:
            return fit.classifier
    return None


def last_calls(taps: Sequence[Tap]) -> list[Tap]:
    """The last call of every layer, last-called layer first."""
    latest: dict[str, Tap] = {}
    for tap in reversed(taps):
        latest.setdefault(tap.name, tap)
    return list(latest.values())


def fit_of(tap: Tap, scores: Tensor, form: Form) -> Fit | None:
    """Compare a layer's output, resized in both ways, with the network's own output.

    Where both ways fit alike (a constant or tiny image), `align_corners` is taken to be False
    and the classifier is not `decided`.

    Args:
        tap: the layer's call.
        scores: `(B, C, H, W)`.
        form: what the scores are.

    Returns:
        The better fit, or None where the shapes cannot be compared.
    """
    if tap.output.shape[:2] != scores.shape[:2] or tap.input.shape[-2:] != tap.output.shape[-2:]:
        return None
    own = at_least_float32(as_logits(scores, form))
    size = (own.shape[-2], own.shape[-1])
    largest = max(1.0, own.abs().max().item())
    allowed = max(TOLERANCE, 4 * torch.finfo(scores.dtype).eps) * largest
    edges = _difference(tap.output, own, size, form, align_corners=False)
    fit = Fit(Classifier(tap.name, align_corners=False), edges, allowed)
    if tuple(tap.output.shape[-2:]) == size:
        return fit
    corners = _difference(tap.output, own, size, form, align_corners=True)
    if math.isnan(edges) or corners < edges - 1e-5 * largest:
        return Fit(Classifier(tap.name, align_corners=True), corners, allowed)
    alike = max(edges, corners) <= allowed and corners <= edges + 1e-5 * largest
    return Fit(Classifier(tap.name, align_corners=False, decided=not alike), edges, allowed)


def _difference(
    output: Tensor, own: Tensor, size: tuple[int, int], form: Form, align_corners: bool
) -> float:
    resized = at_least_float32(output)
    if tuple(output.shape[-2:]) != size:
        resized = F.interpolate(resized, size, mode="bilinear", align_corners=align_corners)
    if form == "softmax":
        resized = logarithm(resized.softmax(1))
    elif form == "log_softmax":
        resized = resized.log_softmax(1)
    return (resized - own).abs().max().item()
