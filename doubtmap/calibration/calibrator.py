"""What all calibrators are: fitted on held-out pixels, then `Prediction -> Prediction`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeAlias

from torch import Tensor

from doubtmap.errors import UsageError
from doubtmap.files import Entry, Origin, Part
from doubtmap.prediction import Prediction
from doubtmap.shown import ShownFit

Pairs: TypeAlias = Iterable[tuple[Prediction, Tensor]]
"""`(prediction, label)` of held-out images, one at a time, gone through as often as asked.

Labels are `(1, H, W)` int64, the model's class or below 0, which counts for nothing here."""


LEVEL_LOST = (
    "the calibrator gives logits that differ from them by more than one factor for all pixels, "
    "and their free energy says nothing; leave the calibrator out for this score"
)
"""Why calibrated logits have no free energy."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibrator(ShownFit, ABC):
    """A fitted map from predictions to predictions.

    Args:
        channels: number of classes it was fitted for; None takes any.
        origin: where it comes from.
    """

    channels: int | None = None
    origin: Origin = field(default_factory=Origin)

    PARTS: ClassVar[Mapping[str, Part | Entry]] = {}
    """What its own numbers must be, by field; C is the number of classes."""
    keeps_grid: ClassVar[bool] = False
    """Whether it works on the native grid, so that features and inner layers stay."""

    @property
    def keeps_classes(self) -> bool:
        """Whether the predicted class of every pixel stays what the network said."""
        return True

    @abstractmethod
    def apply(self, prediction: Prediction) -> Prediction:
        """Calibrate a prediction of as many classes as `channels`."""

    def __call__(self, prediction: Prediction) -> Prediction:
        """Calibrate a prediction.

        Raises:
            UsageError: for a prediction of another number of classes, or, where both know names,
                of other classes or another order of them.
        """
        found = prediction.native_logits.shape[1]
        if self.channels not in (None, found):
            raise UsageError(
                f"{type(self).__name__}: expected the {self.channels} classes it was fitted for, "
                f"got a prediction of {found}. Fit it anew for this network with doubtmap "
                f"calibrate."
            )
        there, here = self.origin.class_names, prediction.class_names
        if here and there and here != there:
            raise UsageError(
                f"{type(self).__name__}: expected the classes it was fitted for, in their order: "
                f"{', '.join(there)}; got {', '.join(here)}. Fit it anew for this network with "
                f"doubtmap calibrate."
            )
        return self.apply(prediction)


@dataclass(frozen=True, kw_only=True, eq=False)
class Identity(Calibrator):
    """Leaves predictions as they are: the right answer for a calibrated network."""

    keeps_grid: ClassVar[bool] = True

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

    What members of an ensemble disagree about belongs to their own logits, and is left out. The
    free energy is that at another temperature; an ensemble's logits have none.

    Args:
        prediction: to calibrate.
        native_logits: `(B, C, h, w)`.
        keep: whether the predicted classes stay.
    """
    kept = _origin(prediction) if keep else None
    return replace(
        prediction,
        native_logits=native_logits,
        classes_of=kept,
        members=None,
        members_missing=_members_missing(prediction),
        energy_missing=LEVEL_LOST if prediction.members else prediction.energy_missing,
    )


def recalibrated(prediction: Prediction, logits: Tensor, keep: bool) -> Prediction:
    """The prediction with other logits at the image's size.

    Features and inner layers lie on the native grid, so what comes out has none; nor has it a free
    energy, for which logits of all pixels must have one level and one temperature, nor what
    members of an ensemble disagree about. Layers of one channel, such as what a second head says,
    are brought to the image's size as the score would bring them.

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
        members_missing=_members_missing(prediction),
        layers=_maps(prediction),
        energy_missing=LEVEL_LOST,
    )


def _members_missing(prediction: Prediction) -> str:
    if prediction.members is None:
        return prediction.members_missing
    return (
        "the calibrator changes the mean probability and not what each of the members says; leave "
        "the calibrator out for this score"
    )


def _maps(prediction: Prediction) -> dict[str, Tensor]:
    layers = prediction.layers.items()
    return {name: prediction.to_size(x.float()) for name, x in layers if x.shape[1] == 1}


def _origin(prediction: Prediction) -> Prediction:
    return prediction if prediction.classes_of is None else prediction.classes_of
