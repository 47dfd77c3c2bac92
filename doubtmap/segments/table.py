"""Segments as a table, one row each, that NumPy, pandas and Arrow take as it is.

The columns are what a segment looks like in the doubt maps: the inputs of meta classification.
Summed up over an image they give what to expect of it without labels, mIoU and the share of wrong
pixels; nothing in that is fitted to images, as lines fitted to the images of one sequence made
both expectations worse on another (`docs/segments.md`).

Reference:
    Prediction Error Meta Classification in Semantic Segmentation: Detection via Aggregated
    Dispersion Measures of Softmax Probabilities (Rottmann et al., 2020),
    https://arxiv.org/abs/1811.00648; with variances for every score, as Maag and Riedlinger
    (2024), https://arxiv.org/abs/2303.06920, have them for gradient norms.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from doubtmap.errors import DataError, UsageError
from doubtmap.files import cell
from doubtmap.kernels import moments, summed_probabilities
from doubtmap.metrics.accumulator import Array
from doubtmap.prediction import Prediction
from doubtmap.segments.partition import Partition

BOX = ("left", "top", "width", "height")


_ROWS = ("features", "segment", "classes", "boxes")


@dataclass(frozen=True, eq=False)
class SegmentTable:
    """Features of segments, and, where there are labels, how well the segments meet them.

    Args:
        names: of the features.
        features: `(S, F)` float64; NaN where there is none, such as the mean of an empty interior.
        segment: `(S,)` number of the segment in its image: its value in `Partition.labels`.
        classes: `(S,)` predicted class.
        boxes: `(S, 4)` left, top, width, height, in pixels.
        image: `(S,)` number of the image.
        class_names: of the network.
        image_names: of the images.
        iou: `(S,)` adjusted IoU in [0, 1], NaN for a segment without labelled pixels; None where
            there are no labels.
    """

    names: tuple[str, ...]
    features: Array
    segment: Array
    classes: Array
    boxes: Array
    image: Array
    class_names: tuple[str, ...]
    image_names: tuple[str, ...] = ("",)
    iou: Array | None = None

    def __len__(self) -> int:
        return len(self.segment)

    def __getitem__(self, name: str) -> Array:
        """A feature by name, or another column."""
        if name in self.names:
            return np.asarray(self.features[:, self.names.index(name)])
        return self.columns[name]

    def only(self, *names: str) -> SegmentTable:
        """The same segments with some of the features."""
        at = [self.names.index(name) for name in names]
        return replace(self, names=names, features=self.features[:, at])

    @property
    def columns(self) -> dict[str, Array]:
        """`(S,)` arrays by name: `pandas.DataFrame(table.columns)`, `pyarrow.table(...)`.

        `image` and `class` are names; `segment` is the value of the segment's pixels in
        `Partition.labels` of that image; then the box, the features, and `iou` where known.
        """
        class_names = self.class_names or tuple(map(str, range(int(self.classes.max()) + 1)))
        columns = {
            "image": np.array(self.image_names)[self.image],
            "segment": self.segment,
            "class": np.array(class_names)[self.classes],
        }
        columns |= {name: self.boxes[:, at] for at, name in enumerate(BOX)}
        columns |= {name: self.features[:, at] for at, name in enumerate(self.names)}
        return columns if self.iou is None else columns | {"iou": self.iou}

    def take(self, rows: Array) -> SegmentTable:
        """Some of the rows, by index or mask."""
        rows_of = {name: getattr(self, name)[rows] for name in (*_ROWS, "image")}
        return replace(self, **rows_of, iou=None if self.iou is None else self.iou[rows])

    @classmethod
    def join(cls, tables: Sequence[SegmentTable]) -> SegmentTable:
        """One table of several images.

        Args:
            tables: of one image each, with its name and the same features.

        Raises:
            UsageError: for no table, or tables with other features or classes.
        """
        if not tables:
            raise UsageError("SegmentTable: expected at least one image to join, got none.")
        first = tables[0]
        for table in tables:
            if (table.names, table.class_names) != (first.names, first.class_names):
                raise UsageError(
                    "SegmentTable: expected the same features and classes of every image, got "
                    "others. Use the same network and scores."
                )
        iou = [table.iou for table in tables if table.iou is not None]
        together: dict[str, Any] = {
            name: np.concatenate([getattr(table, name) for table in tables]) for name in _ROWS
        }
        return replace(
            first,
            **together,
            image=np.repeat(np.arange(len(tables)), [len(table) for table in tables]),
            image_names=tuple(table.image_names[0] for table in tables),
            iou=np.concatenate(iou) if len(iou) == len(tables) else None,
        )

    def to_csv(self, more: dict[str, Array] | None = None, header: bool = True) -> str:
        """All columns, and `more`; numbers to 6 digits, empty where there is none."""
        columns = self.columns | (more or {})
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if header:
            writer.writerow(columns)
        writer.writerows(zip(*(_cells(column) for column in columns.values())))
        return text.getvalue()


def _cells(column: Array) -> list[str]:
    if np.issubdtype(column.dtype, np.floating):
        return ["" if np.isnan(value) else f"{value:.6g}" for value in column.tolist()]
    if np.issubdtype(column.dtype, np.number):
        return [str(value) for value in column.tolist()]
    return [cell(str(value)) for value in column.tolist()]


def expected_figures(table: SegmentTable, expected: Array) -> tuple[Array, Array]:
    """Expected mIoU and expected share of wrong pixels of each image.

    With the probabilities P(c) of pixels taken at their word, the IoU of a class is about
    `sum of P(c) where c is predicted / (pixels predicted c + sum of P(c) elsewhere)`. Meta
    regression expects the mean over its segments, weighted by size. The mIoU is the mean of both,
    over the classes predicted in the image. The share of wrong pixels is 1 - mean confidence, or
    the mean of the score `wrong` where the table has it; so a network that is sure of its mistakes
    needs a calibrator.

    Args:
        table: segments of all the images.
        expected: `(S,)` IoU that meta regression expects of each.

    Returns:
        `(I,)` and `(I,)`, in [0, 1].
    """
    images, classes = len(table.image_names), sum(n.startswith("probability:") for n in table.names)
    first = next(at for at, name in enumerate(table.names) if name.startswith("probability:"))
    size = table.features[:, table.names.index("size")]
    mass = table.features[:, first : first + classes] * size[:, None]
    own = mass[np.arange(len(table)), table.classes]
    cell = table.image * classes + table.classes
    predicted, meeting, meta = (
        np.bincount(cell, weights, images * classes).reshape(images, classes)
        for weights in (size, own, size * expected)
    )
    claimed = np.stack([np.bincount(table.image, m, images) for m in mass.T], 1)
    there = predicted > 0
    by_probability = meeting / np.where(there, predicted + claimed - meeting, 1)
    by_segments = meta / np.where(there, predicted, 1)
    miou = np.where(there, (by_probability + by_segments) / 2, 0).sum(1) / there.sum(1)
    wrong = size - own
    if "wrong:mean" in table.names:
        wrong = size * table.features[:, table.names.index("wrong:mean")]
    share = np.bincount(table.image, wrong, images) / predicted.sum(1)
    return np.clip(miou, 0, 1), np.clip(share, 0, 1)


SIZES = ("size", "size_interior", "size_edge", "size_relative", "size_interior_relative")


OF_A_SCORE = tuple(
    f"{kind}{part}"
    for kind in ("mean", "variance")
    for part in ("", "_interior", "_edge", "_relative", "_interior_relative")
)
"""Of each score: mean and variance over the segment, its interior and its edge, and those of the
segment and the interior times size / size of the edge."""


def segment_table(
    prediction: Prediction, maps: Mapping[str, Tensor], partition: Partition | None = None
) -> SegmentTable:
    """The segments of one image, with their features.

    In one labelled pass over the maps and one over the native logits, whose full-size
    probabilities are not kept where the pass is compiled.

    Args:
        prediction: of one image.
        maps: `(H, W)` by score, as `engine.observation.score_maps` gives them.
        partition: of `prediction.classes[0]`, if it is there already.

    Returns:
        A row for each segment: sizes in pixels, `SCORE:mean` and the like for each score, and
        `probability:CLASS`, the mean probabilities.

    Raises:
        UsageError: for several images, or maps of another size.
        DataError: for maps that are not finite.
    """
    if len(prediction.native_logits) != 1:
        raise UsageError(
            f"segment_table: expected the prediction of one image, got "
            f"{len(prediction.native_logits)}. Predict one after the other."
        )
    for name, map_ in maps.items():
        if tuple(map_.shape) != prediction.size:
            raise UsageError(
                f"segment_table: expected {name} of the image's size {prediction.size}, got "
                f"{tuple(map_.shape)}."
            )
    found = Partition.of(prediction.classes[0]) if partition is None else partition
    if tuple(found.labels.shape) != prediction.size:
        raise UsageError(
            f"segment_table: expected the partition of this image, of size {prediction.size}, got "
            f"{tuple(found.labels.shape)}."
        )
    labels, count = found.labels, len(found)
    sums = moments(labels, found.edge, list(maps.values()), count).numpy()
    if not np.isfinite(sums).all():
        raise DataError("segment_table: expected finite scores, got NaN or infinity.")
    shares = summed_probabilities(prediction.native_logits, labels, count, *prediction.placement)
    size = found.sizes.sum(1).astype(float)
    relative = size / found.sizes[:, 1], found.sizes[:, 0] / found.sizes[:, 1]
    columns = [size, *found.sizes.T, *relative]
    names = list(SIZES)
    for at, name in enumerate(maps):
        names += [f"{name}:{kind}" for kind in OF_A_SCORE]
        columns += _of_a_score(sums[:, :, at], found.sizes, *relative)
    classes = prediction.native_logits.shape[1]
    names += [f"probability:{k}" for k in prediction.class_names or range(classes)]
    columns += list((shares.numpy() / size[:, None]).T)
    return SegmentTable(
        tuple(names),
        np.stack(columns, 1),
        np.arange(count),
        found.classes,
        found.boxes,
        np.zeros(count, np.int64),
        prediction.class_names,
    )


def _of_a_score(sums: Array, sizes: Array, relative: Array, interior: Array) -> list[Array]:
    """Columns in the order of `OF_A_SCORE`.

    Args:
        sums: `(S, 2, 2)` segment, interior or edge, first or second power.
        sizes: `(S, 2)` pixels.
        relative: `(S,)` size by size of the edge.
        interior: `(S,)` size of the interior by that of the edge.
    """
    whole, whole_size = sums.sum(1), sizes.sum(1)
    columns: list[Array] = []
    means = []
    for total, size in ((whole, whole_size), (sums[:, 0], sizes[:, 0]), (sums[:, 1], sizes[:, 1])):
        with np.errstate(invalid="ignore"):
            means.append(total / size[:, None])
    for power in range(2):
        parts = [m[:, 0] if power == 0 else np.maximum(m[:, 1] - m[:, 0] ** 2, 0) for m in means]
        columns += [*parts, parts[0] * relative, np.where(sizes[:, 0], parts[1], 0) * interior]
    return columns
