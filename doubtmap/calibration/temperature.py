"""Temperature scaling: one number by which all logits are divided."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from doubtmap.calibration.calibrator import Calibrator, Pairs, rescaled
from doubtmap.calibration.pixels import Pixels, checked_label, draw_pixels
from doubtmap.errors import DataError, UsageError
from doubtmap.prediction import Prediction, at_least_float32

STEPS = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class Temperature(Calibrator):
    """Divide logits by T: `softmax(z / T)`.

    Acts on native logits, which is the same as at the image's size: scaling and bilinear resizing
    commute. The predicted class stays.

    Args:
        temperature: T above 0; above 1 lowers confidence.

    Reference:
        On Calibration of Modern Neural Networks (Guo et al., 2017),
        https://arxiv.org/abs/1706.04599
    """

    temperature: float

    keeps_grid: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_temperature(self.temperature)

    @classmethod
    def fit(cls, pairs: Pairs, *, seed: int = 0, exact: bool = True) -> Temperature:
        """Find the T of least negative log-likelihood.

        The loss is convex in 1 / T. Newton's method runs to the optimum of a pixel sample; then,
        if `exact`, a pass over all pixels gives the exact slope and curvature there, and the step
        that they ask for. Newton's error is about the square of the last step, so a step below
        0.5 % is the last.

        Args:
            pairs: held-out predictions and labels, mostly gone through twice.
            seed: of the pixel sample.
            exact: whether to go through all pixels.

        Raises:
            DataError: where labels are missing or all predictions are right, or the best T is
                infinite.
        """
        pixels = draw_pixels(pairs, seed=seed)
        inverse = best_inverse(pixels)
        step = math.inf
        for _ in range(4):
            if not exact or abs(step) < 5e-3 * inverse:
                break
            slope, curvature = _over_all_pixels(pairs, inverse)
            step = -slope / curvature
            inverse = max(inverse + step, inverse / 2)
        return cls(temperature=1 / inverse, channels=pixels.channels, origin=pixels.origin)

    def apply(self, prediction: Prediction) -> Prediction:
        """Divide by T."""
        logits = at_least_float32(prediction.native_logits)
        return rescaled(prediction, logits / self.temperature, keep=True)


def best_inverse(pixels: Pixels, least: float | None = None) -> float:
    """1 / T of least weighted negative log-likelihood, by Newton's method with bisection.

    Args:
        pixels: `values` are logits.
        least: returned where the best T is infinite; None makes that an error.

    Raises:
        DataError: where the loss falls all the way to an infinite or a vanishing T.
    """
    logits, labels = pixels.values.double(), pixels.labels
    below, above, inverse = 0.0, math.inf, 1.0
    if _sums(logits, labels, pixels.weights, 0.0)[0] >= 0:
        if least is not None:
            return least
        raise DataError(
            "temperature: expected logits that tell right classes from wrong ones, but the best "
            "temperature is infinite. Check that labels are in the order of the model's classes."
        )
    for _ in range(STEPS):
        slope, curvature = _sums(logits, labels, pixels.weights, inverse)
        telling = curvature * inverse**2 > 1e-9 * len(labels)  # not the flat end of the loss
        if telling and abs(slope) < 1e-8 * curvature * inverse:
            return inverse
        below, above = (inverse, above) if slope < 0 else (below, inverse)
        newton = inverse - slope / curvature if curvature > 0 else math.inf
        fallback = 2 * inverse if math.isinf(above) else (below + above) / 2
        inverse = newton if below < newton < min(above, 4 * inverse) else fallback
        if not 1e-8 < inverse < 1e8:
            break
    raise DataError(
        "temperature: expected wrong pixels among the confident ones, but the loss falls with "
        "every smaller temperature. Fit on images on which the network makes mistakes."
    )


def _sums(logits: Tensor, labels: Tensor, weights: Tensor, inverse: float) -> tuple[float, float]:
    """First and second derivative in 1 / T of the summed negative log-likelihood."""
    p = (logits * inverse).softmax(1)
    mean = (p * logits).sum(1)
    truth = logits.gather(1, labels[:, None])[:, 0]
    variance = (p * (logits - mean[:, None]).square()).sum(1)
    sums = [torch.dot(weights, x.double()) for x in (mean - truth, variance)]
    return float(sums[0]), float(sums[1])


def _over_all_pixels(pairs: Pairs, inverse: float) -> tuple[float, float]:
    slope, curvature = 0.0, 0.0
    for prediction, label in pairs:
        there = checked_label(label, prediction) >= 0
        logits = prediction.logits.movedim(1, -1)[there]
        every = torch.ones(len(logits), dtype=torch.float64, device=logits.device)
        found = _sums(logits, label[there], every, inverse)
        slope, curvature = slope + found[0], curvature + found[1]
    return slope, curvature


def check_temperature(temperature: float) -> None:
    """Refuse what is no temperature.

    Raises:
        UsageError: for numbers that are not above 0, or infinite.
    """
    if not 0 < temperature < math.inf:
        raise UsageError(
            f"temperature: expected a finite number above 0, such as 2, got {temperature}."
        )
