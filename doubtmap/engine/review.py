"""Which images and which segments to look at first, without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from doubtmap.engine.fit import prepared
from doubtmap.engine.run import Progress
from doubtmap.engine.score import ScoredImage, score_images
from doubtmap.errors import DataError
from doubtmap.metrics.accumulator import Array
from doubtmap.prediction import Segmenter
from doubtmap.segments import MetaModel, Partition, SegmentTable, image_figures, segment_table


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
        names: of the images.
        table: the segments of all of them.
        probability: `(S,)` that a segment touches its class.
        expected_iou: `(S,)`.
        expected_miou: `(I,)`.
        expected_wrong: `(I,)` share of the pixels that are wrong.
    """

    names: tuple[str, ...]
    table: SegmentTable
    probability: Array
    expected_iou: Array
    expected_miou: Array
    expected_wrong: Array

    @property
    def order(self) -> Array:
        """`(I,)` indices of the images, those with the largest expected share of mistakes first."""
        return np.argsort(-self.expected_wrong, kind="stable")

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
        size = self.table.features[rows, self.table.names.index("size")]
        rows = rows[np.argsort(-size * (1 - self.expected_iou[rows]), kind="stable")][:most]
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
        wrong: float | None = None,
    ) -> Card:
        """What to show of an image.

        Args:
            image: its index.
            pixels: `(H, W, 3)` RGB.
            labels: `(H, W)`, `Partition.labels`.
            wrong: true share of wrong pixels, where known.
        """
        doubt = (1 - self.expected_iou[self.table.image == image])[labels].astype(np.float32)
        return Card(
            self.names[image],
            pixels,
            labels,
            doubt,
            float(self.expected_wrong[image]),
            float(self.expected_miou[image]),
            self.suspects(image),
            wrong,
        )


def judged(model: MetaModel, table: SegmentTable) -> Review:
    """What the model says of the segments of some images, and by them of the images."""
    expected = model.expected_iou(table)
    miou, wrong = image_figures(table, expected)
    return Review(table.image_names, table, model.probability(table), expected, miou, wrong)


def review(
    segmenter: Segmenter,
    paths: Sequence[Path],
    model: MetaModel,
    *,
    found: Callable[[ScoredImage, Partition], None] | None = None,
    skipped: dict[Path, str] | None = None,
    progress: Progress | None = None,
) -> Review:
    """Judge the segments of images, and by them the images.

    Args:
        segmenter: the network that the model was fitted to.
        paths: of the images.
        model: of `fit_segments`.
        found: called with each image and its segments.
        skipped: takes the images that cannot be read, and why; without it the first ends the run.
        progress: told after each image.

    Raises:
        ModelError: for another network than the model's.
        DataError: where no image can be read.
    """
    prepared(segmenter, {"segments": model})  # type: ignore[dict-item]
    tables, seen = [], []
    for scored in score_images(segmenter, paths, model.parsed_scores, skipped):
        partition = Partition.of(scored.prediction.classes[0])
        tables.append(segment_table(scored.prediction, scored.maps, partition))
        seen.append(scored.path)
        if found:
            found(scored, partition)
        if progress:
            progress("review", len(seen) + len(skipped or ()), len(paths))
    if not seen:
        raise DataError(f"review: none of the {len(paths)} images could be read.")
    return judged(model, SegmentTable.join(tables, [str(path) for path in seen]))
