"""The ground of a chart in SVG: a plot area, ticks, grid lines and labels.

Colours are CSS classes of `report.html`, so that one drawing serves light, dark and print.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from doubtmap.reports.digits import MINUS

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
