"""Ensemble temperature scaling: tempered, raw and uniform probabilities, mixed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from doubtmap.calibration.calibrator import Calibrator, Pairs, recalibrated
from doubtmap.calibration.optimum import minimise
from doubtmap.calibration.pixels import Pixels, draw_pixels
from doubtmap.calibration.temperature import best_inverse, check_temperature
from doubtmap.errors import UsageError
from doubtmap.prediction import Prediction


@dataclass(frozen=True, kw_only=True, eq=False)
class EnsembleTemperature(Calibrator):
    """`p = w1 softmax(z / T) + w2 softmax(z) + w3 / C` with weights that sum to 1.

    Acts at the image's size; the predicted class stays. Unlike a lone temperature it can admit
    that any pixel may be wrong: no confidence exceeds `1 - w3 (1 - 1 / C)`.

    Args:
        temperature: T above 0.
        weights: `w1, w2, w3`, at least 0, sum 1.

    Reference:
        Mix-n-Match: Ensemble and Compositional Methods for Uncertainty Calibration in Deep
        Learning (Zhang et al., 2020), https://arxiv.org/abs/2003.07329
    """

    temperature: float
    weights: tuple[float, float, float]

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if min(self.weights) < 0 or abs(sum(self.weights) - 1) > 1e-6:
            raise UsageError(f"ensemble: expected three shares of 1, got {self.weights}.")

    @classmethod
    def fit(cls, pairs: Pairs, *, seed: int = 0) -> EnsembleTemperature:
        """Find T and weights of least negative log-likelihood on a pixel sample, all together.

        Args:
            pairs: held-out predictions and labels, gone through once.
            seed: of the pixel sample.

        Raises:
            DataError: where labels are missing, all predictions are right, or no optimum is found.
        """
        return cls.from_pixels(draw_pixels(pairs, seed=seed))

    @classmethod
    def from_pixels(cls, pixels: Pixels) -> EnsembleTemperature:
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

        minimise(loss, [log_inverse, shares], "ensemble")
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
