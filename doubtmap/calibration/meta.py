"""Meta-Cal for dense prediction: where entropy is high, nothing is claimed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from doubtmap.calibration.calibrator import Calibrator, Pairs, recalibrated
from doubtmap.calibration.pixels import draw_pixels
from doubtmap.calibration.temperature import ABOVE_ZERO, best_inverse, check_temperature
from doubtmap.errors import DataError, UsageError
from doubtmap.files import Entry, Part
from doubtmap.files.tables import within
from doubtmap.prediction import Prediction


@dataclass(frozen=True, kw_only=True, eq=False)
class Meta(Calibrator):
    """Uniform probabilities where the entropy is above a threshold, `softmax(z / T)` elsewhere.

    Departs from the papers in one thing: the predicted class stays where probabilities are
    uniform (recomputing it there would make it class 0).

    Args:
        threshold: of the entropy, in nats.
        temperature: T of the other pixels.

    Reference:
        Meta-Cal: Well-controlled Post-hoc Calibration by Ranking (Ma and Blaschko, 2021),
        https://arxiv.org/abs/2105.04290; for segmentation: On Calibrating Semantic Segmentation
        Models (Wang et al., 2023), https://arxiv.org/abs/2212.12053
    """

    threshold: float
    temperature: float

    PARTS: ClassVar[Mapping[str, Part | Entry]] = {
        "threshold": within(),
        "temperature": ABOVE_ZERO,
    }

    def __post_init__(self) -> None:
        check_temperature(self.temperature)

    @classmethod
    def fit(cls, pairs: Pairs, *, miscoverage: float = 0.05, seed: int = 0) -> Meta:
        """Put the threshold where this share of the right pixels lies above it; then fit T.

        Args:
            pairs: held-out predictions and labels, gone through once.
            miscoverage: share of right pixels that become uniform, in (0, 1).
            seed: of the pixel sample.

        Raises:
            UsageError: for another share.
            DataError: where labels are missing, all predictions are right, or no wrong pixel is
                below the threshold.
        """
        if not 0 < miscoverage < 1:
            raise UsageError(f"meta: expected a miscoverage in (0, 1), got {miscoverage}.")
        pixels = draw_pixels(pairs, seed=seed)
        height = entropy_of_logits(pixels.values)
        right = pixels.where(~pixels.wrong)
        if not len(right.labels):
            raise DataError("meta: expected some right pixels, found none. Check the labels.")
        threshold = _quantile(height[~pixels.wrong], right.weights, 1 - miscoverage)
        below = pixels.where(height <= threshold)
        return cls(
            threshold=threshold,
            temperature=1 / best_inverse(below),
            channels=pixels.channels,
            origin=pixels.origin,
        )

    def apply(self, prediction: Prediction) -> Prediction:
        """Scale, and flatten where the entropy is high."""
        high = prediction.statistics.entropy > self.threshold
        logits = prediction.logits / self.temperature
        return recalibrated(prediction, logits.masked_fill(high[:, None], 0.0), keep=True)


def entropy_of_logits(logits: Tensor) -> Tensor:
    """`(N,)` in nats, of the softmax of `(N, C)`."""
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)


def _quantile(values: Tensor, weights: Tensor, share: float) -> float:
    """The smallest value that at least this share of the weight does not exceed."""
    order = values.argsort()
    reached = weights[order].cumsum(0) >= share * weights.sum()
    return float(values[order][int(torch.argmax(reached.int()))])
