"""Fitting rising curves to several scores at once, so that their sum is a log-odds.

    log p / (1 - p) = bias + sum_s curve_s(score_s),    every curve rising

A generalised additive model of logistic regression whose curves may only rise: with the levels
written as sums of steps that are not negative the problem is convex, and one optimum is found for
all scores together.

Reference:
    Generalized Additive Models (Hastie and Tibshirani, 1986),
    https://doi.org/10.1214/ss/1177013604

A rising curve over a score: few knots in the file, a table of many cells to read it with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from doubtmap.kernels import recording
from doubtmap.kernels.steps import number, ordered

CELLS = 1 << 14
"""Of the table, at most."""


TILE = 1 << 16
"""Pixels read at once: they stay in the processor's cache."""


@dataclass(frozen=True, eq=False)
class Curve:
    """A rising, piecewise linear function of a score, flat beyond its ends.

    Linear in the score's float32 key (`doubtmap.kernels.steps`), which is about its logarithm, so
    that a score may span any range. Larger values never have a lower level, rounding included.

    Args:
        knots: `(K,)` int32 keys, strictly ascending; one knot is a constant.
        levels: `(K,)` float64, not descending, at the knots.
    """

    knots: Tensor
    levels: Tensor

    def __post_init__(self) -> None:
        knots, levels = self.knots, self.levels
        rising = bool((knots[1:] > knots[:-1]).all() and (levels[1:] >= levels[:-1]).all())
        if knots.ndim != 1 or not len(knots) or knots.shape != levels.shape or not rising:
            raise ValueError("a curve needs ascending knots, and levels that do not descend")
        if not bool(torch.isfinite(levels).all()):
            raise ValueError("a curve needs finite levels")

    @property
    def rise(self) -> float:
        """From the lowest to the highest level."""
        return float(self.levels[-1] - self.levels[0])

    def __call__(self, values: Tensor) -> Tensor:
        """Read the curve.

        Args:
            values: any shape, float32, finite.

        Returns:
            The same shape, float32.
        """
        if recording(values):
            return self._recorded(values)
        start, change = self._table(values.device)
        flat = values.contiguous().view(-1)
        result = torch.empty_like(flat)
        for begin in range(0, len(flat), TILE):
            part = slice(begin, begin + TILE)
            key = self._keys(flat[part])
            cell = (key >> self._shift).sub_(self._ends[0] >> self._shift)
            within = key.bitwise_and_((1 << self._shift) - 1).float().mul_(0.5**self._shift)
            low, rise = start.index_select(0, cell), change.index_select(0, cell)
            torch.addcmul(low, within, rise, out=result[part])
        return result.view(values.shape)

    def _recorded(self, values: Tensor) -> Tensor:
        """The same for a graph, whose operators do not see bits: a search for the cell.

        No cell is wider than an octave, within which keys are linear in the numbers.
        """
        start, change = self._table(values.device)
        first = self._ends[0] >> self._shift
        largest = torch.finfo(torch.float32).max
        keys = [(first + cell) << self._shift for cell in range(len(start) + 1)]
        edges = torch.tensor([number(key) for key in keys], device=values.device)
        edges = edges.nan_to_num(nan=largest, posinf=largest, neginf=-largest)
        values = values.clamp(*map(number, self._ends))
        depth = len(start).bit_length()
        beyond = torch.full((2**depth + 1 - len(edges),), torch.inf, device=values.device)
        bounds = torch.cat([edges[:-1], beyond])
        cell = torch.zeros_like(values, dtype=torch.int64)
        for step in (2**bit for bit in reversed(range(depth))):
            cell = torch.where(bounds[cell + step] <= values, cell + step, cell)
        low, width = edges[cell], edges.diff()[cell]
        return start[cell] + (values - low) / width * change[cell]

    def _keys(self, values: Tensor) -> Tensor:
        """Keys between the ends; those of numbers above 0 are their bits."""
        low, high = self._ends
        if low < 0:
            return ordered(values).clamp_(low, high)
        ends = torch.tensor([low, high], dtype=torch.int32).view(torch.float32).tolist()
        # -0.0 + 0.0 is 0.0, whose bits are 0
        return (values + 0.0).clamp(*ends).view(torch.int32)

    @cached_property
    def _ends(self) -> tuple[int, int]:
        return int(self.knots[0]), int(self.knots[-1])

    @cached_property
    def _shift(self) -> int:
        """Bits of a key below the cell: as few as keep the table small."""
        span = self._ends[1] - self._ends[0]
        return max(0, span.bit_length() - (CELLS.bit_length() - 1))

    def _table(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Level at the start of each cell, and how much it rises within."""
        if device not in self._tables:
            low, high = self._ends
            first, last = low >> self._shift, high >> self._shift
            edges = np.arange(first, last + 2, dtype=np.int64) << self._shift
            levels = np.interp(edges, self.knots.numpy().astype(np.float64), self.levels.numpy())
            # Rounded to float32, a level plus the change to the next never passes the next:
            # the change is exact where they are near, and never wholly reached elsewhere.
            rounded = torch.from_numpy(levels).float()
            self._tables[device] = rounded[:-1].to(device), rounded.diff().to(device)
        return self._tables[device]

    @cached_property
    def _tables(self) -> dict[torch.device, tuple[Tensor, Tensor]]:
        return {}


Numbers = NDArray[np.float64]


def places(values: Tensor, knots: Tensor) -> tuple[NDArray[np.intp], Numbers]:
    """Between which knots values lie, and how far from one to the next.

    Args:
        values: `(N,)` float32, finite.
        knots: `(K,)` int32 keys, ascending, at least two.

    Returns:
        `(N,)` in [0, K - 2], and `(N,)` in [0, 1].
    """
    keys = ordered(values).numpy().astype(np.float64)
    at = knots.numpy().astype(np.float64)
    cell = np.clip(np.searchsorted(at, keys, side="right") - 1, 0, len(at) - 2)
    return cell, np.clip((keys - at[cell]) / (at[cell + 1] - at[cell]), 0, 1)


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
