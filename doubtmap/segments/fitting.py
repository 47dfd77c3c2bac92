"""Segments of every image of a data set, and the meta models that learn from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from doubtmap.datasets.dataset import KNOWN, VOID, Dataset
from doubtmap.engine.run import Pairs, Progress
from doubtmap.engine.seen import who_has_seen
from doubtmap.engine.settings import origin_of
from doubtmap.engine.splitting import folds_of
from doubtmap.errors import UsageError
from doubtmap.files import check_place
from doubtmap.metrics.accumulator import Array
from doubtmap.metrics.events import EventReliability, event_reliability
from doubtmap.prediction import Prediction, Score, Segmenter
from doubtmap.scores.parsing import parse_scores, split_names
from doubtmap.scoring import prepared, probe_logits, score_maps
from doubtmap.segments import (
    CrossJudgement,
    MetaModel,
    Partition,
    SegmentTable,
    adjusted_iou,
    cross_judge,
    expected_figures,
    feature_sets,
    segment_table,
)
from doubtmap.segments.estimators import Estimator, Kind, checked, rescaled
from doubtmap.segments.judging import cross_calibrated, platt

SCORES = "max_softmax,entropy,margin,gradient(p=0.5),gradient(p=1),gradient(p=2)"
"""From which features come where nobody says."""


FOLDS = 5


def parse_segments(text: str) -> Kind | None:
    """The kind in `"segments"` or `"segments(kind=linear)"`; None for something else.

    Raises:
        UsageError: for an unknown kind or option.
    """
    name, bracket, given = text.replace(" ", "").partition("(")
    if name != "segments":
        return None
    key, equals, value = given.removesuffix(")").partition("=")
    if bracket and (key != "kind" or not equals or not given.endswith(")")):
        raise UsageError(f"fit: expected segments or segments(kind=linear), got {text!r}.")
    return checked(value or "boosting")


@dataclass(frozen=True, eq=False)
class LabelledSegments:
    """Segments of a data set with labels.

    Args:
        table: a row each, with adjusted IoU.
        wrong: `(I,)` labelled pixels that are wrong; of unknown objects, all are.
        labelled: `(I,)` labelled pixels.
        miou: `(I,)` of each image, mean over the classes that are predicted or labelled in it;
            NaN without labels.
    """

    table: SegmentTable
    wrong: Array
    labelled: Array
    miou: Array

    @property
    def wrong_share(self) -> Array:
        """`(I,)`; NaN without labels."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(self.labelled, self.wrong / self.labelled, np.nan))


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """Segments of one image with labels; fields as of `LabelledSegments`."""

    table: SegmentTable
    wrong: float
    labelled: float
    miou: float


def labelled_images(
    segmenter: Segmenter,
    dataset: Dataset,
    scores: Mapping[str, Score],
    *,
    unknown: Sequence[str] = (),
    indices: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Iterator[LabelledImage]:
    """Find the segments of one image after the other and hold them to the labels.

    Args:
        segmenter: the network.
        dataset: labelled images.
        scores: whose maps the features come from.
        unknown: label classes that are unknown objects: a segment on one touches nothing of its
            class. Without them they are void.
        indices: which images; default: all.
        progress: told after each image.

    Raises:
        UsageError, DataError, ModelError: as `evaluate`.
    """
    chosen = range(len(dataset)) if indices is None else indices
    pairs = Pairs(
        prepared(segmenter, scores), dataset, tuple(unknown), chosen, "segments", progress
    )
    for index, (prediction, label) in zip(chosen, pairs):
        partition = Partition.of(prediction.classes[0])
        valid = (label[0] != VOID) & (label[0] != KNOWN)
        table = segment_table(prediction, score_maps(prediction, dict(scores)), partition)
        table = replace(
            table,
            iou=adjusted_iou(partition, label[0], valid),
            image_names=(dataset.sample_name(index),),
        )
        yield LabelledImage(table, *_image_figures(prediction, label[0], valid))


def labelled_segments(
    segmenter: Segmenter, dataset: Dataset, scores: Mapping[str, Score], **more: Any
) -> LabelledSegments:
    """The segments of all images in one table; arguments as of `labelled_images`."""
    images = list(labelled_images(segmenter, dataset, scores, **more))
    return LabelledSegments(
        SegmentTable.join([image.table for image in images]),
        *(np.array([getattr(i, name) for i in images]) for name in ("wrong", "labelled", "miou")),
    )


@dataclass(frozen=True, eq=False)
class SegmentFit:
    """What `fit_segments` found.

    Args:
        model: fitted to all segments.
        compared: what feature sets did on images that they were not fitted to.
        images: `(2, I)` mIoU and share of wrong pixels that each image was expected to have, by
            models that were not fitted to it.
        segments: that all this was learnt from.
        reliability: of P(touches its class) of left-out images: `as fitted`, and `calibrated` on
            others of them.
        notes: sentences for the user.
    """

    model: MetaModel
    compared: dict[str, CrossJudgement]
    images: Array
    segments: LabelledSegments
    reliability: dict[str, EventReliability]
    notes: tuple[str, ...]


def fit_segments(
    segmenter: Segmenter,
    dataset: Dataset,
    scores: str = SCORES,
    kind: str = "boosting",
    *,
    unknown: Sequence[str] = (),
    out: str | Path | None = None,
    seed: int = 0,
    command: str = "",
    compare: bool = True,
    progress: Progress | None = None,
) -> SegmentFit:
    """Fit a meta model to labelled images that the network was not trained on.

    Figures come from five runs, each judging a fifth of the images, in whole sequences or runs of
    consecutive images, by a model of the rest. The model itself is then fitted to all, and its
    probability calibrated by what the runs said.

    Args:
        segmenter: the network.
        dataset: labelled images.
        scores: whose maps the features come from.
        kind: `linear` or `boosting`.
        unknown: label classes that are unknown objects.
        out: the file.
        seed: of the trees.
        command: what to write into the file as its origin.
        compare: whether to judge single features and groups of them too.
        progress: told after each image.

    Raises:
        UsageError: for fewer than two images.
        DataError: where no segment has labels, or all are of one kind.
        ModelError: where scikit-learn is missing.
    """
    kind_ = checked(kind)
    if out is not None:
        check_place(out)
    parsed = parse_scores(scores)
    names = [dataset.sample_name(index) for index in range(len(dataset))]
    folds, whole = folds_of(names, min(FOLDS, len(names)))
    found = labelled_segments(segmenter, dataset, parsed, unknown=unknown, progress=progress)
    sets = feature_sets(found.table) if compare else {"all": found.table.names}
    compared = {
        name: cross_judge(found.table, folds, kind_, features, seed)
        for name, features in sets.items()
    }
    images = np.stack(expected_figures(found.table, compared["all"].expected_iou))
    reliability = _reliability(compared["all"], found.table, folds)
    model = MetaModel.fit(
        found.table,
        kind_,
        seed,
        texts=tuple(split_names(scores)),
        scores=parsed,
        origin=origin_of(
            segmenter,
            dataset,
            probe_logits(segmenter),
            command,
            unknown=list(unknown),
            images=len(found.miou),
            segments=len(found.table),
            errors=known_errors(images, found),
            seed=seed,
            reliability={name: told.told() for name, told in reliability.items()},
        ),
    )
    if "calibrated" in reliability:
        model = replace(model, touches=_calibrated(model, compared["all"], found.table))
    if out is not None:
        model.save(out)
    notes = (*_notes(found, compared, whole), *who_has_seen(dataset, segmenter, {}))
    return SegmentFit(model, compared, images, found, reliability, notes)


def _reliability(
    cross: CrossJudgement, table: SegmentTable, folds: Sequence[Sequence[int]]
) -> dict[str, EventReliability]:
    """Of segments of which both can be said."""
    assert table.iou is not None
    said = {"as fitted": cross.probability, "calibrated": cross_calibrated(cross, table, folds)}
    judged = np.isfinite(table.iou) & np.isfinite(np.sum([*said.values()], 0))
    if not judged.any():
        return {}
    true, image = table.iou[judged] > 0, table.image[judged]
    return {name: event_reliability(p[judged], true, image) for name, p in said.items()}


def _calibrated(model: MetaModel, cross: CrossJudgement, table: SegmentTable) -> Estimator:
    assert table.iou is not None
    judged = np.isfinite(table.iou) & np.isfinite(cross.probability)
    return rescaled(model.touches, *platt(cross.probability[judged], table.iou[judged] > 0))


def known_errors(images: Array, found: LabelledSegments) -> dict[str, list[float]]:
    """How far off expected figures of held-out images were, in the mean, and always their mean.

    Args:
        images: `(2, I)`, expected mIoU and share of wrong pixels.
        found: what was true of them.

    Returns:
        `miou` and `wrong`, each with both mean absolute errors; without those of which fewer than
        two images tell.
    """
    errors = {}
    for what, said, true in zip(("miou", "wrong"), images, (found.miou, found.wrong_share)):
        seen = np.isfinite(said) & np.isfinite(true)
        if seen.sum() >= 2:
            spread = np.abs(true[seen] - true[seen].mean()).mean()
            errors[what] = [float(np.abs(said - true)[seen].mean()), float(spread)]
    return errors


def _image_figures(
    prediction: Prediction, label: Tensor, valid: Tensor
) -> tuple[float, float, float]:
    """Wrong pixels, labelled pixels, and mIoU over the classes predicted or labelled."""
    classes, count = prediction.classes[0][valid], prediction.native_logits.shape[1]
    truth = label[valid]
    if not len(truth):
        return 0.0, 0.0, float("nan")
    meet = torch.bincount(classes[classes == truth], minlength=count)
    either = torch.bincount(classes, minlength=count) - meet
    either += torch.bincount(truth[truth >= 0], minlength=count)
    there = either > 0
    miou = float((meet[there] / either[there]).mean())
    return float((classes != truth).sum()), float(len(truth)), miou


def _notes(
    found: LabelledSegments, compared: Mapping[str, CrossJudgement], whole: bool
) -> Iterator[str]:
    table = found.table
    assert table.iou is not None
    lacking = int(np.isnan(table.iou).sum())
    if lacking:
        yield f"{lacking} of {len(table)} segments have no labelled pixel and were left out."
    for index, name in enumerate(table.class_names):
        if not (table.classes == index).any():
            yield f"{name} is never predicted on these images; nothing was learnt of it."
    if not whole:
        yield (
            "The images are of too few sequences to keep them whole, so the figures say how well "
            "segments of these very places are judged. Expect less elsewhere, and give more."
        )
    if len(compared["all"].runs) < min(FOLDS, len(found.miou)):
        yield (
            f"Only {len(compared['all'].runs)} runs could be judged: in the others all segments to "
            f"fit to were of one kind, or none to judge had labels."
        )
    single = int((np.bincount(table.image) == 1).sum())
    if single:
        yield f"{single} images are one single segment."
