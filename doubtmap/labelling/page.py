"""The page of `doubtmap labels`: the likeliest wrong labels, each as image, labels, prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from doubtmap.labelling.denied import Denied
from doubtmap.labelling.find import LabelErrors
from doubtmap.reports.colours import labels_present
from doubtmap.reports.page import framed, header, page_table
from doubtmap.reports.pictures import label_picture, photograph
from doubtmap.segments.cards import CROP, OUTLINE, outline
from doubtmap.version import __version__

MOST_PAIRS = 12
"""Rows of the table of classes."""


@dataclass(frozen=True, eq=False)
class Shown:
    """One wrong label as the page shows it; crops are of one place.

    Args:
        part: what is denied.
        name: of the image.
        image: `(h, w, 3)` RGB, with a line around the part.
        label: `(h, w)`.
        classes: `(h, w)`, predicted.
    """

    part: Denied
    name: str
    image: NDArray[np.uint8]
    label: NDArray[np.int16]
    classes: NDArray[np.int16]

    @classmethod
    def of(
        cls,
        part: Denied,
        name: str,
        image: NDArray[np.uint8],
        label: NDArray[np.int16],
        classes: NDArray[np.int64],
    ) -> Self:
        """Cut the surroundings of a part out of whole maps, `(H, W)`."""
        left, top, width, height = part.box
        place = tuple(
            slice(max(0, start - gap), min(limit, start + length + gap))
            for start, length, limit in zip((top, left), (height, width), label.shape)
            for gap in [max(12, (CROP - length) // 2)]
        )
        whole = np.zeros(label.shape, bool)
        whole[top : top + height, left : left + width] = part.mask
        crop = image[place].copy()
        crop[outline(whole[place])] = OUTLINE
        return cls(part, name, crop, label[place].copy(), classes[place].astype(np.int16))


def error_page(
    found: LabelErrors, shown: Sequence[Shown], notes: Sequence[str], data: str, command: str
) -> bytes:
    """The page.

    Args:
        found: all that was found.
        shown: the first of it.
        notes: sentences for the reader.
        data: name of the data set.
        command: that made it.
    """
    head = header(
        "labels",
        "Labels to look at again",
        f"The first {len(shown)} of {found.found} places in {len(found.images)} images of {data} "
        "where the network is sure of another class than the label. They are ranked by its "
        "evidence against the label: the log-odds of the class that it sees, and its surprise at "
        "the labelled one, in nats, means over the place. Strips along borders are left out. "
        "Either the label is wrong, or the network is: look, and say which in doubtmap view.",
    )
    said = Markup("").join(Markup("<li>{}</li>").format(note) for note in notes)
    parts = [head, Markup('<ul class="notes">{}</ul>').format(said)] if notes else [head]
    parts += [_pairs(found), _key(found, shown)]
    parts += [_card(rank, each, found.class_names) for rank, each in enumerate(shown, 1)]
    foot = Markup("<footer>doubtmap {}. {}</footer>").format(__version__, command)
    return framed("Labels to look at again", *parts, foot)


def _pairs(found: LabelErrors) -> Markup:
    """Which classes are denied as which."""
    if not found.parts:
        return Markup("<p>Nothing is denied: no label to look at.</p>")
    count = Counter((part.labelled, part.predicted) for part in found.parts)
    names = found.class_names
    rows = [["classes", "places"]]
    rows += [
        [f"{names[a]}, seen as {names[b]}", str(n)] for (a, b), n in count.most_common(MOST_PAIRS)
    ]
    return page_table("classes of the listed places", rows)


def _key(found: LabelErrors, shown: Sequence[Shown]) -> Markup:
    """Colours of the classes that the crops show."""
    if not shown:
        return Markup("")
    codes = [np.unique(np.concatenate([np.unique(s.label), np.unique(s.classes)])) for s in shown]
    there = np.unique(np.concatenate(codes)).astype(np.int16)
    items = Markup("").join(
        Markup('<li><span class="swatch" style="background:rgb{}"></span>{}</li>').format(
            colour, name
        )
        for name, colour in labels_present(None, there, found.class_names)
    )
    return Markup('<ul class="key">{}</ul>').format(items)


def _card(rank: int, shown: Shown, names: Sequence[str]) -> Markup:
    part = shown.part
    left, top, width, height = part.box
    right = part.probability_right
    meta = "" if right is None else f"right with probability {right:.2f}, "
    said = (
        f"evidence {part.score:.1f}: {meta}confidence {part.confidence:.2f}, of the label "
        f"{part.label_probability:.2f}; {part.area} pixels, {width} x {height} at {left}, {top}; "
        f"the whole segment's IoU with labels {part.iou:.2f}"
    )
    tiles = Markup("").join(
        Markup('<div><img alt="{}" src="{}">{}</div>').format(f"{title} of {shown.name}", *each)
        for title, each in (
            ("image", (photograph(shown.image), "image")),
            ("labels", (label_picture(shown.label, tuple(names)), "labels")),
            ("prediction", (label_picture(shown.classes, tuple(names)), "prediction")),
        )
    )
    return Markup(
        '<section class="example"><h3>{}. {}: {}, labelled {}</h3><div class="tiles">{}</div>'
        "<figcaption>{}</figcaption></section>"
    ).format(rank, shown.name, names[part.predicted], names[part.labelled], tiles, said)
