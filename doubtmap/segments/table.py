"""Segments as a table, one row each, that NumPy, pandas and Arrow take as it is."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from doubtmap.errors import UsageError
from doubtmap.metrics.accumulator import Array

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
    return [str(value) for value in column.tolist()]
