"""Draw the plots of the docs from `benchmarks/results/`, as SVG files of their own.

    python scripts/charts.py

`growth_*.svg` of `docs/measured/speed.md`, `negatives_*.svg` of `docs/measured/nflowjs.md`,
`segments_*.svg` of `docs/measured/segments.md`, `many_*.svg` of `docs/measured/many_machines.md`,
and `selector_*.svg` of `docs/measured/calibration.md`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from doubtmap.reports.charts import ChartLine, Plane, drawing, guide, line_chart, rounded_up

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))
from stages import Row, read  # noqa: E402

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


def write(name: str, chart: Markup) -> None:
    """A file of its own: with namespace and style."""
    text = str(chart).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    start = text.index(">") + 1
    (PICTURES / name).write_text(text[:start] + str(STYLE) + text[start:] + "\n")


def legend(entries: list[tuple[str, str]], x: float, y: float) -> Markup:
    """Texts in their colours, one below the other; `entries` are `(text, colour)`."""
    lines = [
        Markup('<text class="text" style="fill:{}" x="{}" y="{}">{}</text>').format(
            colour, x, y + 17 * at, text
        )
        for at, (text, colour) in enumerate(entries)
    ]
    return Markup("").join(lines)


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


def plot(axis: str, rows: list[Row]) -> Markup:
    """One figure over one axis, from 0."""
    x_label, figures = PLOTS[axis]
    ((key, (y_label, factor)),) = figures.items()
    xs = [math.log10(row[axis]) if axis in POWERS else float(row[axis]) for row in rows]
    ys = [factor * row[key] for row in rows]
    low = math.floor(min(xs)) if axis in POWERS else 0.0
    high = math.ceil(max(xs)) if axis in POWERS else max(xs)
    plane = Plane(x_label, y_label, (low, high), (0.0, rounded_up(max(ys))), 440, 260)
    curve = ChartLine(axis, y_label, np.column_stack([xs, ys]), 0, True)
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


STAGES = ("road", "road, other scores")
SCORE = "divergence"
PLAIN = "plain"
WIDTH, LEFT, GAP, TOP, LINE = 330, 150, 30, 48, 24
"""Of one panel in pixels: its width, room for names, room to the right, above, and a row's."""


def panel(title: str, rows: Sequence[Row], number: int, names: Sequence[str]) -> Markup:
    """One set: for each kind of negatives the divergence's AUPRC, with the plain best as a line.

    Args:
        title: of the set.
        rows: of the set.
        number: of the panel, from the left.
        names: of the networks, top down.
    """
    by_name = {row["name"]: row for row in rows}
    best = max(
        (row for row in rows if row["name"].startswith(f"{PLAIN}: ")),
        key=lambda row: float(row["unknown.auprc"]),
    )
    shown = [(name, by_name[f"{name}: {SCORE}"]) for name in names if f"{name}: {SCORE}" in by_name]
    ends = [(row["unknown.auprc_interval"][1], *row["unknown.auprc_runs"]) for _, row in shown]
    most = 1.05 * max(best["unknown.auprc"], *(value for row in ends for value in row))
    left = LEFT + number * (WIDTH + GAP)

    def x(value: float) -> float:
        return left + WIDTH * value / most

    bottom = TOP + LINE * len(names)
    guide = x(best["unknown.auprc"])
    parts = [
        Markup('<text class="axis" x="{}" y="20">{}</text>').format(left, title),
        Markup('<line class="guide" x1="{0:.1f}" x2="{0:.1f}" y1="30" y2="{1}"/>').format(
            guide, bottom
        ),
    ]
    for value in ticks(most):
        parts.append(
            Markup(
                '<path class="grid" d="M{0:.1f} 34V{1}"/>'
                '<text class="tick" x="{0:.1f}" y="{2}" text-anchor="middle">{3:g}</text>'
            ).format(x(value), bottom, bottom + 16, value)
        )
    for name, row in shown:
        parts.append(line(row, TOP + LINE * names.index(name), x, name == PLAIN))
    return Markup("").join(parts)


def line(row: Row, y: float, x: Any, is_plain: bool) -> Markup:
    """The interval as a bar, the mean as a tick, each network as a dot."""
    low, high = row["unknown.auprc_interval"]
    hue = HUES[6] if is_plain else HUES[0]
    parts = [
        Markup(
            '<path d="M{:.1f} {}H{:.1f}" stroke="{}" stroke-width="5" opacity=".3"/>'
            '<path d="M{:.1f} {}v14" stroke="{}" stroke-width="2"/>'
        ).format(x(low), y, x(high), hue, x(row["unknown.auprc"]), y - 7, hue)
    ]
    parts += [
        Markup('<circle cx="{:.1f}" cy="{}" r="3.2" fill="{}"/>').format(x(value), y, hue)
        for value in row["unknown.auprc_runs"]
    ]
    return Markup("").join(parts)


def ticks(most: float) -> list[float]:
    """Round values from 0 to `most`, four to eight."""
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2) if most / s <= 6)
    return [round(k * step, 2) for k in range(int(most / step) + 1)]


def panels(rows: Sequence[Row], sets: dict[str, str], names: Sequence[str]) -> Markup:
    """Panels side by side, the networks' names on the left."""
    parts = [
        panel(title, [row for row in rows if row["set"] == key], number, names)
        for number, (key, title) in enumerate(sets.items())
    ]
    labels = [
        Markup('<text class="text" x="{}" y="{}" text-anchor="end">{}</text>').format(
            LEFT - 12, TOP + LINE * place + 4, name
        )
        for place, name in enumerate(names)
    ]
    width = LEFT + len(sets) * (WIDTH + GAP)
    height = TOP + LINE * len(names) + 28
    return Markup('<svg viewBox="0 0 {} {}" role="img">{}</svg>').format(
        width, height, Markup("").join([*parts, *labels])
    )


def found_chart(rows: list[Row], name: str) -> Markup:
    """Share of mistakes found against share of images looked at."""
    plane = Plane("share of images looked at", "share of all wrong pixels found")
    kept = [r for r in rows if r["set"] == name and "found_curve" in r]
    order = [r for r in kept if r["name"] in ("review", "mean max_softmax", "oracle")]
    curves, entries = [], []
    for style, row in enumerate(order):
        points = np.column_stack([np.linspace(0, 1, len(row["found_curve"])), row["found_curve"]])
        curves.append(ChartLine(row["name"], row["name"], points, style, style == 0))
        entries.append((f"{row['name']} ({row['found_area']:.3f})", HUES[style]))
    entries.append(("random order (0.5)", "#5c5b60"))
    chance = guide(plane, np.array([[0.0, 0.0], [1.0, 1.0]]), "random order")
    return line_chart(plane, curves, f"Mistakes found, {name}", chance + legend(entries, 330, 250))


def bars(row: Row, most: int = 12) -> Markup:
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


def growth() -> None:
    """One plot for each axis."""
    rows = read("growth")["rows"]
    for axis in PLOTS:
        write(f"growth_{axis}.svg", plot(axis, [row for row in rows if row["name"] == axis]))


def negatives() -> None:
    """CamVid, and the roads elsewhere."""
    road = [row for row in read("nflowjs")["rows"] if row["stage"] in STAGES]
    names = list(dict.fromkeys(row["name"].split(": ")[0] for row in road))
    known = {
        "camvid test": "Pedestrians and bicyclists",
        "camvid test with objects": "Pasted objects",
    }
    far = {"roadanomaly21": "RoadAnomaly21", "fishyscapes static": "Fishyscapes Static"}
    write("negatives_camvid.svg", panels(road, known, names))
    write("negatives_roads.svg", panels(road, far, names))


def segments() -> None:
    """Mistakes found, and what carries the meta models."""
    rows = read("segments")["rows"]
    images = [row for row in rows if row["stage"] == "images"]
    write("segments_found.svg", found_chart(images, "camvid test"))
    for row in rows:
        if row["stage"] == "importance":
            write(f"segments_{row['name']}.svg", bars(row))


def many() -> None:
    """What a part costs the merge, and an image the driver, as they become more."""
    rows = read("many")["rows"]
    merged = [row for row in rows if row["set"] == "merge"]
    lines = {
        of: [(row["parts"], row["seconds_a_part"]) for row in merged if row["of"] == of]
        for of in sorted({row["of"] for row in merged}, reverse=True)
    }
    write("many_merge.svg", costs(lines, "parts", "seconds a part"))
    driven = [(r["images"], 1000 * r["seconds_an_image"]) for r in rows if r["set"] == "driver"]
    write("many_driver.svg", costs({"driver": driven}, "images", "milliseconds an image"))


def costs(lines: dict[str, list[tuple[int, float]]], of: str, label: str) -> Markup:
    """What one costs, as they become more; flat where nothing grows."""
    most = max(value for points in lines.values() for _, value in points)
    last = max(math.log10(count) for points in lines.values() for count, _ in points)
    first = min(math.log10(count) for points in lines.values() for count, _ in points)
    span = math.floor(first), math.ceil(last)
    plane = Plane(f"{of}, as a power of ten", label, span, (0.0, rounded_up(most)), 440, 260)
    curves, entries = [], []
    for at, (name, points) in enumerate(lines.items()):
        values = np.array([(math.log10(count), value) for count, value in points])
        curves.append(ChartLine(name, name, values, at, at == 0))
        entries.append((f"{name}: {points[-1][1]:.3g} at {points[-1][0]:,} {of}", HUES[at]))
    free = plane.top + 18 if len(entries) > 1 else plane.height - plane.bottom - 12
    place = legend(entries, 210, free)
    return line_chart(plane, curves, f"{label}, by {of}", place)


SELECTORS = {
    "accuracy": ("all pixels", "selector_accuracy", "accuracy of the selector", (0.5, 1.0)),
    "found": ("wrong pixels", "selector_recall", "share of the wrong pixels flagged", (0.0, 1.0)),
}
"""By plot: kind of what the selector is told, figure on the axis, its label and its range."""


def selectors() -> None:
    """ECE of selective scaling against how good its selector is."""
    rows = [row for row in read("calibration")["rows"] if row["network"] == "selector"]
    for name in SELECTORS:
        write(f"selector_{name}.svg", told_chart(name, rows))


def told_chart(name: str, rows: list[Row]) -> Markup:
    """Lines of told selectors, dots of the trained one, both networks."""
    kind, key, label, span = SELECTORS[name]
    plane = Plane(label, "ECE", span, (0.0, 0.16), 520, 340)
    curves, entries, dots = [], [], []
    for network in ("camvid9-overconfident", "camvid9"):
        own = {row["name"]: row for row in rows if row["set"] == network}
        for temperature in ("T = 2", "T fitted"):
            told = [row for title, row in own.items() if title.endswith(f", {temperature}")]
            points = [(row[key], row["ece"]) for row in told if row["name"].startswith(kind)]
            if name == "found":  # from none to all, where both kinds meet
                points += [(0.0, own["identity"]["ece"])]
                points += [(1.0, own[f"all pixels 1, {temperature}"]["ece"])]
            at, title = len(curves), f"{network}, {temperature}"
            curves.append(ChartLine(title, title, np.array(sorted(points)), at, False))
            entries.append((title, HUES[at]))
            row = own["selective" if temperature == "T fitted" else "selective(temperature=2)"]
            if name == "accuracy":
                dots.append((row[key], row["ece"], HUES[at]))
    marks = [
        Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4" fill="{}"/>').format(
            plane.x(x), plane.y(y), hue
        )
        for x, y, hue in dots
    ]
    marks.append(legend(entries, plane.left + 14, plane.top + 16))
    return line_chart(plane, curves, f"ECE, by {label}", Markup("").join(marks))


if __name__ == "__main__":
    growth()
    many()
    negatives()
    segments()
    selectors()
