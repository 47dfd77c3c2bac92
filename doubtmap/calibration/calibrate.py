"""Fitting a calibrator to a network, and seeing on other images whether it does any good.

A calibrated network needs no calibrator, and one that makes it worse does harm. So every method is
fitted on one part of the held-out images and compared with the raw network on the other before it
is fitted on all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from doubtmap.calibration import Calibrator, Identity, Remembered, parse_method
from doubtmap.calibration.calibrator import Pairs as Held
from doubtmap.calibration.comparison import Comparison, compare
from doubtmap.datasets import fingerprints
from doubtmap.datasets.dataset import Dataset
from doubtmap.engine.run import Pairs, Progress
from doubtmap.engine.seen import notes_of_training
from doubtmap.engine.splitting import split_images
from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.files import Origin
from doubtmap.prediction import Prediction, Segmenter
from doubtmap.scoring import probe_logits

RAW = "identity"


CANDIDATES = (
    *("temperature", "class_temperature", "temperature_mix", "histogram", "isotonic"),
    *("vector_kept", "dirichlet_kept", "order_preserving", "argmax_preserving"),
    *("local", "selective", "selective_soft", "selective_confidence"),
)
"""What `auto` tries, simplest first: all that keep the predicted class, but for Meta-Cal, which
gives accuracy away by design."""


MARGIN = 0.002
"""A difference in ECE below this is too small to be worth another method."""


Criterion = Literal["ece", "brier", "nll"]


@dataclass(frozen=True, eq=False)
class Calibration:
    """What `calibrate` found.

    Args:
        method: the one taken, by name.
        calibrator: fitted on all images.
        comparison: of the methods, fitted on one part of the images, on the other.
        notes: sentences for the user.
    """

    method: str
    calibrator: Calibrator
    comparison: Comparison
    notes: tuple[str, ...]


def calibrate(
    segmenter: Segmenter,
    dataset: Dataset,
    method: str = "auto",
    *,
    candidates: Sequence[str] = CANDIDATES,
    unknown: Sequence[str] = (),
    by: Criterion = "ece",
    margin: float = MARGIN,
    seed: int = 0,
    replicates: int = 300,
    command: str = "",
    progress: Progress | None = None,
) -> Calibration:
    """Fit a calibrator on held-out images.

    The network runs once; its native logits are kept in a temporary folder meanwhile, and its
    features too where a method asks for them (`inputs=all`), which are many times larger.

    Args:
        segmenter: the network.
        dataset: labelled images that it was not trained on and will not be tested on.
        method: a name of `doubtmap.calibration.METHODS`, with options in brackets, or `auto`: the
            simplest of the candidates that no other beats, and the identity where none beats the
            raw network.
        candidates: what `auto` compares, simplest first.
        unknown: label classes that are unknown objects; they count for nothing here.
        by: the figure that `auto` goes by.
        margin: difference in it that is worth another method.
        seed: of samples, training and bootstrap; a method's own `seed=` comes first.
        replicates: of the bootstrap over blocks of images.
        command: what to write into the file as its origin.
        progress: told after each image.

    Raises:
        UsageError, DataError, ModelError: each with one sentence that says what to do.
    """
    if by not in get_args(Criterion):
        raise UsageError(f"calibrate: expected by = ece, brier or nll, got {by!r}.")
    wanted = [RAW, *candidates] if method == "auto" else list(dict.fromkeys([RAW, method]))
    for name in wanted:
        parse_method(name)
    parts = split_images([dataset.sample_name(index) for index in range(len(dataset))])
    images = fingerprints(dataset)
    need = tuple(unknown)
    fit, other = (
        Remembered(
            Pairs(segmenter, dataset, need, indices=part, stage=stage, progress=progress),
            features=any("inputs" in name for name in wanted),
        )
        for part, stage in zip(parts, ("predict to fit", "predict to compare"))
    )
    fitted, notes = _fit_each(wanted, fit, method, seed)
    comparison = compare(other, fitted, replicates=replicates, seed=seed, progress=progress)
    if method == "auto":
        taken, found = choose(comparison, by, margin)
    else:
        taken, found = method, _warnings(comparison, method)
    everything = _Both(fit, other)
    calibrator = parse_method(taken, seed)(everything)
    origin = Origin(
        data=dataset.name,
        images=images,
        class_names=segmenter.class_names,
        facts={"raw": comparison.figures(RAW), "calibrated": comparison.figures(taken)},
        command=command,
        fingerprint=tuple(probe_logits(segmenter).tolist()),
    )
    missing = _unlabelled(everything, segmenter.class_names)
    said = (*notes_of_training(segmenter, dataset), *notes, *missing, *found)
    return Calibration(taken, replace(calibrator, origin=origin), comparison, said)


def choose(
    comparison: Comparison, by: Criterion = "ece", margin: float = MARGIN
) -> tuple[str, tuple[str, ...]]:
    """The first method that no other beats, among those that beat the raw network.

    `a` beats `b` where its figure is lower by more than the margin and the paired 95 % interval
    of the difference lies below 0. A method whose likelihood is worse than the raw network's,
    beyond doubt, is no candidate.

    Args:
        comparison: methods simplest first, `identity` among them.
        by: the figure; `ece` is pooled, with 15 bins. Brier score and likelihood (`nll`) also see
            whether doubtful pixels are told from sure ones.
        margin: of the figure.

    Returns:
        Its name, and sentences that say why.
    """
    able, notes = [], []
    for name in comparison.names:
        worse, bounds = comparison.difference(name, RAW, "nll")
        if name != RAW and bounds is not None and bounds[0] > 0:
            notes.append(f"{name}: refused, since it worsens the likelihood by {worse:.3f} nats.")
        else:
            able.append(name)
    better = [name for name in able if beats(comparison, name, RAW, by, margin)]
    taken = next(
        (a for a in better if not any(beats(comparison, b, a, by, margin) for b in better)), RAW
    )
    raw, now = comparison.ece(RAW), comparison.ece(taken)
    if taken == RAW:
        notes.append(
            _unproven(comparison, [name for name in able if name != RAW], by)
            or f"No method improves on the raw network, whose ECE is {raw:.4f}: the calibrator "
            f"written leaves predictions as they are."
        )
    else:
        notes.append(f"{taken}: ECE {raw:.4f} before, {now:.4f} after, on images kept apart.")
    return taken, tuple(notes)


FIGURES = {"ece": "ECE", "brier": "Brier score", "nll": "negative log-likelihood"}
"""What the criteria are called in sentences."""


def _unproven(comparison: Comparison, names: Sequence[str], by: Criterion) -> str:
    """What to say where a method looks better than the raw network and may not be; else nothing."""
    found = {name: comparison.difference(name, RAW, by) for name in names}
    unsure = {
        name: (value, bounds)
        for name, (value, bounds) in found.items()
        if value < 0 and (bounds is None or bounds[0] <= 0 <= bounds[1])
    }
    if not unsure:
        return ""
    name = min(unsure, key=lambda each: unsure[each][0])
    value, bounds = unsure[name]
    raw = getattr(comparison, by)(RAW)
    return (
        f"Improvement on the raw network: none that {_images(comparison)} can prove. The "
        f"{FIGURES[by]} of {name} is {raw + value:.4f}, that of the raw network {raw:.4f}, and "
        f"{_not_below(bounds)}. The calibrator written leaves predictions as they are."
    )


def _images(comparison: Comparison) -> str:
    count = len(comparison.sums)
    return "one image" if count == 1 else f"{count} images"


def _not_below(bounds: list[float] | None) -> str:
    """What an interval of a difference says that has 0 in it, or could not be had."""
    if bounds is None:
        return "so few have no interval of the difference: give twenty images or more"
    return f"the 95 % interval of the difference, {bounds[0]:.4f} to {bounds[1]:.4f}, contains zero"


def beats(
    comparison: Comparison, a: str, b: str, by: Criterion = "ece", margin: float = MARGIN
) -> bool:
    """Whether a figure of `a` is lower than that of `b` by more than the margin, beyond doubt."""
    difference, bounds = comparison.difference(a, b, by)
    return a != b and difference < -margin and bounds is not None and bounds[1] < 0


def _warnings(comparison: Comparison, method: str) -> tuple[str, ...]:
    raw, now = comparison.ece(RAW), comparison.ece(method)
    sentence = f"{method}: ECE {raw:.4f} before, {now:.4f} after, on images kept apart."
    if beats(comparison, RAW, method, margin=0.0):
        return (f"{sentence} It makes this network worse. Take --method auto, which would not.",)
    difference, bounds = comparison.difference(method, RAW)
    if difference < 0 and (bounds is None or bounds[1] >= 0):
        proof = f"It is an improvement that {_images(comparison)} cannot prove:"
        return (f"{sentence} {proof} {_not_below(bounds)}.",)
    return (sentence,)


def _fit_each(
    wanted: list[str], pairs: Remembered, method: str, seed: int
) -> tuple[dict[str, Calibrator], list[str]]:
    """Fitted methods by name; under `auto` those that cannot be fitted are left out, and said."""
    result: dict[str, Calibrator] = {RAW: Identity()}
    notes = []
    for name in wanted[1:]:
        try:
            result[name] = parse_method(name, seed)(pairs)
        except (DataError, ModelError) as error:
            if method != "auto":
                raise
            notes.append(f"{name}: left out ({error})")
    return result, notes


def _unlabelled(pairs: Held, class_names: Sequence[str]) -> list[str]:
    """What to say where classes of the model have no pixel in the images."""
    there: set[int] = set()
    count = 0
    for prediction, label in pairs:
        count = prediction.native_logits.shape[1]
        there.update(torch.unique(label[label >= 0]).tolist())
    names = class_names or [f"class {label}" for label in range(count)]
    none = [names[label] for label in range(count) if label not in there]
    if not none:
        return []
    return [
        f"Without a labelled pixel: {', '.join(none)}. What a calibrator makes of them rests on no "
        f"image, and one that is no temperature may rule them out. Give images that hold them."
    ]


@dataclass(frozen=True)
class _Both:
    """The pairs of two parts, one after the other."""

    first: Remembered
    second: Remembered

    def __iter__(self) -> Iterator[tuple[Prediction, Tensor]]:
        yield from self.first
        yield from self.second
