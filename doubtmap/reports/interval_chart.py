"""One paired difference as a dot with its interval and the line of no difference."""

from __future__ import annotations

from markupsafe import Markup

from doubtmap.reports.chart import drawing
from doubtmap.reports.digits import digits

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
