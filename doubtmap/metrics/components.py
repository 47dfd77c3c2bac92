"""Unknown objects as things: component-wise sIoU, PPV and F1*, after SegmentMeIfYouCan.

Reference:
    SegmentMeIfYouCan: A Benchmark for Anomaly Segmentation (Chan et al., 2021),
    https://arxiv.org/abs/2104.14812
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from doubtmap.kernels.counted import label_mask
from doubtmap.metrics.accumulator import Array, ArrayLike, Sums, same_shape, to_numpy

THRESHOLDS = np.linspace(0.25, 0.75, 11)
"""Of sIoU and PPV, over which F1 is averaged."""
EIGHT_NEIGHBOURS = np.ones((3, 3), int)


@dataclass
class Components(Sums):
    """Accumulates how labelled and predicted components of unknown objects meet.

    Args:
        labelled: `(2,)`: labelled components, sum of their sIoU.
        predicted: `(2,)`: predicted components, sum of their PPV.
        found: `(11,)`: labelled components whose sIoU reaches each threshold.
        spurious: `(11,)`: predicted components whose PPV stays below each threshold.
    """

    labelled: Array = field(default_factory=lambda: np.zeros(2))
    predicted: Array = field(default_factory=lambda: np.zeros(2))
    found: Array = field(default_factory=lambda: np.zeros(len(THRESHOLDS)))
    spurious: Array = field(default_factory=lambda: np.zeros(len(THRESHOLDS)))

    def update(
        self,
        predicted: ArrayLike,
        unknown: ArrayLike,
        valid: ArrayLike,
        smallest_predicted: int = 0,
        smallest_labelled: int = 0,
    ) -> None:
        """Take one frame.

        Args:
            predicted: `(H, W)` bool, score above the threshold.
            unknown: `(H, W)` bool, labelled unknown.
            valid: `(H, W)` bool; the rest is void.
            smallest_predicted: predicted components with fewer pixels are dropped.
            smallest_labelled: labelled components with fewer pixels become void.
        """
        self.add(
            *component_figures(
                to_numpy(predicted),
                to_numpy(unknown),
                to_numpy(valid),
                smallest_predicted,
                smallest_labelled,
            )
        )

    def add(self, siou: Array, ppv: Array) -> None:
        """Take the figures of one frame's components."""
        self.labelled = self.labelled + np.array([len(siou), siou.sum()])
        self.predicted = self.predicted + np.array([len(ppv), ppv.sum()])
        self.found = self.found + (siou[:, None] >= THRESHOLDS).sum(0)
        self.spurious = self.spurious + (ppv[:, None] < THRESHOLDS).sum(0)

    @property
    def siou(self) -> float:
        """Mean sIoU over all labelled components; NaN without any."""
        return float(self.labelled[1] / self.labelled[0]) if self.labelled[0] else float("nan")

    @property
    def ppv(self) -> float:
        """Mean PPV over all predicted components; NaN without any."""
        return float(self.predicted[1] / self.predicted[0]) if self.predicted[0] else float("nan")

    @property
    def f1(self) -> float:
        """F1*, the mean over the thresholds of 2 TP / (2 TP + FN + FP); NaN without any."""
        if not self.labelled[0] + self.predicted[0]:
            return float("nan")
        # 2 TP + FN + FP = TP + (labelled components) + FP
        total = self.found + self.labelled[0] + self.spurious
        return float(np.mean(2 * self.found / np.maximum(total, 1)))


def component_figures(
    predicted: Array,
    unknown: Array,
    valid: Array,
    smallest_predicted: int = 0,
    smallest_labelled: int = 0,
) -> tuple[Array, Array]:
    """The sIoU of every labelled and the PPV of every predicted component of one frame.

    Components are 8-connected, and prediction in void is none. With K the pixels of a labelled
    component, P those of all predicted components that touch it, and A those of P in other
    labelled components: `sIoU = |K and P| / (|P| + |K| - |K and P| - |A|)`. The PPV of a
    predicted component is its share inside labelled components.

    Args: as `Components.update`.

    Returns:
        sIoU `(labelled components,)`, PPV `(predicted components,)`, each in [0, 1].
    """
    predicted, unknown, valid = (np.asarray(mask, bool) for mask in (predicted, unknown, valid))
    same_shape("Components", predicted=predicted, unknown=unknown, valid=valid)
    things = labelled_things(unknown & valid, smallest_labelled)
    return meeting(things, predicted & valid, smallest_predicted)


@dataclass(frozen=True, eq=False)
class Things:
    """The labelled components of one frame.

    Args:
        numbers: `(H W,)` int32, from 1 without gaps; 0 elsewhere.
        count: how many.
        small: `(H W,)` bool, labelled but in a component that is too small, so void.
    """

    numbers: Array
    count: int
    small: Array

    @cached_property
    def places(self) -> Array:
        """Where components are."""
        return np.flatnonzero(self.numbers)

    @cached_property
    def void(self) -> Array:
        """Where those are that are too small."""
        return np.flatnonzero(self.small)


def labelled_things(unknown: Array, smallest: int = 0) -> Things:
    """The components of `unknown`, `(H, W)` bool, of at least so many pixels."""
    labels, count = label_mask(unknown)
    labels = labels.reshape(-1)
    number = _renumbered(np.bincount(labels, minlength=count + 1), smallest)
    numbers = number[labels]
    return Things(numbers, int(number.max()), (labels > 0) & (numbers == 0))


def meeting(things: Things, predicted: Array, smallest: int = 0) -> tuple[Array, Array]:
    """`component_figures` of labelled components and `predicted`, `(H, W)` bool, void left out."""
    labels, count = label_mask(predicted)
    labels = labels.reshape(-1)
    sizes = np.bincount(labels, minlength=count + 1)
    number = _renumbered(sizes, smallest)
    left = sizes - np.bincount(labels[things.void], minlength=count + 1)
    number = _renumbered(np.where(number, left, 0))
    guess_size = np.append(0, left[number > 0])
    guesses = len(guess_size) - 1
    guess, thing = number[labels[things.places]], things.numbers[things.places]
    thing_size = np.bincount(thing, minlength=things.count + 1)
    inside = np.bincount(guess, minlength=guesses + 1)
    meet = guess > 0
    pairs = thing[meet].astype(np.int64) * (guesses + 1) + guess[meet]
    cells, shared = np.unique(pairs, return_counts=True)
    thing, guess = np.divmod(cells, guesses + 1)
    overlap, touching, elsewhere = (
        np.bincount(thing, weights, minlength=things.count + 1)[1:]
        for weights in (shared, guess_size[guess], inside[guess] - shared)
    )
    siou = overlap / (touching + thing_size[1:] - overlap - elsewhere)
    return siou, inside[1:] / guess_size[1:]


def _renumbered(sizes: Array, smallest: int = 1) -> Array:
    """New numbers of components 0, 1, ... by size: from 1 without gaps, 0 for those too small."""
    keep = sizes >= max(smallest, 1)
    keep[0] = False
    return np.asarray((np.cumsum(keep) * keep).astype(np.int32))
