"""The patches that a flow learns from, in an order that depends on seed and step alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import count as counted

import torch
from torch import Tensor

from doubtmap.errors import DataError
from doubtmap.training.batches import Batches, read_ahead
from doubtmap.training.drawing import generator, order
from doubtmap.training.folds import fold_of, without_fold
from doubtmap.training.known_patches import cut, places
from doubtmap.training.processes import ALONE

PARTS = 10
"""The last of so many equal parts of the images is kept out of the flow's training: it judges."""
PLACES = 1
"""Of random numbers: of where patches lie."""
OF_VIEW = 4
"""Patches of one view of an image."""
PATIENCE = 100
"""Steps in a row that may lack a patch."""


def parts_of(batches: Batches) -> tuple[Batches, Batches]:
    """The batches of the images that judge a flow, and of those that it learns from.

    The last tenth judges, since neighbouring frames of a drive look alike; one image does both.
    """
    count = min(PARTS, len(batches.dataset))
    judged, learnt = (
        (fold_of(batches.dataset, count, count), without_fold(batches.dataset, count, count))
        if count > 1
        else (batches.dataset, batches.dataset)
    )
    alone = replace(batches, size=1, processes=ALONE)
    return replace(alone, dataset=judged), replace(alone, dataset=learnt)


def patches(
    batches: Batches, side: int, count: int, seed: int, first: int = 0, last: int | None = None
) -> Iterator[tuple[int, Tensor]]:
    """The patches of each step, of several views at once; steps without any are left out.

    Args:
        batches: whose views are cut into patches.
        side: of the patches, in pixels.
        count: patches of a step, at most, four of a view.
        seed: of views and places.
        first: step to begin with.
        last: step to end before; None: never.

    Yields:
        The step, and `(N, 3, side, side)` in [0, 1].

    Raises:
        DataError: where, in `PATIENCE` steps or in all, no patch is without void.
    """
    size, of_step, empty = (side, side), max(1, count // OF_VIEW), 0
    views = _views(batches, seed, first * of_step)
    for step in counted(first) if last is None else range(first, last):
        found: list[Tensor] = []
        for number in range(of_step):
            image, label = next(views)
            drawn = generator(seed, step, number, PLACES)
            corners, clean = places(label[None].expand(OF_VIEW, -1, -1), size, drawn)
            found += [cut(image[None], corner[None], size) for corner in corners[clean]]
        empty = 0 if found else empty + 1
        if found:
            yield step, torch.cat(found)
        elif empty == PATIENCE or (first == 0 and empty == last):
            raise DataError(
                f"{batches.dataset.name}: expected patches of {size[0]}x{size[1]} pixels without "
                f"void, found none in {empty * of_step} views. Give --flow FILE, or --negatives "
                f"without flow."
            )


def _views(batches: Batches, seed: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Views of all images, again and again, each time in another order."""
    count = len(batches.dataset)
    shuffled = lru_cache(4)(lambda epoch: order(count, seed, epoch))

    def view(number: int) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(number, count)
        return batches.view(epoch, shuffled(epoch)[place])

    return read_ahead(view, counted(first), batches.workers)
