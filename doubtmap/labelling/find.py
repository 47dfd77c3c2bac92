"""A data set gone through for labels that a network denies, image by image."""

from __future__ import annotations

import heapq
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from doubtmap.datasets.dataset import Dataset, Sample
from doubtmap.datasets.reading import none_left
from doubtmap.engine.run import Progress, Run, Skipped, check_request, read_ahead
from doubtmap.errors import DataError, UsageError
from doubtmap.kernels import moments
from doubtmap.labelling.denied import DenialRule, Denied, denied_parts
from doubtmap.labelling.quality import label_probability, soft_min
from doubtmap.metrics.accumulator import Array
from doubtmap.prediction import Prediction, Segmenter
from doubtmap.scoring import prepared, score_maps
from doubtmap.segments import MetaModel, Partition, adjusted_iou, segment_table
from doubtmap.segments.review import check_network

MOST = 1000
"""Denied parts that are kept."""
USUAL = DenialRule()


@dataclass(frozen=True)
class ImageLabels:
    """What is said of the labels of one image.

    Args:
        index: in the data set.
        name: of the image.
        size: its height and width.
        quality: soft minimum over its labelled pixels of the probability of their class, in [0, 1].
        agreement: mean over them of the same.
        denied: number of denied parts.
        denied_share: their share of the labelled pixels.
        highest: score of the likeliest wrong label; 0 without any.
    """

    index: int
    name: str
    size: tuple[int, int]
    quality: float
    agreement: float
    denied: int
    denied_share: float
    highest: float


@dataclass(frozen=True, eq=False)
class LabelErrors:
    """Labels that are likely wrong.

    Args:
        parts: the likeliest, descending.
        images: all of them, in the order of the data set.
        found: how many parts there were in all.
        class_names: of the network.
        notes: sentences for the user.
        skipped: images that could not be used, and why.
    """

    parts: tuple[Denied, ...]
    images: tuple[ImageLabels, ...]
    found: int
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)


Look = Callable[[int, Sample, Prediction, Tensor, list[Denied]], None]


def find_label_errors(
    segmenter: Segmenter,
    dataset: Dataset,
    model: MetaModel | None = None,
    rule: DenialRule = USUAL,
    *,
    most: int = MOST,
    skip_bad: bool = False,
    look: Look | None = None,
    progress: Progress | None = None,
) -> LabelErrors:
    """Look for labels that a network denies with confidence.

    Args:
        segmenter: the network, best one that was trained on other images.
        dataset: with class labels.
        model: of `fit_segments`, which says of each part how probable it is that the segment is
            right; the order stays, since by this probability it was worse.
        rule: which disagreements are looked at.
        most: how many parts are kept, the likeliest.
        skip_bad: count images that cannot be used, and go on.
        look: called with index, sample, prediction, labels and parts of each image.
        progress: told after each image.

    Raises:
        UsageError: for a data set without classes.
        ModelError: for another network than the model's.
        DataError: where no image can be used.
    """
    check_request(segmenter, dataset, ())
    if not dataset.class_names:
        raise UsageError(
            f"{dataset.name}: expected labels of classes, but these only tell known from unknown. "
            f"Give a data set with classes."
        )
    if model is not None:
        check_network(segmenter, model)
        segmenter = prepared(segmenter, dict(model.scores))
    skipped = Skipped() if skip_bad else None
    run = Run(segmenter, dataset, {}, (), progress, skipped)
    heap: list[tuple[float, int, Denied]] = []
    images: list[ImageLabels] = []
    order, found, names = itertools.count(), 0, segmenter.class_names
    for index, sample in read_ahead(run.dataset, range(len(run.dataset)), skipped):
        told = run.attempt(sample)
        if told is None:
            continue
        prediction, label = told
        parts, quality = judge_labels(index, prediction, label, model, rule)
        images.append(_image(index, sample.name, label, parts, quality))
        names = names or prediction.class_names or dataset.class_names
        found += len(parts)
        for part in parts:
            entry = (part.score, -next(order), part)
            (heapq.heappushpop if len(heap) >= most else heapq.heappush)(heap, entry)
        if look:
            look(index, sample, prediction, label, parts)
        run.tell("labels", len(images) + len(skipped.reasons if skipped else ()))
    reasons = skipped.reasons if skipped else {}
    if not images or run.matching is None:
        raise DataError(f"{dataset.name}: {none_left(len(dataset), reasons)}")
    # labels of classes that the network lacks are void here, whatever other commands can do
    notes = [re.sub(" --unknown can .*", "", note) for note in run.matching.notes]
    return LabelErrors(
        tuple(part for *_, part in sorted(heap, key=lambda entry: entry[:2], reverse=True)),
        tuple(images),
        found,
        names,
        tuple(notes),
        reasons,
    )


def judge_labels(
    index: int, prediction: Prediction, label: Tensor, model: MetaModel | None, rule: DenialRule
) -> tuple[list[Denied], Tensor]:
    """The labels of one image held to its prediction.

    Args:
        index: of the image in its data set.
        prediction: of this image alone.
        label: `(H, W)` in the network's classes; below 0 counts for nothing.
        model: a meta model of this network, or None.
        rule: which disagreements are looked at.

    Returns:
        The denied parts, in reading order; `(H, W)`, the probability of each pixel's label.
    """
    classes = prediction.classes[0].cpu()
    partition = Partition.of(classes)
    own = label_probability(prediction, label)
    places, predicted = denied_parts(classes, label, rule)
    if not len(predicted):
        return [], own
    doubt = prediction.statistics.max_softmax[0].cpu()
    sums = moments(
        places,
        torch.zeros_like(places, dtype=torch.bool),
        [1 - doubt, own, evidence(doubt, own)],
        len(predicted),
    )
    size = np.bincount(places[places >= 0].numpy(), minlength=len(predicted))
    confidence, agreed, against = (sums[:, 0, :, 0].numpy() / size[:, None]).T
    iou = adjusted_iou(partition, label, label >= 0)
    right = _probabilities(prediction, partition, model)
    boxes = ndimage.find_objects(places.numpy() + 1)
    parts = []
    for number, (rows, columns) in enumerate(boxes):
        if confidence[number] < rule.surest:
            continue
        mask = places[rows, columns].numpy() == number
        row = int(partition.labels[rows, columns].numpy()[mask][0])
        parts.append(
            Denied(
                index,
                int(predicted[number]),
                int(np.bincount(label[rows, columns].numpy()[mask]).argmax()),
                (columns.start, rows.start, mask.shape[1], mask.shape[0]),
                int(size[number]),
                float(against[number]),
                float(confidence[number]),
                float(agreed[number]),
                None if right is None else float(right[row]),
                float(iou[row]),
                mask,
            )
        )
    return parts, own


SMALLEST_PROBABILITY = 1e-6
"""Below which a probability counts as this, so that one pixel cannot outweigh all others."""


def evidence(doubt: Tensor, own: Tensor) -> Tensor:
    """How much a network says against the label of each pixel, in nats.

    `log(p / (1 - p)) - log(q)`, with p the probability of the predicted class and q that of the
    labelled one: the odds of what it sees, times its surprise at what is labelled. Its mean over a
    part ranks better than means of p and q do, in which .99 is hardly more than .9.

    Args:
        doubt: `1 - p`, any shape.
        own: q.
    """
    doubt, own = doubt.clamp(min=SMALLEST_PROBABILITY), own.clamp(min=SMALLEST_PROBABILITY)
    return torch.log1p(-doubt) - doubt.log() - own.log()


def _probabilities(
    prediction: Prediction, partition: Partition, model: MetaModel | None
) -> Array | None:
    """`(S,)` that each segment is right, where there is a meta model."""
    if model is None:
        return None
    table = segment_table(prediction, score_maps(prediction, dict(model.scores)), partition)
    return model.probability(table)


def _image(index: int, name: str, label: Tensor, parts: list[Denied], own: Tensor) -> ImageLabels:
    labelled = own[label.cpu() >= 0]
    size = label.shape[0], label.shape[1]
    if not labelled.numel():
        return ImageLabels(index, name, size, float("nan"), float("nan"), 0, 0.0, 0.0)
    return ImageLabels(
        index,
        name,
        size,
        soft_min(labelled),
        float(labelled.double().mean()),
        len(parts),
        sum(part.area for part in parts) / labelled.numel(),
        max((part.score for part in parts), default=0.0),
    )
