"""What is kept of one image without labels: a few figures, and what is expected of its pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from doubtmap.calibration import Calibrator
from doubtmap.datasets import fingerprints
from doubtmap.datasets.dataset import Dataset, Sample
from doubtmap.errors import DataError, within_memory
from doubtmap.kernels.steps import STEPS, steps
from doubtmap.metrics.accumulator import Array
from doubtmap.prediction import Prediction, Score, Segmenter, showing
from doubtmap.scoring import score_batch

SHIFT = 4
"""Steps of a float32 are taken together by 2 to this power: eight bins to the octave."""
BINS = STEPS >> SHIFT
ROWS = ("predicted", "right", "expected")
"""Of an image's table, shares of its pixels by class: predicted as it; of these, expected to be
right; expected to be of it."""
LIGHT = np.array([0.299, 0.587, 0.114])
"""Of red, green and blue in brightness (ITU-R BT.601)."""


@dataclass(frozen=True, eq=False)
class Look:
    """One image.

    Args:
        mark: fingerprint of the image.
        doubt: mean of the promise's score.
        brightness: mean grey in [0, 1].
        contrast: standard deviation of grey.
        logits: `(C,)`, mean native logits.
        table: `(3, C)`, see `ROWS`.
        scores: `(4096,)` share of the pixels by bins of the score's float32, eight to the octave.
    """

    mark: str
    doubt: float
    brightness: float
    contrast: float
    logits: Array
    table: Array
    scores: Array


@dataclass(frozen=True, eq=False)
class Marked:
    """Reads an image with its fingerprint, or the fingerprint alone; workers do it, too.

    Args:
        dataset: of the images.
        seen: fingerprints of those that need not be read.
    """

    dataset: Dataset
    seen: frozenset[str]

    def __call__(self, index: int) -> tuple[str, Sample | None]:
        """The fingerprint, and the image where it was not seen before.

        Raises:
            DataError: for an image that cannot be read.
        """
        (mark,) = fingerprints(self.dataset, [index])
        return mark, None if mark in self.seen else self.dataset[index]


@dataclass(frozen=True, eq=False)
class Glance:
    """Takes what is kept of an image; workers do it, too.

    Args:
        name: of the score.
        score: whose mean is watched.
        wrong: the probability that a pixel is wrong.
        calibrator: of predictions, where that is the promise.
    """

    name: str
    score: Score
    wrong: Score
    calibrator: Calibrator | None

    def __call__(
        self, segmenter: Segmenter, index: int, read: tuple[str, Sample | None]
    ) -> Look | None:
        """Predict an image of a data set; None of one that was seen before.

        Raises:
            DataError: for an image for which the network or the score gives nothing finite.
        """
        mark, sample = read
        if sample is None:
            return None
        try:
            with showing(sample.name), within_memory(sample.image.shape[-2:]):
                prediction = segmenter(sample.image[None])
                if self.calibrator is not None:
                    prediction = self.calibrator(prediction)
                return self.of(prediction, sample.image, mark)
        except DataError as error:
            raise DataError(f"{sample.name}: {error}") from error

    def of(self, prediction: Prediction, image: Tensor, mark: str) -> Look:
        """What is kept of one prediction.

        Args:
            prediction: of the image alone.
            image: `(K, H, W)` uint8.
            mark: its fingerprint.
        """
        (values,) = score_batch(prediction, {self.name: self.score}).values()
        wrong = values if self.wrong is self.score else self.wrong(prediction)
        grey = _grey(image)
        at = (steps(values.flatten()) >> SHIFT).cpu().numpy()
        return Look(
            mark,
            _short(values.mean(dtype=torch.float64)),
            _short(grey.mean()),
            _short(grey.std()),
            _short_all(prediction.native_logits.double().mean((0, 2, 3)).cpu().numpy()),
            _short_all(expected_table(prediction, wrong[0])),
            np.bincount(at, minlength=BINS) / len(at),
        )


def expected_table(prediction: Prediction, wrong: Tensor) -> Array:
    """What is expected of an image's pixels by class, from the probability of their being wrong.

    A pixel is of its predicted class with probability `1 - wrong`; `wrong` is parted among the
    others as the network's probabilities are.

    Args:
        prediction: of one image.
        wrong: `(H, W)` in [0, 1].

    Returns:
        `(3, C)`, see `ROWS`; the first and the last row add up to 1.
    """
    probabilities = prediction.probabilities[0].double()
    count = len(probabilities)
    classes, wrong = prediction.classes[0].flatten(), wrong.double().flatten()
    flat = probabilities.reshape(count, -1)
    own = flat.gather(0, classes[None])[0]
    others = 1 - own
    factor = torch.where(others > 1e-12, wrong / others.clamp_min(1e-12), 0.0)
    predicted = torch.bincount(classes, minlength=count).double()
    right = torch.bincount(classes, 1 - wrong, count)
    left = torch.bincount(classes, own * factor, count)
    certain = torch.bincount(classes, torch.where(others > 1e-12, 0.0, wrong), count)
    expected = flat @ factor - left + right + certain
    table: Array = (torch.stack([predicted, right, expected]) / len(wrong)).cpu().numpy()
    return table


def expected_wrong(tables: Array) -> Array:
    """Expected share of wrong pixels of tables summed over images, `(..., 3, C)`."""
    predicted, right, _ = np.moveaxis(tables, -2, 0)
    found: Array = 1 - right.sum(-1) / predicted.sum(-1)
    return found


def expected_miou(tables: Array) -> Array:
    """Expected mIoU of tables summed over images, over the classes that are predicted at all.

    Args:
        tables: `(..., 3, C)`.

    Returns:
        `(...)` in [0, 1]: the mean of `right / (predicted + expected - right)`.
    """
    predicted, right, expected = np.moveaxis(tables, -2, 0)
    there = predicted > 0
    ious = right / np.where(there, predicted + expected - right, 1)
    found: Array = (ious * there).sum(-1) / there.sum(-1)
    return found


def _grey(image: Tensor) -> Array:
    """`(H, W)` in [0, 1]; the mean of all bands where there are not three."""
    bands = image.numpy().astype(np.float32) / 255
    if len(bands) != 3:
        return np.asarray(bands.mean(0, dtype=np.float64))
    return np.asarray(np.tensordot(LIGHT, bands, 1))


def _short(value: object) -> float:
    """With as many digits as a float32 has: so that what is written is what was kept."""
    return float(f"{float(value):.8g}")  # type: ignore[arg-type]


def _short_all(values: Array) -> Array:
    return np.array([_short(value) for value in values.flat]).reshape(values.shape)
