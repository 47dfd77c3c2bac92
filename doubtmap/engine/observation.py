"""What one image adds to the figures: everything that the accumulators need, and nothing else.

Keeping the measurement of an image apart from taking it into the sums is what lets a killed run
go on: observations are journaled first, and replayed exactly.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import safetensors.numpy
import torch
from torch import Tensor

from doubtmap.datasets.dataset import KNOWN, UNKNOWN, VOID, ComponentSizes
from doubtmap.errors import DataError
from doubtmap.metrics import Components, Confusion, Reliability, brier_score
from doubtmap.metrics.accumulator import Array
from doubtmap.metrics.patches import patch_accuracy, patch_scores
from doubtmap.prediction import Prediction, Score

RIGHT, WRONG, KNOWN_ONLY, IS_UNKNOWN = range(4)
"""Kinds of pixels. `KNOWN_ONLY`: labelled as known without a class, so neither right nor wrong."""
PATCH = 4


@dataclass(frozen=True, eq=False)
class Observation:
    """One image's contribution.

    Args:
        meta: JSON values: `stage` (of the run), `index`, `name`, `void` (pixels).
        arrays: `kind` `(N,)` uint8 of the N pixels that are not void; `score/NAME` `(N,)`
            float32; `patch/NAME` and `accurate`, `(P,)` per patch; `brier`, `doubt`, `wrong`
            per pixel with a class; `confusion` and `reliability/...` sums. Of the components'
            stage: `NAME/...`, the sums of each score's components.
    """

    meta: dict[str, Any]
    arrays: dict[str, Array]

    def to_bytes(self) -> bytes:
        """For the journal."""
        meta = np.frombuffer(json.dumps(self.meta).encode(), np.uint8)
        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        return bytes(safetensors.numpy.save(arrays | {"meta": meta}))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """From the journal."""
        arrays = safetensors.numpy.load(data)
        return cls(json.loads(arrays.pop("meta").tobytes()), arrays)


def observe(
    index: int,
    name: str,
    prediction: Prediction,
    label: Tensor,
    maps: dict[str, Tensor],
    bins: int = 15,
) -> Observation:
    """Measure one image.

    Args:
        index: of the image in the data set.
        name: of the image.
        prediction: of this image alone.
        label: `(H, W)` in the model's classes, or `KNOWN`, `UNKNOWN`, `VOID`.
        maps: score maps `(H, W)` by name, finite.
        bins: of the reliability diagram.
    """
    classes = prediction.classes[0]
    label = label.to(classes.device).long()
    kind = torch.full_like(label, -1)
    kind[label >= 0] = (classes != label)[label >= 0].long()
    kind[label == KNOWN] = KNOWN_ONLY
    kind[label == UNKNOWN] = IS_UNKNOWN
    counted = kind >= 0
    arrays: dict[str, Array] = {"kind": _numpy(kind[counted].to(torch.uint8))}
    for score, values in maps.items():
        arrays[f"score/{score}"] = _numpy(values[counted])
    if (label >= 0).any():
        arrays |= _observe_classes(prediction, label, maps, bins)
    meta = {
        "stage": "pixels",
        "index": index,
        "name": name,
        "void": int((~counted).sum()),
    }
    return Observation(meta, arrays)


def _observe_classes(
    prediction: Prediction, label: Tensor, maps: dict[str, Tensor], bins: int
) -> dict[str, Array]:
    """What needs labels that are classes."""
    classes, valid = prediction.classes[0], label >= 0
    count = prediction.logits.shape[1]
    confusion = Confusion.empty(count)
    confusion.update(classes, label, valid)
    reliability = Reliability(count, bins)
    sums, doubt, wrong = reliability.measure(
        prediction.logits, label[None], valid[None], prediction.classes
    )
    brier = brier_score(prediction.logits, label.clamp_min(0)[None])[0]
    arrays = {f"reliability/{name}": array for name, array in sums.state().items()}
    arrays |= {"confusion": confusion.counts, "doubt": doubt, "wrong": wrong.astype(np.uint8)}
    arrays["brier"] = _numpy(brier[valid].float())
    whole, accurate = patch_accuracy((classes == label)[None], valid[None], PATCH)
    arrays["accurate"] = _numpy(accurate[whole].to(torch.uint8))
    for score, values in maps.items():
        arrays[f"patch/{score}"] = patch_scores(values[None], whole, PATCH)
    return arrays


def observe_components(
    index: int,
    name: str,
    label: Tensor,
    maps: dict[str, Tensor],
    thresholds: dict[str, float],
    sizes: ComponentSizes,
) -> Observation:
    """Find the components of unknown objects in one image, for each score at its threshold."""
    arrays: dict[str, Array] = {}
    for score, values in maps.items():
        frame = Components()
        above = values > thresholds[score]
        frame.update(above, label == UNKNOWN, label != VOID, sizes.predicted, sizes.labelled)
        arrays |= {f"{score}/{key}": array for key, array in frame.state().items()}
    return Observation({"stage": "components", "index": index, "name": name, "void": 0}, arrays)


def score_maps(prediction: Prediction, scores: dict[str, Score]) -> dict[str, Tensor]:
    """Apply scores to the prediction of one image.

    Returns:
        `(H, W)` float32 by name.

    Raises:
        DataError: for a score of another shape, with NaN or infinities, or outside of [0, 1] where
            it claims to be a probability.
    """
    maps = {}
    # The divergence first: asked for before the others, it shares their pass.
    for name in sorted(scores, key=lambda name: not name.startswith("divergence")):
        values = scores[name](prediction)
        if tuple(values.shape) != (1, *prediction.size):
            raise DataError(
                f"{name}: expected a map of shape {(1, *prediction.size)}, got "
                f"{tuple(values.shape)}. A score returns one number per image pixel."
            )
        # A finite sum has finite terms, and is quicker to have.
        if not (math.isfinite(values.sum().item()) or bool(torch.isfinite(values).all())):
            raise DataError(
                f"{name}: expected finite scores, got NaN or infinity in "
                f"{int((~torch.isfinite(values)).sum())} pixels. Mend the score, or leave it out."
            )
        if is_probability(scores[name]):
            _check_probability(name, values)
        if values.dtype != torch.float32:
            limit = torch.finfo(torch.float32).max
            values = values.clamp(-limit, limit).float()
        maps[name] = values[0]
    return {name: maps[name] for name in scores}


def is_probability(score: Score) -> bool:
    """Whether a score claims to be the probability that the predicted class is wrong.

    It does so by an attribute `probability_of_wrong` that is true.
    """
    claimed = bool(getattr(score, "probability_of_wrong", False))
    while isinstance(score, functools.partial) and not claimed:
        score = score.func
        claimed = bool(getattr(score, "probability_of_wrong", False))
    return claimed


def _check_probability(name: str, values: Tensor) -> None:
    low, high = (extreme.item() for extreme in torch.aminmax(values))
    if low < 0 or high > 1:
        raise DataError(
            f"{name}: expected values in [0, 1], since it claims to be the probability that a "
            f"pixel is wrong, got {low:g} to {high:g}. Mend the score, or its probability_of_wrong."
        )


def _numpy(values: Tensor) -> Array:
    return np.asarray(values.cpu().numpy())
