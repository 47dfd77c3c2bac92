"""Finding a network's classifier: the last layer whose output, resized, is the network's own.

Nothing is believed that was not checked on this image: a candidate must reproduce the output, on
the first image everywhere, on each later one at a few hundred positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.kernels import at_least_float32, recording
from doubtmap.models.backend import LastLayer, Tap
from doubtmap.models.forms import Form
from doubtmap.models.outputs import sampled

TOLERANCE = 1e-3
"""Largest difference allowed, relative to the spread of the output."""
POSITIONS = 16
"""Rows, and columns, at which a later image is checked."""
PREFIXES = (0, 1, 2, 4, 5)
"""Tokens before those of the image, such as the class token and registers."""


@dataclass(frozen=True)
class Classifier:
    """A layer that reproduces the network's output.

    Args:
        name: of the layer.
        align_corners: how the network resizes its output.
        decided: whether the image could tell the two ways of resizing apart.
    """

    name: str
    align_corners: bool
    decided: bool = True


@dataclass(frozen=True, eq=False)
class Fit:
    """How well one call of one layer reproduces the output.

    Args:
        classifier: the candidate.
        tap: its call, as maps.
        difference: largest absolute difference, in logits.
        allowed: the largest difference that counts as reproduction.
    """

    classifier: Classifier
    tap: Tap
    difference: float
    allowed: float

    @property
    def good(self) -> bool:
        """Whether the candidate reproduces the output."""
        return self.difference <= self.allowed


def find_classifier(
    calls: Sequence[Tap],
    layers: Mapping[str, LastLayer],
    scores: Tensor,
    form: Form,
    given: tuple[int, int],
) -> Classifier | None:
    """The last-called layer that reproduces the network's own output.

    Auxiliary heads are often called after the main one, so the search walks backwards.

    Args:
        calls: of all candidates, one each, in order.
        layers: the candidates.
        scores: `(B, C, H, W)`, the network's own output.
        form: what the scores are.
        given: height and width of the network's input.

    Returns:
        The classifier, or None where nothing fits.
    """
    for call in reversed(calls):
        fit = best_fit(call, layers[call.name], scores, form, given)
        if fit is not None and fit.good:
            return fit.classifier
    return None


def best_fit(
    call: Tap, layer: LastLayer, scores: Tensor, form: Form, given: tuple[int, int]
) -> Fit | None:
    """Compare a layer's output, resized in both ways, with the network's own output.

    Where both ways fit alike (a constant or tiny image), `align_corners` is taken to be False
    and the classifier is not `decided`.

    Returns:
        The best fit, or None where the shapes cannot be compared.
    """
    fits = [
        _fit(tap, scores, form)
        for tap in as_maps(call, layer, given)
        if tap.output.shape[:2] == scores.shape[:2]
    ]
    return min(fits, key=lambda fit: (math.isnan(fit.difference), fit.difference), default=None)


def reproducing(
    call: Tap,
    layer: LastLayer,
    scores: Tensor,
    form: Form,
    given: tuple[int, int],
    align_corners: bool,
) -> Tap | None:
    """The call as maps, where it reproduces the output of this image at a few hundred positions.

    Args:
        call: of the classifier.
        layer: the classifier.
        scores: `(B, C, H, W)`, the network's own output.
        form: what the scores are.
        given: height and width of the network's input.
        align_corners: how the network resizes its output.
    """
    if recording(scores):  # seen on images before; a graph holds no numbers to compare
        taps = as_maps(call, layer, given)
        return next((tap for tap in taps if tap.output.shape[1] == scores.shape[1]), None)
    rows, columns = (_positions(side).to(scores.device) for side in scores.shape[-2:])
    own = form.compared(form.logits(scores.index_select(2, rows).index_select(3, columns)))
    size = (scores.shape[-2], scores.shape[-1])
    allowed = _allowed(own, scores.dtype)
    for tap in as_maps(call, layer, given):
        if tap.output.shape[:2] == scores.shape[:2]:
            said = _sampled(at_least_float32(tap.output), rows, columns, size, align_corners)
            if (form.compared(form.through(said)) - own).abs().max().item() <= allowed:
                return tap
    return None


def as_maps(call: Tap, layer: LastLayer, given: tuple[int, int]) -> Iterator[Tap]:
    """What a layer saw and said as maps on one grid; several where tokens could lie in two ways.

    Args:
        call: of the layer.
        layer: what it is.
        given: height and width of the network's input.
    """
    seen, said = call.input, call.output
    if layer.kind == "linear" and seen.ndim == 4:
        yield Tap(call.name, seen.movedim(-1, 1), said.movedim(-1, 1))
    elif layer.kind == "linear" and seen.ndim == 3:
        for before, grid in token_grids(seen.shape[1], given):
            maps = [x[:, before:].mT.reshape(len(x), -1, *grid) for x in (seen, said)]
            yield Tap(call.name, maps[0], maps[1])
    elif layer.kind == "transposed" and seen.ndim == 4:
        times = [said.shape[axis] // seen.shape[axis] for axis in (2, 3)]
        repeated = seen.repeat_interleave(times[0], 2).repeat_interleave(times[1], 3)
        if repeated.shape[-2:] == said.shape[-2:]:
            yield Tap(call.name, repeated, said)
    elif seen.ndim == 4 and seen.shape[-2:] == said.shape[-2:]:
        yield call


def token_grids(tokens: int, given: tuple[int, int]) -> Iterator[tuple[int, tuple[int, int]]]:
    """Grids in which the tokens of an image may lie: those of the image's shape.

    Yields:
        How many tokens come before them, and rows and columns.
    """
    for before in PREFIXES:
        count = tokens - before
        if count < 1:
            continue
        wanted = math.sqrt(count * given[0] / given[1])
        for rows in {math.floor(wanted), math.ceil(wanted)} - {0}:
            if count % rows == 0:
                yield before, (rows, count // rows)


def _fit(tap: Tap, scores: Tensor, form: Form) -> Fit:
    own = form.compared(form.logits(scores))
    size = (own.shape[-2], own.shape[-1])
    allowed = _allowed(own, scores.dtype)
    largest = max(own.abs().max().item(), torch.finfo(torch.float32).tiny)
    edges = _difference(tap.output, own, size, form, align_corners=False)
    fit = Fit(Classifier(tap.name, align_corners=False), tap, edges, allowed)
    if tuple(tap.output.shape[-2:]) == size:
        return fit
    corners = _difference(tap.output, own, size, form, align_corners=True)
    if math.isnan(edges) or corners < edges - 1e-5 * largest:
        return Fit(Classifier(tap.name, align_corners=True), tap, corners, allowed)
    alike = max(edges, corners) <= allowed and corners <= edges + 1e-5 * largest
    return Fit(Classifier(tap.name, align_corners=False, decided=not alike), tap, edges, allowed)


def _allowed(own: Tensor, dtype: torch.dtype) -> float:
    """The largest difference that rounding explains."""
    low, high = (bound.item() for bound in own.aminmax())
    rounding = 4 * torch.finfo(dtype if dtype.is_floating_point else torch.bfloat16).eps
    return max(TOLERANCE * (high - low), rounding * max(abs(low), abs(high)))


def _difference(
    output: Tensor, own: Tensor, size: tuple[int, int], form: Form, align_corners: bool
) -> float:
    resized = at_least_float32(output)
    if tuple(output.shape[-2:]) != size:
        resized = F.interpolate(resized, size, mode="bilinear", align_corners=align_corners)
    return (form.compared(form.through(resized)) - own).abs().max().item()


def _sampled(
    maps: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int], align_corners: bool
) -> Tensor:
    """Maps resized to `size`, at these rows and columns only."""
    tall = sampled(maps, rows, size[0], 2, align_corners)
    return sampled(tall, columns, size[1], 3, align_corners)


def _positions(side: int) -> Tensor:
    """A few rows, or columns, from the first to the last."""
    return torch.linspace(0, side - 1, min(side, POSITIONS)).round().long()
