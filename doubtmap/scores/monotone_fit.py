"""Fitting rising curves to several scores at once, so that their sum is a log-odds.

    log p / (1 - p) = bias + sum_s curve_s(score_s),    every curve rising

A generalised additive model of logistic regression whose curves may only rise: with the levels
written as sums of steps that are not negative the problem is convex, and one optimum is found for
all scores together.

Reference:
    Generalized Additive Models (Hastie and Tibshirani, 1986),
    https://doi.org/10.1214/ss/1177013604
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from doubtmap.kernels.steps import ordered
from doubtmap.scores.monotone_curve import Curve, Numbers, places

QUANTILES = 16
"""Of all pixels, and as many of the wrong ones: where the knots are."""
TAILS = (0.0, 0.001, 0.01, 0.99, 0.999, 1.0)
RIDGE = 1e-3
"""On the squared steps of the curves, per unit of the mean loss: keeps scores that say the same
from taking turns."""
FACTOR = 8.0
"""At most: where right and wrong pixels do not overlap, the likelihood has no optimum."""
ITERATIONS = 300


@dataclass(frozen=True, eq=False)
class Additive:
    """A sum of rising curves.

    Args:
        curves: one for each score.
        bias: log-odds where all curves are 0.
    """

    curves: tuple[Curve, ...]
    bias: float


def fit_additive(values: Tensor, wrong: Tensor, weights: Tensor) -> Additive:
    """Fit curves and bias by likelihood.

    Args:
        values: `(N, S)` float32, finite, a column for each score.
        wrong: `(N,)` bool, of both kinds.
        weights: `(N,)` above 0, how many pixels each stands for.

    Returns:
        Curves that start at 0 and the bias. A score that is the same everywhere, or that the
        others make superfluous, has a flat curve.
    """
    knots = [find_knots(column, wrong) for column in values.T]
    moving = [number for number, found in enumerate(knots) if len(found) > 1]
    where = [places(values[:, number], knots[number]) for number in moving]
    sizes = [len(knots[number]) - 1 for number in moving]
    loss = _loss(where, sizes, wrong.numpy().astype(np.float64), _shares(weights))
    share = float(np.average(wrong.numpy(), weights=weights.numpy()))
    start = np.r_[np.log(share / (1 - share)), np.zeros(sum(sizes))]
    found = _minimum(loss, start)
    rises = dict(zip(moving, np.split(found[1:], np.cumsum(sizes)[:-1])))
    curves = [
        _curve(at, rises.get(number, np.zeros(len(at) - 1))) for number, at in enumerate(knots)
    ]
    return Additive(tuple(curves), float(found[0]))


def rescaled(fitted: Additive, counts: Numbers, odds: Numbers) -> Additive:
    """Platt scaling on other pixels: one factor, not negative, and one offset for the log-odds.

    Args:
        fitted: to rescale.
        counts: `(2, M)` right and wrong pixels by cell of log-odds, of both kinds.
        odds: `(M,)` log-odds of the cells.

    Reference:
        Probabilistic outputs for support vector machines (Platt, 1999).
    """
    right, wrong = counts / counts.sum()

    def loss(at: Numbers) -> tuple[float, Numbers]:
        z = at[0] + at[1] * odds
        value = wrong @ np.logaddexp(0, -z) + right @ np.logaddexp(0, z)
        slope = (right + wrong) * _sigmoid(z) - wrong
        return float(value), np.array([slope.sum(), slope @ odds])

    offset, factor = _minimum(loss, np.array([0.0, 1.0]), FACTOR)
    curves = [Curve(curve.knots, curve.levels * factor) for curve in fitted.curves]
    return Additive(tuple(curves), float(offset + factor * fitted.bias))


def find_knots(column: Tensor, wrong: Tensor) -> Tensor:
    """Keys at quantiles of all values and of those of wrong pixels, each once.

    Args:
        column: `(N,)` float32.
        wrong: `(N,)` bool.

    Returns:
        `(K,)` int32, ascending; one where all values are the same.
    """
    wanted = np.r_[(np.arange(QUANTILES) + 0.5) / QUANTILES, TAILS]
    keys = ordered(column).numpy()
    parts = [np.quantile(part, wanted, method="nearest") for part in (keys, keys[wrong.numpy()])]
    return torch.from_numpy(np.unique(np.concatenate(parts)))


def _curve(knots: Tensor, rises: Numbers) -> Curve:
    return Curve(knots, torch.from_numpy(np.r_[0.0, np.cumsum(rises)]))


def _shares(weights: Tensor) -> Numbers:
    mass = weights.numpy().astype(np.float64)
    return np.asarray(mass / mass.sum())


Loss = Callable[[Numbers], tuple[float, Numbers]]


def _loss(
    where: list[tuple[NDArray[np.intp], Numbers]], sizes: list[int], wrong: Numbers, mass: Numbers
) -> Loss:
    """Mean negative log-likelihood plus the ridge, and its gradient, of bias and steps."""
    ends = np.cumsum([1, *sizes])

    def loss(at: Numbers) -> tuple[float, Numbers]:
        z = np.full(len(wrong), at[0])
        for (cell, within), begin, end in zip(where, ends, ends[1:]):
            steps = at[begin:end]
            z += (np.cumsum(steps) - steps)[cell] + within * steps[cell]
        value = mass @ (np.logaddexp(0, z) - wrong * z) + RIDGE * (at[1:] @ at[1:]) / 2
        slope = mass * (_sigmoid(z) - wrong)
        gradient = np.r_[slope.sum(), RIDGE * at[1:]]
        for (cell, within), begin, end in zip(where, ends, ends[1:]):
            whole = np.bincount(cell, slope, end - begin)
            part = np.bincount(cell, slope * within, end - begin)
            gradient[begin:end] += np.cumsum(whole[::-1])[::-1] - whole + part
        return float(value), gradient

    return loss


def _minimum(loss: Loss, start: Numbers, most: float | None = None) -> Numbers:
    """Where a convex loss is lowest, all but the first coordinate in [0, most]."""
    bounds = [(None, None)] + [(0.0, most)] * (len(start) - 1)
    settings = {"maxiter": ITERATIONS, "maxfun": 2 * ITERATIONS, "ftol": 1e-10, "gtol": 1e-7}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=settings)
    result: Numbers = found.x
    return result


def _sigmoid(z: Numbers) -> Numbers:
    return np.asarray(1 / (1 + np.exp(-np.clip(z, -500, 500))))
