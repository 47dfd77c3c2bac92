"""Fitting a score to a network and a data set, and holding scores to the network they fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from doubtmap.datasets import VOID
from doubtmap.datasets.dataset import Dataset, Sample
from doubtmap.engine.run import Pairs, Progress
from doubtmap.engine.seen import images_seen, notes_of_training
from doubtmap.engine.settings import origin_of, with_bands_of
from doubtmap.engine.splitting import split_images
from doubtmap.engine.spread import looked_at
from doubtmap.errors import DataError, UsageError
from doubtmap.files import check_place
from doubtmap.metrics.patches import boundary_band
from doubtmap.prediction import Prediction, Segmenter, listening_to, showing
from doubtmap.scores.certainty import HALF, effective_shares, exponent_for, read_certainty
from doubtmap.scores.default import FEWEST, MOST, Doubt
from doubtmap.scores.density import Density
from doubtmap.scores.parsing import open_scores, parse_fit, split_names
from doubtmap.scores.sums import Sum
from doubtmap.scores.wrong import Wrong
from doubtmap.scoring import (
    before_last_activation,
    deepest,
    features_of,
    prepared,
    probe_logits,
)

SAMPLE = 100
"""Images that the exponent of a density is chosen on."""


def fit_score(
    score: str,
    segmenter: Segmenter,
    dataset: Dataset,
    *,
    scores: str = "",
    unknown: Sequence[str] = (),
    seed: int = 0,
    out: str | Path | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Density | Doubt | Sum | Wrong:
    """Fit a score that learns from data, and write its file.

    Args:
        score: `doubt`, `sum`, `wrong`, or as in `"density(certainty=0,covariance=tied)"`;
            `certainty=half`, the default, is the exponent that leaves half of the pixels;
            `border=4` leaves out pixels up to 4 away from another label along rows and columns;
            `layer=auto` is the layer before the last activation where there is one, else what the
            classifier saw, `layer=deepest` the last one of the encoder's coarsest grid.
        segmenter: the network.
        dataset: labelled images; for `density` best those that it was trained on, for `wrong`
            those that it was not trained on; for `doubt` and `sum` ordinary images, with labels
            or without.
        scores: what `wrong` or `sum` is made of, as in `"entropy,margin,density:FILE"`.
        unknown: label classes that are unknown objects, of which `wrong` learns nothing.
        seed: of the sample of `wrong`.
        out: the file.
        command: what to write into the file as its origin.
        progress: told after each image.

    Returns:
        The fitted score.

    Raises:
        UsageError, DataError, ModelError: as the score's `fit`.
    """
    name, options = parse_fit(score)
    if name == "wrong":
        options |= {"scores": scores, "unknown": tuple(unknown), "seed": seed}
    elif name == "sum" and not unknown:
        options |= {"scores": scores}
    elif scores or unknown:
        raise UsageError(
            f"fit: expected --scores with sum, wrong or segments only, and --unknown with wrong or "
            f"segments, got one with {name}. Leave it out."
        )
    if out is not None:
        check_place(out)
    dataset = with_bands_of(segmenter, dataset)
    fitted = FITS[name](segmenter, dataset, options, progress)
    fitted = replace(fitted, origin=replace(fitted.origin, command=command))
    if out is not None:
        fitted.save(out)
    return fitted


def _fit_density(
    segmenter: Segmenter, dataset: Dataset, options: dict[str, Any], progress: Progress | None
) -> Density:
    border, labels = _border_of(options), options.get("labels", "given")
    layer = options.pop("layer", "auto")
    if layer == "auto":
        layer = before_last_activation(segmenter) or "classifier"
    elif layer == "deepest":
        layer = deepest(segmenter, dataset[0].image[None])
    wanted = () if layer == "classifier" else tuple(layer.split("+"))
    listening = listening_to(segmenter, wanted)
    certainty = read_certainty(options.pop("certainty", HALF))
    if certainty is None:
        prediction, _ = next(iter(Pairs(listening, dataset, (), [0])))
        Density.check(prediction, layer, **options)
        few = Pairs(listening, dataset, (), _evenly(len(dataset), SAMPLE), "certainty", progress)
        shares = effective_shares(without_border(few, border), wanted, labels)
        certainty = exponent_for(shares)
    pairs = without_border(Pairs(listening, dataset, progress=progress), border)
    fitted = Density.fit(pairs, layer=layer, certainty=certainty, **options)
    fingerprint, facts = features_of(listening, fitted), dict(fitted.origin.facts)
    facts |= {"border": border} if border else {}
    return replace(fitted, origin=origin_of(segmenter, dataset, fingerprint, **facts))


def _evenly(images: int, most: int) -> list[int]:
    """At most so many of them."""
    count = min(images, most)
    return [index * images // count for index in range(count)]


def _border_of(options: dict[str, Any]) -> int:
    """Take `border` out of the options."""
    border = options.pop("border", 0)
    if not (border >= 0 and float(border).is_integer()):
        raise UsageError(
            f"density: expected border as a whole number of pixels, or 0, got {border:g}."
        )
    if border and options.get("labels") == "predicted":
        raise UsageError(
            "density: expected given labels for border, got labels=predicted. Leave one out."
        )
    return int(border)


def without_border(
    pairs: Iterable[tuple[Prediction, Tensor]], border: int
) -> Iterator[tuple[Prediction, Tensor]]:
    """The same, pixels near another label void.

    Args:
        pairs: predictions with labels `(B, H, W)`; below 0 is void, whose rim is no border.
        border: how many pixels along rows and columns the other label may be away; 0: none.

    Raises:
        UsageError: at the end, where there were labelled pixels and all are near another label.
    """
    labelled = left = False
    for prediction, label in pairs:
        labelled |= bool((label >= 0).any())
        if border:
            label = label.masked_fill(boundary_band(label, border), VOID)
        left |= bool((label >= 0).any())
        yield prediction, label
    if labelled and not left:
        raise UsageError(
            f"density: expected labelled pixels more than {border} away from another label, found "
            f"none. Take a smaller border."
        )


def _fit_doubt(
    segmenter: Segmenter, dataset: Dataset, options: dict[str, Any], progress: Progress | None
) -> Doubt:
    """On at most `MOST` images, evenly from the data set; their labels are not looked at."""
    if len(dataset) < FEWEST:
        raise DataError(
            f"doubt: expected at least {FEWEST} images, better 10 to {MOST}, got {len(dataset)}. "
            f"Add ordinary images of the domain."
        )
    indices = _evenly(len(dataset), MOST)
    layer = options.pop("layer", "deepest")
    if layer == "deepest":
        layer = deepest(segmenter, dataset[0].image[None])
    listening = listening_to(segmenter, (layer,))
    fitted = Doubt.fit(Unlabelled(listening, dataset, indices, progress), layer=layer, **options)
    fingerprint, facts = features_of(listening, fitted), fitted.origin.facts
    origin = origin_of(segmenter, dataset, fingerprint, indices=indices, **facts)
    return replace(fitted, origin=origin)


@dataclass(frozen=True)
class Unlabelled:
    """Predictions of images, as often as they are gone through; the labels are left out.

    Args:
        segmenter: the network.
        dataset: of the images.
        indices: which.
        progress: told after each image.

    Raises:
        DataError: for an image of which the network gives nothing that can be used, by its name.
    """

    segmenter: Segmenter
    dataset: Dataset
    indices: Sequence[int]
    progress: Progress | None = None

    def __iter__(self) -> Iterator[Prediction]:
        read = self.dataset.__getitem__
        passing = looked_at(self.segmenter, self.indices, read, _predicted)
        for done, prediction in enumerate(passing, 1):
            yield prediction
            if self.progress:
                self.progress("fit", done, len(self.indices))


def _predicted(segmenter: Segmenter, index: int, sample: Sample) -> Prediction:
    try:
        with showing(sample.name):
            return segmenter(sample.image[None])
    except DataError as error:
        raise DataError(f"{sample.name}: {error}") from error


def _fit_sum(
    segmenter: Segmenter, dataset: Dataset, options: dict[str, Any], progress: Progress | None
) -> Sum:
    """The labels are not looked at."""
    scores = open_scores(split_names(options.pop("scores")))
    listening = prepared(segmenter, scores)
    predictions = Unlabelled(listening, dataset, range(len(dataset)), progress)
    fitted = Sum.fit(predictions, scores, **options)
    facts = fitted.origin.facts
    origin = origin_of(segmenter, dataset, probe_logits(listening), **facts)
    seen = [*origin.images, *(image for each in fitted.scores for image in images_seen(each))]
    return replace(fitted, origin=replace(origin, images=tuple(dict.fromkeys(seen))))


def _fit_wrong(
    segmenter: Segmenter, dataset: Dataset, options: dict[str, Any], progress: Progress | None
) -> Wrong:
    """Curves on one part of the images, calibration on the other, sequences undivided."""
    texts = split_names(options["scores"])
    if not texts:
        raise UsageError("wrong: expected scores to fuse. Give --scores entropy,margin, say.")
    scores = open_scores(texts)
    listening = prepared(segmenter, scores)
    if len(dataset) < 2:
        raise UsageError(
            f"wrong: expected at least 2 images, some for the curves and others for their "
            f"calibration, got {len(dataset)}. Fit on more."
        )
    parts = split_images([dataset.sample_name(index) for index in range(len(dataset))])
    pairs, others = (
        Pairs(listening, dataset, options["unknown"], part, stage, progress)
        for part, stage in zip(parts, ("curves", "calibrate"))
    )
    fitted = Wrong.fit(pairs, others, scores, seed=options["seed"])
    facts = {**fitted.origin.facts, "unknown": list(options["unknown"])}
    origin = origin_of(segmenter, dataset, probe_logits(listening), **facts)
    seen = [*origin.images, *(image for each in fitted.scores for image in images_seen(each))]
    notes = (*notes_of_training(segmenter, dataset), *fitted.notes)
    return replace(fitted, notes=notes, origin=replace(origin, images=tuple(dict.fromkeys(seen))))


Fit = Callable[[Segmenter, Dataset, dict[str, Any], Progress | None], Density | Doubt | Sum | Wrong]


FITS: dict[str, Fit] = {
    "density": _fit_density,
    "doubt": _fit_doubt,
    "sum": _fit_sum,
    "wrong": _fit_wrong,
}
"""How each score that learns from data is fitted, by name."""
