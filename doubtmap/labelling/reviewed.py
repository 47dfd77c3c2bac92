"""The images that a review has chosen, for labelling tools."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from doubtmap.labelling.handing import hand_on
from doubtmap.labelling.task import Task, regions_of
from doubtmap.segments.review import Card, Review

SMALLEST = 50
"""Pixels of the smallest segment that is handed on: a person draws none that are smaller."""


@dataclass
class Reviewed:
    """Hands the chosen images on, with their predicted segments and what is expected of these.

    Args:
        out: folder of the review.
        said: what to do with the files, in sentences.
    """

    out: Path
    said: list[str] = field(default_factory=list)

    def take(self, found: Review, cards: Sequence[Card], forms: Sequence[str]) -> None:
        """Write the files.

        Args:
            found: the review.
            cards: the chosen images, in their order.
            forms: of labelling tools.
        """
        if not forms:
            return
        names = found.table.class_names or tuple(
            map(str, range(int(found.table.classes.max()) + 1))
        )
        files = [card.path.absolute() for card in cards]
        tasks = _tasks(found, cards, names)
        self.said = hand_on(tasks, forms, self.out, names, files)


def _tasks(found: Review, cards: Sequence[Card], names: Sequence[str]) -> Iterator[Task]:
    for card in cards:
        rows = found.table.image == card.number
        classes = found.table.classes[rows]
        yield Task(
            card.name,
            card.path.absolute(),
            card.image,
            classes[card.labels],
            card.doubt,
            float(np.clip(found.expected_wrong[card.number], 0, 1)),
            regions_of(card.labels, classes, found.expected_iou[rows], names, SMALLEST),
        )
