"""Curves in SVG: one line for each score, told apart by hue and dash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from doubtmap.reports.chart import NOTHING, Plane, drawing, titled

HUES = 7
DASHES = 3


@dataclass(frozen=True, eq=False)
class Curve:
    """One line.

    Args:
        name: whose.
        title: shown on hover.
        points: `(N, 2)`, finite.
        style: the score's number; the same in all charts.
        best: drawn last and heavier.
    """

    name: str
    title: str
    points: NDArray[np.float64]
    style: int
    best: bool = False


def line_chart(
    plane: Plane, curves: Sequence[Curve], label: str, behind: Markup = NOTHING
) -> Markup:
    """Draw curves; `behind` lies between grid and curves."""
    lines = [_line(plane, curve) for curve in sorted(curves, key=lambda curve: curve.best)]
    return drawing(plane.width, plane.height, label, plane.ground(), behind, *lines)


def guide(plane: Plane, points: NDArray[np.float64], title: str) -> Markup:
    """A dashed grey line for comparison, such as chance."""
    return titled("path", title, "guide", f'd="{_path(plane, points)}"')


def style_class(style: int) -> str:
    """CSS classes of a score: seven hues, then the same hues dashed, then dotted."""
    return f"hue{style % HUES} dash{style // HUES % DASHES}"


def points_of(curve: Any, x: str, y: str) -> NDArray[np.float64]:
    """Points `(N, 2)` of a curve; those with a missing end are left out."""
    if not isinstance(curve, dict):
        return np.empty((0, 2))
    xs, ys = _column(curve.get(x)), _column(curve.get(y))
    length = min(len(xs), len(ys))
    points = np.stack([xs[:length], ys[:length]], 1)
    return points[np.isfinite(points).all(1)]


def _column(values: Any) -> NDArray[np.float64]:
    """Numbers as an array, None as NaN; empty for what is no list of numbers."""
    try:
        column = np.array(values, np.float64)
    except (TypeError, ValueError):
        return np.empty(0)
    return column if column.ndim == 1 else np.empty(0)


def _line(plane: Plane, curve: Curve) -> Markup:
    path = _path(plane, curve.points)
    css = f"curve {style_class(curve.style)}" + (" best" if curve.best else "")
    lines = Markup('<path class="hit" d="{0}"/><path class="line" d="{0}"/>').format(path)
    return titled("g", curve.title, css, f'data-style="{curve.style}"', lines)


def _path(plane: Plane, points: NDArray[np.float64]) -> str:
    low, high = plane.y_range
    values = np.clip(points[:, 1], low, high)
    places = np.stack([plane.x(points[:, 0]), plane.y(values)], 1)
    return "M" + "L".join(f"{x:.6g} {y:.6g}" for x, y in _simplified(places.round(1)))


def _simplified(points: NDArray[np.float64], tolerance: float = 0.2) -> NDArray[np.float64]:
    """Leave out points that a line through the others passes within `tolerance`.

    Reference:
        Algorithms for the reduction of the number of points required to represent a digitized
        line or its caricature (Douglas and Peucker, 1973), https://doi.org/10.3138/FM57-6770-U75U-7727
    """
    if len(points) < 3:
        return points
    moved = np.concatenate([[True], (np.diff(points, axis=0) != 0).any(1)])
    points = points[moved]
    keep = np.zeros(len(points), bool)
    keep[[0, -1]] = True
    spans = [(0, len(points) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        distance = _distance(points[first + 1 : last], points[first], points[last])
        farthest = int(distance.argmax())
        if distance[farthest] > tolerance:
            middle = first + 1 + farthest
            keep[middle] = True
            spans += [(first, middle), (middle, last)]
    return points[keep]


def _distance(
    points: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distance of points to the segment from `a` to `b`."""
    along = b - a
    share = np.clip((points - a) @ along / max(float(along @ along), 1e-12), 0, 1)
    result: NDArray[np.float64] = np.linalg.norm(points - a - share[:, None] * along, axis=1)
    return result
