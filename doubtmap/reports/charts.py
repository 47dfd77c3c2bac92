"""Charts in SVG: their ground, and what is drawn on it.

A `Plane` is a plot area with ticks, grid lines and labels. On it are drawn curves, one line for
each score, told apart by hue and dash; the reliability diagram, accuracy against confidence with
how many pixels each bin holds; and a paired difference as a dot with its interval and the line of
no difference. Colours are CSS classes of `chart.css`, so that one drawing serves light, dark and
print.

Reference:
    On Calibration of Modern Neural Networks (Guo et al., 2017), https://arxiv.org/abs/1706.04599
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from doubtmap.reports.corners import departures
from doubtmap.reports.digits import MINUS, digits, number

NOTHING = Markup("")


Place = TypeVar("Place", float, NDArray[np.float64])


@dataclass(frozen=True)
class Plane:
    """A plot area and the data range that it shows.

    Args:
        x_label: what the horizontal axis is.
        y_label: what the vertical axis is.
        x_range: data at the left and right border.
        y_range: data at the bottom and top border.
        width: of the whole drawing.
        height: of the whole drawing.
        top: space above the plot area.
    """

    x_label: str
    y_label: str
    x_range: tuple[float, float] = (0.0, 1.0)
    y_range: tuple[float, float] = (0.0, 1.0)
    width: int = 580
    height: int = 360
    top: int = 10
    left: int = 72
    right: int = 14
    bottom: int = 44

    def x(self, value: Place) -> Place:
        """Horizontal position of a value."""
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.width - self.left - self.right)

    def y(self, value: Place) -> Place:
        """Vertical position of a value."""
        low, high = self.y_range
        return self.height - self.bottom - (value - low) / (high - low) * self.inner_height

    @property
    def inner_height(self) -> int:
        """Height of the plot area."""
        return self.height - self.top - self.bottom

    def ground(self) -> Markup:
        """Grid, ticks and labels."""
        parts = [self._column(value) for value in ticks(*self.x_range)]
        parts += [self._row(value) for value in ticks(*self.y_range)]
        middle = (self.left + self.width - self.right) / 2
        parts.append(
            Markup('<text class="axis" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                middle, self.height - 6, self.x_label
            )
        )
        turned = self.top + self.inner_height / 2
        parts.append(
            Markup(
                '<text class="axis" transform="translate(12 {:.1f}) rotate(-90)" '
                'text-anchor="middle">{}</text>'
            ).format(turned, self.y_label)
        )
        return Markup("").join(parts)

    def _column(self, value: float) -> Markup:
        x, foot = self.x(value), self.height - self.bottom
        return Markup(
            '<path class="grid" d="M{0:.1f} {1}V{2}"/>'
            '<text class="tick" x="{0:.1f}" y="{3}" text-anchor="middle">{4}</text>'
        ).format(x, self.top, foot, foot + 16, tick_text(value))

    def _row(self, value: float) -> Markup:
        y = self.y(value)
        return Markup(
            '<path class="grid" d="M{0} {1:.1f}H{2}"/>'
            '<text class="tick" x="{3}" y="{4:.1f}" text-anchor="end">{5}</text>'
        ).format(self.left, y, self.width - self.right, self.left - 7, y + 4, tick_text(value))


def drawing(width: int, height: int, label: str, *content: Markup) -> Markup:
    """An `<svg>` that scales with its column and says to screen readers what it shows."""
    return Markup(
        '<svg viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img" aria-label="{2}">{3}</svg>'
    ).format(width, height, label, Markup("").join(content))


def titled(tag: str, title: str, css: str, attributes: str, content: Markup = NOTHING) -> Markup:
    """An SVG element with a hover title."""
    return (
        Markup(f'<{tag} class="{css}" {attributes}><title>{escape(title)}</title>')
        + content
        + (Markup(f"</{tag}>"))
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two ends.

    Example:
        >>> ticks(0, 1)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    step = _step(high - low, about)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) + 0.0 for k in range(first, last + 1)]


def tick_text(value: float) -> str:
    """A tick's number without trailing zeros."""
    return f"{value:.6g}".replace("-", MINUS)


def rounded_up(value: float) -> float:
    """The next tick, for the upper end of an axis that starts at 0.

    Example:
        >>> [rounded_up(x) for x in (0.107, 0.61, 7.2)]
        [0.125, 0.7, 8.0]
    """
    if value <= 0:
        return 1.0
    end = value
    # twice, for the step of the longer axis may be another
    for _ in range(2):
        step = _step(end, 5)
        end = math.ceil(value / step - 1e-9) * step
    return round(end, 12)


def _step(span: float, about: int) -> float:
    rough = span / about
    power = 10.0 ** math.floor(math.log10(rough))
    return min((1, 2, 2.5, 5, 10), key=lambda m: abs(math.log(m * power / rough))) * power


_WIDTH, _HEIGHT, _BORDER = 220, 22, 8


def interval_chart(value: float, ends: tuple[float, float] | None, reach: float) -> Markup:
    """Draw a difference.

    Args:
        value: the difference.
        ends: its interval, None where there is none.
        reach: difference at the right border; minus that at the left.
    """
    middle, half = _WIDTH / 2, _WIDTH / 2 - _BORDER

    def x(place: float) -> float:
        return middle + max(-1.0, min(1.0, place / reach)) * half

    parts = [Markup('<path class="guide" d="M{} 1V{}"/>').format(middle, _HEIGHT - 1)]
    if ends:
        parts.append(
            Markup('<path class="whisker" d="M{:.1f} {}H{:.1f}"/>').format(
                x(ends[0]), _HEIGHT // 2, x(ends[1])
            )
        )
    parts.append(
        Markup('<circle class="dot" cx="{:.1f}" cy="{}" r="3.6"/>').format(x(value), _HEIGHT // 2)
    )
    return drawing(_WIDTH, _HEIGHT, f"difference {digits(value)}", *parts)


_DIAGRAM = Plane("", "accuracy", width=460, height=330, bottom=22)


_SHARES_HEIGHT = 120


def reliability_chart(reliability: Any) -> Markup:
    """Draw the diagram; empty where there are no bins.

    Args:
        reliability: `{confidence, accuracy, share}`, one entry for each bin of equal width.
    """
    rows = _bins(reliability)
    if not any(confidence is not None for confidence, _, _ in rows):
        return Markup("")
    width = 1 / len(rows)
    bars = [_bar(index * width, width, *row) for index, row in enumerate(rows)]
    diagonal = titled(
        "path",
        "perfectly calibrated",
        "guide",
        f'd="M{_DIAGRAM.x(0)} {_DIAGRAM.y(0)}L{_DIAGRAM.x(1)} {_DIAGRAM.y(1)}"',
    )
    label = "Reliability diagram: accuracy of the pixels of each confidence bin"
    return drawing(
        _DIAGRAM.width,
        _DIAGRAM.height + _SHARES_HEIGHT,
        label,
        _DIAGRAM.ground(),
        *bars,
        diagonal,
        _shares(rows),
    )


def _bins(reliability: Any) -> list[tuple[float | None, float | None, float | None]]:
    if not isinstance(reliability, dict):
        return []
    columns = [reliability.get(key) for key in ("confidence", "accuracy", "share")]
    lists = [list(column) if column is not None else [] for column in columns]
    length = max(map(len, lists))
    filled = [[*map(number, column), *[None] * (length - len(column))] for column in lists]
    return list(zip(*filled))


def _bar(
    left: float,
    width: float,
    confidence: float | None,
    accuracy: float | None,
    share: float | None,
) -> Markup:
    if confidence is None or accuracy is None:
        return Markup("")
    p = _DIAGRAM
    x, w = p.x(left) + 1, p.x(left + width) - p.x(left) - 2
    low, high = sorted((confidence, accuracy))
    title = f"confidence {digits(confidence)}, accuracy {digits(accuracy)}, share {digits(share)}"
    side = "over" if confidence > accuracy else "under"
    parts = [
        Markup(
            '<rect class="accuracy" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
        ).format(x, p.y(accuracy), w, p.y(0) - p.y(accuracy)),
        Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
            side, x, p.y(high), w, p.y(low) - p.y(high)
        ),
        Markup('<path class="level" d="M{:.1f} {:.1f}h{:.1f}"/>').format(x, p.y(accuracy), w),
    ]
    return titled("g", title, "bin", "", Markup("").join(parts))


def _shares(rows: list[tuple[float | None, float | None, float | None]]) -> Markup:
    top = max((share or 0.0 for _, _, share in rows), default=0.0) or 1.0
    plane = Plane(
        "confidence",
        "share",
        y_range=(0, top),
        width=460,
        height=_DIAGRAM.height + _SHARES_HEIGHT,
        top=_DIAGRAM.height + 8,
    )
    width = 1 / len(rows)
    parts = [_DIAGRAM_FOOT.format(plane.left, plane.y(0), plane.width - plane.right)]
    for value in (0.0, top):
        parts.append(
            Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                plane.left - 7, plane.y(value) + 4, tick_text(round(value, 2))
            )
        )
    for index, (_, _, share) in enumerate(rows):
        x, w = plane.x(index * width) + 1, plane.x(width) - plane.x(0) - 2
        height = (share or 0.0) / top * plane.inner_height
        place = f'x="{x:.1f}" y="{plane.y(0) - height:.1f}" width="{w:.1f}" height="{height:.1f}"'
        title = f"{100 * (share or 0.0):.3g} % of the pixels"
        parts.append(titled("rect", title, "share", place))
    middle = (plane.left + plane.width - plane.right) / 2
    foot = plane.y(0)
    parts += [
        Markup(
            '<text class="axis" x="{:.1f}" y="{:.1f}" text-anchor="middle">confidence</text>'
        ).format(middle, foot + 22),
        Markup(
            '<text class="axis" transform="translate(12 {:.1f}) rotate(-90)" '
            'text-anchor="middle">share</text>'
        ).format(foot - plane.inner_height / 2),
    ]
    return Markup("").join(parts)


_DIAGRAM_FOOT = Markup('<path class="grid" d="M{0} {1:.1f}H{2}"/>')


HUES = 7


DASHES = 3


@dataclass(frozen=True, eq=False)
class ChartLine:
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
    plane: Plane, curves: Sequence[ChartLine], label: str, behind: Markup = NOTHING
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


def _line(plane: Plane, curve: ChartLine) -> Markup:
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
    """Leave out points that a line through the others passes within `tolerance`."""
    if len(points) < 3:
        return points
    moved = np.concatenate([[True], (np.diff(points, axis=0) != 0).any(1)])
    points = points[moved]
    ends = np.array(sorted({0, len(points) - 1}))
    return points[departures(points, ends, tolerance) > tolerance]
