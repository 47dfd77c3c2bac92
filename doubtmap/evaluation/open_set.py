"""Open-set segmentation: refuse what lies above a threshold that other images gave.

Reference:
    Hybrid Open-set Segmentation with Synthetic Negative Data (Grcic and Segvic, 2023),
    https://arxiv.org/abs/2301.08555: on StreetHazards each town of the test gets the threshold of
    the other, at a true-positive rate of 95 %; the mIoU is weighted by the images of the towns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from doubtmap.datasets.dataset import UNKNOWN, VOID, Dataset
from doubtmap.datasets.pasting import Part, image_fields, parts_by
from doubtmap.engine.run import Run, Skipped, check_request, read_ahead
from doubtmap.errors import DataError, UsageError
from doubtmap.evaluation.score_figures import SHARE, number
from doubtmap.metrics import Confusion, OpenSet, Ranking
from doubtmap.metrics.accumulator import Array
from doubtmap.metrics.bootstrap import BootstrapSums, Weights, interval
from doubtmap.prediction import Prediction, Segmenter
from doubtmap.scoring import score_maps

TPR = 0.95


MOST_PARTS = 10
"""Each part takes a pass over all others, so that more parts would be a mistake, not a wish."""


def check_open_set(
    segmenter: Segmenter, dataset: Dataset, threshold_from: Dataset | str, unknown: tuple[str, ...]
) -> None:
    """Refuse what cannot give thresholds, before anything is run.

    Raises:
        UsageError: for what is no data set, or a field that does not part the images.
        DataError: for a data set without images.
    """
    if not isinstance(threshold_from, str):
        check_request(segmenter, threshold_from, unknown)
    elif not 2 <= len(parts_by(dataset, threshold_from)) <= MOST_PARTS:
        raise UsageError(_no_parts(dataset, threshold_from))


@dataclass(frozen=True)
class Thresholds:
    """Thresholds by score for some images, taken from others.

    Args:
        images: to be segmented with them.
        numbers: of these images in the run's data set, by which the bootstrap draws.
        taken_from: name of the others.
        values: refused is above.
    """

    images: Dataset
    numbers: Sequence[int]
    taken_from: str
    values: Mapping[str, float]


def take_thresholds(
    run: Run, threshold_from: Dataset | str, tpr: float = TPR
) -> tuple[Thresholds, ...]:
    """The thresholds for the run's images, or for each of their parts.

    Raises:
        DataError: where the images that give a threshold have no unknown or no known pixel.
    """

    def values(others: Dataset) -> dict[str, float]:
        skipped = Skipped() if run.skipped is not None else None
        other = Run(run.segmenter, others, run.scores, run.unknown, run.progress, skipped)
        return thresholds_at(other, tpr)

    return tuple(
        Thresholds(images, numbers, others.name, values(others))
        for images, numbers, others in _directions(run.dataset, threshold_from)
    )


def thresholds_at(run: Run, tpr: float = TPR) -> dict[str, float]:
    """For each score the highest threshold above which lie so many of the unknown pixels.

    Args:
        run: over the images that give the thresholds.
        tpr: share of the unknown pixels.

    Raises:
        DataError: where the images have no unknown or no known pixel.
    """
    check_request(run.segmenter, run.dataset, run.unknown)
    rankings = {name: Ranking() for name in run.scores}
    images = read_ahead(run.dataset, range(len(run.dataset)), run.skipped)
    for done, (_, sample) in enumerate(images, 1):
        told = run.attempt(sample)
        if told is None:
            continue
        prediction, label = told
        try:
            maps = score_maps(prediction, run.scores)
        except DataError as error:
            run.leave_out(sample, error)
            continue
        for name, values in maps.items():
            rankings[name].update(values.cpu(), label == UNKNOWN, label != VOID)
        run.tell("threshold", done)
    thresholds = {name: ranking.curve.threshold_at_tpr(tpr) for name, ranking in rankings.items()}
    if any(math.isnan(threshold) for threshold in thresholds.values()):
        raise DataError(
            f"{run.dataset.name}: expected unknown and known pixels to take a threshold from, "
            "found only one kind. Give other images, or name unknown classes."
        )
    return thresholds


@dataclass
class Refused:
    """Pixels by label and answer, closed and with what lies above the thresholds refused.

    Args:
        thresholds: of the scores.
        closed: with nothing refused.
        opened: by score.
        replicates: by score, of `opened`.
        images: that were counted.
        names: of the classes.
        labelled: classes that the data set labels, which alone have an IoU.
    """

    thresholds: Mapping[str, float]
    closed: Confusion
    opened: dict[str, OpenSet]
    replicates: dict[str, BootstrapSums]
    images: int = 0
    names: tuple[str, ...] = ()
    labelled: Sequence[int] = ()

    def take(
        self, prediction: Prediction, label: Tensor, maps: Mapping[str, Tensor], weights: Array
    ) -> None:
        """Count the pixels of an image.

        Args:
            prediction: of the image.
            label: `(H, W)`, in the network's classes.
            maps: `(H, W)` by score.
            weights: `(R,)` how often the image counts in each replicate.
        """
        if not self.images:
            self.closed = Confusion.empty(prediction.native_logits.shape[1])
        classes, count = prediction.classes[0].cpu(), len(self.closed.counts)
        self.closed.update(classes, label, label >= 0)
        strange = label == UNKNOWN
        for name, values in maps.items():
            image = OpenSet.empty(count)
            refused = values.cpu() > self.thresholds[name]
            image.update(classes, label, strange, refused, (label >= 0) | strange)
            self.opened[name] = self.opened.get(name, OpenSet.empty(count)) + image
            self.replicates.setdefault(name, BootstrapSums(len(weights)))
            self.replicates[name].add(image.state(), weights)
        self.images += 1

    def drawn(self, name: str) -> Array:
        """`(R,)` open-set mIoU of a score in each replicate."""
        return self.replicates[name].figures(
            lambda state: OpenSet(state["counts"]).mean_iou(self.labelled)
        )

    def figures(self) -> dict[str, Any]:
        """`closed_miou` and the figures of each score."""
        scores = {
            name: {"threshold": number(self.thresholds[name])} | self._score(name)
            for name in self.opened
        }
        return {"closed_miou": number(self.closed.mean_iou(self.labelled)), "scores": scores}

    def _score(self, name: str) -> dict[str, Any]:
        found = self.opened[name]
        miou = number(found.mean_iou(self.labelled))
        iou: dict[str, float | None] = dict.fromkeys(self.names)
        iou |= {self.names[index]: number(found.iou[index]) for index in self.labelled}
        return {
            "miou": miou,
            "miou_interval": interval(miou, self.drawn(name), SHARE),
            "iou": iou,
            "found": number(found.found),
            "false_alarms": number(found.false_alarms),
        }


def count_refused(run: Run, taken: Thresholds, replicates: int = 300, seed: int = 0) -> Refused:
    """Count the pixels of a run's images, refusing what lies above the thresholds.

    Raises:
        DataError: where no image could be read.
    """
    found = Refused(taken.values, Confusion.empty(0), {}, {})
    weights = Weights(replicates, seed)
    for index, sample in read_ahead(run.dataset, range(len(run.dataset)), run.skipped):
        told = run.attempt(sample)
        if told is None:
            continue
        prediction, label = told
        try:
            maps = score_maps(prediction, run.scores)
        except DataError as error:
            run.leave_out(sample, error)
            continue
        found.take(prediction, label, maps, weights(taken.numbers[index]))
        run.tell("open set", found.images)
    if not found.images:
        raise DataError(f"{run.dataset.name}: none of the {len(run.dataset)} images could be read.")
    found.labelled = sorted({c for c in run.matching.targets if c >= 0} if run.matching else ())
    found.names = run.segmenter.class_names or tuple(map(str, range(len(found.closed.counts))))
    return found


def refused_figures(
    run: Run,
    threshold_from: Dataset | str,
    taken: Sequence[Thresholds],
    tpr: float = TPR,
    replicates: int = 300,
    seed: int = 0,
) -> dict[str, Any]:
    """Closed and open-set mIoU of a run's images, refusing what lies above the thresholds.

    Args:
        run: over the images.
        threshold_from: as it was given to `take_thresholds`.
        taken: what that returned.
        tpr: at which they were taken.
        replicates: of the bootstrap over images.
        seed: of the bootstrap.

    Returns:
        `threshold_from`, `tpr`, `closed_miou` and, by score, `miou` with its interval, `iou` by
        class, `threshold` (refused is above), `found` and `false_alarms` (shares of the unknown and
        of the known pixels that were refused). Of parts: all but `threshold` are means weighted by
        the number of images; `parts` has the figures of each, with its `name` and `images`.
    """
    found = [
        count_refused(replace(run, dataset=one.images), one, replicates, seed) for one in taken
    ]
    each = [
        {"threshold_from": one.taken_from, "tpr": tpr} | counted.figures()
        for one, counted in zip(taken, found)
    ]
    if not isinstance(threshold_from, str):
        return each[0]
    about = {"threshold_from": f"the other parts by {threshold_from}", "tpr": tpr}
    parts = [
        {"name": one.images.name, "images": counted.images} | figures
        for one, counted, figures in zip(taken, found, each)
    ]
    return about | _weighted(found, each) | {"parts": parts}


def sentence(figures: Mapping[str, Any]) -> str:
    """The open-set mIoU for those who do not open `results.json`."""
    told = [
        f"{name} {found['miou']:.4f}"
        for name, found in figures["scores"].items()
        if found["miou"] is not None
    ]
    if not told or figures["closed_miou"] is None:
        return "Open-set mIoU: no pixel has a class, so these figures are null."
    parts = figures.get("parts", ())
    weights = ", ".join(f"{part['name']} {part['images']}" for part in parts)
    return (
        f"Open-set mIoU, thresholds at {figures['tpr']:.0%} TPR on {figures['threshold_from']}"
        f"{f', weighted by images ({weights})' if parts else ''}: {', '.join(told)}; closed "
        f"{figures['closed_miou']:.4f}."
    )


def _directions(
    dataset: Dataset, threshold_from: Dataset | str
) -> Iterator[tuple[Dataset, Sequence[int], Dataset]]:
    """Images, their numbers, and the others that give their thresholds."""
    if not isinstance(threshold_from, str):
        yield dataset, range(len(dataset)), threshold_from
        return
    parts = parts_by(dataset, threshold_from)
    for part in parts.values():
        others = [other for other in parts.values() if other is not part]
        name = ", ".join(other.name for other in others)
        numbers = sorted(number for other in others for number in other.indices)
        yield part, part.indices, Part(dataset, numbers, name)


def _weighted(found: Sequence[Refused], each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over parts, weighted by their images; None where a part has no such figure."""
    weights = [counted.images for counted in found]

    def mean(values: Sequence[float | None]) -> float | None:
        defined = [value for value in values if value is not None]
        whole = len(defined) == len(values)
        return float(np.average(defined, weights=weights)) if whole else None

    def of_score(name: str) -> dict[str, Any]:
        own = [figures["scores"][name] for figures in each]
        miou = mean([one["miou"] for one in own])
        drawn = np.average([counted.drawn(name) for counted in found], axis=0, weights=weights)
        return {
            "miou": miou,
            "miou_interval": interval(miou, drawn, SHARE),
            "iou": {label: mean([one["iou"][label] for one in own]) for label in own[0]["iou"]},
            "found": mean([one["found"] for one in own]),
            "false_alarms": mean([one["false_alarms"] for one in own]),
        }

    return {
        "closed_miou": mean([figures["closed_miou"] for figures in each]),
        "scores": {name: of_score(name) for name in each[0]["scores"]},
    }


def _no_parts(dataset: Dataset, field: str) -> str:
    fields = sorted({name for image in image_fields(dataset) for name in image})
    able = [name for name in fields if 2 <= len(parts_by(dataset, name)) <= MOST_PARTS]
    hint = f"Such are {', '.join(able)}." if able else "There is no such field."
    if field in fields:
        got = f"{field}, which has {len(parts_by(dataset, field))}"
    else:
        got = f"{field}, which is none of their fields"
    return (
        f"open_set: expected a data set such as LAYOUT:PATH, or a field of the paths of "
        f"{dataset.name} with 2 to {MOST_PARTS} values, got {got}. {hint}"
    )
