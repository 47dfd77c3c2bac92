"""Which images and which segments to look at first, without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from doubtmap.datasets.reading import Rendering, none_left
from doubtmap.engine.run import Progress
from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.images import ScoredImage, score_images
from doubtmap.metrics.accumulator import Array
from doubtmap.prediction import Segmenter
from doubtmap.scoring import probe_logits, same_network
from doubtmap.segments import MetaModel, Partition, SegmentTable, expected_figures, segment_table

ORDERS = ("wrong", "miou")
"""By what images are ranked."""


@dataclass(frozen=True)
class Suspect:
    """A segment to distrust.

    Args:
        segment: its number among those of its image.
        class_name: the class that it claims.
        box: left, top, width, height, in pixels.
        probability: that it touches anything of its class.
        expected_iou: with what it touches.
    """

    segment: int
    class_name: str
    box: tuple[int, int, int, int]
    probability: float
    expected_iou: float


@dataclass(frozen=True, eq=False)
class Card:
    """One image to look at, and why.

    Args:
        name: of the image.
        image: `(H, W, 3)` uint8 RGB.
        labels: `(H, W)` number of the segment of each pixel.
        doubt: `(H, W)` float32 in [0, 1], 1 - expected IoU of the segment.
        expected_wrong: share of the pixels.
        expected_miou: in [0, 1].
        suspects: the worst first.
        wrong: share of the labelled pixels that are wrong, where there are labels.
    """

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    doubt: NDArray[np.float32]
    expected_wrong: float
    expected_miou: float
    suspects: tuple[Suspect, ...]
    wrong: float | None = None


@dataclass(frozen=True, eq=False)
class Review:
    """What a meta model expects of images without labels.

    Args:
        table: the segments of all of them, with their sizes as the only feature.
        probability: `(S,)` that a segment touches its class.
        expected_iou: `(S,)`.
        expected_miou: `(I,)`.
        expected_wrong: `(I,)` share of the pixels that are wrong.
    """

    table: SegmentTable
    probability: Array
    expected_iou: Array
    expected_miou: Array
    expected_wrong: Array

    @property
    def names(self) -> tuple[str, ...]:
        """Of the images."""
        return self.table.image_names

    def order(self, by: str = "wrong") -> Array:
        """`(I,)` indices of the images, the worst first.

        Args:
            by: `wrong`, the largest expected share of wrong pixels, or `miou`, the lowest
                expected mIoU.

        Raises:
            UsageError: for something else.
        """
        if by not in ORDERS:
            raise UsageError(f"review: expected --by {' or '.join(ORDERS)}, got {by!r}.")
        badness = self.expected_wrong if by == "wrong" else -self.expected_miou
        return np.argsort(-badness, kind="stable")

    def suspects(self, image: int, most: int = 4) -> tuple[Suspect, ...]:
        """The segments of an image in which most pixels are expected to be amiss.

        Args:
            image: its index.
            most: how many at most.

        Returns:
            By descending `size * (1 - expected IoU)`, those more likely to touch nothing of their
            class than not.
        """
        rows = np.flatnonzero((self.table.image == image) & (self.probability < 0.5))
        lost = self.table["size"][rows] * (1 - self.expected_iou[rows])
        rows = rows[np.argsort(-lost, kind="stable")][:most]
        names = self.table.class_names or range(int(self.table.classes.max()) + 1)
        return tuple(
            Suspect(
                int(self.table.segment[row]),
                str(names[self.table.classes[row]]),
                tuple(self.table.boxes[row].tolist()),
                float(self.probability[row]),
                float(self.expected_iou[row]),
            )
            for row in rows
        )

    def card(
        self,
        image: int,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int32],
        name: str = "",
        wrong: float | None = None,
    ) -> Card:
        """What to show of an image.

        Args:
            image: its index.
            pixels: `(H, W, 3)` RGB.
            labels: `(H, W)`, `Partition.labels`.
            name: to show; default: the image's.
            wrong: true share of wrong pixels, where known.
        """
        doubt = (1 - self.expected_iou[self.table.image == image])[labels].astype(np.float32)
        return Card(
            name or self.names[image],
            pixels,
            labels,
            doubt,
            float(self.expected_wrong[image]),
            float(self.expected_miou[image]),
            self.suspects(image),
            wrong,
        )


@dataclass(frozen=True, eq=False)
class ImageReview:
    """What a meta model expects of one image; fields as of `Review`."""

    table: SegmentTable
    probability: Array
    expected_iou: Array
    expected_miou: float
    expected_wrong: float

    @classmethod
    def of(cls, model: MetaModel, table: SegmentTable) -> Self:
        """Judge the segments of one image, all features of which are there."""
        expected = model.expected_iou(table)
        miou, wrong = expected_figures(table, expected)
        probability = model.probability(table)
        return cls(table.only("size"), probability, expected, float(miou[0]), float(wrong[0]))


def together(images: Sequence[ImageReview]) -> Review:
    """The review of several images."""
    return Review(
        SegmentTable.join([image.table for image in images]),
        np.concatenate([image.probability for image in images]),
        np.concatenate([image.expected_iou for image in images]),
        np.array([image.expected_miou for image in images]),
        np.array([image.expected_wrong for image in images]),
    )


def check_network(segmenter: Segmenter, model: MetaModel) -> None:
    """Refuse another network than the one that a meta model was fitted to.

    Raises:
        ModelError: for another network, or another calibrator.
    """
    if model.origin.fingerprint and not same_network(probe_logits(segmenter), model):
        raise ModelError(
            "segments: expected the network that it was fitted to, at the same --input-size, but "
            "this one's features differ. Fit it again with: doubtmap fit segments MODEL DATA --out "
            "FILE."
        )


def review(
    segmenter: Segmenter,
    paths: Sequence[Path],
    model: MetaModel,
    *,
    found: Callable[[ScoredImage, Partition, SegmentTable, ImageReview], None] | None = None,
    skipped: dict[Path, str] | None = None,
    rendering: Rendering | None = None,
    progress: Progress | None = None,
) -> Review:
    """Judge the segments of images, and by them the images; features are not kept.

    Args:
        segmenter: the network that the model was fitted to.
        paths: of the images.
        model: of `fit_segments`.
        found: called with each image, its segments, their features and what is said of them.
        skipped: takes the images that cannot be read, and why; without it the first ends the run.
        rendering: how all images become RGB; default: as a survey of them all says.
        progress: told after each image.

    Raises:
        ModelError: for another network than the model's.
        DataError: where no image can be read.
    """
    check_network(segmenter, model)
    images: list[ImageReview] = []
    for scored in score_images(segmenter, paths, dict(model.scores), skipped, rendering):
        partition = Partition.of(scored.prediction.classes[0])
        table = segment_table(scored.prediction, scored.maps, partition)
        table = replace(table, image_names=(str(scored.path),))
        images.append(ImageReview.of(model, table))
        if found:
            found(scored, partition, table, images[-1])
        if progress:
            progress("review", len(images) + len(skipped or ()), len(paths))
    if not images:
        raise DataError(none_left(len(paths), skipped))
    return together(images)
