"""Draw the plots of `docs/nflowjs.md` from `benchmarks/results/nflowjs.json`.

python scripts/draw_negatives.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from drawing import HUES, RESULTS, write
from markupsafe import Markup

STAGES = ("road", "road, other scores")
SCORE = "divergence"
PLAIN = "plain"
WIDTH, LEFT, GAP, TOP, LINE = 330, 150, 30, 48, 24
"""Of one panel in pixels: its width, room for names, room to the right, above, and a row's."""


def panel(title: str, rows: Sequence[dict[str, Any]], number: int, names: Sequence[str]) -> Markup:
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


def line(row: dict[str, Any], y: float, x: Any, is_plain: bool) -> Markup:
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


def chart(rows: Sequence[dict[str, Any]], sets: dict[str, str], names: Sequence[str]) -> Markup:
    """Panels side by side, the networks' names on the left."""
    panels = [
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
        width, height, Markup("").join([*panels, *labels])
    )


def main() -> None:
    """Draw all."""
    rows = json.loads((RESULTS / "nflowjs.json").read_text())["rows"]
    road = [row for row in rows if row["stage"] in STAGES]
    names = list(dict.fromkeys(row["name"].split(": ")[0] for row in road))
    known = {
        "camvid test": "Pedestrians and bicyclists",
        "camvid test with objects": "Pasted objects",
    }
    far = {"roadanomaly21": "RoadAnomaly21", "fishyscapes static": "Fishyscapes Static"}
    write("negatives_camvid.svg", chart(road, known, names))
    write("negatives_roads.svg", chart(road, far, names))


if __name__ == "__main__":
    main()
