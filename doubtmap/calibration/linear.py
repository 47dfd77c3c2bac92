"""Linear calibrators: vector scaling and Dirichlet calibration.

Vector scaling has a factor and an offset for each class; Dirichlet calibration is a linear map of
log-probabilities. Both may change the predicted class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.calibration.calibrator import LEVEL_LOST, Calibrator, Pairs, recalibrated, rescaled
from doubtmap.calibration.optimum import minimise
from doubtmap.calibration.pixels import Pixels, draw_pixels
from doubtmap.errors import UsageError
from doubtmap.files import Entry, Part
from doubtmap.kernels import at_least_float32
from doubtmap.prediction import Prediction


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

    PARTS: ClassVar[Mapping[str, Part | Entry]] = {"factors": Part("C"), "offsets": Part("C")}
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

    def mapped(self, logits: Tensor) -> Tensor:
        """Logits `(N, C)` of pixels as it has them."""
        return _centred(logits) * self.factors + self.offsets

    def apply(self, prediction: Prediction) -> Prediction:
        """Scale and shift."""
        logits = _centred(at_least_float32(prediction.native_logits))
        factors, offsets = (x.to(logits)[:, None, None] for x in (self.factors, self.offsets))
        scaled = rescaled(prediction, factors * logits + offsets, keep=False)
        return replace(scaled, energy_missing=LEVEL_LOST)


def _centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(1, keepdim=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dirichlet(Calibrator):
    """`softmax(W log p + b)` at the image's size; it **changes predicted classes**.

    Args:
        weights: `(C, C)`, W.
        offsets: `(C,)`, b.

    Reference:
        Beyond temperature scaling: Obtaining well-calibrated multi-class probabilities with
        Dirichlet calibration (Kull et al., 2019), https://arxiv.org/abs/1910.12656
    """

    weights: Tensor
    offsets: Tensor

    PARTS: ClassVar[Mapping[str, Part | Entry]] = {"weights": Part("C C"), "offsets": Part("C")}

    @property
    def keeps_classes(self) -> bool:
        """No: classes that are confused are told apart anew."""
        return False

    @classmethod
    def fit(
        cls,
        pairs: Pairs,
        *,
        off_diagonal: float = 1e-3,
        offset: float = 1e-3,
        seed: int = 0,
    ) -> Dirichlet:
        """Find W and b of least penalised negative log-likelihood on a pixel sample.

        Args:
            pairs: held-out predictions and labels, gone through once.
            off_diagonal: penalty on the mean square of W's entries off the diagonal (ODIR).
            offset: penalty on the mean square of b.
            seed: of the pixel sample.

        Raises:
            UsageError: for negative penalties.
            DataError: where labels are missing, all predictions are right, or no optimum is found.
        """
        if not (off_diagonal >= 0 and offset >= 0):
            raise UsageError(
                f"dirichlet: expected penalties of at least 0, got {off_diagonal} and {offset}."
            )
        return cls.from_pixels(draw_pixels(pairs, seed=seed), off_diagonal, offset)

    @classmethod
    def from_pixels(
        cls, pixels: Pixels, off_diagonal: float = 1e-3, offset: float = 1e-3
    ) -> Dirichlet:
        """Fit to sampled logits; the loss is convex."""
        log_p = pixels.values.double().log_softmax(1)
        classes = log_p.shape[1]
        whitening = _whitening(log_p)
        whitened = log_p @ whitening.T
        found = torch.linalg.inv(whitening).contiguous().requires_grad_()  # W starts as identity
        offsets = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
        outside = 1 - torch.eye(classes, dtype=torch.float64)

        def loss() -> Tensor:
            logits, weights = whitened @ found.T + offsets, found @ whitening
            fitted = F.cross_entropy(logits, pixels.labels, reduction="none")
            spread = (weights * outside).square().sum() / outside.sum()
            # the last term chooses among weights that give the same probabilities
            idle = 1e-7 * weights.sum(0).square().sum() + 1e-8 * offsets.sum().square()
            penalty = off_diagonal * spread + offset * offsets.square().mean()
            total: Tensor = pixels.mean(fitted) + penalty + idle
            return total

        minimise(loss, [found, offsets], "dirichlet")
        return cls(
            weights=(found.detach() @ whitening).float(),
            offsets=offsets.detach().float(),
            channels=classes,
            origin=pixels.origin,
        )

    def mapped(self, logits: Tensor) -> Tensor:
        """Logits `(N, C)` of pixels as it has them."""
        return logits.log_softmax(1) @ self.weights.T + self.offsets

    def apply(self, prediction: Prediction) -> Prediction:
        """Map log-probabilities."""
        log_p = prediction.logits.log_softmax(1)
        weights = self.weights.to(log_p)[:, :, None, None]
        logits = F.conv2d(log_p, weights, self.offsets.to(log_p))
        return recalibrated(prediction, logits, keep=False)


def _whitening(x: Tensor) -> Tensor:
    """`(C, C)` A such that `A x` has second moments of about 1: steps of one size everywhere."""
    moments = x.T @ x / len(x)
    moments += 1e-6 * moments.trace() / len(moments) * torch.eye(len(moments), dtype=x.dtype)
    inverse: Tensor = torch.linalg.inv(torch.linalg.cholesky(moments))
    return inverse
