"""The analyses of calibration as a table and one HTML page with charts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from doubtmap.atomic import write_atomically
from doubtmap.reports.chart import Plane, drawing, rounded_up, titled
from doubtmap.reports.line_chart import Curve, line_chart

COLUMNS = {
    "ece": "ECE",
    "ece_10_bins": "10 bins",
    "ece_per_image": "per image",
    "ece_right": "right pixels",
    "ece_wrong": "wrong pixels",
    "miou": "mIoU",
    "accuracy": "accuracy",
}
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em;color:#222226;
background:#fff}table{border-collapse:collapse}td,th{padding:.25em .7em;text-align:right}
td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}
.grid{stroke:#ddd;fill:none}.tick,.axis{font-size:12px;fill:#555}.line{fill:none;stroke:#1f4e79;
stroke-width:2}.hit{fill:none;stroke:transparent;stroke-width:9}.hue1 .line{stroke:#c0392b}
.point{fill:#1f4e79}.name{font-size:12px;fill:#222226}
"""


def analysis_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Segmenters as rows of plain text, figures as columns.

    Args:
        rows: as `doubtmap.engine.analyses.analyse` gives them.
    """
    lines = [["", *COLUMNS.values()]]
    lines += [[name, *(_number(row.get(key)) for key in COLUMNS)] for name, row in rows.items()]
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:]))])
        for line in lines
    )


def write_analysis(kind: str, rows: Mapping[str, Mapping[str, Any]], path: str | Path) -> None:
    """Write one self-contained HTML page.

    Args:
        kind: one of `doubtmap.engine.analyses.ANALYSES`.
        rows: as `analyse` gives them.
        path: the file, written atomically.

    Raises:
        DataError: where the file cannot be written.
    """
    head = Markup("").join(Markup("<th>{}").format(title) for title in ("", *COLUMNS.values()))
    body = [
        Markup("<tr><td>{}{}").format(
            name,
            Markup("").join(Markup("<td>{}").format(_number(row.get(key))) for key in COLUMNS),
        )
        for name, row in rows.items()
    ]
    charts = [_confidence_chart(name, row) for name, row in rows.items()]
    page = Markup("\n").join(
        [
            Markup("<!doctype html><html lang=en><meta charset=utf-8><title>{0}</title>").format(
                f"Calibration and {kind}"
            ),
            Markup("<style>{}</style><h1>Calibration and {}</h1>").format(Markup(_STYLE), kind),
            Markup("<table><tr>{}{}</table>").format(head, Markup("").join(body)),
            Markup("<h2>ECE against mIoU</h2>{}").format(_plane_chart(rows)),
            Markup("<h2>Confidence of right pixels (blue) and wrong ones (red)</h2>"),
            *charts,
        ]
    )
    write_atomically(path, page.encode("utf-8", "backslashreplace"))


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
        curves.append(Curve(key, key.replace("_", " of "), np.stack([places, share], 1), style))
    top = rounded_up(max(float(curve.points[:, 1].max()) for curve in curves))
    plane = Plane("confidence", "share", (0.0, 1.0), (0.0, top), height=240)
    return Markup("<h3>{}</h3>{}").format(name, line_chart(plane, curves, f"Confidence, {name}"))


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-"
