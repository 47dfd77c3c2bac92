"""Objects of labelled images, and the probability that is learnt from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from doubtmap.datasets.dataset import UNKNOWN, VOID, Dataset
from doubtmap.engine.run import Pairs, Progress, check_request
from doubtmap.engine.seen import images_seen, notes_of_seen, who_has_seen
from doubtmap.engine.settings import origin_of
from doubtmap.engine.splitting import folds_of
from doubtmap.errors import DataError, UsageError
from doubtmap.files import check_place, write_atomically
from doubtmap.metrics.accumulator import Array
from doubtmap.metrics.events import EventReliability, event_reliability
from doubtmap.objects.find import ObjectRule, UnknownObject, find_objects
from doubtmap.objects.probability import ObjectProbability, features_of
from doubtmap.prediction import Score, Segmenter, digest_of
from doubtmap.reports.events import event_chart
from doubtmap.reports.page import framed, header, page_table
from doubtmap.scoring import prepared, probe_logits, score_maps

FOLDS = 5
RIGHT = 0.25
"""Share of an object's labelled pixels that are unknown from which on it is right, as in the
component figures of SegmentMeIfYouCan."""
FEWEST = 20
"""Objects of the rarer kind below which a note says that they are few."""


OPTIONS: dict[str, Callable[[str], Any]] = {
    "smallest": int,
    "smallest_share": float,
    "fill_holes": lambda text: {"true": True, "false": False}[text],
    "on": lambda text: tuple(text.split("+")),
    "on_share": float,
}


def parse_objects(text: str) -> dict[str, Any] | None:
    """The options in `"objects"` or `"objects(smallest=100,on=road+pavement)"`; None for others.

    Raises:
        UsageError: for an unknown option or a value that cannot be.

    Example:
        >>> parse_objects("objects(smallest=100,on=road+pavement)")
        {'smallest': 100, 'on': ('road', 'pavement')}
    """
    name, bracket, given = text.strip().partition("(")
    if name.strip() != "objects":
        return None
    found: dict[str, Any] = {}
    if bracket and not given.endswith(")"):
        raise UsageError(f"fit: expected objects or objects(smallest=100), got {text!r}.")
    for part in filter(None, given.removesuffix(")").split(",")):
        key, _, value = (piece.strip() for piece in part.partition("="))
        try:
            found[key] = OPTIONS[key](value)
        except (KeyError, ValueError):
            raise UsageError(
                f"fit: expected options of objects among {', '.join(OPTIONS)}, as in "
                f"objects(smallest=100,on=road+pavement), got {part!r}."
            ) from None
    return found


@dataclass(frozen=True, eq=False)
class LabelledObjects:
    """Objects of a data set with labels.

    Args:
        features: `(N, 5)`, see `doubtmap.objects.probability.FEATURES`.
        unknown: `(N,)` bool.
        image: `(N,)` number of the image.
        left_out: objects without any labelled pixel.
    """

    features: Array
    unknown: Array
    image: Array
    left_out: int = 0


def labelled_objects(
    segmenter: Segmenter,
    dataset: Dataset,
    score: tuple[str, Score],
    rule: ObjectRule,
    *,
    unknown: Sequence[str] = (),
    progress: Progress | None = None,
) -> LabelledObjects:
    """Find the objects of all images and hold them to the labels.

    Args:
        segmenter: the network.
        dataset: labelled images.
        score: its name, and the score.
        rule: threshold, and which objects are kept.
        unknown: label classes that are unknown objects.
        progress: told after each image.

    Raises:
        UsageError, DataError, ModelError: as `evaluate`.
    """
    named = dict([score])
    pairs = Pairs(
        prepared(segmenter, named), dataset, tuple(unknown), stage="objects", progress=progress
    )
    features, truth, image, left_out = [], [], [], 0
    for number, (prediction, label) in enumerate(pairs):
        (doubt,) = score_maps(prediction, named).values()
        things = find_objects(doubt, prediction.classes[0], rule)
        shares = [unknown_share(thing, label[0].cpu().numpy()) for thing in things]
        kept = [at for at, share in enumerate(shares) if share is not None]
        left_out += len(things) - len(kept)
        features.append(features_of(things, prediction.size)[kept])
        truth += [(shares[at] or 0) >= RIGHT for at in kept]
        image += [number] * len(kept)
    if not features:
        raise DataError(f"{dataset.name}: expected images, found none. Check the data set.")
    rows = np.concatenate(features)
    return LabelledObjects(rows, np.array(truth, bool), np.array(image, np.int64), left_out)


def unknown_share(thing: UnknownObject, label: Array) -> float | None:
    """Share of an object's labelled pixels that are unknown; None without labelled pixels.

    Args:
        thing: the object.
        label: `(H, W)` of its image, as `Pairs` gives it.
    """
    x, y, width, height = thing.box
    inside = label[y : y + height, x : x + width][thing.mask]
    there = inside[inside != VOID]
    return float((there == UNKNOWN).mean()) if len(there) else None


def cross_fitted(
    found: LabelledObjects, folds: Sequence[Sequence[int]], score: str, rule: ObjectRule
) -> Array:
    """`(N,)`: what a fit to the other folds says of each object; NaN where none can be made."""
    said = np.full(len(found.image), np.nan)
    for fold in folds:
        held = np.isin(found.image, fold)
        truth = found.unknown[~held]
        if held.any() and truth.any() and not truth.all():
            model = ObjectProbability.fit(found.features[~held], truth, score, rule)
            said[held] = model.of_features(found.features[held])
    return said


def fit_objects(
    segmenter: Segmenter,
    dataset: Dataset,
    text: str,
    score: tuple[str, Score],
    rule: ObjectRule,
    *,
    unknown: Sequence[str] = (),
    out: str | Path | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> tuple[ObjectProbability, EventReliability]:
    """Learn from labelled images how likely an object is unknown.

    The figures come from up to five runs, each judging a part of the images, in whole sequences
    or runs of consecutive images, by a fit to the rest. The probability itself is then fitted to
    all.

    Args:
        segmenter: the network.
        dataset: labelled images that it was not trained on.
        text: the score as on the command line.
        score: its name, and the score.
        rule: threshold, and which objects are kept.
        unknown: label classes that are unknown objects.
        out: a JSON file.
        command: what to write into the file as its origin.
        progress: told after each image.

    Raises:
        UsageError, DataError, ModelError: each with one sentence that says what to do.
    """
    if out is not None:
        check_place(out)
    check_request(segmenter, dataset, tuple(unknown))
    names = [dataset.sample_name(index) for index in range(len(dataset))]
    folds, whole = folds_of(names, min(FOLDS, len(names)))
    found = labelled_objects(segmenter, dataset, score, rule, unknown=unknown, progress=progress)
    _check(found, dataset.name)
    said = cross_fitted(found, folds, text, rule)
    judged = np.isfinite(said)
    if not judged.any():
        raise DataError(
            f"{dataset.name}: expected unknown objects and others in several images, so that each "
            f"can be judged by a fit to the rest. Give more images."
        )
    told = event_reliability(said[judged], found.unknown[judged], found.image[judged])
    seen = [*who_has_seen(dataset, segmenter, {})]
    seen += notes_of_seen({f"the fit of {score[0]}": images_seen(score[1])}, dataset)
    model = replace(
        ObjectProbability.fit(found.features, found.unknown, text, rule),
        on=tuple(segmenter.class_names[place] for place in rule.on),
        digest=digest_of(score[1]),
        unknown=tuple(unknown),
        figures=told.told(),
        notes=(*seen, *_notes(found, judged, whole)),
        origin=origin_of(segmenter, dataset, probe_logits(segmenter), command),
    )
    if out is not None:
        model.save(out)
    return model, told


def write_reliability(model: ObjectProbability, told: EventReliability, path: str | Path) -> None:
    """Write one page: the reliability diagram of P(unknown), and its figures.

    Args:
        model: what `fit_objects` gave.
        told: likewise.
        path: the file.

    Raises:
        DataError: where it cannot be written.
    """
    about = (
        f"{told.events} objects of {told.images} images of {model.origin.data}, each judged by a "
        f"fit to other images. Whiskers are 95 % intervals over images; the larger a point, the "
        f"more objects."
    )
    title, chart = "P(unknown) of objects", event_chart(told.diagram.tolist(), "unknown", "objects")
    figure = Markup("<figure>{}</figure>").format(chart)
    head = header("fit objects", title, about, *model.notes)
    write_atomically(path, framed(title, head, figure, page_table("Figures", told.rows())))


def _check(found: LabelledObjects, name: str) -> None:
    count, right = len(found.unknown), int(found.unknown.sum())
    if not 0 < right < count:
        raise DataError(
            f"{name}: expected objects of which some are unknown and some are not, found {count}, "
            f"of which {right} are. Choose another --threshold, give --unknown CLASSES, or give "
            f"more images."
        )


def _notes(found: LabelledObjects, judged: Array, whole: bool) -> Iterator[str]:
    rarer = int(min(found.unknown.sum(), (~found.unknown).sum()))
    if rarer < FEWEST:
        kind = "unknown" if found.unknown.mean() < 0.5 else "not"
        yield (
            f"Only {rarer} of {len(found.unknown)} objects are {kind}: the intervals say how "
            f"little that settles. Give more images."
        )
    if found.left_out:
        yield f"Left out, having no labelled pixel: {found.left_out} of the objects."
    if not judged.all():
        yield (
            f"{(~judged).sum()} objects could not be judged: without their images all others are "
            f"of one kind."
        )
    if not whole:
        yield (
            "The images are of too few sequences to keep them whole, so the figures say how well "
            "objects of these very places are judged. Expect less elsewhere, and give more."
        )
