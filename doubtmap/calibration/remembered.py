"""Pairs whose predictions are made once and then read from disk."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from doubtmap.calibration.calibrator import Pairs
from doubtmap.prediction import Prediction


@dataclass(eq=False)
class Remembered:
    """The same pairs, gone through as often as asked for one run of the network.

    The first complete pass keeps native logits, labels and, if asked, features in a temporary
    folder, one file for each image; memory holds one image at a time. The folder goes with the
    object.

    Args:
        pairs: to remember.
        features: whether to keep the features too, which are many times larger.
    """

    pairs: Pairs
    features: bool = True
    _folder: Path | None = field(default=None, init=False)
    _places: list[dict[str, object]] = field(default_factory=list, init=False)

    def __iter__(self) -> Iterator[tuple[Prediction, Tensor]]:
        if self._folder is None:
            yield from self._first_pass()
            return
        for index, place in enumerate(self._places):
            tensors = safetensors.torch.load_file(self._folder / f"{index}.safetensors")
            yield _prediction(tensors, place), tensors["label"].long()

    def _first_pass(self) -> Iterator[tuple[Prediction, Tensor]]:
        folder = Path(tempfile.mkdtemp(prefix="doubtmap-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        places = []
        for index, (prediction, label) in enumerate(self.pairs):
            tensors, place = _kept(prediction, label, self.features)
            safetensors.torch.save_file(tensors, folder / f"{index}.safetensors")
            places.append(place)
            yield prediction, label
        self._folder, self._places = folder, places


def _kept(
    prediction: Prediction, label: Tensor, features: bool
) -> tuple[dict[str, Tensor], dict[str, object]]:
    tensors = {"logits": prediction.native_logits, "label": label.to(torch.int16)}
    if features and prediction.features is not None:
        tensors["features"] = prediction.features
    place: dict[str, object] = {
        "size": prediction.size,
        "covered": prediction.covered,
        "align_corners": prediction.align_corners,
        "features_missing": prediction.features_missing,
        "class_names": prediction.class_names,
    }
    return {name: x.detach().cpu().contiguous() for name, x in tensors.items()}, place


def _prediction(tensors: dict[str, Tensor], place: dict[str, object]) -> Prediction:
    return Prediction(
        native_logits=tensors["logits"],
        features=tensors.get("features"),
        **place,  # type: ignore[arg-type]
    )
