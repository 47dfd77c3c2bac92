"""What `calibrate` found as a table and as one HTML page with reliability diagrams."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from doubtmap.calibration.calibrate import Calibration
from doubtmap.files import write_atomically
from doubtmap.reports.charts import reliability_chart

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


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;
color:#222226;background:#fff}
table{border-collapse:collapse}td,th{padding:.25em .7em;text-align:right;white-space:nowrap}
td:first-child,th:first-child{text-align:left}tr.taken{font-weight:600}
th{border-bottom:1px solid #999}.pair{display:flex;flex-wrap:wrap;gap:1.5em}
figure{margin:0 0 1em}svg{max-width:100%;height:auto}
.grid{stroke:#ddd;fill:none}.tick,.axis{font-size:12px;fill:#555}.accuracy{fill:#9db8d6}
.over{fill:#d9705b;opacity:.6}.under{fill:#5ba37a;opacity:.6}.level{stroke:#1f4e79;stroke-width:2}
.guide{stroke:#777;stroke-dasharray:4 4;fill:none}.share{fill:#b9b9c4}
"""


def comparison_table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Methods as rows of plain text, figures as columns.

    Args:
        figures: by method, as `Comparison.figures` gives them.
    """
    rows = [["method", *COLUMNS.values()]]
    rows += [[name, *(_cell(row, key) for key in COLUMNS)] for name, row in figures.items()]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))])
        for row in rows
    ]
    return "\n".join(lines)


def write_calibration_report(found: Calibration, path: str | Path) -> None:
    """Write one self-contained HTML page: figures, and diagrams before and after, by class too.

    Args:
        found: what `calibrate` gave.
        path: the file, written atomically.

    Raises:
        DataError: where the file cannot be written.
    """
    comparison, taken = found.comparison, found.method
    parts = [
        Markup("<!doctype html><html lang=en><meta charset=utf-8><title>Calibration</title>"),
        Markup("<style>{}</style><h1>Calibration: {}</h1>").format(Markup(_STYLE), taken),
        *(Markup("<p>{}</p>").format(note) for note in found.notes),
        _table({name: comparison.figures(name) for name in comparison.names}, taken),
        Markup(
            "<p>Fitted on one part of the images, measured on the other. ECE is pooled, with 15 "
            "bins, unless it says otherwise, with its 95 % interval over images; bars reach from "
            "accuracy to confidence.</p>"
            "<h2>All classes</h2>"
        ),
        _before_and_after(found, None),
        Markup("<h2>By predicted class</h2>"),
    ]
    assert comparison.classwise is not None
    names = found.calibrator.origin.class_names
    for label in range(comparison.classwise.shape[1]):
        if comparison.classwise[0, label].any():
            title = names[label] if label < len(names) else f"class {label}"
            parts += [Markup("<h3>{}</h3>").format(title), _before_and_after(found, label)]
    write_atomically(path, Markup("\n").join(parts).encode("utf-8", "backslashreplace"))


def _before_and_after(found: Calibration, label: int | None) -> Markup:
    drawn = [
        Markup("<figure><figcaption>{}</figcaption>{}</figure>").format(
            title, reliability_chart(found.comparison.diagram(name, label=label))
        )
        for title, name in (("before", "identity"), ("after", found.method))
    ]
    return Markup('<div class="pair">{}</div>').format(Markup("").join(drawn))


def _table(figures: Mapping[str, Mapping[str, Any]], taken: str) -> Markup:
    head = Markup("").join(Markup("<th>{}").format(title) for title in ("", *COLUMNS.values()))
    rows = [
        Markup("<tr{}><td>{}{}").format(
            Markup(' class="taken"') if name == taken else "",
            name,
            Markup("").join(Markup("<td>{}").format(_cell(row, key)) for key in COLUMNS),
        )
        for name, row in figures.items()
    ]
    return Markup("<table><tr>{}{}</table>").format(head, Markup("").join(rows))


def _cell(row: Mapping[str, Any], key: str) -> str:
    """A figure; the ECE with its interval."""
    ends = row.get(f"{key}_interval") if key == "ece" else None
    return _number(row.get(key)) + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-"
