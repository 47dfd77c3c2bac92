"""What all calibrators are: fitted on held-out pixels, then `Prediction -> Prediction`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeAlias

from torch import Tensor

from doubtmap.errors import UsageError
from doubtmap.prediction import Prediction

Pairs: TypeAlias = Iterable[tuple[Prediction, Tensor]]
"""`(prediction, label)` of held-out images, one at a time, gone through as often as asked.

Labels are `(1, H, W)` int64, the model's class or below 0, which counts for nothing here."""


@dataclass(frozen=True)
class Origin:
    """Where a calibrator comes from.

    Args:
        data: name of the data set it was fitted on.
        images: fingerprints of the images, see `doubtmap.datasets.fingerprints`.
        class_names: of the model, or empty.
        figures: what was measured, such as ECE before and after; JSON values.
        command: how it was made.
    """

    data: str = ""
    images: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    figures: dict[str, object] = field(default_factory=dict)
    command: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibrator(ABC):
    """A fitted map from predictions to predictions.

    Args:
        channels: number of classes it was fitted for; None takes any.
        origin: where it comes from.
    """

    channels: int | None = None
    origin: Origin = field(default_factory=Origin)

    keeps_classes: ClassVar[bool] = True
    """Whether the predicted class of every pixel stays what the network said."""

    @abstractmethod
    def apply(self, prediction: Prediction) -> Prediction:
        """Calibrate a prediction of as many classes as `channels`."""

    def __call__(self, prediction: Prediction) -> Prediction:
        """Calibrate a prediction.

        Raises:
            UsageError: for a prediction of another number of classes.
        """
        found = prediction.native_logits.shape[1]
        if self.channels not in (None, found):
            raise UsageError(
                f"{type(self).__name__}: expected the {self.channels} classes it was fitted for, "
                f"got a prediction of {found}. Fit it anew for this network with doubtmap "
                f"calibrate."
            )
        return self.apply(prediction)


@dataclass(frozen=True, kw_only=True, eq=False)
class Identity(Calibrator):
    """Leaves predictions as they are: the right answer for a calibrated network."""

    @classmethod
    def fit(cls, pairs: Pairs) -> Identity:
        """Nothing to fit."""
        del pairs
        return cls()

    def apply(self, prediction: Prediction) -> Prediction:
        """The same prediction."""
        return prediction


def rescaled(prediction: Prediction, native_logits: Tensor, keep: bool) -> Prediction:
    """The prediction with other logits on the native grid.

    What members of an ensemble disagree about belongs to their own logits, and is left out.

    Args:
        prediction: to calibrate.
        native_logits: `(B, C, h, w)`.
        keep: whether the predicted classes stay.
    """
    kept = _origin(prediction) if keep else None
    return replace(prediction, native_logits=native_logits, classes_of=kept, members=None)


def recalibrated(prediction: Prediction, logits: Tensor, keep: bool) -> Prediction:
    """The prediction with other logits at the image's size.

    Features and inner layers lie on the native grid, so what comes out has none; nor has it what
    members of an ensemble disagree about.

    Args:
        prediction: to calibrate.
        logits: `(B, C, H, W)`.
        keep: whether the predicted classes stay.
    """
    return replace(
        prediction,
        native_logits=logits,
        covered=None,
        align_corners=False,
        features=None,
        features_missing="the calibrator changes logits pixel by pixel at the image's size, where "
        "there are no features; leave the calibrator out for this score",
        classes_of=_origin(prediction) if keep else None,
        members=None,
        layers={},
    )


def _origin(prediction: Prediction) -> Prediction:
    return prediction if prediction.classes_of is None else prediction.classes_of
