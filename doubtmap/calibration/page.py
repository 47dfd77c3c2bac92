"""What `calibrate` found as a table and as one HTML page with reliability diagrams."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from doubtmap.calibration.calibrate import Calibration
from doubtmap.calibration.comparison import SIZES, Region
from doubtmap.files import write_atomically
from doubtmap.reports.charts import reliability_chart
from doubtmap.reports.page import framed, header, page_table, plain_table

COLUMNS = {
    "ece": "ECE",
    "ece_10_bins": "10 bins",
    "ece_per_image": "per image",
    "ece_per_patch": "per patch",
    "ece_boundary": "boundary",
    "ece_inside": "inside",
    "nll": "NLL",
    "brier": "Brier",
    "accuracy": "accuracy",
}
"""Figures of `Comparison.figures` and their headings."""
PARTED = ("pixels", "accuracy", "confidence before", "ECE before", "confidence after", "ECE after")
"""Headings of the figures of some of the pixels."""


def comparison_table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Methods as rows of plain text, figures as columns.

    Args:
        figures: by method, as `Comparison.figures` gives them.
    """
    return plain_table(_rows(figures))


def with_parts(
    found: Calibration, figures: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The same with the figures of each size of segments and of each predicted class.

    Args:
        found: what `calibrate` gave.
        figures: by method, as `Comparison.figures` gives them.
    """
    within = found.comparison.within
    return {
        name: {
            **row,
            "by_size": {size: within(name, size) for size in SIZES},
            "by_class": {title: within(name, label) for label, title in _named(found).items()},
        }
        for name, row in figures.items()
    }


def write_calibration_report(found: Calibration, path: str | Path) -> None:
    """Write one self-contained HTML page: figures, and diagrams before and after, by class too.

    Args:
        found: what `calibrate` gave.
        path: the file, written atomically.

    Raises:
        DataError: where the file cannot be written.
    """
    comparison, taken = found.comparison, found.method
    figures = {name: comparison.figures(name) for name in comparison.names}
    parts = [
        header("calibrate", f"Calibration: {taken}", *found.notes),
        page_table("Figures of each method", _rows(figures), {taken}),
        Markup(
            "<p>Fitted on one part of the images, measured on the other. ECE is pooled, with 15 "
            "bins, unless it says otherwise, with its 95 % interval over images; bars reach from "
            "accuracy to confidence.</p>"
            "<h2>All classes</h2>"
        ),
        _before_and_after(found, None),
        Markup("<h2>By size of the labelled segment</h2>"),
        page_table("Before and after, by size", _sizes(found), set()),
        Markup("<h2>By predicted class</h2>"),
        page_table("Before and after, by class", _classes(found), set()),
    ]
    for label, title in _named(found).items():
        parts += [Markup("<h3>{}</h3>").format(title), _before_and_after(found, label)]
    write_atomically(path, framed(f"Calibration: {taken}", *parts))


def _named(found: Calibration) -> dict[int, str]:
    """The classes that are predicted, by their numbers."""
    names = found.calibrator.origin.class_names
    return {
        label: names[label] if label < len(names) else f"class {label}"
        for label in found.comparison.predicted
    }


def _sizes(found: Calibration) -> list[list[str]]:
    """Rows of the sizes of segments."""
    body = [
        [f"{size}, above {low:g} of the image" if low else size, *_parted(found, size)]
        for size, (low, _) in SIZES.items()
    ]
    return [["segment", *PARTED], *body]


def _classes(found: Calibration) -> list[list[str]]:
    """Rows of the predicted classes."""
    body = [[title, *_parted(found, label)] for label, title in _named(found).items()]
    return [["class", *PARTED], *body]


def _parted(found: Calibration, part: Region | int) -> list[str]:
    """Cells of some of the pixels."""
    raw, now = (found.comparison.within(name, part) for name in ("identity", found.method))
    shown = [f"{raw['share']:.1%}", _number(now["accuracy"])]
    for figures in (raw, now):
        shown += [_number(figures["confidence"]), _cell(figures, "ece")]
    return shown


def _before_and_after(found: Calibration, label: int | None) -> Markup:
    drawn = [
        Markup("<figure><figcaption>{}</figcaption>{}</figure>").format(
            title, reliability_chart(found.comparison.diagram(name, label=label))
        )
        for title, name in (("before", "identity"), ("after", found.method))
    ]
    return Markup('<div class="pair">{}</div>').format(Markup("").join(drawn))


def _rows(figures: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    body = [[name, *(_cell(row, key) for key in COLUMNS)] for name, row in figures.items()]
    return [["method", *COLUMNS.values()], *body]


def _cell(row: Mapping[str, Any], key: str) -> str:
    """A figure; the ECE with its interval."""
    ends = row.get(f"{key}_interval") if key == "ece" else None
    return _number(row.get(key)) + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-"
