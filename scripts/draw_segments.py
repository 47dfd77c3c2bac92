"""Draw the curves and bars of `docs/segments.md` from `benchmarks/results/segments.json`.

python scripts/draw_segments.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from doubtmap.reports.chart import Plane, drawing
from doubtmap.reports.line_chart import Curve, guide, line_chart

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
HUES = ("#0068a8", "#c44a00", "#007a56", "#a8327d", "#2f8fc0", "#9a7200", "#3c3c44")
STYLE = Markup(
    "<style>svg{font:12px system-ui,sans-serif;background:#fff}.grid{stroke:#e9e6e0;fill:none}"
    ".tick{fill:#5c5b60;font-size:11.5px}.axis{fill:#1d1d21;font-size:12.5px}.hit{display:none}"
    ".guide{stroke:#5c5b60;fill:none;stroke-dasharray:4 4}.line{fill:none;stroke-width:1.8}"
    ".best .line{stroke-width:2.8}.bar{fill:#0068a8}.text{fill:#1d1d21;font-size:12px}"
    + "".join(f".hue{k} .line{{stroke:{hue}}}" for k, hue in enumerate(HUES))
    + "</style>"
)


def found_chart(rows: list[dict[str, Any]], name: str) -> Markup:
    """Share of mistakes found against share of images looked at."""
    plane = Plane("share of images looked at", "share of all wrong pixels found")
    kept = [r for r in rows if r["set"] == name and "found_curve" in r]
    order = [r for r in kept if r["name"] in ("review", "mean max_softmax", "oracle")]
    curves, legend = [], []
    for style, row in enumerate(order):
        points = np.column_stack([np.linspace(0, 1, len(row["found_curve"])), row["found_curve"]])
        curves.append(Curve(row["name"], row["name"], points, style, style == 0))
        legend.append((f"{row['name']} ({row['found_area']:.3f})", HUES[style]))
    legend.append(("random order (0.5)", "#5c5b60"))
    texts = [
        Markup('<text class="text" style="fill:{}" x="330" y="{}">{}</text>').format(
            colour, 250 + 17 * at, text
        )
        for at, (text, colour) in enumerate(legend)
    ]
    chance = guide(plane, np.array([[0.0, 0.0], [1.0, 1.0]]), "random order")
    return line_chart(plane, curves, f"Mistakes found, {name}", chance + Markup("").join(texts))


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


def write(name: str, chart: Markup) -> None:
    """A file of its own: with namespace and style."""
    text = str(chart).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    start = text.index(">") + 1
    (PICTURES / name).write_text(text[:start] + str(STYLE) + text[start:] + "\n")


def main() -> None:
    """Draw all."""
    rows = json.loads((ROOT / "benchmarks" / "results" / "segments.json").read_text())["rows"]
    images = [row for row in rows if row["stage"] == "images"]
    write("segments_found.svg", found_chart(images, "camvid test"))
    for row in rows:
        if row["stage"] == "importance":
            write(f"segments_{row['name']}.svg", bars(row))


if __name__ == "__main__":
    main()
