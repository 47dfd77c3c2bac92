"""Which images and which segments to look at first, without labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from doubtmap.datasets.reading import Rendering, none_left
from doubtmap.engine.run import Progress
from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.images import ScoredImage, score_images
from doubtmap.kernels import at_least_float32
from doubtmap.metrics.accumulator import Array
from doubtmap.prediction import Prediction, Segmenter
from doubtmap.scoring import probe_logits, same_network
from doubtmap.segments import MetaModel, Partition, SegmentTable, expected_figures, segment_table
from doubtmap.segments.choosing import unlike
from doubtmap.segments.shapes import SHAPES

SHAPES_RANKED = ("quantile", "patch", "mass")
ORDERS = ("wrong", "miou", *SHAPES_RANKED)
"""By what images are ranked."""

OF_SEGMENTS = ("features", "segment", "classes", "boxes", "image")
"""Arrays of the table that a review keeps, in the order of its fields."""

OF_REVIEWS = ("probability", "expected_iou", "expected_miou", "expected_wrong", "pooled")
"""Arrays of a review."""


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
        expected_miou: in [0, 1]; None where always the mean would have been nearer.
        suspects: the worst first.
        wrong: share of the labelled pixels that are wrong, where there are labels.
        miou_error: mean absolute error that the expected mIoU had on held-out images, where known.
        path: of the image, where it lies in a file.
        number: of the image in its review.
    """

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    doubt: NDArray[np.float32]
    expected_wrong: float
    expected_miou: float | None
    suspects: tuple[Suspect, ...]
    wrong: float | None = None
    miou_error: float | None = None
    path: Path = Path()
    number: int = 0


@dataclass(frozen=True, eq=False)
class Review:
    """What a meta model expects of images without labels.

    Args:
        table: the segments of all of them, with their sizes as the only feature.
        probability: `(S,)` that a segment touches its class.
        expected_iou: `(S,)`.
        expected_miou: `(I,)`.
        expected_wrong: `(I,)` share of the pixels that are wrong.
        pooled: `(I, D)`, means of the network's features over each image, or, where it tells none,
            of its probabilities.
        shapes: `(I,)` by name, of the doubt in each image.
        errors: `miou` and `wrong`, as `doubtmap.segments.fitting.known_errors` found them.
    """

    table: SegmentTable
    probability: Array
    expected_iou: Array
    expected_miou: Array
    expected_wrong: Array
    pooled: Array
    shapes: Mapping[str, Array]
    errors: Mapping[str, Sequence[float]]

    @property
    def arrays(self) -> dict[str, Array]:
        """All but names and errors, as `joined` takes it of several."""
        table = {name: getattr(self.table, name) for name in OF_SEGMENTS}
        own = {name: getattr(self, name) for name in OF_REVIEWS}
        return table | own | {f"shapes/{name}": values for name, values in self.shapes.items()}

    @classmethod
    def joined(
        cls,
        parts: Sequence[Mapping[str, Array]],
        names: Sequence[str],
        class_names: Sequence[str],
        errors: Mapping[str, Sequence[float]],
    ) -> Self:
        """The review of all images of which parts were reviewed apart.

        Args:
            parts: `arrays` of each, at least one.
            names: of all images.
            class_names: of the network.
            errors: as of `Review`.
        """
        counts = [len(part["expected_miou"]) for part in parts]
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        whole["image"] += np.repeat(np.cumsum([0, *counts[:-1]]), [len(p["image"]) for p in parts])
        features, segment, classes, boxes, image = (whole[name] for name in OF_SEGMENTS)
        of_images = tuple(class_names), tuple(names)
        table = SegmentTable(("size",), features, segment, classes, boxes, image, *of_images)
        shapes = {name: whole[f"shapes/{name}"] for name in SHAPES_RANKED}
        return cls(table, **{n: whole[n] for n in OF_REVIEWS}, shapes=shapes, errors=errors)

    @property
    def tells_miou(self) -> bool:
        """Whether the expected mIoU was nearer to the truth than always the mean, or nobody knows.

        Known are the errors on images that were held out when the meta model was fitted.
        """
        return "miou" not in self.errors or self.errors["miou"][0] < self.errors["miou"][1]

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of the figures, in sentences."""
        if self.tells_miou:
            return ()
        error, constant = self.errors["miou"]
        return (
            f"The expected mIoU is left out: on held-out images it was {error:.3f} off in the "
            f"mean, always their mean only {constant:.3f}.",
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Of the images."""
        return self.table.image_names

    def order(self, by: str = "wrong") -> Array:
        """`(I,)` indices of the images, the worst first.

        Args:
            by: `wrong`, the largest expected share of wrong pixels; `miou`, the lowest expected
                mIoU; or of `doubtmap.segments.shapes`, over the doubt 1 - largest probability.

        Raises:
            UsageError: for something else.
        """
        return np.argsort(-self.badness(by), kind="stable")

    def badness(self, by: str = "wrong") -> Array:
        """`(I,)`, higher = look sooner; `by` as in `order`.

        Raises:
            UsageError: for something else.
        """
        if by not in ORDERS:
            raise UsageError(f"review: expected --by {' or '.join(ORDERS)}, got {by!r}.")
        if by in self.shapes:
            return self.shapes[by]
        return self.expected_wrong if by == "wrong" else -self.expected_miou

    def first(self, count: int, by: str = "wrong", diverse: bool = False) -> Array:
        """`(N,)` indices of the images to look at.

        Args:
            count: how many at most.
            by: as in `order`.
            diverse: images that are unlike each other instead of the very worst.
        """
        if not diverse:
            return self.order(by)[:count]
        return unlike(self.badness(by), self.pooled, self.names, count)

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
            float(self.expected_miou[image]) if self.tells_miou else None,
            self.suspects(image),
            wrong,
            self.errors["miou"][0] if "miou" in self.errors else None,
            Path(self.names[image]),
            image,
        )


@dataclass(frozen=True, eq=False)
class ImageReview:
    """What a meta model expects of one image; fields as of `Review`."""

    table: SegmentTable
    probability: Array
    expected_iou: Array
    expected_miou: float
    expected_wrong: float
    pooled: Array
    shapes: Mapping[str, float]

    @classmethod
    def of(
        cls, model: MetaModel, table: SegmentTable, prediction: Prediction | None = None
    ) -> Self:
        """Judge the segments of one image, all features of which are there.

        Args:
            model: says what to expect of each.
            table: of the image.
            prediction: of the image, for what is said of it as a whole; None: nothing is.
        """
        expected = model.expected_iou(table)
        miou, wrong = expected_figures(table, expected)
        probability = model.probability(table)
        pooled, shapes = np.zeros(0), dict[str, float]()
        if prediction is not None:
            pooled, shapes = _pooled(prediction), _shapes(prediction)
        sizes = table.only("size")
        return cls(sizes, probability, expected, float(miou[0]), float(wrong[0]), pooled, shapes)


def _pooled(prediction: Prediction) -> Array:
    maps = prediction.features
    if maps is None:
        maps = at_least_float32(prediction.native_logits).softmax(1)
    return np.asarray(maps[0].double().mean((1, 2)).cpu().numpy())


def _shapes(prediction: Prediction) -> dict[str, float]:
    doubt = prediction.statistics.max_softmax[0].cpu().numpy()
    return {name: SHAPES[name](doubt) for name in SHAPES_RANKED}


def together(images: Sequence[ImageReview], model: MetaModel) -> Review:
    """The review of several images by a meta model."""
    return Review(
        SegmentTable.join([image.table for image in images]),
        np.concatenate([image.probability for image in images]),
        np.concatenate([image.expected_iou for image in images]),
        np.array([image.expected_miou for image in images]),
        np.array([image.expected_wrong for image in images]),
        np.stack([image.pooled for image in images]),
        {name: np.array([i.shapes[name] for i in images]) for name in images[0].shapes},
        errors_of(model),
    )


def errors_of(model: MetaModel) -> Mapping[str, Sequence[float]]:
    """Of a meta model: how far its expectations of images were off where they were held out."""
    errors: Mapping[str, Sequence[float]] = model.origin.facts.get("errors", {})
    return errors


def check_network(segmenter: Segmenter, model: MetaModel) -> None:
    """Refuse another network than the one that a meta model was fitted to.

    Raises:
        ModelError: for another network, or another calibrator.
    """
    if model.origin.fingerprint and not same_network(probe_logits(segmenter), model):
        raise ModelError(
            "segments: expected the network that it was fitted to, at the same --input-size and "
            "--views, but this one's logits differ. Fit it again with: doubtmap fit segments MODEL "
            "DATA --out FILE."
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
    images = judged(segmenter, paths, model, found, skipped, rendering, progress)
    if not images:
        raise DataError(none_left(len(paths), skipped))
    return together(images, model)


def judged(
    segmenter: Segmenter,
    paths: Sequence[Path],
    model: MetaModel,
    found: Callable[[ScoredImage, Partition, SegmentTable, ImageReview], None] | None = None,
    skipped: dict[Path, str] | None = None,
    rendering: Rendering | None = None,
    progress: Progress | None = None,
) -> list[ImageReview]:
    """As `review`, image by image; there may be none."""
    check_network(segmenter, model)
    images: list[ImageReview] = []
    for scored in score_images(segmenter, paths, dict(model.scores), skipped, rendering):
        partition = Partition.of(scored.prediction.classes[0])
        table = segment_table(scored.prediction, scored.maps, partition)
        table = replace(table, image_names=(str(scored.path),))
        images.append(ImageReview.of(model, table, scored.prediction))
        if found:
            found(scored, partition, table, images[-1])
        if progress:
            progress("review", len(images) + len(skipped or ()), len(paths))
    return images
