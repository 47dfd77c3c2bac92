"""A network with its calibrator behind one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from doubtmap.calibration.calibrator import Calibrator
from doubtmap.calibration.files import parameters_sha256
from doubtmap.calibration.methods import name_of
from doubtmap.errors import ModelError, UsageError
from doubtmap.prediction import Prediction, Segmenter, listening_to


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A segmenter whose predictions are calibrated; implements `Segmenter`.

    Args:
        segmenter: the network.
        calibrator: fitted for it.
        source: what the results call the calibrator, such as its file.

    Raises:
        UsageError: where both know class names and these differ.
    """

    segmenter: Segmenter
    calibrator: Calibrator
    source: str = ""

    def __post_init__(self) -> None:
        here, there = self.segmenter.class_names, self.calibrator.origin.class_names
        if here and there and here != there:
            raise UsageError(
                f"calibrator {self.source}: expected the classes it was fitted for, "
                f"{', '.join(there)}; got a network of {', '.join(here)}. Fit it anew for this "
                f"network with doubtmap calibrate."
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The network's."""
        return self.segmenter.class_names

    @property
    def description(self) -> dict[str, object]:
        """The network's, and the calibrator's method, file, parameters' hash and data."""
        about = {
            "method": name_of(type(self.calibrator)),
            "source": self.source,
            "sha256": parameters_sha256(self.calibrator),
            "fitted_on": self.calibrator.origin.data,
        }
        return {**self.segmenter.description, "calibrator": about}

    def listening(self, layers: Sequence[str]) -> Calibrated:
        """The same, whose predictions also carry the outputs of inner layers.

        Raises:
            UsageError: for a network that cannot be listened to, or without such a layer.
            ModelError: for a calibrator that works at the image's size, where there are none.
        """
        if not self.calibrator.keeps_grid:
            raise ModelError(
                f"layer: needs outputs of inner layers, but the calibrator "
                f"({name_of(type(self.calibrator))}) works at the image's size, where there are "
                f"none. Leave the calibrator out for this score, or take temperature."
            )
        return replace(self, segmenter=listening_to(self.segmenter, layers))

    def __call__(self, images: Tensor) -> Prediction:
        """Predict, then calibrate."""
        return self.calibrator(self.segmenter(images))
