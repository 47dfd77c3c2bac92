"""Open-set segmentation: refuse what lies above a threshold that other images gave.

Reference:
    Hybrid Open-set Segmentation with Synthetic Negative Data (Grcic and Segvic, 2023),
    https://arxiv.org/abs/2301.08555: on StreetHazards each town of the test gets the threshold of
    the other, at a true-positive rate of 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from doubtmap.datasets.dataset import UNKNOWN, VOID, Dataset
from doubtmap.engine.figures import SHARE, number
from doubtmap.engine.observation import score_maps
from doubtmap.engine.reading import read_ahead
from doubtmap.engine.run import Progress, Run, check_request
from doubtmap.errors import DataError
from doubtmap.metrics import Confusion, OpenSet, Ranking
from doubtmap.metrics.bootstrap import BootstrapSums, Weights, interval
from doubtmap.prediction import Score, Segmenter

TPR = 0.95


def open_set_figures(
    segmenter: Segmenter,
    dataset: Dataset,
    threshold_from: Dataset,
    scores: Mapping[str, Score],
    *,
    unknown: tuple[str, ...] = (),
    tpr: float = TPR,
    replicates: int = 300,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Figures of the closed and the open-set segmentation, each score refusing on its own.

    Pixels labelled as known without a class are left out, since they are neither right nor wrong.
    The published protocol weighs the two towns by their images; this is one town.

    Args:
        segmenter: the network, prepared for the scores.
        dataset: labelled images.
        threshold_from: other labelled images, which have unknown objects.
        scores: by name.
        unknown: label classes that count as unknown objects, in both.
        tpr: share of the unknown pixels of `threshold_from` that are refused.
        replicates: of the bootstrap over images.
        seed: of the bootstrap.
        progress: told after each image.

    Returns:
        `threshold_from`, `tpr`, `closed_miou` and, by score, `miou` with its interval, `iou` by
        class, `threshold` (refused is above), `found` and `false_alarms` (shares of the unknown and
        of the known pixels of `dataset` that were refused).

    Raises:
        DataError: where `threshold_from` has no unknown or no known pixel.
    """
    check_request(segmenter, dataset, unknown)
    other = Run(segmenter, threshold_from, dict(scores), unknown, progress)
    thresholds = thresholds_at(other, tpr)
    run = Run(segmenter, dataset, dict(scores), unknown, progress)
    figures = figures_above(run, thresholds, replicates, seed)
    return {"threshold_from": threshold_from.name, "tpr": tpr} | figures


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
        prediction, label = run.predict(sample)
        for name, values in score_maps(prediction, run.scores).items():
            rankings[name].update(values.cpu(), label == UNKNOWN, label != VOID)
        run.tell("threshold", done)
    thresholds = {name: ranking.curve.threshold_at_tpr(tpr) for name, ranking in rankings.items()}
    if any(math.isnan(threshold) for threshold in thresholds.values()):
        raise DataError(
            f"{run.dataset.name}: expected unknown and known pixels to take a threshold from, "
            "found only one kind. Give other images, or name unknown classes."
        )
    return thresholds


def figures_above(
    run: Run, thresholds: Mapping[str, float], replicates: int = 300, seed: int = 0
) -> dict[str, Any]:
    """Closed and open-set mIoU of a run's images, refusing what lies above the thresholds."""
    weights, closed = Weights(replicates, seed), Confusion.empty(0)
    sums: dict[str, tuple[OpenSet, BootstrapSums]] = {}
    images = read_ahead(run.dataset, range(len(run.dataset)), run.skipped)
    for done, (index, sample) in enumerate(images, 1):
        prediction, label = run.predict(sample)
        classes, strange = prediction.classes[0].cpu(), label == UNKNOWN
        if not sums:
            count = prediction.native_logits.shape[1]
            closed = Confusion.empty(count)
            sums = {s: (OpenSet.empty(count), BootstrapSums(replicates)) for s in run.scores}
        closed.update(classes, label, label >= 0)
        for name, values in score_maps(prediction, run.scores).items():
            image = OpenSet.empty(len(closed.counts))
            refused = values.cpu() > thresholds[name]
            image.update(classes, label, strange, refused, (label >= 0) | strange)
            sums[name][0].counts += image.counts
            sums[name][1].add(image.state(), weights(index))
        run.tell("open set", done)
    labelled = sorted({c for c in run.matching.targets if c >= 0} if run.matching else set())
    names = run.segmenter.class_names or tuple(map(str, range(len(closed.counts))))
    return {
        "closed_miou": number(closed.mean_iou(labelled)),
        "scores": {
            name: {"threshold": number(thresholds[name])} | _figures(*found, names, labelled)
            for name, found in sums.items()
        },
    }


def sentence(figures: Mapping[str, Any]) -> str:
    """The open-set mIoU for those who do not open `results.json`."""
    told = [
        f"{name} {found['miou']:.4f}"
        for name, found in figures["scores"].items()
        if found["miou"] is not None
    ]
    if not told:
        return "Open-set mIoU: no pixel has a class, so these figures are null."
    return (
        f"Open-set mIoU, thresholds at {figures['tpr']:.0%} TPR on {figures['threshold_from']}: "
        f"{', '.join(told)}; closed {figures['closed_miou']:.4f}."
    )


def _figures(
    found: OpenSet, replicates: BootstrapSums, names: tuple[str, ...], labelled: list[int]
) -> dict[str, Any]:
    """One score's figures; only classes that the data set labels have an IoU."""
    miou = number(found.mean_iou(labelled))
    drawn = replicates.figures(lambda state: OpenSet(state["counts"]).mean_iou(labelled))
    iou: dict[str, float | None] = dict.fromkeys(names)
    iou |= {names[index]: number(found.iou[index]) for index in labelled}
    return {
        "miou": miou,
        "miou_interval": interval(miou, drawn, SHARE),
        "iou": iou,
        "found": number(found.found),
        "false_alarms": number(found.false_alarms),
    }
