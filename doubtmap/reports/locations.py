"""Class means at distant places as files: `locations.json` and a matrix, `locations.svg`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from markupsafe import Markup

from doubtmap.atomic import write_atomically
from doubtmap.metrics.locations import LocationFigures
from doubtmap.reports.chart import drawing
from doubtmap.version import __version__

SVG = "http://www.w3.org/2000/svg"
CELL, MARGIN = 46, 116
STYLE = Markup(
    "<style>text{font:12px system-ui,sans-serif;fill:#1c2733}.head{font-weight:600;font-size:14px}"
    ".faint{fill:#66717d}.light{fill:#fff}.own{fill:none;stroke:#d1495b;stroke-width:2}</style>"
)


def write_locations(
    figures: LocationFigures, class_names: tuple[str, ...], out: Path, command: str = ""
) -> str:
    """Write figures and picture.

    Args:
        figures: as `doubtmap.engine.locate` gives them.
        class_names: one for each class.
        out: folder.
        command: what to write as their origin.

    Returns:
        A sentence with the figures.

    Raises:
        DataError: where the folder cannot be written.
    """
    names = class_names or tuple(str(number) for number in range(len(figures.distances)))
    content = {
        "doubtmap": __version__,
        "command": command,
        "classes": list(names),
        "same": figures.same,
        "other": figures.other,
        "ratio": figures.ratio,
        "nearest_is_same": figures.nearest_is_same,
        "distances": [
            [float(value) if np.isfinite(value) else None for value in row]
            for row in figures.distances
        ],
    }
    write_atomically(out / "locations.json", json.dumps(content, indent=1).encode())
    picture = str(matrix(figures, names)).replace("<svg", f'<svg xmlns="{SVG}"', 1)
    write_atomically(out / "locations.svg", picture.encode())
    verdict = (
        "the class tells more than the place"
        if figures.ratio < 1
        else (
            "the place tells more than the class, so one Gaussian for each class is not sound here"
        )
    )
    return (
        f"Between distant places, means of one class lie {figures.same:.3g} apart, of different "
        f"classes {figures.other:.3g} (ratio {figures.ratio:.2f}); the nearest mean is the same "
        f"class's in {figures.nearest_is_same:.0%}: {verdict}. See {out / 'locations.svg'}."
    )


def matrix(figures: LocationFigures, names: tuple[str, ...]) -> Markup:
    """Mean distance of each class here to each class far away, darker is nearer."""
    side = MARGIN + CELL * len(names)
    values = figures.distances
    low, high = np.nanmin(values), np.nanmax(values)
    parts = [STYLE, Markup('<rect width="100%" height="100%" fill="#fff"/>')]
    parts.append(
        Markup('<text class="head" x="12" y="24">Distance of class means at distant places</text>')
    )
    parts.append(
        Markup(
            '<text class="faint" x="12" y="42">same class {:.3g}, other classes {:.3g}</text>'
        ).format(figures.same, figures.other)
    )
    for row, name in enumerate(names):
        middle = MARGIN + CELL * row + CELL / 2
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(
                MARGIN - 8, middle + 4, name
            )
        )
        parts.append(
            Markup('<text transform="translate({} {}) rotate(-40)">{}</text>').format(
                middle - 2, MARGIN - 8, name
            )
        )
        for column in range(len(names)):
            parts.append(_cell(row, column, values[row, column], float(low), float(high)))
    return drawing(side + 60, side + 14, "Distances between class means", *parts)


def _cell(row: int, column: int, value: float, low: float, high: float) -> Markup:
    x, y = MARGIN + CELL * column, MARGIN + CELL * row
    if not np.isfinite(value):
        return Markup('<rect x="{}" y="{}" width="{}" height="{}" fill="#eee"/>').format(
            x, y, CELL - 2, CELL - 2
        )
    near = 1 - (value - low) / (high - low) if high > low else 1.0
    red, green, blue = (round(250 - near * (250 - end)) for end in (18, 66, 110))
    own = Markup('<rect class="own" x="{}" y="{}" width="{}" height="{}"/>').format(
        x + 1, y + 1, CELL - 4, CELL - 4
    )
    return Markup(
        '<rect x="{x}" y="{y}" width="{s}" height="{s}" fill="rgb({r},{g},{b})"/>'
        '<text class="{css}" x="{cx}" y="{cy}" text-anchor="middle">{value:.3g}</text>'
    ).format(
        x=x,
        y=y,
        s=CELL - 2,
        r=red,
        g=green,
        b=blue,
        css="light" if near > 0.5 else "",
        cx=x + CELL / 2 - 1,
        cy=y + CELL / 2 + 3,
        value=value,
    ) + (own if row == column else Markup(""))
