"""The two kinds of meta model as arrays: a line, and a sum of small trees.

scikit-learn fits them (`learning.py`); what it found is kept as plain arrays, so that a file of
them is no pickle and using it needs no scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from doubtmap.metrics.accumulator import Array


@dataclass(frozen=True, eq=False)
class Line:
    """`(x - mean) / scale . weights + offset`, of inputs held to the range fitted to.

    Outside of that range a line knows nothing: an input that hardly varied there has a large
    weight, and a little more of it would decide everything.

    Args:
        low: `(F,)` smallest inputs that it was fitted to.
        high: `(F,)` largest.
        mean: `(F,)` of the inputs that it was fitted to.
        scale: `(F,)` their standard deviations, 1 where an input is constant.
        weights: `(F,)`.
        offset: `(1,)`.
    """

    low: Array
    high: Array
    mean: Array
    scale: Array
    weights: Array
    offset: Array

    def __post_init__(self) -> None:
        parts = (self.low, self.high, self.mean, self.scale, self.weights)
        if {part.shape for part in parts} != {self.weights.shape} or self.offset.shape != (1,):
            raise ValueError("a line of another shape")
        if not all(np.isfinite(part).all() for part in (*parts, self.offset)):
            raise ValueError("a line that is not finite")

    @property
    def inputs(self) -> int:
        """How many."""
        return len(self.weights)

    def __call__(self, x: Array) -> Array:
        """`(S,)` of inputs `(S, F)`."""
        inside = np.clip(x, self.low, self.high)
        return np.asarray((inside - self.mean) / self.scale @ self.weights + self.offset[0])

    @property
    def importance(self) -> Array:
        """`(F,)` absolute weights of the standardised inputs, as shares of their sum."""
        return _shares(np.abs(self.weights))


@dataclass(frozen=True, eq=False)
class Trees:
    """Sum over trees of the value of the leaf that an input falls into, and an offset.

    Args:
        feature: `(T, N)` which input a node asks for; below 0: a leaf.
        threshold: `(T, N)` inputs up to it go left.
        left: `(T, N)` number of the node on the left.
        right: `(T, N)` on the right.
        value: `(T, N)` of leaves.
        gain: `(F,)` how much of the loss the splits on each input took away.
        offset: `(1,)`.
    """

    feature: Array
    threshold: Array
    left: Array
    right: Array
    value: Array
    gain: Array
    offset: Array

    def __post_init__(self) -> None:
        inner, place = self.feature >= 0, np.arange(self.feature.shape[1])
        parts = (self.threshold, self.left, self.right, self.value)
        if {part.shape for part in parts} != {self.feature.shape} or self.offset.shape != (1,):
            raise ValueError("trees of another shape")
        for child in (self.left, self.right):
            if (inner & ((child <= place) | (child >= len(place)))).any():
                raise ValueError("trees whose nodes go round")
        if (self.feature >= self.inputs).any() or not np.isfinite(self.value).all():
            raise ValueError("trees that cannot be read")

    @property
    def inputs(self) -> int:
        """How many."""
        return len(self.gain)

    def __call__(self, x: Array) -> Array:
        """`(S,)` of inputs `(S, F)`."""
        total = np.full(len(x), self.offset[0])
        rows = np.arange(len(x))
        for feature, threshold, left, right, value in zip(
            self.feature, self.threshold, self.left, self.right, self.value
        ):
            node = np.zeros(len(x), np.int64)
            while (inner := feature[node] >= 0).any():
                goes_left = x[rows, feature[node]] <= threshold[node]
                node = np.where(inner, np.where(goes_left, left[node], right[node]), node)
            total += value[node]
        return total

    @property
    def importance(self) -> Array:
        """`(F,)` gains, as shares of their sum."""
        return _shares(self.gain)


Estimator = Line | Trees


def _shares(sizes: Array) -> Array:
    return np.asarray(sizes / max(sizes.sum(), np.finfo(float).tiny))
