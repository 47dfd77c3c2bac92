"""Choosing a threshold of a score on labelled images that nothing is to be measured on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from torch import Tensor

from doubtmap.datasets.dataset import KNOWN, UNKNOWN, Dataset
from doubtmap.decisions.choosing import by_f1, by_fpr, by_risk, by_tpr
from doubtmap.decisions.file import By, Of, Threshold
from doubtmap.decisions.several import Risks, by_risks, check_levels
from doubtmap.engine.run import Pairs, Progress, check_request
from doubtmap.engine.seen import cause, images_seen, notes_of_seen, notes_of_training
from doubtmap.engine.settings import origin_of
from doubtmap.engine.splitting import split_images
from doubtmap.errors import UsageError
from doubtmap.metrics.missed import Missed, place_of, threshold_at
from doubtmap.prediction import Prediction, Score, Segmenter, digest_of
from doubtmap.scores.parsing import parse_scores
from doubtmap.scoring import prepared, probe_logits, score_maps

COARSE = 0.02
"""Share of the pixels in one step of the grid from which on a user is told."""


def choose_threshold(
    segmenter: Segmenter,
    dataset: Dataset,
    score: str,
    *,
    of: Of,
    by: By,
    level: float | None = None,
    unknown: str | Sequence[str] = (),
    empty: bool = False,
    keep: Mapping[str, float] | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Threshold:
    """Choose a threshold of a score.

    Memory does not grow with the number of images.

    Args:
        segmenter: the network.
        dataset: labelled images that it was not trained on and will not be tested on.
        score: one, as on the command line.
        of: what is to be flagged: `wrong` pixels among the known, or `unknown` ones.
        by: `f1`, the best pooled F1; `tpr`, the highest that flags at least this share of them;
            `fpr`, the lowest that flags at most this share of the others; `risk`, the highest whose
            expected missed share of an image is at most this (conformal risk control); `risks`,
            one that keeps several (learn then test, see `doubtmap.decisions.several`).
        level: the rate, the tolerated share, or the probability of failing; by default .95 of
            `tpr`, .05 of `fpr`, .1 of `risk` and `risks`.
        unknown: label classes that are unknown objects.
        empty: for `risk`, count images without any pixel to flag as having missed nothing; else
            the promise is about images that hold some.
        keep: for `risks`, their levels by name, such as `{"missed": 0.1, "false": 0.5}`.
        command: what to write into the file as its origin.
        progress: told after each image.

    Raises:
        UsageError, DataError, ModelError: each with one sentence that says what to do.
    """
    unknown = (unknown,) if isinstance(unknown, str) else tuple(unknown)
    level = checked_level(of, by, level, empty)
    if (by == "risks") != bool(keep):
        raise UsageError("threshold: expected --keep with --by risks, and with nothing else.")
    check_levels(keep or {"missed": 0.5}, level or 0.5)
    named = parse_scores(score)
    if len(named) != 1:
        raise UsageError(f"threshold: expected one score, got {', '.join(named)}. Choose one.")
    check_request(segmenter, dataset, unknown)
    learnt = {f"the fit of {name}": images_seen(each) for name, each in named.items()}
    seen = [*notes_of_seen(learnt, dataset), *notes_of_training(segmenter, dataset)]
    if seen and by in ("risk", "risks"):
        raise UsageError(
            f"threshold: expected images that nothing has learnt from, since the guarantee of "
            f"--by {by} needs them, but {cause(seen[0])}. Give others."
        )
    missed, several = Missed.empty(), (Risks.empty(), Risks.empty())
    learn = set(_to_learn_from(dataset)) if keep else set()
    for number, image in enumerate(_images(segmenter, dataset, named, of, unknown, progress)):
        missed.update(*image)
        if keep:
            several[number not in learn].update(*image)
    promised: tuple[str, ...] = ()
    if keep and level:
        chosen = threshold_at(by_risks(*several, keep, level))
        kept = ", ".join(f"{name} at most {share:g}" for name, share in keep.items())
        promised = (f"With probability {1 - level:g} over the draw of the images: {kept}.",)
    else:
        chosen = _chosen(missed, by, level, empty)
    ((_, opened),) = named.items()
    figures = missed.at(chosen)
    facts: dict[str, Any] = {"keep": dict(keep)} if keep else {}
    return Threshold(
        score=score,
        threshold=chosen,
        of=of,
        by=by,
        level=level,
        figures={name: x if math.isfinite(x) else None for name, x in figures.items()},
        digest=digest_of(opened),
        unknown=unknown,
        empty=empty,
        notes=(*seen, *promised, *_notes(missed, chosen, by, empty)),
        origin=origin_of(segmenter, dataset, probe_logits(segmenter), command, None, **facts),
    )


def check_threshold(
    segmenter: Segmenter,
    dataset: Dataset,
    threshold: Threshold,
    *,
    progress: Progress | None = None,
) -> tuple[dict[str, float], tuple[str, ...]]:
    """What a threshold comes to on other images than it was chosen on.

    Args:
        segmenter: the network that it was chosen for.
        dataset: labelled images.
        threshold: as `choose_threshold` gave it; its unknown classes are unknown here.
        progress: told after each image.

    Returns:
        Figures as `Threshold.figures`, NaN where not defined; notes for the user.

    Raises:
        UsageError, DataError, ModelError: each with one sentence that says what to do.
    """
    threshold.check_network(segmenter)
    name, score = threshold.opened()
    seen = {"the threshold": images_seen(threshold), f"the fit of {name}": images_seen(score)}
    notes = (*notes_of_seen(seen, dataset), *notes_of_training(segmenter, dataset))
    missed = _missed(segmenter, dataset, {name: score}, threshold.of, threshold.unknown, progress)
    return missed.at(threshold.threshold), notes


def _missed(
    segmenter: Segmenter,
    dataset: Dataset,
    named: dict[str, Score],
    of: Of,
    unknown: tuple[str, ...],
    progress: Progress | None,
) -> Missed:
    """The pixels of a data set by the steps of one score."""
    missed = Missed.empty()
    for image in _images(segmenter, dataset, named, of, unknown, progress):
        missed.update(*image)
    return missed


def _images(
    segmenter: Segmenter,
    dataset: Dataset,
    named: dict[str, Score],
    of: Of,
    unknown: tuple[str, ...],
    progress: Progress | None,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    pairs = Pairs(
        prepared(segmenter, named), dataset, unknown, stage="threshold", progress=progress
    )
    return scored_pixels(pairs, named, of)


def _to_learn_from(dataset: Dataset) -> Sequence[int]:
    """The images that say in which order thresholds are tested; sequences stay undivided."""
    return split_images([dataset.sample_name(index) for index in range(len(dataset))])[0]


def scored_pixels(
    pairs: Pairs, named: dict[str, Score], of: Of
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The score of each image, which pixels are to be flagged, and which count.

    Args:
        pairs: predictions and labels.
        named: one score by its name.
        of: `wrong` counts the known pixels with a class; `unknown` all but void.

    Returns:
        `(H, W)` float32, bool and bool.
    """
    for prediction, label in pairs:
        (values,) = score_maps(prediction, named).values()
        yield values, *pixels_of(prediction, label, of)


def pixels_of(prediction: Prediction, label: Tensor, of: Of) -> tuple[Tensor, Tensor]:
    """`(H, W)` bool each: the pixels to be flagged, and those that count."""
    label = label[0]
    if of == "unknown":
        return label == UNKNOWN, (label >= UNKNOWN) | (label == KNOWN)
    return prediction.classes[0] != label, label >= 0


def checked_level(of: str, by: str, level: float | None, empty: bool) -> float | None:
    """The level, or the default of its kind.

    Raises:
        UsageError: for another kind, or a level where none is asked for.
    """
    if of not in get_args(Of) or by not in get_args(By):
        raise UsageError(
            f"threshold: expected --of {' or '.join(get_args(Of))} and --by "
            f"{', '.join(get_args(By))}, got {of!r} and {by!r}."
        )
    if empty and by != "risk":
        raise UsageError("threshold: expected --count-empty with --by risk only. Leave it out.")
    if by == "f1" and level is not None:
        raise UsageError(f"threshold: expected no level with --by f1, got {level}. Leave it out.")
    usual = {"tpr": 0.95, "fpr": 0.05, "risk": 0.1, "risks": 0.1}
    level = usual.get(by) if level is None else level
    if level is not None and not 0 < level < 1:
        raise UsageError(f"threshold: expected a share between 0 and 1, got {level}.")
    return level


def _chosen(missed: Missed, by: By, level: float | None, empty: bool) -> float:
    if level is None:
        return by_f1(missed)
    if by == "risk":
        return by_risk(missed, level, empty=empty)
    return by_tpr(missed, level) if by == "tpr" else by_fpr(missed, level)


def _notes(missed: Missed, chosen: float, by: By, empty: bool) -> Iterator[str]:
    """What a user of the threshold should know."""
    place = place_of(chosen)
    pixels = missed.positives + missed.negatives
    coarse = pixels[max(place - 1, 0) : place + 1].max() / pixels.sum()
    if coarse > COARSE:
        yield (
            f"{coarse:.1%} of the pixels lie in one step of the score beside the threshold, so it "
            f"could not be chosen finer: the score has ties, or hardly varies."
        )
    holding, every = (int(count) for count in missed.images)
    if by == "risk" and holding < every:
        kind = "are counted as having missed nothing" if empty else "count for nothing"
        yield f"{every - holding} of {every} images hold no pixel to flag and {kind}."
    if missed.flagged[place] != 0:
        return
    yield "The threshold flags no pixel of these data: what is missed is tolerated as a whole."
