"""Temperature scaling: one number by which all logits are divided.

`TemperatureMix` mixes the tempered, the raw and uniform probabilities.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from doubtmap.calibration.calibrator import Calibrator, Pairs, recalibrated, rescaled
from doubtmap.calibration.optimum import minimise
from doubtmap.calibration.pixels import Pixels, checked_label, draw_pixels
from doubtmap.errors import DataError, UsageError
from doubtmap.files import Entry, Part
from doubtmap.files.tables import all_within, within
from doubtmap.kernels import at_least_float32
from doubtmap.prediction import Prediction

STEPS = 100
ABOVE_ZERO = within(low=sys.float_info.min)


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

    PARTS: ClassVar[Mapping[str, Part | Entry]] = {"temperature": ABOVE_ZERO}
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


@dataclass(frozen=True, kw_only=True, eq=False)
class TemperatureMix(Calibrator):
    """`p = w1 softmax(z / T) + w2 softmax(z) + w3 / C` with weights that sum to 1.

    The paper calls it ensemble temperature scaling; no ensemble of networks takes part. Acts at the
    image's size; the predicted class stays. Unlike a lone temperature it can admit that any pixel
    may be wrong: no confidence exceeds `1 - w3 (1 - 1 / C)`.

    Args:
        temperature: T above 0.
        weights: `w1, w2, w3`, at least 0, sum 1.

    Reference:
        Mix-n-Match: Ensemble and Compositional Methods for Uncertainty Calibration in Deep
        Learning (Zhang et al., 2020), https://arxiv.org/abs/2003.07329
    """

    temperature: float
    weights: tuple[float, float, float]

    PARTS: ClassVar[Mapping[str, Part | Entry]] = {
        "temperature": ABOVE_ZERO,
        "weights": all_within(0, 1, count=3),
    }

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if min(self.weights) < 0 or abs(sum(self.weights) - 1) > 1e-6:
            raise UsageError(f"temperature_mix: expected three shares of 1, got {self.weights}.")

    @classmethod
    def fit(cls, pairs: Pairs, *, seed: int = 0) -> TemperatureMix:
        """Find T and weights of least negative log-likelihood on a pixel sample, all together.

        Args:
            pairs: held-out predictions and labels, gone through once.
            seed: of the pixel sample.

        Raises:
            DataError: where labels are missing, all predictions are right, or no optimum is found.
        """
        return cls.from_pixels(draw_pixels(pairs, seed=seed))

    @classmethod
    def from_pixels(cls, pixels: Pixels) -> TemperatureMix:
        """Fit to sampled logits, from the best lone temperature on."""
        logits = pixels.values.double()
        start = torch.tensor(best_inverse(pixels), dtype=torch.float64).log()
        log_inverse = start.clone().requires_grad_()
        shares = torch.tensor([2.0, 0.0, -2.0], dtype=torch.float64, requires_grad=True)
        truth = pixels.labels[:, None]
        raw = logits.log_softmax(1).gather(1, truth)[:, 0]
        uniform = torch.full_like(raw, -math.log(logits.shape[1]))

        def loss() -> Tensor:
            tempered = (logits * log_inverse.exp()).log_softmax(1).gather(1, truth)[:, 0]
            parts = torch.stack([tempered, raw, uniform], 1)
            mixed = (parts + shares.log_softmax(0)).logsumexp(1)
            # keeps T where its share vanishes, and shares of 0 at a finite place
            idle = 1e-6 * ((log_inverse - start).square() + shares.square().sum())
            return -pixels.mean(mixed) + idle

        minimise(loss, [log_inverse, shares], "temperature_mix")
        w1, w2, w3 = shares.detach().softmax(0).tolist()
        return cls(
            temperature=float((-log_inverse.detach()).exp()),
            weights=(w1, w2, w3),
            channels=logits.shape[1],
            origin=pixels.origin,
        )

    def apply(self, prediction: Prediction) -> Prediction:
        """Mix."""
        logits = prediction.logits
        w1, w2, w3 = self.weights
        p = w1 * (logits / self.temperature).softmax(1) + w2 * logits.softmax(1)
        floor = torch.finfo(p.dtype).tiny
        mixed = (p + w3 / logits.shape[1]).clamp_min(floor)
        return recalibrated(prediction, mixed.log(), keep=True)
