"""The reliability diagram of things: how often what is said to be likely came true."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from doubtmap.reports.charts import Plane, drawing, guide, titled
from doubtmap.reports.digits import digits

RADIUS = 9.0
"""Of the point of the bin that holds most things, in units of the drawing."""


def event_chart(rows: Sequence[Sequence[float]], event: str, things: str) -> Markup:
    """Points with whiskers beside the diagonal; the larger, the more things.

    Args:
        rows: by bin the mean probability, the share that came true, both ends of its interval, and
            how many things; an interval of NaN is not drawn.
        event: what came true, such as `unknown`.
        things: what they are, such as `objects`.
    """
    plane = Plane(f"P({event})", f"share of {things} that is {event}", width=460, height=360)
    most = max((row[4] for row in rows), default=0)
    diagonal = guide(plane, np.array([[0.0, 0.0], [1.0, 1.0]]), "perfectly calibrated")
    points = [_point(plane, row, most, things) for row in rows]
    label = f"Reliability diagram: share of {things} that is {event}, by probability"
    return drawing(plane.width, plane.height, label, plane.ground(), diagonal, *points)


def _point(plane: Plane, row: Sequence[float], most: float, things: str) -> Markup:
    said, true, low, high, count = row
    x, y = plane.x(said), plane.y(true)
    known = math.isfinite(low)
    ends = f" [{digits(low)}, {digits(high)}]" if known else ""
    title = f"said {digits(said)}, came true {digits(true)}{ends}, {count:.0f} {things}"
    whisker = Markup("")
    if known:
        whisker = Markup('<path class="whisker" d="M{0:.1f} {1:.1f}V{2:.1f}"/>').format(
            x, plane.y(low), plane.y(high)
        )
    radius = max(2.0, RADIUS * math.sqrt(count / most))
    dot = Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"/>').format(x, y, radius)
    return titled("g", title, "bin", "", whisker + dot)
