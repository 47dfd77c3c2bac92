"""Local temperature scaling: a temperature for every pixel, from what lies around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.calibration.calibrator import Calibrator, Pairs, recalibrated
from doubtmap.calibration.judge import Inputs, Judge, read_inputs, train_judge
from doubtmap.calibration.pixels import VALUES, draw_pixels
from doubtmap.calibration.temperature import ABOVE_ZERO, best_inverse, check_temperature
from doubtmap.files import Entry, Part
from doubtmap.prediction import Prediction

STEEPEST = 3.0
"""The local temperature stays within a factor of e^3 of the global one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Local(Calibrator):
    """`softmax(z / T(x))` with `T(x) = T exp(-s(x))`, s by a small network; the class stays.

    Departs from the paper in three things. The network is the perceptron of `judge` on
    log-probabilities and their local means, in place of a tree of dilated convolutions; the
    image itself enters through the segmentation network's features (`inputs=all`), which lie on
    the native grid, where it runs. And it starts at s = 0 with T the best global temperature:
    the published code starts at a temperature of 2 everywhere, from which short training does
    not return, so that comparisons with it are unfair.

    Args:
        temperature: T, the best global one.
        judge: gives s on the native grid; `1 / T(x)` is resized to the image.

    Reference:
        Local Temperature Scaling for Probability Calibration (Ding et al., 2021),
        https://arxiv.org/abs/2008.05105
    """

    temperature: float
    judge: Judge

    PARTS: ClassVar[Mapping[str, Part | Entry]] = {"temperature": ABOVE_ZERO}

    def __post_init__(self) -> None:
        check_temperature(self.temperature)

    @classmethod
    def fit(
        cls, pairs: Pairs, *, inputs: Inputs = "neighbourhood", seed: int = 0, values: int = VALUES
    ) -> Local:
        """Train by negative log-likelihood on a sample of native pixels.

        Args:
            pairs: held-out predictions and labels, gone through once.
            inputs: what the network sees, as `read_inputs` has it.
            seed: of sample and training.
            values: budget of the sample, in numbers.

        Raises:
            UsageError: for unknown inputs.
            ModelError: where features are asked for and there are none.
            DataError: where labels are missing or all predictions are right.
        """
        drawn = draw_pixels(
            pairs,
            lambda p: torch.cat([p.native_logits.float(), read_inputs(p, inputs)], 1),
            on_native_grid=True,
            values=values,
            seed=seed,
        )
        logits, x = drawn.values[:, : drawn.channels], drawn.values[:, drawn.channels :]
        inverse = best_inverse(replace(drawn, values=logits))
        weights = drawn.weights.float()

        def loss(s: Tensor, at: Tensor) -> Tensor:
            scaled = logits[at] * (inverse * _bounded(s).exp())[:, None]
            fitted = F.cross_entropy(scaled, drawn.labels[at], reduction="none")
            return (fitted * weights[at]).sum() / weights[at].sum()

        judge = train_judge(x, loss, inputs, seed=seed, silent=True)
        return cls(
            temperature=1 / inverse, judge=judge, channels=drawn.channels, origin=drawn.origin
        )

    def apply(self, prediction: Prediction) -> Prediction:
        """Divide by the local temperature."""
        s = _bounded(self.judge(prediction))
        factor = prediction.to_size(s.exp() / self.temperature)
        return recalibrated(prediction, prediction.logits * factor, keep=True)


def _bounded(s: Tensor) -> Tensor:
    return STEEPEST * torch.tanh(s / STEEPEST)
