"""Which images of a labelled data set a review would have shown first, and what it would find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from doubtmap.datasets.dataset import Dataset
from doubtmap.datasets.reading import in_colour
from doubtmap.engine.run import Progress
from doubtmap.engine.settings import with_bands_of
from doubtmap.metrics.accumulator import Array
from doubtmap.prediction import Segmenter
from doubtmap.segments import MetaModel, Partition
from doubtmap.segments.fitting import labelled_images
from doubtmap.segments.review import Card, ImageReview, check_network, together


@dataclass(frozen=True, eq=False)
class LookFirst:
    """A review of images with labels.

    Args:
        cards: the first images, worst first.
        figures: `images`, those with labels; `found_area`, the area under the curve of the share
            of all mistakes found against the share of images looked at, beside
            `found_area_oracle`; `wrong_mae` and `miou_mae`, mean absolute errors of what was
            expected of the images; `fitted_on`, data.
        curves: `expected`, `oracle`: share of all mistakes found after each image, from 0 to 1.
    """

    cards: tuple[Card, ...]
    figures: dict[str, Any]
    curves: dict[str, list[float]]


def look_first(
    segmenter: Segmenter,
    dataset: Dataset,
    model: MetaModel,
    *,
    unknown: Sequence[str] = (),
    indices: Sequence[int] | None = None,
    first: int = 6,
    progress: Progress | None = None,
) -> LookFirst | None:
    """Review labelled images as if they had no labels, and hold the review to them.

    Args:
        segmenter: the network that the model was fitted to.
        dataset: other images than the model was fitted to.
        model: of `fit_segments`.
        unknown: label classes that are unknown objects; all their pixels are mistakes.
        indices: which images; default: all.
        first: how many images to keep for a page.
        progress: told after each image.

    Returns:
        What was found in the images that have labels with classes; None where no pixel of them
        is wrong, or none has a label.

    Raises:
        ModelError: for another network than the model's.
    """
    check_network(segmenter, model)
    dataset = with_bands_of(segmenter, dataset)
    chosen = range(len(dataset)) if indices is None else indices
    found = labelled_images(
        segmenter, dataset, model.scores, unknown=unknown, indices=chosen, progress=progress
    )
    kept = [
        (index, ImageReview.of(model, image.table), image.wrong, image.labelled, image.miou)
        for index, image in zip(chosen, found)
        if np.isfinite(image.miou)
    ]
    if not any(wrong for _, _, wrong, _, _ in kept):
        return None
    at, images, *rest = zip(*kept)
    wrong, labelled, miou = (np.array(column) for column in rest)
    said, share = together(images, model), wrong / labelled
    cards = []
    for place in said.order()[:first].tolist():
        sample = dataset[at[place]]
        labels = Partition.of(segmenter(sample.image[None]).classes[0]).labels.numpy()
        pixels = in_colour(sample.image)
        cards.append(said.card(place, pixels, labels, wrong=float(share[place])))
    curves = {
        "expected": share_found(said.expected_wrong, wrong),
        "oracle": share_found(wrong, wrong),
    }
    figures = {
        "images": len(images),
        "found_area": area(curves["expected"]),
        "found_area_oracle": area(curves["oracle"]),
        "wrong_mae": float(np.abs(said.expected_wrong - share).mean()),
        "miou_mae": float(np.abs(said.expected_miou - miou).mean()),
        "fitted_on": model.origin.data,
    }
    return LookFirst(
        tuple(cards), figures, {name: curve.tolist() for name, curve in curves.items()}
    )


def share_found(doubt: Array, wrong: Array) -> Array:
    """`(I + 1,)` share of all wrong pixels in the images seen, the most doubtful first."""
    found = np.cumsum(wrong[np.argsort(-doubt, kind="stable")]) / wrong.sum()
    return np.concatenate([[0.0], found])


def area(curve: Array) -> float:
    """Area under a curve over equal steps from 0 to 1; a random order has one half."""
    return float(((curve[1:] + curve[:-1]) / 2).mean())
