"""The two kinds of meta model as arrays: a line, and a sum of small trees.

scikit-learn fits them, at the end of this file and nowhere else. What it found is kept as plain
arrays, so that a file of them is no pickle and using it needs no scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from doubtmap.errors import DataError, ModelError, UsageError
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


def rescaled(estimator: Estimator, slope: float, shift: float) -> Estimator:
    """The estimator of `slope x + shift`, where `x` is what the given one says."""
    offset = slope * estimator.offset + shift
    if isinstance(estimator, Line):
        return replace(estimator, weights=slope * estimator.weights, offset=offset)
    return replace(estimator, value=slope * estimator.value, offset=offset)


def _shares(sizes: Array) -> Array:
    return np.asarray(sizes / max(sizes.sum(), np.finfo(float).tiny))


Kind = Literal["linear", "boosting"]


TREES = 100


DEPTH = 4


RATE = 0.1
"""Of the boosted trees. Published for gradient norms: 50 trees, of depth 4 and 3."""


PENALTY = 1.0
"""Inverse strength of the penalty on the squared weights of logistic regression. Published: none;
with a hundred features that say nearly the same, that failed on images of another sequence."""


def fit_classifier(x: Array, positive: Array, kind: Kind, seed: int = 0) -> Estimator:
    """An estimator of the log-odds of `positive`.

    Args:
        x: `(S, F)`.
        positive: `(S,)` bool.
        kind: `linear`, logistic regression with a weak penalty, or `boosting`.
        seed: of the trees.

    Raises:
        UsageError: for an unknown kind.
        DataError: where all segments are positive, or none is.
        ModelError: where scikit-learn is missing.
    """
    if positive.all() or not positive.any():
        raise DataError(
            f"segments: expected segments that touch their class and others that do not, got "
            f"{len(positive)} of one kind. Fit on more images."
        )
    if checked(kind) == "linear":
        linear = _scikit_learn("linear_model").LogisticRegression(C=PENALTY, max_iter=3000)
        return _line(linear, x, positive)
    ensemble = _scikit_learn("ensemble")
    trees = ensemble.HistGradientBoostingClassifier(**_options(seed)).fit(x, positive)
    return _verified(_trees(trees, x.shape[1]), trees.decision_function, x)


def fit_regressor(x: Array, target: Array, kind: Kind, seed: int = 0) -> Estimator:
    """An estimator of `target` by least squares; as `fit_classifier`."""
    if checked(kind) == "linear":
        ridge = _scikit_learn("linear_model").Ridge(alpha=1 / PENALTY)
        return _line(ridge, x, target)
    ensemble = _scikit_learn("ensemble")
    trees = ensemble.HistGradientBoostingRegressor(**_options(seed)).fit(x, target)
    return _verified(_trees(trees, x.shape[1]), trees.predict, x)


def checked(kind: str) -> Kind:
    """The kind, or a sentence."""
    if kind not in get_args(Kind):
        raise UsageError(f"segments: expected kind = linear or boosting, got {kind!r}.")
    return kind  # type: ignore[return-value]


def _scikit_learn(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise ModelError(
            "segments: fitting needs scikit-learn. Install it with: pip install doubtmap[segments]"
        ) from error


def _options(seed: int) -> dict[str, Any]:
    return {
        "max_iter": TREES,
        "max_depth": DEPTH,
        "learning_rate": RATE,
        "l2_regularization": 1.0,
        "early_stopping": False,
        "random_state": seed,
    }


def _line(model: Any, x: Array, target: Array) -> Line:
    mean, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 1e-12 * np.maximum(np.abs(mean), 1), scale, 1.0)
    model.fit((x - mean) / scale, target)
    weights = np.asarray(model.coef_, float).reshape(-1)
    offset = np.asarray(model.intercept_, float).reshape(1)
    return Line(x.min(0), x.max(0), mean, scale, weights, offset)


def _trees(model: Any, inputs: int) -> Trees:
    """The arrays of a fitted model; `_verified` sees that they are understood."""
    found = [stage[0].nodes for stage in model._predictors]
    most = max(map(len, found))
    gain = np.zeros(inputs)

    def stacked(name: str, dtype: type) -> Array:
        out: Array = np.zeros((len(found), most), dtype)
        for tree, nodes in enumerate(found):
            out[tree, : len(nodes)] = nodes[name]
        return out

    leaf = np.ones((len(found), most), bool)
    for tree, nodes in enumerate(found):
        leaf[tree, : len(nodes)] = nodes["is_leaf"] != 0
        inner = nodes[nodes["is_leaf"] == 0]
        np.add.at(gain, inner["feature_idx"], np.maximum(inner["gain"], 0))
    return Trees(
        np.where(leaf, -1, stacked("feature_idx", np.int64)).astype(np.int32),
        stacked("num_threshold", np.float64),
        stacked("left", np.int32),
        stacked("right", np.int32),
        np.where(leaf, stacked("value", np.float64), 0.0),
        gain,
        np.asarray(model._baseline_prediction, float).reshape(-1)[:1],
    )


def _verified(trees: Trees, predict: Any, x: Array) -> Trees:
    """The arrays, once they say what scikit-learn says; its nodes are no public interface."""
    if not np.allclose(trees(x), predict(x), rtol=1e-9, atol=1e-9):
        raise ModelError(
            "segments: the trees of this version of scikit-learn could not be read. Install "
            "another one, or fit with kind=linear."
        )
    return trees
