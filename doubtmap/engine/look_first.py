"""Which images of a labelled data set a review would have shown first, and what it would find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from doubtmap.datasets.dataset import Dataset
from doubtmap.engine.fit import prepared
from doubtmap.engine.review import Card, judged
from doubtmap.engine.run import Progress
from doubtmap.engine.segments import labelled_segments
from doubtmap.errors import UsageError
from doubtmap.metrics.accumulator import Array
from doubtmap.prediction import Segmenter
from doubtmap.segments import MetaModel, Partition


@dataclass(frozen=True, eq=False)
class LookFirst:
    """A review of images with labels.

    Args:
        cards: the first images, worst first.
        figures: `found_area`, the area under the curve of the share of all mistakes found against
            the share of images looked at, beside `found_area_oracle`; `wrong_mae` and `miou_mae`,
            mean absolute errors of what was expected of the images.
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
    first: int = 6,
    progress: Progress | None = None,
) -> LookFirst:
    """Review labelled images as if they had no labels, and hold the review to them.

    Args:
        segmenter: the network that the model was fitted to.
        dataset: other images than the model was fitted to.
        model: of `fit_segments`.
        unknown: label classes that are unknown objects; all their pixels are mistakes.
        first: how many images to keep for a page.
        progress: told after each image.

    Raises:
        UsageError: for data without class labels.
        ModelError: for another network than the model's.
    """
    prepared(segmenter, {"segments": model})  # type: ignore[dict-item]
    found = labelled_segments(
        segmenter, dataset, model.parsed_scores, unknown=unknown, progress=progress
    )
    if not found.wrong.any() or not np.isfinite(found.miou).all():
        raise UsageError(
            f"--segments: expected images with class labels, some of them wrong, to hold the "
            f"review to; {dataset.name} has none, or images without. Use doubtmap review instead."
        )
    said = judged(model, found.table)
    cards = []
    for index in said.order[:first].tolist():
        sample = dataset[index]
        labels = Partition.of(segmenter(sample.image[None]).classes[0]).labels.numpy()
        pixels = sample.image.permute(1, 2, 0).numpy()
        cards.append(said.card(index, pixels, labels, float(found.wrong_share[index])))
    curves = {
        "expected": share_found(said.expected_wrong, found.wrong),
        "oracle": share_found(found.wrong_share, found.wrong),
    }
    figures = {
        "found_area": area(curves["expected"]),
        "found_area_oracle": area(curves["oracle"]),
        "wrong_mae": float(np.abs(said.expected_wrong - found.wrong_share).mean()),
        "miou_mae": float(np.abs(said.expected_miou - found.miou).mean()),
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
