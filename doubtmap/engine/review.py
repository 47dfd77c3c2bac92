"""Which images and which segments to look at first, without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from doubtmap.engine.fit import prepared
from doubtmap.engine.run import Progress
from doubtmap.engine.score import ScoredImage, score_images
from doubtmap.errors import DataError, ModelError
from doubtmap.metrics.accumulator import Array
from doubtmap.prediction import Segmenter
from doubtmap.segments import MetaModel, Partition, SegmentTable, segment_table


@dataclass(frozen=True, eq=False)
class Review:
    """What a meta model expects of images without labels.

    Args:
        paths: of the images.
        table: the segments of all of them.
        probability: `(S,)` that a segment touches its class.
        expected_iou: `(S,)`.
        expected_miou: `(I,)`.
        expected_wrong: `(I,)` share of the pixels that are wrong.
    """

    paths: tuple[Path, ...]
    table: SegmentTable
    probability: Array
    expected_iou: Array
    expected_miou: Array
    expected_wrong: Array

    @property
    def order(self) -> Array:
        """`(I,)` indices of the images, those with the largest expected share of mistakes first."""
        return np.argsort(-self.expected_wrong, kind="stable")

    def suspects(self, image: int, most: int = 4) -> Array:
        """Rows of the segments of an image in which most pixels are expected to be amiss.

        Args:
            image: its index.
            most: how many at most.

        Returns:
            Rows of the table, by descending `size * (1 - expected IoU)`, of those more likely
            to touch nothing of their class than not.
        """
        rows = np.flatnonzero((self.table.image == image) & (self.probability < 0.5))
        size = self.table.features[rows, self.table.names.index("size")]
        return rows[np.argsort(-size * (1 - self.expected_iou[rows]), kind="stable")][:most]


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
        ModelError: for another network than the model's, or a model without image figures.
        DataError: where no image can be read.
    """
    if model.images is None:
        raise ModelError(
            "review: expected a segments file with image figures, but it was fitted to fewer than "
            "8 labelled images. Fit it to more."
        )
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
    table = SegmentTable.join(tables, [str(path) for path in seen])
    expected = model.expected_iou(table)
    miou, wrong = model.images(table, expected)
    return Review(tuple(seen), table, model.probability(table), expected, miou, wrong)
