"""Scores applied to a network's predictions, and held to what they promise.

What a fitted score needs of a network, whether the network is the one that it was fitted to, and
its maps checked.
"""

from __future__ import annotations

import functools
import math
from abc import ABC
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from doubtmap.engine.settings import bands_needed
from doubtmap.engine.spread import Spread
from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.files import Origin
from doubtmap.models.layers import deepest_layer, probe_image
from doubtmap.models.module import before_activation
from doubtmap.models.network import NetworkSegmenter
from doubtmap.models.passes import Views
from doubtmap.models.saved import NoNameError
from doubtmap.prediction import (
    Fitted,
    FittedScore,
    Prediction,
    Score,
    Segmenter,
    digest_of,
    listening_to,
)
from doubtmap.scores.parsing import parse_scores
from doubtmap.windows import without_windows


def score_maps(prediction: Prediction, scores: dict[str, Score]) -> dict[str, Tensor]:
    """Apply scores to the prediction of one image.

    Returns:
        `(H, W)` float32 by name.

    Raises:
        DataError: as `score_batch`.
    """
    return {name: values[0] for name, values in score_batch(prediction, scores).items()}


def score_batch(prediction: Prediction, scores: Mapping[str, Score]) -> dict[str, Tensor]:
    """Apply scores to the prediction of a batch.

    Returns:
        `(B, H, W)` float32 by name.

    Raises:
        DataError: for a score of another shape, with NaN or infinities, or outside of [0, 1] where
            it claims to be a probability.
    """
    shape = (len(prediction.native_logits), *prediction.size)
    maps = {}
    # The divergence first: asked for before the others, it shares their pass.
    for name in sorted(scores, key=lambda name: not name.startswith("divergence")):
        values = scores[name](prediction)
        if tuple(values.shape) != shape:
            raise DataError(
                f"{name}: expected a map of shape {shape}, got {tuple(values.shape)}. A score "
                f"returns one number per image pixel."
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
        maps[name] = values
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


def prepared(segmenter: Segmenter, scores: Mapping[str, Score]) -> Segmenter:
    """The network with all that fitted scores need of it, once it is seen to be theirs.

    Raises:
        UsageError: for a network that cannot be listened to.
        ModelError: for a network whose features are not those that a score was fitted to.
    """
    fitted = {name: score for name, score in scores.items() if isinstance(score, FittedScore)}
    layers = [layer for score in fitted.values() for layer in score.layers]
    listening = listening_to(segmenter, tuple(dict.fromkeys(layers)))
    for name, score in fitted.items():
        if score.origin.fingerprint and not same_network(features_of(listening, score), score):
            raise ModelError(
                f"{name}: expected the network that it was fitted to, at the same --input-size and "
                f"--views, but this one's features differ. Fit it again with: {score.made_by}."
            )
    return listening


def same_network(found: Tensor, fitted: Fitted) -> bool:
    """Whether a network's fingerprint, `(D,)`, is the one that something was fitted to."""
    expected = torch.tensor(fitted.origin.fingerprint)
    if found.shape != expected.shape:
        return False
    slack = 1e-2 * float(expected.abs().max())
    return torch.allclose(found, expected, 1e-2, slack)


def of_another(segmenter: Segmenter, fitted: Fitted) -> bool:
    """Whether a network's logits of the probe image are others than those that were fitted to."""
    if not fitted.origin.fingerprint:
        return False
    found = probe_logits(segmenter)
    return bool(found.numel()) and not same_network(found, fitted)


class OfScore(ABC):
    """Something that was chosen or fitted in a score of a network, and is nothing elsewhere.

    Attributes:
        score: as on the command line, such as `entropy`.
        digest: of the score, where it learnt from data.
        origin: with the fingerprint of the network's logits.
    """

    WHO: ClassVar[str]
    """Of what messages are."""
    DONE: ClassVar[str]
    """Such as `chosen`."""
    AGAIN: ClassVar[str]
    """What to do where the score or the network is another."""

    score: str
    digest: str
    origin: Origin

    def opened(self) -> tuple[str, Score]:
        """What results call the score, and the score.

        Raises:
            UsageError, DataError: where it cannot be opened, or its file holds another fit.
        """
        ((name, score),) = parse_scores([self.score]).items()
        self.check_score(score)
        return name, score

    def check_score(self, score: Score) -> None:
        """Refuse another fit of the same score.

        Raises:
            DataError: where the file of the score holds another fit.
        """
        if digest_of(score) != self.digest:
            raise DataError(
                f"{self.WHO}: expected the fit of {self.score} that it was {self.DONE} with, got "
                f"another. {self.AGAIN} --scores {self.score}."
            )

    def belongs_to(self, name: str, score: Score) -> bool:
        """Whether this is of a score: by its fit where it learnt from data, or by name."""
        if self.digest:
            return digest_of(score) == self.digest
        return name == next(iter(parse_scores(self.score)))

    def check_network(self, segmenter: Segmenter) -> None:
        """Refuse another network, or the same with another calibrator or input size.

        Raises:
            ModelError: where its logits on a probe image differ.
        """
        if self.origin.fingerprint and not same_network(probe_logits(segmenter), self):
            raise ModelError(
                f"{self.WHO}: expected the network that it was {self.DONE} for, with the same "
                f"--calibrator, --input-size and --views, but this one's logits differ. "
                f"{self.AGAIN}."
            )


def before_last_activation(segmenter: Segmenter) -> str | None:
    """The layer whose output becomes the classifier's features by an activation, if there is."""
    network = _alone(segmenter)
    if not isinstance(network, NetworkSegmenter):
        return None
    return before_activation(network, probe_image(bands_needed(segmenter)))


def _alone(segmenter: Segmenter) -> Segmenter:
    """The network behind windows, workers and views."""
    seen = without_windows(segmenter.segmenter if isinstance(segmenter, Spread) else segmenter)
    return seen.segmenter if isinstance(seen, Views) else seen


def deepest(segmenter: Segmenter, image: Tensor) -> str:
    """Name of the last layer of the encoder's coarsest grid, as an image `(1, 3, H, W)` tells.

    Raises:
        UsageError: for anything but a single PyTorch network.
    """
    network = _alone(segmenter)
    if not isinstance(network, NetworkSegmenter):
        raise UsageError(
            f"layer=deepest: expected one network whose inner layers can be listened to, got "
            f"{type(segmenter).__name__}. Use --scores doubt, which needs no fit."
        )
    return deepest_layer(network, image)


def probe_logits(segmenter: Segmenter) -> Tensor:
    """`(C,)`, the mean native logits of the probe image; empty where there are none of it."""
    return _mean_of_probe(segmenter, lambda prediction: prediction.native_logits)


def features_of(segmenter: Segmenter, score: FittedScore) -> Tensor:
    """`(D,)`, the mean of a score's features of the probe image; empty where there are none."""
    return _mean_of_probe(segmenter, score.features)


def _mean_of_probe(segmenter: Segmenter, of: Callable[[Prediction], Tensor]) -> Tensor:
    try:
        prediction = segmenter(probe_image(bands_needed(segmenter)))
    except NoNameError:  # predictions were saved, and none of the probe image
        return torch.zeros(0)
    return of(prediction).mean((0, 2, 3)).cpu()
