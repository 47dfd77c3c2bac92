"""Finding a network's classifier: the 1x1 convolution whose output, resized, is the network's own.

Nothing is believed that was not checked on an image: a candidate must reproduce the output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.models.backend import Tap
from doubtmap.models.outputs import Form, as_logits, logarithm
from doubtmap.prediction import at_least_float32

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
