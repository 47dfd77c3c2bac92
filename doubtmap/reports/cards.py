"""Images to look at as HTML: the doubt laid over them, and crops around their suspects."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from doubtmap.engine.review import Card, Suspect
from doubtmap.reports.overlay import overlay
from doubtmap.reports.pictures import photograph

CROP = 160
"""Smallest side of the surroundings that are shown of a segment, in pixels."""
OUTLINE = (255, 220, 60)

CARD_STYLE = """
.card{display:grid;grid-template-columns:minmax(300px,480px) 1fr;gap:16px}
@media(max-width:800px){.card{display:block}}.card figure{margin:0}
.card figcaption{font-size:13px;line-height:1.35;margin-top:3px;opacity:.8}
.whole img{width:100%}.crops{display:grid;gap:12px;align-content:start;
grid-template-columns:repeat(auto-fill,minmax(190px,1fr))}.crop img{height:130px;max-width:100%;
object-fit:contain;object-position:left}.card b{font-weight:600}
.card img{border-radius:3px;display:block}.none{opacity:.8}
"""


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
        "<figcaption>expected: mIoU <b>{:.2f}</b>, <b>{:.1%}</b> of pixels wrong{}</figcaption>"
        "</figure><div class=crops>{}</div></div></section>"
    ).format(
        rank,
        card.name.rsplit("/", 1)[-1],
        whole,
        card.expected_miou,
        card.expected_wrong,
        true.format(card.wrong),
        crops or none,
    )


def _crop(suspect: Suspect, card: Card) -> Markup:
    left, top, width, height = suspect.box
    place = tuple(
        slice(max(0, start - gap), min(limit, start + length + gap))
        for start, length, limit in zip((top, left), (height, width), card.labels.shape)
        for gap in [max(12, (CROP - length) // 2)]
    )
    crop = card.image[place].copy()
    crop[_outline(card.labels[place] == suspect.segment)] = OUTLINE
    return Markup(
        '<figure class=crop><img alt="" src="{}"><figcaption><b>{}?</b> {} x {} px at {}, {}; '
        "touches any with probability {:.2f}, expected IoU {:.2f}</figcaption></figure>"
    ).format(
        photograph(crop),
        suspect.class_name,
        width,
        height,
        left,
        top,
        suspect.probability,
        suspect.expected_iou,
    )


def _outline(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels just outside of a mask."""
    grown = np.pad(inside, 1)
    grown = grown[:-2, 1:-1] | grown[2:, 1:-1] | grown[1:-1, :-2] | grown[1:-1, 2:]
    return np.asarray(grown & ~inside)
