"""What calibration depends on: capacity, the size of the view, several scales, being right.

The four analyses of the paper, each a set of segmenters or of pixels measured on the same images. A
subset of right pixels, or of wrong ones, has an accuracy of 1 or 0, so its ECE is how far its mean
confidence is from that; it needs labels, and tells how sure a network is of its mistakes. A table
and a page with charts show what came out.

Reference:
    On Calibrating Semantic Segmentation Models: Analyses and An Algorithm (Wang, Gong and Wang,
    2023), https://arxiv.org/abs/2212.12053
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from doubtmap.calibration import Identity
from doubtmap.calibration.comparison import FINE, compare
from doubtmap.datasets.dataset import Dataset
from doubtmap.engine.run import Pairs, Progress
from doubtmap.errors import UsageError
from doubtmap.files import write_atomically
from doubtmap.metrics import Confusion
from doubtmap.metrics.accumulator import Array
from doubtmap.prediction import Prediction, Segmenter
from doubtmap.reports.charts import ChartLine, Plane, drawing, line_chart, rounded_up, titled
from doubtmap.reports.page import framed, header, page_table, plain_table

ANALYSES = ("capacity", "crop", "multiscale", "correctness")


@dataclass(frozen=True, eq=False)
class Windowed:
    """A segmenter that sees an image window by window, without what lies around; a `Segmenter`.

    Args:
        segmenter: the network.
        side: of the square windows, in pixels; the last of a row or column overlaps the one
            before, whose output stays.
    """

    segmenter: Segmenter
    side: int

    def __post_init__(self) -> None:
        if self.side < 8:
            raise UsageError(f"crop: expected windows of at least 8 pixels, got {self.side}.")

    @property
    def class_names(self) -> tuple[str, ...]:
        """The network's."""
        return self.segmenter.class_names

    @property
    def description(self) -> dict[str, object]:
        """The network's, and the side of the windows."""
        return {**self.segmenter.description, "window": self.side}

    def __call__(self, images: Tensor) -> Prediction:
        """Predict every window, and put the full-size logits together."""
        height, width = images.shape[-2:]
        side = min(self.side, max(height, width))
        whole: Tensor | None = None
        # from the end, so that of overlapping windows the first one's output stays
        for top in reversed(_starts(height, side)):
            for left in reversed(_starts(width, side)):
                place = (..., slice(top, top + side), slice(left, left + side))
                logits = self.segmenter(images[place]).logits
                if whole is None:
                    whole = logits.new_zeros(*logits.shape[:2], height, width)
                whole[place] = logits
        assert whole is not None
        return Prediction(whole, (height, width), class_names=self.class_names)


def analyse(
    segmenters: Mapping[str, Segmenter],
    dataset: Dataset,
    *,
    unknown: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure segmenters on the same images.

    Args:
        segmenters: by name.
        dataset: labelled images.
        unknown: label classes that are unknown objects; they count for nothing here.
        progress: told after each image.

    Returns:
        For each segmenter the figures of `Comparison.figures`, `miou`, `ece_right`, `ece_wrong`
        (those of the subsets), and `confidence_right` and `confidence_wrong`: the share of the
        subset's pixels in each of 30 bins of confidence.

    Raises:
        UsageError, DataError, ModelError: as `evaluate`.
    """
    rows = {}
    for name, segmenter in segmenters.items():
        pairs = Pairs(segmenter, dataset, tuple(unknown), stage=name, progress=progress)
        counting = _Counting(pairs)
        found = compare(counting, {"raw": Identity()})
        assert counting.confusion is not None
        labelled = np.flatnonzero(counting.confusion.counts.sum(1)).tolist()
        subsets = _of_subsets(counting.confidence)
        miou = float(counting.confusion.mean_iou(labelled))
        rows[name] = found.figures("raw") | {"miou": miou} | subsets
    return rows


def _starts(length: int, side: int) -> list[int]:
    starts = list(range(0, max(1, length - side + 1), side))
    return starts if starts[-1] + side >= length else [*starts, length - side]


class _Counting:
    """Pairs that count, on their way, the confusion and the confidence of right and wrong pixels.

    Args:
        pairs: to pass on.
    """

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self.confusion: Confusion | None = None
        self.confidence: Array = np.zeros((2, FINE + 1))

    def __iter__(self) -> Iterator[tuple[Prediction, Tensor]]:
        for prediction, label in self.pairs:
            there = label >= 0
            if self.confusion is None:
                self.confusion = Confusion.empty(prediction.native_logits.shape[1])
            self.confusion.update(prediction.classes, label.clamp_min(0), there)
            self._count(prediction, label, there)
            yield prediction, label

    def _count(self, prediction: Prediction, label: Tensor, there: Tensor) -> None:
        confidence = prediction.probabilities.amax(1)[there]
        right = (prediction.classes == label)[there]
        at = (confidence * FINE).ceil().long().sub_(1).clamp_(0, FINE - 1)
        for row, chosen in enumerate((~right, right)):
            counts = torch.bincount(at[chosen], minlength=FINE).double()
            self.confidence[row, :FINE] += counts.cpu().numpy()
            self.confidence[row, FINE] += float(confidence[chosen].double().sum())


def _of_subsets(confidence: Array) -> dict[str, Any]:
    """Figures of the wrong pixels (row 0) and the right ones (row 1)."""
    figures: dict[str, Any] = {}
    for row, name in enumerate(("wrong", "right")):
        pixels = confidence[row, :FINE].sum()
        mean = confidence[row, FINE] / pixels if pixels else None
        figures[f"ece_{name}"] = None if mean is None else float(abs(row - mean))
        share = confidence[row, :FINE] / max(pixels, 1)
        figures[f"confidence_{name}"] = share.tolist()
    return figures


COLUMNS = {
    "ece": "ECE",
    "ece_10_bins": "10 bins",
    "ece_per_image": "per image",
    "ece_right": "right pixels",
    "ece_wrong": "wrong pixels",
    "miou": "mIoU",
    "accuracy": "accuracy",
}


def analysis_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Segmenters as rows of plain text, figures as columns.

    Args:
        rows: as `doubtmap.studies.analyses.analyse` gives them.
    """
    return plain_table(_rows(rows))


def write_analysis(kind: str, rows: Mapping[str, Mapping[str, Any]], path: str | Path) -> None:
    """Write one self-contained HTML page.

    Args:
        kind: one of `doubtmap.studies.analyses.ANALYSES`.
        rows: as `analyse` gives them.
        path: the file, written atomically.

    Raises:
        DataError: where the file cannot be written.
    """
    title = f"Calibration and {kind}"
    page = framed(
        title,
        header("analyse", title),
        page_table("Figures of each network", _rows(rows)),
        Markup("<h2>ECE against mIoU</h2>{}").format(_plane_chart(rows)),
        Markup("<h2>Confidence of right pixels (blue) and wrong ones (orange)</h2>"),
        *(_confidence_chart(name, row) for name, row in rows.items()),
    )
    write_atomically(path, page)


def _rows(rows: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    body = [[name, *(_number(row.get(key)) for key in COLUMNS)] for name, row in rows.items()]
    return [["", *COLUMNS.values()], *body]


def _plane_chart(rows: Mapping[str, Mapping[str, Any]]) -> Markup:
    """Each segmenter as a point."""
    top = rounded_up(max(row["ece"] for row in rows.values()))
    right = rounded_up(max(row["miou"] for row in rows.values()))
    plane = Plane("mIoU", "ECE", (0.0, right), (0.0, top))
    marks = []
    for name, row in rows.items():
        x, y = plane.x(row["miou"]), plane.y(row["ece"])
        marks.append(titled("circle", name, "point", f'cx="{x:.1f}" cy="{y:.1f}" r="4"'))
        marks.append(
            Markup('<text class="name" x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>').format(
                x - 7, y + 4, name
            )
        )
    label = "ECE against mIoU"
    return drawing(plane.width, plane.height, label, plane.ground(), *marks)


def _confidence_chart(name: str, row: Mapping[str, Any]) -> Markup:
    """Share of right and of wrong pixels in each bin of confidence."""
    curves = []
    for style, key in enumerate(("confidence_right", "confidence_wrong")):
        share = np.array(row[key], np.float64)
        places = (np.arange(len(share)) + 0.5) / len(share)
        curves.append(ChartLine(key, key.replace("_", " of "), np.stack([places, share], 1), style))
    top = rounded_up(max(float(curve.points[:, 1].max()) for curve in curves))
    plane = Plane("confidence", "share", (0.0, 1.0), (0.0, top), height=240)
    return Markup("<h3>{}</h3>{}").format(name, line_chart(plane, curves, f"Confidence, {name}"))


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-"
