"""Calibrators of many parameters that keep what the network says: its labels, or its whole order.

Each predicted class has a map of its own. It acts on differences of log-probabilities that are at
least 0, and gives such again, since none of its numbers is below 0. So the predicted class stays
the likeliest whatever is fitted, and a constant added to all logits changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from doubtmap.calibration.calibrator import Calibrator, Pairs, recalibrated
from doubtmap.calibration.linear import Dirichlet, Vector
from doubtmap.calibration.pixels import Pixels, draw_pixels
from doubtmap.calibration.temperature import ABOVE_ZERO, best_inverse, check_temperature
from doubtmap.errors import DataError, UsageError
from doubtmap.files import Entry, Part
from doubtmap.prediction import Prediction

Numbers = NDArray[np.float64]
MOST_CLASSES = 64
"""Classes above which a matrix for each would have more than 250,000 numbers."""
STEPS = 1000
"""Of a fit, before it says that it does not converge."""
SLOPE = 1e-5
"""Largest projected slope, in nats per unit of a parameter, that counts as an optimum."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Matrices(Calibrator):
    """A matrix and offsets, none below 0, for each predicted class.

    Args:
        matrices: `(C, C - 1, C - 1)`, by predicted class.
        offsets: `(C, C - 1)`.
    """

    matrices: Tensor
    offsets: Tensor

    PARTS: ClassVar[Mapping[str, Part | Entry]] = {
        "matrices": Part("C K K", low=0),
        "offsets": Part("C K", low=0),
    }
    METHOD: ClassVar[str]
    SUMMED: ClassVar[bool]
    """Whether what comes out are steps from rank to rank, to be summed."""

    def __post_init__(self) -> None:
        count = len(self.matrices)
        if self.matrices.shape != (count, count - 1, count - 1):
            raise UsageError(
                f"{self.METHOD}: expected a matrix of one row and column less than there are "
                f"classes for each, got {tuple(self.matrices.shape)}."
            )

    @classmethod
    def fit(cls, pairs: Pairs, *, penalty: float = 10.0, seed: int = 0) -> Self:
        """Find the numbers of least penalised negative log-likelihood on a pixel sample.

        Args:
            pairs: held-out predictions and labels, gone through once.
            penalty: on the mean square of the departure from the best single temperature.
            seed: of the pixel sample.

        Raises:
            UsageError: for a negative penalty.
            DataError: where labels are missing, all predictions are right, there are too many
                classes, or no optimum is found.
        """
        if not penalty >= 0:
            raise UsageError(f"{cls.METHOD}: expected a penalty of at least 0, got {penalty}.")
        return cls.from_pixels(draw_pixels(pairs, seed=seed), penalty)

    @classmethod
    def from_pixels(cls, pixels: Pixels, penalty: float = 10.0) -> Self:
        """Fit to sampled logits, class by class; each loss is convex, so its optimum is one."""
        count = pixels.channels
        if count > MOST_CLASSES:
            raise DataError(
                f"{cls.METHOD}: expected at most {MOST_CLASSES} classes, each with a matrix, got "
                f"{count}. Take class_temperature, which has one number for each."
            )
        start, total = best_inverse(pixels), float(pixels.weights.sum())
        found = [cls._of_class(pixels, k, start, penalty, total) for k in range(count)]
        tables = torch.from_numpy(np.stack(found)).float()
        return cls(
            matrices=tables[..., :-1].contiguous(),
            offsets=tables[..., -1].contiguous(),
            channels=count,
            origin=pixels.origin,
        )

    @classmethod
    def _of_class(
        cls, pixels: Pixels, number: int, start: float, penalty: float, total: float
    ) -> Numbers:
        """`(C - 1, C)`: matrix and offsets of the pixels that a class is predicted for."""
        width = pixels.channels - 1
        first = np.hstack([start * np.eye(width), np.zeros((width, 1))])
        there = pixels.where(pixels.classes == number)
        if not len(there.labels):
            return first
        log_p = there.values.double().log_softmax(1)
        steps, order = cls._steps(log_p, there.classes)
        place = (order == there.labels[:, None]).int().argmax(1).numpy()
        inputs = np.hstack([steps.numpy(), np.ones((len(place), 1))])
        weights = there.weights.numpy() / total
        return _least(cls.METHOD, inputs, place, weights, first, cls.SUMMED, penalty)

    @classmethod
    def _steps(cls, log_p: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """What the matrix is multiplied with, `(N, C - 1)`, and of which classes, `(N, C)`."""
        raise NotImplementedError

    def apply(self, prediction: Prediction) -> Prediction:
        """Map log-probabilities, the pixels of each predicted class by its own matrix."""
        logits, classes = prediction.logits, prediction.classes.reshape(-1)
        flat = logits.movedim(1, -1).reshape(len(classes), -1).log_softmax(1)
        result = torch.empty_like(flat)
        for number in torch.unique(classes).tolist():
            at = torch.nonzero(classes == number)[:, 0]
            steps, order = self._steps(flat[at], classes[at])
            matrix, offset = (x[number].to(flat) for x in (self.matrices, self.offsets))
            below = steps @ matrix.T + offset
            below = below.cumsum(1) if self.SUMMED else below
            mapped = torch.cat([torch.zeros_like(below[:, :1]), -below], 1)
            result[at] = torch.empty_like(mapped).scatter_(1, order, mapped)
        size = prediction.size
        mapped = result.reshape(len(logits), *size, -1).movedim(-1, 1).contiguous()
        return recalibrated(prediction, mapped, keep=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class ArgmaxPreserving(_Matrices):
    """Matrix scaling of the distances to the predicted class; the class stays.

    With `d_j = log p_y - log p_j` of the classes j other than the predicted y, `d' = B_y d + b_y`,
    no number of B and b below 0, and `softmax(-d')`. The order of the others may change.

    Reference:
        Rethinking Post-Hoc Calibration in Semantic Segmentation (2026),
        https://arxiv.org/abs/2607.01902
    """

    METHOD: ClassVar[str] = "argmax_preserving"
    SUMMED: ClassVar[bool] = False

    @classmethod
    def _steps(cls, log_p: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        every = torch.arange(log_p.shape[1], device=log_p.device).expand(len(log_p), -1)
        others = every[every != classes[:, None]].reshape(len(log_p), -1)
        order = torch.cat([classes[:, None], others], 1)
        ordered = log_p.gather(1, order)
        return (ordered[:, :1] - ordered[:, 1:]).clamp_min(0), order


@dataclass(frozen=True, kw_only=True, eq=False)
class OrderPreserving(_Matrices):
    """Matrix scaling of the gaps between classes in order; the whole order stays.

    With `g_r` the gap of log-probability between the classes of rank r and r + 1, `g' = B_y g +
    b_y` for the predicted class y, no number of B and b below 0. Classes that tie may be told
    apart, the one of the lower index above the other.

    Reference:
        Rethinking Post-Hoc Calibration in Semantic Segmentation (2026),
        https://arxiv.org/abs/2607.01902; Intra Order-preserving Functions for Calibration of
        Multi-Class Neural Networks (Rahimi et al., 2020), https://arxiv.org/abs/2003.06820
    """

    METHOD: ClassVar[str] = "order_preserving"
    SUMMED: ClassVar[bool] = True

    @classmethod
    def _steps(cls, log_p: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        first = log_p.scatter(1, classes[:, None], torch.inf)  # where rounding ties, it leads
        order = first.sort(dim=1, descending=True, stable=True).indices
        ordered = log_p.gather(1, order)
        return (ordered[:, :-1] - ordered[:, 1:]).clamp_min(0), order


def _least(
    who: str,
    inputs: Numbers,
    place: NDArray[np.int64],
    weights: Numbers,
    first: Numbers,
    summed: bool,
    penalty: float,
) -> Numbers:
    """Numbers of least penalised loss, none below 0.

    Args:
        who: the method, for the message.
        inputs: `(N, K + 1)`, the last of which are 1.
        place: `(N,)` where the true class is, in the order of `inputs`; 0 is the predicted one.
        weights: `(N,)`.
        first: `(K, K + 1)` to start from.
        summed: whether outputs are summed along the order.
        penalty: on the mean square of the departure from `first`, over all classes.

    Raises:
        DataError: where no optimum is found.
    """
    pull = penalty / (first.size * (len(first) + 1))
    rows = np.arange(len(place))

    def loss(flat: Numbers) -> tuple[float, Numbers]:
        table = flat.reshape(first.shape)
        below = inputs @ table.T
        if summed:
            below = np.cumsum(below, 1)
        logits = np.hstack([np.zeros((len(below), 1)), -below])
        logits -= logits.max(1, keepdims=True)
        p = np.exp(logits)
        p /= p.sum(1, keepdims=True)
        value = -weights @ np.log(np.maximum(p[rows, place], 1e-300))
        p[rows, place] -= 1
        slope = -weights[:, None] * p[:, 1:]
        if summed:
            slope = np.cumsum(slope[:, ::-1], 1)[:, ::-1]
        off = table - first
        gradient = slope.T @ inputs + 2 * pull * off
        return float(value + pull * (off**2).sum()), gradient.reshape(-1)

    options: dict[str, Any] = {"maxiter": STEPS, "maxfun": 2 * STEPS, "gtol": SLOPE, "ftol": 0.0}
    bounds = [(0, None)] * first.size
    found = minimize(loss, first.reshape(-1), jac=True, method="L-BFGS-B", bounds=bounds,
                     options=options)  # fmt: skip
    left = np.where((found.x <= 0) & (found.jac > 0), 0, found.jac)
    if not np.isfinite(found.fun) or np.abs(left).max() > 10 * SLOPE:
        raise DataError(
            f"{who}: expected the fit to converge, but after {found.nit} steps the loss still "
            f"falls by {np.abs(left).max():.2g} nats per unit of a number. Fit on more images, or "
            f"take class_temperature."
        )
    return np.asarray(found.x.reshape(first.shape))


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassTemperature(Calibrator):
    """Divide the logits of a pixel by the temperature of its predicted class; the order stays.

    Acts at the image's size.

    Args:
        temperatures: `(C,)` above 0.

    Reference:
        On Calibration of Modern Neural Networks (Guo et al., 2017),
        https://arxiv.org/abs/1706.04599, for each predicted class apart.
    """

    temperatures: Tensor

    PARTS: ClassVar[Mapping[str, Part | Entry]] = {"temperatures": Part("C", low=1e-30)}

    @classmethod
    def fit(cls, pairs: Pairs, *, seed: int = 0) -> Self:
        """Find the temperatures of least negative log-likelihood on a pixel sample.

        A class that is never predicted wrongly, or never rightly, has no best temperature; it gets
        the one that is best for all.

        Args:
            pairs: held-out predictions and labels, gone through once.
            seed: of the pixel sample.

        Raises:
            DataError: where labels are missing, all predictions are right, or the best
                temperature of all is infinite.
        """
        return cls.from_pixels(draw_pixels(pairs, seed=seed))

    @classmethod
    def from_pixels(cls, pixels: Pixels) -> Self:
        """Fit to sampled logits."""
        every = best_inverse(pixels)
        inverse = [every] * pixels.channels
        for number in range(pixels.channels):
            own = pixels.where(pixels.classes == number)
            if bool(own.wrong.any()) and not bool(own.wrong.all()):
                inverse[number] = best_inverse(own, every)
        return cls(
            temperatures=1 / torch.tensor(inverse),
            channels=pixels.channels,
            origin=pixels.origin,
        )

    def apply(self, prediction: Prediction) -> Prediction:
        """Divide."""
        temperature = self.temperatures.to(prediction.logits)[prediction.classes][:, None]
        return recalibrated(prediction, prediction.logits / temperature, keep=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Kept(Calibrator):
    """A linear calibrator that keeps labels: no other class rises above the predicted one.

    Its logits, each at most that of the predicted class, divided by a temperature that is fitted
    to them anew.

    Args:
        temperature: above 0.
    """

    temperature: float

    keeps_grid: ClassVar[bool] = False
    BASE: ClassVar[type[Vector] | type[Dirichlet]]
    """What it keeps the labels of; it is one of these, too."""

    def __post_init__(self) -> None:
        check_temperature(self.temperature)

    @property
    def keeps_classes(self) -> bool:
        """Yes, unlike the calibrator itself."""
        return True

    @classmethod
    def from_pixels(cls, pixels: Pixels, *penalties: float) -> Self:
        """Fit to sampled logits: the calibrator itself first, then the temperature."""
        base = cls.BASE.from_pixels(pixels, *penalties)
        logits = base.mapped(pixels.values)
        most = logits.gather(1, pixels.classes[:, None])
        held = replace(pixels, values=torch.minimum(logits, most))
        return cls(**vars(base), temperature=1 / best_inverse(held))

    def apply(self, prediction: Prediction) -> Prediction:
        """Map logits, and hold back what rises above the predicted class."""
        found = super().apply(prediction)  # type: ignore[safe-super]  # of `BASE`
        logits = found.logits / self.temperature
        most = logits.gather(1, prediction.classes[:, None])
        return recalibrated(prediction, torch.minimum(logits, most), keep=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class VectorKept(_Kept, Vector):
    """Vector scaling that keeps labels, see `_Kept`."""

    BASE = Vector
    PARTS: ClassVar[Mapping[str, Part | Entry]] = {**Vector.PARTS, "temperature": ABOVE_ZERO}


@dataclass(frozen=True, kw_only=True, eq=False)
class DirichletKept(_Kept, Dirichlet):
    """Dirichlet calibration that keeps labels, see `_Kept`."""

    BASE = Dirichlet
    PARTS: ClassVar[Mapping[str, Part | Entry]] = {**Dirichlet.PARTS, "temperature": ABOVE_ZERO}
