"""One threshold that keeps several risks at once: learn, then test.

A risk is the mean over images of something between 0 and 1; some fall as the threshold falls,
others rise. One part of the images says in which order thresholds are worth a test; the other tests
them in that order, and stops at the first that fails. So with probability 1 - delta over the draw
of the images, every threshold that passed keeps every risk at or below its level; the one that
flags least is taken.

Reference:
    Learn then Test: Calibrating Predictive Algorithms to Achieve Risk Control (Angelopoulos et al.,
    2021), https://arxiv.org/abs/2110.01052: p-values of Hoeffding and Bentkus, fixed sequences by a
    split.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy import ndimage
from scipy.stats import binom
from torch import Tensor

from doubtmap.errors import DataError, UsageError
from doubtmap.kernels.steps import STEPS, steps
from doubtmap.metrics.accumulator import Array, Sums

RISKS = ("missed", "false", "flagged", "objects")
"""Of an image: the share of the pixels to be flagged that are not; of the flagged pixels that
should not be; of all pixels that are flagged; and of the connected things to be flagged those of
which at most half is."""


@dataclass
class Risks(Sums):
    """Sums over images, by threshold.

    Args:
        losses: `(4, 65537)`, summed over images, of `RISKS`; entry k is for the threshold below
            which the first k steps lie.
        images: `(4,)` images that count: those with any pixel to be flagged for `missed` and
            `objects`, all with a pixel that counts for the others.
        pixels: `(65536,)` by step.
    """

    losses: Array
    images: Array
    pixels: Array

    @classmethod
    def empty(cls) -> Self:
        """Nothing seen yet."""
        return cls(np.zeros((len(RISKS), STEPS + 1)), np.zeros(len(RISKS)), np.zeros(STEPS))

    def update(self, score: Tensor, positive: Tensor, valid: Tensor) -> None:
        """Take one image.

        Args:
            score: `(H, W)` float32, finite where valid.
            positive: `(H, W)` bool, to be flagged.
            valid: `(H, W)` bool; the rest counts for nothing.
        """
        if not bool(valid.any()):
            return
        limit = torch.finfo(torch.float32).max
        step = steps(score.float().clamp(-limit, limit)).cpu().numpy()
        wanted, there = (positive & valid).cpu().numpy(), valid.cpu().numpy()
        hits = np.bincount(step[wanted], minlength=STEPS).astype(np.float64)
        every = np.bincount(step[there], minlength=STEPS).astype(np.float64)
        above, hits_above = (_above(part) for part in (every, hits))
        false = 1 - hits_above / np.maximum(above, 1)
        found = [
            1 - hits_above / max(hits_above[0], 1),
            np.where(above > 0, false, 0.0),
            above / above[0],
            _below(things_missed(step, wanted)),
        ]
        held = np.array([wanted.any(), True, True, wanted.any()])
        self.losses = self.losses + np.stack(found) * held[:, None]
        self.images = self.images + held
        self.pixels = self.pixels + every


def losses_of(flagged: Tensor, positive: Tensor, valid: Tensor) -> dict[str, float]:
    """What one image loses at one threshold, by risk; without those that it has no part in.

    Args:
        flagged: `(H, W)` bool.
        positive: `(H, W)` bool, to be flagged.
        valid: `(H, W)` bool; the rest counts for nothing.
    """
    if not bool(valid.any()):
        return {}
    flagged, wanted = flagged & valid, positive & valid
    found = {
        "false": float((flagged & ~wanted).sum() / flagged.sum().clamp_min(1)),
        "flagged": float(flagged.sum() / valid.sum()),
    }
    if bool(wanted.any()):
        things, count = ndimage.label(wanted.cpu().numpy(), np.ones((3, 3)))
        sizes, hits = (
            np.bincount(things[mask.cpu().numpy()], minlength=count + 1)[1:]
            for mask in (wanted, wanted & flagged)
        )
        found["missed"] = float((wanted & ~flagged).sum() / wanted.sum())
        found["objects"] = float((2 * hits <= sizes).mean())
    return found


def things_missed(step: Array, wanted: Array) -> Array:
    """`(65536,)`: by step, the share of the things that are missed once it is not flagged.

    Args:
        step: `(H, W)` of the score.
        wanted: `(H, W)` bool; a thing is what hangs together in it, corners included.
    """
    labels, count = ndimage.label(wanted, np.ones((3, 3)))
    found = np.zeros(STEPS)
    if not count:
        return found
    order = np.lexsort((step[wanted], labels[wanted]))
    sizes = np.bincount(labels[wanted])[1:]
    half = np.cumsum(sizes) - sizes + (sizes + 1) // 2 - 1
    np.add.at(found, step[wanted][order][half], 1 / count)
    return found


def _above(by_step: Array) -> Array:
    return np.concatenate([np.cumsum(by_step[::-1])[::-1], [0.0]])


def _below(by_step: Array) -> Array:
    return np.concatenate([[0.0], np.cumsum(by_step)])


def p_value(mean: Array, count: float, level: float) -> Array:
    """How likely so small a mean loss were, at most, if the risk were above its level.

    Args:
        mean: any shape, of losses in [0, 1].
        count: of images.
        level: of the risk, in (0, 1).

    Example:
        >>> bool(p_value(np.array(0.0), 30, 0.1) < 0.05 < p_value(np.array(0.0), 20, 0.1))
        True
    """
    low = np.minimum(mean, level)
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.where(low > 0, low * np.log(low / level), 0.0)
        second = (1 - low) * np.log((1 - low) / (1 - level))
    hoeffding = np.exp(-count * (first + second))
    bentkus = math.e * binom.cdf(np.ceil(count * mean - 1e-9), count, level)
    result: Array = np.minimum(np.minimum(hoeffding, bentkus), 1.0)
    return result


def worst_p_value(risks: Risks, levels: Mapping[str, float], places: Array) -> Array:
    """`(P,)`: the largest of the p-values of the risks that are to be kept, at some places."""
    found = []
    for name, level in levels.items():
        at = RISKS.index(name)
        if not risks.images[at]:
            return np.ones(len(places))
        mean = risks.losses[at, places] / risks.images[at]
        found.append(p_value(mean, risks.images[at], level))
    return np.asarray(np.max(found, 0))


def by_risks(learn: Risks, test: Risks, levels: Mapping[str, float], delta: float) -> int:
    """The place of the threshold that passes the tests and flags least.

    Args:
        learn: of the images that say the order of the tests.
        test: of other images.
        levels: of the risks to be kept, by name.
        delta: probability with which one of them may not be kept, in (0, 1).

    Returns:
        How many steps lie below the threshold.

    Raises:
        UsageError: for an unknown risk, or a level outside of (0, 1).
        DataError: where no threshold passes, with the number of images that it takes at least.
    """
    check_levels(levels, delta)
    held = np.flatnonzero(learn.pixels + test.pixels)
    if not held.size:
        raise DataError("risks: expected labelled pixels, found none. Pass labelled images.")
    places = np.unique([max(held[0], 1), *(held + 1)])
    flagged = learn.losses[RISKS.index("flagged"), places]
    order = places[np.lexsort((flagged, worst_p_value(learn, levels, places)))]
    passed = worst_p_value(test, levels, order) <= delta
    count = int(np.argmin(passed)) if not passed.all() else len(passed)
    if not count:
        _refuse(test, levels, delta, int(order[0]))
    return int(order[:count].max())


def _refuse(test: Risks, levels: Mapping[str, float], delta: float, place: int) -> None:
    found, few = [], []
    for name, level in levels.items():
        at = RISKS.index(name)
        needed = math.ceil(math.log(delta) / math.log(1 - level))
        found.append(f"{name} {test.losses[at, place] / max(test.images[at], 1):.3f}")
        if test.images[at] < needed:
            few.append(f"{name} takes {needed} at least, and {test.images[at]:.0f} count")
    why = f" Too few images are left for the tests: {'; '.join(few)}." if few else ""
    raise DataError(
        f"risks: expected a threshold that keeps all of them with probability {1 - delta:g}, found "
        f"none; the most hopeful one has {', '.join(found)}.{why} Take more images, or tolerate "
        f"more."
    )


def check_levels(levels: Mapping[str, float], delta: float) -> None:
    """Refuse what cannot be kept.

    Raises:
        UsageError: for no or an unknown risk, or shares outside of (0, 1).
    """
    if not levels or set(levels) - set(RISKS):
        raise UsageError(
            f"risks: expected some of {', '.join(RISKS)}, got {', '.join(levels) or 'none'}. Give "
            f"them with --keep, as in --keep missed=0.1,false=0.5."
        )
    for name, share in [*levels.items(), ("delta", delta)]:
        if not 0 < share < 1:
            raise UsageError(f"risks: expected {name} between 0 and 1, got {share}.")


def parse_levels(text: str) -> dict[str, float]:
    """Risks and levels of `missed=0.1,false=0.5`.

    Raises:
        UsageError: for something else.

    Example:
        >>> parse_levels("missed=0.1, objects=0.2")
        {'missed': 0.1, 'objects': 0.2}
    """
    found: dict[str, float] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, level = part.partition("=")
        try:
            found[name.strip()] = float(level)
        except ValueError:
            raise UsageError(
                f"--keep: expected risks and levels, as in missed=0.1,false=0.5, got {part!r}."
            ) from None
    return found
