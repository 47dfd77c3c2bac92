"""A network with its scores, opened for good, and what it answers to images."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from doubtmap.datasets.reading import Rendering
from doubtmap.decisions import Threshold
from doubtmap.engine.settings import bands_needed
from doubtmap.errors import UsageError, within_memory
from doubtmap.models.layers import probe_image
from doubtmap.models.saved import NoNameError
from doubtmap.prediction import Score, Segmenter
from doubtmap.reports.scales import natural_scale
from doubtmap.scoring import is_probability, prepared, score_batch
from doubtmap.windows import for_images


@dataclass(frozen=True, eq=False)
class Answer:
    """What is said of one image.

    Args:
        classes: `(H, W)` uint8; int32 with more than 256 classes.
        doubts: `(H, W)` float32 by score, higher = more doubt.
        notes: what a user must know of this answer.
    """

    classes: NDArray[np.uint8] | NDArray[np.int32]
    doubts: dict[str, NDArray[np.float32]]
    notes: tuple[str, ...] = ()


class Answering:
    """A network with its scores; they are tried on a probe image when it is made.

    Images too large for half of the memory are seen through windows, as by `doubtmap score`.

    Args:
        name: by which it is served.
        segmenter: the network.
        scores: by name, at least one.
        threshold: of one of the scores, or None.
        range: values that are black and white in images of more than 8 bits.

    Raises:
        UsageError: for a threshold without its score, or a model that needs names of images.
        ModelError: for scores or a threshold of another network.
    """

    def __init__(
        self,
        name: str,
        segmenter: Segmenter,
        scores: Mapping[str, Score],
        threshold: Threshold | None = None,
        range: tuple[float, float] | None = None,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or not name.strip("."):
            raise UsageError(
                f"serve: expected --name of letters, digits, '_', '-' and '.', got {name!r}."
            )
        self.name, self.scores, self.threshold = name, scores, threshold
        self.segmenter = prepared(segmenter, scores)
        self.rendering = Rendering(range, every=self.bands)
        if threshold is not None:
            threshold.check_network(self.segmenter)
        self.thresholds = self._thresholds()
        try:
            prediction = self.segmenter(probe_image(self.bands))
        except NoNameError as error:
            raise UsageError(
                "serve: expected a network, got saved predictions, which know their own images "
                "only. Give the network that made them."
            ) from error
        score_batch(prediction, scores)
        self.classes = prediction.native_logits.shape[1]

    def __call__(self, images: Tensor) -> list[Answer]:
        """Answer a batch `(B, K, H, W)` of RGB, or all bands, uint8 or float in [0, 1].

        Raises:
            DoubtmapError: for images that the network or a score cannot take.
        """
        height, width = images.shape[-2:]
        if len(images) > 1 and for_images(self.segmenter, [(len(images) * height, width)])[1]:
            return [answer for image in images for answer in self(image[None])]
        segmenter, note = for_images(self.segmenter, [(height, width)])
        notes = (note,) if note else ()
        with torch.no_grad(), within_memory((height, width)):
            prediction = segmenter(images)
            maps = score_batch(prediction, self.scores)
            doubts = {name: values.cpu().numpy() for name, values in maps.items()}
            kind = torch.uint8 if self.classes <= 256 else torch.int32
            classes = prediction.classes.to(kind).cpu().numpy()
        return [
            Answer(classes[index], {name: values[index] for name, values in doubts.items()}, notes)
            for index in range(len(classes))
        ]

    @cached_property
    def bands(self) -> int:
        """How many the network needs; 0 for red, green and blue."""
        return bands_needed(self.segmenter)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """One for each class."""
        names = self.segmenter.class_names
        return names or tuple(f"class {index}" for index in range(self.classes))

    @cached_property
    def scales(self) -> dict[str, tuple[float, float] | None]:
        """Lowest and highest value of each score, where it has such."""
        return {
            name: natural_scale(name, self.classes, probability=is_probability(score))
            for name, score in self.scores.items()
        }

    @property
    def notes(self) -> list[str]:
        """What a user must know of the network."""
        notes = self.segmenter.description.get("notes")
        return [str(note) for note in notes] if isinstance(notes, list) else []

    def _thresholds(self) -> dict[str, float]:
        """The threshold that was given, by the score that it is of."""
        if self.threshold is None:
            return {}
        found = [n for n, score in self.scores.items() if self.threshold.belongs_to(n, score)]
        if not found:
            raise UsageError(
                f"threshold: expected {self.threshold.score} among the scores, as it was when the "
                f"threshold was chosen, got {', '.join(self.scores)}. Add it to --scores."
            )
        return {found[0]: self.threshold.threshold}
