"""Vector scaling: a factor and an offset for each class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.calibration.calibrator import LEVEL_LOST, Calibrator, Pairs, rescaled
from doubtmap.calibration.optimum import minimise
from doubtmap.calibration.pixels import Pixels, draw_pixels
from doubtmap.prediction import Prediction, at_least_float32


@dataclass(frozen=True, kw_only=True, eq=False)
class Vector(Calibrator):
    """`softmax(a z' + b)` with `z' = z - mean over classes of z`; also called logistic scaling.

    Departs from the paper in one thing: logits are centred first, so that a constant added to all
    of them, which changes no probability, changes nothing here either. Affine maps and bilinear
    resizing commute, so it acts on native logits. **It changes predicted classes.**

    Args:
        factors: `(C,)`, a.
        offsets: `(C,)`, b.

    Reference:
        On Calibration of Modern Neural Networks (Guo et al., 2017),
        https://arxiv.org/abs/1706.04599
    """

    factors: Tensor
    offsets: Tensor

    keeps_grid: ClassVar[bool] = True

    @property
    def keeps_classes(self) -> bool:
        """No: classes that are confused are told apart anew."""
        return False

    @classmethod
    def fit(cls, pairs: Pairs, *, seed: int = 0) -> Vector:
        """Find the a and b of least negative log-likelihood on a pixel sample.

        Args:
            pairs: held-out predictions and labels, gone through once.
            seed: of the pixel sample.

        Raises:
            DataError: where labels are missing, all predictions are right, or no optimum is found.
        """
        return cls.from_pixels(draw_pixels(pairs, seed=seed))

    @classmethod
    def from_pixels(cls, pixels: Pixels) -> Vector:
        """Fit to sampled logits; the loss is convex, so the optimum is the only one."""
        logits = _centred(pixels.values.double())
        spread = logits.std(0).clamp_min(1e-6)  # steps of one size for all factors
        scaled = spread.clone().requires_grad_()
        offsets = torch.zeros_like(spread, requires_grad=True)
        whitened = logits / spread

        def loss() -> Tensor:
            fitted = F.cross_entropy(scaled * whitened + offsets, pixels.labels, reduction="none")
            # offsets matter up to a constant; the tiny term makes them sum to 0
            return pixels.mean(fitted) + 1e-8 * offsets.square().sum()

        minimise(loss, [scaled, offsets], "vector")
        return cls(
            factors=(scaled.detach() / spread).float(),
            offsets=offsets.detach().float(),
            channels=logits.shape[1],
            origin=pixels.origin,
        )

    def apply(self, prediction: Prediction) -> Prediction:
        """Scale and shift."""
        logits = _centred(at_least_float32(prediction.native_logits))
        factors, offsets = (x.to(logits)[:, None, None] for x in (self.factors, self.offsets))
        scaled = rescaled(prediction, factors * logits + offsets, keep=False)
        return replace(scaled, energy_missing=LEVEL_LOST)


def _centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(1, keepdim=True)
