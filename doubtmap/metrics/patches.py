"""Parts of an image: accuracy against doubt on small patches, and regions calibrated apart.

`Patches` gives p(accurate | certain), p(uncertain | inaccurate) and PAvPU; `boundary_band` and
`random_patches` mark where calibration is looked at on its own.

Reference:
    Evaluating Bayesian Deep Learning Methods for Semantic Segmentation (Mukhoti and Gal, 2018),
    https://arxiv.org/abs/1811.12709; Local Temperature Scaling for Probability Calibration
    (Ding et al., 2021), https://arxiv.org/abs/2008.05105
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.errors import UsageError
from doubtmap.kernels.counted import means
from doubtmap.metrics.accumulator import Array, State, to_numpy
from doubtmap.metrics.histogram import Histogram

INACCURATE, ACCURATE = 0, 1
PATCH_KINDS = 6
"""At a border, inside a region, with unknown pixels: of each the inaccurate, then the accurate."""
INSIDE, WITH_UNKNOWN = 2, 4
"""The first kind of those inside a region, and of those with unknown pixels."""


@dataclass(frozen=True)
class PatchFigures:
    """The three conditional shares; NaN where a condition never holds."""

    p_accurate_certain: float
    p_uncertain_inaccurate: float
    pavpu: float


class Patches:
    """Accumulates patches by mean score, accurate ones and inaccurate ones apart.

    A patch is accurate if more than half of its pixels are right, and counts only if all its
    pixels are valid; rows and columns that do not fill a patch are left out.

    Args:
        size: side of a patch, in pixels.
        bins: memory is `20 * bins` bytes at most.
    """

    def __init__(self, size: int = 4, bins: int = 1 << 18) -> None:
        self.size = size
        self.histogram = Histogram(bins, shape=(2,))

    def update(self, score: Tensor, right: Tensor, valid: Tensor) -> None:
        """Take frames.

        Args:
            score: `(B, H, W)`, higher = more doubt.
            right: `(B, H, W)` bool, whether the predicted class is the label.
            valid: `(B, H, W)` bool.
        """
        whole, accurate = patch_accuracy(right, valid, self.size)
        score = torch.where(valid, score, 0)
        self.add(patch_scores(score, whole, self.size), accurate[whole].cpu().numpy())

    def add(self, scores: Array, accurate: Array) -> None:
        """Take patches: mean scores and accuracy, each `(n,)`."""
        self.histogram.update(scores, accurate)

    def __add__(self, other: Self) -> Self:
        total = type(self)(self.size, self.histogram.bins)
        total.histogram = self.histogram + other.histogram
        return total

    def at_percentile(self, percentile: float = 50) -> PatchFigures:
        """Figures where patches above this percentile of the pooled scores count as uncertain."""
        return patch_figures(self.histogram.view().counts, percentile)

    def areas(self) -> PatchAreas:
        """Area under each figure's curve over the percentile."""
        return patch_areas(self.histogram.view().counts)

    def curves(self, percentiles: Array) -> list[PatchFigures]:
        """Figures at several percentiles."""
        return patch_curve(self.histogram.view().counts, percentiles)

    def state(self) -> State:
        """The sums as named arrays."""
        return self.histogram.state() | {"size": np.array([self.size])}

    @classmethod
    def from_state(cls, state: State) -> Self:
        """The accumulator whose `state()` this was."""
        patches = cls(int(state["size"][0]), int(state["flags"][0]))
        patches.histogram = Histogram.from_state(state)
        return patches


@dataclass(frozen=True)
class PatchAreas:
    """Mean of each figure over all thresholds, percentiles 0 to 100 of the pooled scores."""

    p_accurate_certain_area: float
    p_uncertain_inaccurate_area: float
    pavpu_area: float


def patch_areas(counts: Array, steps: int = 100) -> PatchAreas:
    """Area under each figure's curve over the percentile, by the trapezoid rule.

    Percentiles let scores of any range be compared. At percentile 0 the lowest score alone is
    certain, at 100 all are.

    Args:
        counts: `(2, n)`, inaccurate and accurate patches per bin of ascending score.
        steps: intervals between percentile 0 and 100.
    """
    return areas_under(patch_curve(counts, 100 * np.arange(steps + 1) / steps))


def areas_under(rows: list[PatchFigures]) -> PatchAreas:
    """Area under each figure's curve, from its values at even steps from percentile 0 to 100."""
    curves = np.array([[r.p_accurate_certain, r.p_uncertain_inaccurate, r.pavpu] for r in rows])
    return PatchAreas(*((curves[1:] + curves[:-1]).sum(0) / 2 / (len(rows) - 1)).tolist())


def patch_figures(counts: Array, percentile: float) -> PatchFigures:
    """Figures from patches by ascending score, at one percentile; see `patch_curve`."""
    return patch_curve(counts, np.array([percentile]))[0]


def patch_curve(counts: Array, percentiles: Array) -> list[PatchFigures]:
    """Figures from patches by ascending score.

    Args:
        counts: `(2, n)`, inaccurate and accurate patches per bin of score.
        percentiles: each in [0, 100]; patches above it are uncertain, so the lowest score never
            is.

    Raises:
        UsageError: for a percentile outside [0, 100].
    """
    if (outside := percentiles[~((percentiles >= 0) & (percentiles <= 100))]).size:
        raise UsageError(f"Patches: expected a percentile in [0, 100], got {outside[0]}.")
    below = np.cumsum(counts, axis=1)
    patches = below.sum(0)
    if not patches.size or not patches[-1]:
        return [PatchFigures(*[float("nan")] * 3) for _ in percentiles]
    total, inaccurate = patches[-1], below[INACCURATE, -1]
    figures = []
    for reached in np.searchsorted(patches, np.maximum(1, percentiles * total / 100)):
        right, wrong = below[ACCURATE, reached], below[INACCURATE, reached]
        doubted = inaccurate - wrong
        figures.append(
            PatchFigures(
                _share(right, right + wrong),
                _share(doubted, inaccurate),
                _share(right + doubted, total),
            )
        )
    return figures


def replicated_patches(counts: Array, percentile: float = 50) -> Array:
    """The three figures of every replicate at one percentile, `(R, 3)`; NaN as in `patch_curve`.

    Args:
        counts: `(R, 2, n)`, inaccurate and accurate patches per bin of score.
        percentile: in [0, 100].
    """
    if not counts.shape[-1]:
        return np.full((len(counts), 3), np.nan)
    below = np.cumsum(counts, axis=-1)
    patches = below.sum(1)
    total, inaccurate = patches[:, -1], below[:, INACCURATE, -1]
    cut = np.maximum(1, percentile * total / 100)
    reached = np.minimum((patches < cut[:, None]).sum(1), patches.shape[1] - 1)
    wrong, right = np.take_along_axis(below, reached[:, None, None], -1)[..., 0].T
    doubted = inaccurate - wrong
    parts = np.stack([right, doubted, right + doubted], 1)
    wholes = np.stack([right + wrong, inaccurate, total], 1)
    wholes[total == 0] = 0
    shares = np.full(parts.shape, np.nan)
    np.divide(parts, wholes, out=shares, where=wholes != 0)
    return shares


def patch_accuracy(right: Tensor, valid: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Which patches have valid pixels only, and which are accurate: more than half right.

    Returns:
        Two bool tensors `(B, H // size, W // size)`.
    """
    whole = _folded(valid, size, torch.logical_and)
    return whole, 2 * _folded(right.to(torch.int32), size, torch.add) > size * size


def patch_scores(score: Tensor, whole: Tensor, size: int) -> Array:
    """Mean score of the patches that `patch_accuracy` calls whole, `(n,)` float32."""
    maps = zip(to_numpy(score.float()), to_numpy(whole))
    return np.concatenate([means(own, size, those) for own, those in maps])


def patch_kinds(
    classes: Tensor, label: Tensor, unknown: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Which patches have pixels with a class, or unknown ones, only; and the kinds of these.

    An unknown pixel is wrong whatever its class.

    Args:
        classes: `(B, H, W)`, predicted.
        label: `(B, H, W)`, below 0 for no class.
        unknown: `(B, H, W)` bool.
        size: side of a patch, in pixels.

    Returns:
        `(B, H // size, W // size)` bool, and `(P,)` uint8, below `PATCH_KINDS`.
    """
    known = label >= 0
    whole, accurate = patch_accuracy(known & (classes == label), known | unknown, size)
    of_classes = _folded(known, size, torch.logical_and)
    kinds = torch.where(at_borders(label, size), 0, INSIDE)
    kinds = torch.where(of_classes, kinds, WITH_UNKNOWN) + accurate
    return whole, kinds[whole].to(torch.uint8)


def patches_by_region(counts: Array) -> dict[str, Array]:
    """Inaccurate and accurate patches, `(2, n)`: those of classes, and parts and more of them.

    Args:
        counts: `(PATCH_KINDS, n)`.
    """
    border, inside, unknown = counts.reshape(3, 2, -1)
    known = border + inside
    return {
        "patches": known,
        "inside": inside,
        "border": border,
        "with_unknown": known + unknown,
    }


def at_borders(label: Tensor, size: int) -> Tensor:
    """Which patches lie at a border: they, or one of the eight around them, hold two labels.

    Void is a label here, too: what is hard to label is often void.

    Args:
        label: `(B, H, W)`.
        size: side of a patch, in pixels.

    Returns:
        `(B, H // size, W // size)` bool.
    """
    label = label.to(torch.int32)
    highest, lowest = (_folded(label, size, fold) for fold in (torch.maximum, torch.minimum))
    if not highest.numel():
        return highest > lowest
    both = F.max_pool2d(torch.stack([highest, -lowest], 1).float(), 3, 1, 1)
    return both[:, 0] != -both[:, 1]


def _folded(maps: Tensor, size: int, fold: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Each patch of maps `(B, H, W)` folded into one value, `(B, H // size, W // size)`."""
    for axis in (1, 2):
        sides = maps.narrow(axis, 0, maps.shape[axis] // size * size)
        slices = (sides[:, k::size] if axis == 1 else sides[..., k::size] for k in range(size))
        maps = functools.reduce(fold, slices)
    return maps


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def boundary_band(label: Tensor, width: int = 2) -> Tensor:
    """Pixels near a change from one class to another.

    Departs from the authors' code: void is no class, so its border is no boundary, and pixels at
    the image's edge may be in the band.

    Args:
        label: `(B, H, W)`, class indices; below 0 is void.
        width: how many pixels along rows and columns the other class may be away.

    Returns:
        `(B, H, W)` bool; False on void.

    Raises:
        UsageError: for a width below 1.

    Example:
        >>> boundary_band(torch.tensor([[[0, 0, 0, 1, 1, 1]]]), width=1).int().tolist()
        [[[0, 0, 1, 1, 0, 0]]]
    """
    if width < 1:
        raise UsageError(f"boundary_band: expected a width of at least 1 pixel, got {width}.")
    near = torch.zeros_like(label, dtype=torch.bool)
    for axis in (-2, -1):
        length = label.shape[axis]
        for away in range(1, min(width, length - 1) + 1):
            here = label.narrow(axis, 0, length - away)
            there = label.narrow(axis, away, length - away)
            change = (here != there) & (here >= 0) & (there >= 0)
            near |= _padded(change, axis, 0, away) | _padded(change, axis, away, 0)
    return near


def random_patches(
    shape: tuple[int, int], count: int = 10, side: int = 72, seed: int = 10
) -> list[tuple[slice, slice]]:
    """Places of square patches, all of them inside the image.

    Args:
        shape: `(H, W)` in pixels.
        count: how many.
        side: in pixels; smaller where the image is.
        seed: the same seed and shape give the same places.

    Raises:
        UsageError: for a count or a side below 1.
    """
    if count < 1 or side < 1:
        raise UsageError(f"random_patches: expected numbers above 0, got {count} and {side}.")
    generator = torch.Generator().manual_seed(seed)
    height, width = min(side, shape[0]), min(side, shape[1])
    tops = torch.randint(shape[0] - height + 1, (count,), generator=generator).tolist()
    lefts = torch.randint(shape[1] - width + 1, (count,), generator=generator).tolist()
    return [(slice(t, t + height), slice(x, x + width)) for t, x in zip(tops, lefts)]


def _padded(change: Tensor, axis: int, before: int, after: int) -> Tensor:
    pad = (before, after) if axis == -1 else (0, 0, before, after)
    return F.pad(change, pad)
