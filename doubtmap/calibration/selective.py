"""Selective scaling: find the pixels that are probably wrong, and smooth those.

A small network, the selector, tells wrong pixels from right ones by the network's own output.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.calibration.binned import with_confidence
from doubtmap.calibration.calibrator import Calibrator, Identity, Pairs, recalibrated
from doubtmap.calibration.judge import Inputs, Judge, read_inputs, train_judge
from doubtmap.calibration.optimum import minimise
from doubtmap.calibration.pixels import VALUES, Pixels, draw_pixels
from doubtmap.calibration.temperature import ABOVE_ZERO, best_inverse, check_temperature
from doubtmap.errors import DataError, UsageError
from doubtmap.files import Entry, Part
from doubtmap.files.tables import within
from doubtmap.prediction import Prediction

HOTTEST = 1e10
Rule = Literal["likelihood", "accuracy"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Selective(Calibrator):
    """`softmax(z / T)` where the selector flags a pixel, another calibrator's output elsewhere.

    The selector runs on the native grid; its log-odds are resized, and a pixel is flagged where
    they are above 0. The predicted class stays, also at T = 1e10, unless the calibrator of the
    other pixels changes it there.

    Departs from the released code: void pixels are left out of the selector's training, and
    labels are not taken anew from the scaled logits, which at a huge T makes flagged pixels
    class 0 and flatters the calibration error.

    Args:
        selector: gives the log-odds of being wrong.
        temperature: T of the flagged pixels.
        others: calibrates the pixels that are not flagged.

    Reference:
        On Calibrating Semantic Segmentation Models: Analyses and An Algorithm (Wang, Gong and
        Wang, 2023), https://arxiv.org/abs/2212.12053
    """

    selector: Judge
    temperature: float
    others: Calibrator = field(default_factory=Identity)

    PARTS: ClassVar[Mapping[str, Part | Entry]] = {"temperature": ABOVE_ZERO}

    def __post_init__(self) -> None:
        check_temperature(self.temperature)

    @property
    def keeps_classes(self) -> bool:
        """Where the calibrator of the other pixels does."""
        return self.others.keeps_classes

    @classmethod
    def fit(
        cls,
        pairs: Pairs,
        *,
        temperature: float | Rule = "likelihood",
        others: type[Calibrator] = Identity,
        balance: float = 1.0,
        inputs: Inputs = "logits",
        seed: int = 0,
    ) -> Selective:
        """Train the selector, then fit the flagged pixels' T, then the other pixels' calibrator.

        Args:
            pairs: held-out predictions and labels, gone through a few times.
            temperature: a number as in the paper (2 for a fair selector, 1e10 for a sure one);
                `likelihood` fits it to the flagged pixels; `accuracy` makes their mean confidence
                their accuracy.
            others: class of the calibrator of the pixels that are not flagged.
            balance: wrong pixels count `1 + balance` times in the selector's training.
            inputs: what the selector sees, as `read_inputs` has it; the paper's is `logits`.
            seed: of samples and training.

        Raises:
            UsageError: for values that make no sense.
            ModelError: where features are asked for and there are none.
            DataError: where labels are missing, all predictions are right, or no pixel is flagged.
        """
        rule = _checked_rule(temperature)
        selector = fit_selector(pairs, balance=balance, inputs=inputs, seed=seed)
        pixels, doubt = draw_doubts(pairs, selector, seed)
        flagged = doubt > 0
        if not bool(flagged.any()):
            raise DataError(
                f"selective: expected the selector to flag some pixels, but with balance={balance} "
                f"it flags none. Raise balance, or take another method."
            )
        return cls(
            selector=selector,
            temperature=_flagged_temperature(pixels.where(flagged), rule),
            others=_fit_others(others, _Unflagged(pairs, selector), seed),
            channels=pixels.channels,
            origin=pixels.origin,
        )

    def apply(self, prediction: Prediction) -> Prediction:
        """Scale flagged pixels, calibrate the others."""
        flagged = log_odds_of_wrong(self.selector, prediction) > 0
        others = self.others(prediction)
        logits = torch.where(flagged, prediction.logits / self.temperature, others.logits)
        return recalibrated(prediction, logits, keep=self.keeps_classes)


@dataclass(frozen=True, kw_only=True, eq=False)
class SelectiveSoft(Calibrator):
    """`softmax(z / T)` with `log T = -(offset + slope P(wrong))`, P by the selector; no threshold.

    Args:
        selector: gives the log-odds of being wrong.
        offset: of `log 1 / T`.
        slope: of `log 1 / T`, for each unit of probability.

    Reference:
        The selector: https://arxiv.org/abs/2212.12053 (Wang, Gong and Wang, 2023); the gate is
        ours.
    """

    selector: Judge
    offset: float
    slope: float

    PARTS: ClassVar[Mapping[str, Part | Entry]] = {"offset": within(), "slope": within()}

    @classmethod
    def fit(
        cls, pairs: Pairs, *, balance: float = 0.0, inputs: Inputs = "logits", seed: int = 0
    ) -> SelectiveSoft:
        """Train the selector, then fit offset and slope together by likelihood.

        Args:
            pairs: held-out predictions and labels, gone through twice.
            balance: wrong pixels count `1 + balance` times in the selector's training.
            inputs: what the selector sees.
            seed: of samples and training.

        Raises:
            UsageError, ModelError, DataError: as `Selective.fit`.
        """
        selector = fit_selector(pairs, balance=balance, inputs=inputs, seed=seed)
        pixels, doubt = draw_doubts(pairs, selector, seed)
        logits, wrong = pixels.values.double(), doubt.double().sigmoid()

        def each(offset: Tensor, slope: Tensor) -> Tensor:
            scaled = logits * (offset + slope * wrong).exp()[:, None]
            return F.cross_entropy(scaled, pixels.labels, reduction="none")

        return cls(selector=selector, **_gate(pixels, each, (0.0, 0.0), "selective_soft"))

    def apply(self, prediction: Prediction) -> Prediction:
        """Divide by each pixel's temperature."""
        wrong = log_odds_of_wrong(self.selector, prediction).sigmoid()
        factor = (self.offset + self.slope * wrong).exp()
        return recalibrated(prediction, prediction.logits * factor, keep=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class SelectiveConfidence(Calibrator):
    """Confidence becomes the selector's own probability of being right; the class stays.

    `confidence = sigmoid(-(offset + slope q))` with the selector's log-odds q; the other classes
    share the rest as in `with_confidence`.

    Args:
        selector: gives the log-odds of being wrong, q.
        offset: of the log-odds at the image's size.
        slope: likewise.

    Reference:
        The selector: https://arxiv.org/abs/2212.12053 (Wang, Gong and Wang, 2023); offset and
        slope: Probabilistic Outputs for Support Vector Machines (Platt, 1999).
    """

    selector: Judge
    offset: float
    slope: float

    PARTS: ClassVar[Mapping[str, Part | Entry]] = {"offset": within(), "slope": within()}

    @classmethod
    def fit(
        cls, pairs: Pairs, *, balance: float = 0.0, inputs: Inputs = "neighbourhood", seed: int = 0
    ) -> SelectiveConfidence:
        """Train the selector, then fit offset and slope at the image's size by likelihood.

        Args:
            pairs: held-out predictions and labels, gone through twice.
            balance: wrong pixels count `1 + balance` times in the selector's training.
            inputs: what the selector sees.
            seed: of samples and training.

        Raises:
            UsageError, ModelError, DataError: as `Selective.fit`.
        """
        selector = fit_selector(pairs, balance=balance, inputs=inputs, seed=seed)
        pixels, doubt = draw_doubts(pairs, selector, seed)
        q, wrong = doubt.double(), pixels.wrong.double()

        def each(offset: Tensor, slope: Tensor) -> Tensor:
            odds = offset + slope * q
            return F.binary_cross_entropy_with_logits(odds, wrong, reduction="none")

        return cls(selector=selector, **_gate(pixels, each, (0.0, 1.0), "selective_confidence"))

    def apply(self, prediction: Prediction) -> Prediction:
        """Set each pixel's confidence."""
        odds = self.offset + self.slope * log_odds_of_wrong(self.selector, prediction)
        confidence = (-odds[:, 0]).sigmoid()
        logits = with_confidence(prediction.logits, prediction.statistics.classes, confidence)
        return recalibrated(prediction, logits, keep=True)


def _gate(
    pixels: Pixels,
    each: Callable[[Tensor, Tensor], Tensor],
    start: tuple[float, float],
    name: str,
) -> dict[str, Any]:
    """Offset and slope of least mean loss, with what a calibrator knows of its pixels.

    Args:
        pixels: to fit to.
        each: `(N,)` their losses, of offset and slope.
        start: both, where the search begins.
        name: of the method, for errors.
    """
    both = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    minimise(lambda: pixels.mean(each(both[0], both[1])), [both], name)
    offset, slope = both.tolist()
    about = {"channels": pixels.channels, "origin": pixels.origin}
    return {"offset": offset, "slope": slope} | about


def fit_selector(
    pairs: Pairs, *, balance: float = 1.0, inputs: Inputs = "logits", seed: int = 0
) -> Judge:
    """Train a network to tell wrong native pixels from right ones, by cross-entropy.

    Args:
        pairs: held-out predictions and labels, gone through once.
        balance: wrong pixels count `1 + balance` times.
        inputs: what it sees.
        seed: of sample and training.

    Raises:
        UsageError: for a balance below 0.
        DataError: where labels are missing or all predictions are right.
    """
    if not balance >= 0:
        raise UsageError(f"selective: expected a balance of at least 0, got {balance}.")
    drawn = draw_pixels(
        pairs, lambda p: read_inputs(p, inputs), on_native_grid=True, values=VALUES, seed=seed
    )
    wrong = drawn.wrong.float()
    weights = drawn.weights.float() * (1 + balance * wrong)

    def loss(odds: Tensor, at: Tensor) -> Tensor:
        each = F.binary_cross_entropy_with_logits(odds, wrong[at], reduction="none")
        return (each * weights[at]).sum() / weights[at].sum()

    return train_judge(drawn.values, loss, inputs, seed=seed)


def log_odds_of_wrong(selector: Judge, prediction: Prediction) -> Tensor:
    """`(B, 1, H, W)`: the selector's log-odds, computed on the native grid and resized."""
    return prediction.to_size(selector(prediction))


def draw_doubts(pairs: Pairs, selector: Judge, seed: int) -> tuple[Pixels, Tensor]:
    """Sampled full-size logits, and the selector's log-odds `(N,)` there."""

    def read(prediction: Prediction) -> Tensor:
        return torch.cat([prediction.logits, log_odds_of_wrong(selector, prediction)], 1)

    drawn = draw_pixels(pairs, read, seed=seed)
    return replace(drawn, values=drawn.values[:, :-1]), drawn.values[:, -1]


def _flagged_temperature(flagged: Pixels, rule: float | Rule) -> float:
    if rule == "likelihood":
        return 1 / best_inverse(flagged, least=1 / HOTTEST)
    if rule == "accuracy":
        return _matching_temperature(flagged)
    return rule


def _checked_rule(temperature: float | Rule) -> float | Rule:
    """A rule as it is, a number above 0 as a number; nothing is trained for another."""
    if temperature == "likelihood" or temperature == "accuracy":
        return temperature
    try:
        number = float(temperature)
    except ValueError:
        raise UsageError(
            f"selective: expected temperature=likelihood, accuracy or a number, got "
            f"{temperature!r}."
        ) from None
    check_temperature(number)
    return number


def _matching_temperature(pixels: Pixels) -> float:
    """T at which the mean confidence is the accuracy, by bisection; `HOTTEST` where none is."""
    logits = pixels.values.double()
    accuracy = float(pixels.mean((~pixels.wrong).double()))
    low, high = 1e-3, HOTTEST
    if accuracy <= 1 / logits.shape[1]:
        return HOTTEST
    for _ in range(100):
        middle = math.sqrt(low * high)
        confidence = float(pixels.mean((logits / middle).softmax(1).amax(1)))
        low, high = (middle, high) if confidence > accuracy else (low, middle)
    return math.sqrt(low * high)


@dataclass(frozen=True)
class _Unflagged:
    """Pairs in which flagged pixels are void."""

    pairs: Pairs
    selector: Judge

    def __iter__(self) -> Iterator[tuple[Prediction, Tensor]]:
        for prediction, label in self.pairs:
            flagged = log_odds_of_wrong(self.selector, prediction)[:, 0] > 0
            yield prediction, label.masked_fill(flagged, -2)


def _fit_others(others: type[Calibrator], pairs: Pairs, seed: int) -> Calibrator:
    fit: Callable[..., Calibrator] = others.fit  # type: ignore[attr-defined]
    takes_seed = "seed" in inspect.signature(fit).parameters
    return fit(pairs, seed=seed) if takes_seed else fit(pairs)
