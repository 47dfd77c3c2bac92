"""Draw the curves and bars of `docs/segments.md` from `benchmarks/results/segments.json`.

python scripts/draw_segments.py
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from drawing import HUES, RESULTS, legend, write
from markupsafe import Markup

from doubtmap.reports.charts import Curve, Plane, drawing, guide, line_chart


def found_chart(rows: list[dict[str, Any]], name: str) -> Markup:
    """Share of mistakes found against share of images looked at."""
    plane = Plane("share of images looked at", "share of all wrong pixels found")
    kept = [r for r in rows if r["set"] == name and "found_curve" in r]
    order = [r for r in kept if r["name"] in ("review", "mean max_softmax", "oracle")]
    curves, entries = [], []
    for style, row in enumerate(order):
        points = np.column_stack([np.linspace(0, 1, len(row["found_curve"])), row["found_curve"]])
        curves.append(Curve(row["name"], row["name"], points, style, style == 0))
        entries.append((f"{row['name']} ({row['found_area']:.3f})", HUES[style]))
    entries.append(("random order (0.5)", "#5c5b60"))
    chance = guide(plane, np.array([[0.0, 0.0], [1.0, 1.0]]), "random order")
    return line_chart(plane, curves, f"Mistakes found, {name}", chance + legend(entries, 330, 250))


def bars(row: dict[str, Any], most: int = 12) -> Markup:
    """The features that carry a model, as shares of all gains."""
    items = list(row["features"].items())[:most]
    widest = max(share for _, share in items)
    parts = []
    for at, (name, share) in enumerate(items):
        y = 10 + 22 * at
        parts.append(
            Markup(
                '<text class="text" x="282" y="{}" text-anchor="end">{}</text><rect class="bar" '
                'x="290" y="{}" width="{:.1f}" height="13"/><text class="tick" x="{:.1f}" '
                'y="{}">{:.1%}</text>'
            ).format(
                y + 11, name, y, 280 * share / widest, 296 + 280 * share / widest, y + 11, share
            )
        )
    return drawing(630, 20 + 22 * len(items), f"Features of {row['name']}", *parts)


def main() -> None:
    """Draw all."""
    rows = json.loads((RESULTS / "segments.json").read_text())["rows"]
    images = [row for row in rows if row["stage"] == "images"]
    write("segments_found.svg", found_chart(images, "camvid test"))
    for row in rows:
        if row["stage"] == "importance":
            write(f"segments_{row['name']}.svg", bars(row))


if __name__ == "__main__":
    main()
