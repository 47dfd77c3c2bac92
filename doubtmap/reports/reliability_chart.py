"""The reliability diagram: accuracy against confidence, and how many pixels each bin holds.

Reference:
    On Calibration of Modern Neural Networks (Guo et al., 2017), https://arxiv.org/abs/1706.04599
"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from doubtmap.reports.catalogue import number
from doubtmap.reports.chart import Plane, drawing, tick_text, titled
from doubtmap.reports.digits import digits

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
