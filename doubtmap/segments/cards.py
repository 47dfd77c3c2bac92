"""Images to look at as HTML: the doubt laid over them, and crops around their suspects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from doubtmap.reports.charts import ChartLine, Plane, guide, line_chart
from doubtmap.reports.overlay import overlay
from doubtmap.reports.pictures import photograph
from doubtmap.segments.look_first import LookFirst
from doubtmap.segments.review import Card, Suspect

CROP = 160
"""Smallest side of the surroundings that are shown of a segment, in pixels."""


OUTLINE = (255, 220, 60)


def look_first_part(found: LookFirst) -> Markup:
    """The section of a report: what a review without labels would have found, and its images."""
    figures = found.figures
    text = Markup(
        "<p>The images with the largest expected share of wrong pixels, found without their "
        "labels. Looking at images in this order finds mistakes as the blue curve shows: its area "
        "is {:.3f}, of the best order (orange) {:.3f}, of a random one (dashed) 0.5. The expected "
        "share of wrong pixels is off by {:.3f} an image, the expected mIoU by {:.3f} (mean "
        "absolute errors). The glow "
        "is 1 - expected IoU of the predicted segment; beside it the segments that are more likely "
        "than not to touch nothing of the class that they claim.</p>"
    ).format(*(figures[k] for k in ("found_area", "found_area_oracle", "wrong_mae", "miou_mae")))
    cards = [card_part(rank, card) for rank, card in enumerate(found.cards, 1)]
    return Markup("\n").join([text, found_chart(found.curves), *cards])


def found_chart(curves: Mapping[str, Sequence[float]]) -> Markup:
    """Share of all mistakes found against the share of images looked at.

    Args:
        curves: as `LookFirst.curves`, any number of them.
    """
    plane = Plane("share of images looked at", "share of all wrong pixels found")
    drawn = [
        ChartLine(name, name, np.column_stack([np.linspace(0, 1, len(ys)), ys]), style, style == 0)
        for style, (name, ys) in enumerate(curves.items())
    ]
    random = guide(plane, np.array([[0.0, 0.0], [1.0, 1.0]]), "random order")
    return line_chart(plane, drawn, "Mistakes found by images looked at", random)


def card_part(rank: int, card: Card) -> Markup:
    """One image: its doubt, what is expected of it, and crops around its suspects.

    Args:
        rank: from 1.
        card: the image.
    """
    crops = Markup("").join(_crop(suspect, card) for suspect in card.suspects)
    none = Markup("<p class=none>No segment is more likely wrong than right.</p>")
    whole = photograph(overlay(card.image, card.doubt, (0.3, 1.0), opacity=0.6))
    true = Markup("") if card.wrong is None else Markup("; in truth <b>{:.1%}</b>")
    return Markup(
        '<section><h3>{}. {}</h3><div class=card><figure class=whole><img alt="" src="{}">'
        "<figcaption>expected: {}<b>{:.1%}</b> of pixels wrong{}</figcaption>"
        "</figure><div class=crops>{}</div></div></section>"
    ).format(
        rank,
        card.name,
        whole,
        _miou(card),
        card.expected_wrong,
        true.format(card.wrong),
        crops or none,
    )


def _miou(card: Card) -> Markup:
    """The expected mIoU with its known error; nothing where it is not told."""
    if card.expected_miou is None:
        return Markup("")
    error = Markup("") if card.miou_error is None else Markup(" ± {:.2f}").format(card.miou_error)
    return Markup("mIoU <b>{:.2f}</b>{}, ").format(card.expected_miou, error)


def outlined(suspect: Suspect, card: Card) -> NDArray[np.uint8]:
    """`(h, w, 3)`, the segment in its surroundings, with a line around it."""
    left, top, width, height = suspect.box
    place = tuple(
        slice(max(0, start - gap), min(limit, start + length + gap))
        for start, length, limit in zip((top, left), (height, width), card.labels.shape)
        for gap in [max(12, (CROP - length) // 2)]
    )
    crop = card.image[place].copy()
    crop[outline(card.labels[place] == suspect.segment)] = OUTLINE
    return crop


def _crop(suspect: Suspect, card: Card) -> Markup:
    left, top, width, height = suspect.box
    return Markup(
        '<figure class=crop><img alt="" src="{}"><figcaption><b>{}?</b> {} x {} px at {}, {}; '
        "touches any with probability {:.2f}, expected IoU {:.2f}</figcaption></figure>"
    ).format(
        photograph(outlined(suspect, card)),
        suspect.class_name,
        width,
        height,
        left,
        top,
        suspect.probability,
        suspect.expected_iou,
    )


def outline(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`(H, W)` bool: the pixels just outside of a mask."""
    grown = np.pad(inside, 1)
    grown = grown[:-2, 1:-1] | grown[2:, 1:-1] | grown[1:-1, :-2] | grown[1:-1, 2:]
    return np.asarray(grown & ~inside)
