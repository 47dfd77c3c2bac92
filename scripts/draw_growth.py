"""Draw the four plots of `docs/speed.md` from `benchmarks/results/growth.json`.

python scripts/draw_growth.py
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from drawing import HUES, RESULTS, legend, write
from markupsafe import Markup

from doubtmap.reports.charts import Curve, Plane, line_chart, rounded_up

PLOTS = {
    "images": ("images, as a power of ten", {"peak_megabytes": ("peak memory, MB", 1.0)}),
    "pixels": (
        "pixels, as a power of ten",
        {"nanoseconds_per_pixel": ("nanoseconds a pixel", 1.0)},
    ),
    "classes": ("classes", {"seconds": ("ms a frame of 512 x 1024", 1000.0)}),
    "scores": ("scores", {"seconds": ("ms a frame of 1024 x 2048", 1000.0)}),
}
"""By axis: its label, and the figures shown with their label and factor."""
POWERS = ("images", "pixels")


def plot(axis: str, rows: list[dict[str, Any]]) -> Markup:
    """One figure over one axis, from 0."""
    x_label, figures = PLOTS[axis]
    ((key, (y_label, factor)),) = figures.items()
    xs = [math.log10(row[axis]) if axis in POWERS else float(row[axis]) for row in rows]
    ys = [factor * row[key] for row in rows]
    low = math.floor(min(xs)) if axis in POWERS else 0.0
    high = math.ceil(max(xs)) if axis in POWERS else max(xs)
    plane = Plane(x_label, y_label, (low, high), (0.0, rounded_up(max(ys))), 440, 260)
    curve = Curve(axis, y_label, np.column_stack([xs, ys]), 0, True)
    dots = Markup("").join(
        Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3" fill="{}"/>').format(
            plane.x(x), plane.y(y), HUES[0]
        )
        for x, y in zip(xs, ys)
    )
    texts = [(f"{ys[-1]:.3g} at {rows[-1][axis]:,} {axis}", HUES[0])]
    free = plane.height - plane.bottom - 12 if ys[0] > max(ys) / 2 else plane.top + 18
    place = legend(texts, 84, free)
    return line_chart(plane, [curve], f"{y_label}, by {axis}", dots + place)


def main() -> None:
    """Draw all."""
    rows = json.loads((RESULTS / "growth.json").read_text())["rows"]
    for axis in PLOTS:
        write(f"growth_{axis}.svg", plot(axis, [row for row in rows if row["name"] == axis]))


if __name__ == "__main__":
    main()
