"""What a report says of classes and images: what is taken for what, and where it goes worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from doubtmap.evaluation.report_tables import Cell
from doubtmap.reports.digits import MISSING, digits, number

MOST_CLASSES = 30
"""Rows of a confusion matrix that a page can show."""
MOST_IMAGES = 100
"""Rows of the table of images."""


@dataclass(frozen=True)
class Confusions:
    """What each labelled class is taken for.

    Args:
        names: of the classes that are predicted, across.
        rows: of each labelled class its name, pixels, and the share that each predicted class has.
        left_out: classes without a row.
    """

    names: list[str]
    rows: list[tuple[str, int, list[float]]]
    left_out: int


def confusions(counts: Any, class_names: Sequence[str]) -> Confusions | None:
    """The confusion matrix for a page; None without one.

    Of more classes than fit, those with the most wrong pixels are shown.

    Args:
        counts: `(C, C)` pixels, labelled classes down, predicted ones across.
        class_names: in the order of the indices, or empty.
    """
    if not isinstance(counts, list) or not counts:
        return None
    pixels = np.array(counts, np.int64)
    there = np.flatnonzero(pixels.sum(0) + pixels.sum(1))
    wrong = pixels.sum(1) - np.diag(pixels)
    most = np.sort(there[np.argsort(-wrong[there], kind="stable")][:MOST_CLASSES])
    names = [class_names[at] if at < len(class_names) else str(at) for at in range(len(pixels))]
    rows = [
        (names[at], int(pixels[at].sum()), (pixels[at, most] / pixels[at].sum()).tolist())
        for at in most
        if pixels[at].sum()
    ]
    return Confusions([names[at] for at in most], rows, len(there) - len(most))


@dataclass(frozen=True)
class WorstImages:
    """A class, and the images in which its IoU is lowest: their names and the IoU."""

    name: str
    images: list[tuple[str, str]]


def worst_images(
    images: Sequence[Mapping[str, Any]], class_names: Sequence[str], most: int = 3
) -> list[WorstImages]:
    """The worst images of each class, among those in which it is labelled or predicted.

    Args:
        images: the table of images of `results.json`.
        class_names: in the order of the indices, or empty.
        most: images of a class.
    """
    found = []
    classes = max((len(row.get("iou") or ()) for row in images), default=0)
    for at in range(classes):
        rows = [
            (float(row["iou"][at]), str(row["image"]))
            for row in images
            if len(row.get("iou") or ()) > at and row["iou"][at] is not None
        ]
        if rows:
            name = class_names[at] if at < len(class_names) else str(at)
            worst = sorted(rows)[:most]
            found.append(WorstImages(name, [(image, digits(iou)) for iou, image in worst]))
    return found


@dataclass(frozen=True)
class ImageTable:
    """Images and their figures, the worst first."""

    columns: list[str]
    rows: list[tuple[str, list[Cell]]]
    left_out: int


def image_rows(images: Sequence[Mapping[str, Any]]) -> ImageTable | None:
    """The images with the lowest accuracy, or the most doubt where nothing has a class."""
    if not images:
        return None
    scores = list(images[0].get("scores") or {})
    columns = ["accuracy", "miou", *(f"missed by {name}" for name in scores[:3])]

    def value(row: Mapping[str, Any], column: str) -> float | None:
        if column.startswith("missed by "):
            found = (row.get("scores") or {}).get(column.removeprefix("missed by ")) or {}
            return number(found.get("missed"))
        return number(row.get(column))

    there = [c for c in columns if any(value(row, c) is not None for row in images)]
    if not there:
        return None
    way = 1.0 if there[0] in ("accuracy", "miou") else -1.0

    def badness(row: Mapping[str, Any]) -> tuple[bool, float]:
        first = value(row, there[0])
        return first is None, way * (first or 0.0)

    shown = sorted(images, key=badness)[:MOST_IMAGES]
    rows = [(str(row.get("image")), [_cell(value(row, c)) for c in there]) for row in shown]
    return ImageTable(there, rows, len(images) - len(shown))


MEANS = {
    "images": "images or slices",
    "dice": "mean Dice of the classes, 0 to 1",
    "surface_dice": "share of both surfaces within the tolerance of each other",
    "surface_distance": "mean distance between the surfaces, in the volumes' units",
    "hd95": "95 % of the surfaces are nearer, in the volumes' units",
}


def case_rows(by: Mapping[str, Any]) -> ImageTable | None:
    """Figures of each case, the lowest Dice first."""
    cases = by.get("cases") or {}
    scores = dict.fromkeys(score for case in cases.values() for score in case["scores"])

    def values(case: Mapping[str, Any]) -> dict[str, float | None]:
        found = {name: number(case["mean"].get(name)) for name in MEANS if name != "images"}
        ranked = {f"AUROC of {s}": number(case["scores"].get(s, {}).get("auroc")) for s in scores}
        return {"images": int(case["images"])} | found | ranked

    every = {name: values(case) for name, case in cases.items()}
    there = [
        c
        for c in next(iter(every.values()), {})
        if any(row[c] is not None for row in every.values())
    ]
    if not there:
        return None
    worst = sorted(every, key=lambda name: (every[name]["dice"] is None, every[name]["dice"] or 0))
    rows = [(name, [_cell(every[name][c]) for c in there]) for name in worst[:MOST_IMAGES]]
    return ImageTable(there, rows, len(every) - len(rows))


def _cell(value: float | None) -> Cell:
    if value is None:
        return Cell(MISSING, missing=True, title="not computed")
    return Cell(digits(value), title=repr(value), sort=value)
