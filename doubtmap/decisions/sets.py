"""Label sets with a promise: levels chosen so that few pixels miss their true class.

Conformal risk control of the share of an image's pixels whose class is not in their set. What an
image loses falls as the level rises, so the lowest level with

    (n R + 1) / (n + 1) <= alpha

keeps the expected share of a further, exchangeable image at most alpha; R is the mean over the n
images. The same for each true class, or for each place, over the images that hold any of it.

Reference:
    Conformal Risk Control (Angelopoulos et al., 2024), https://arxiv.org/abs/2208.02814;
    Kandinsky Conformal Prediction (Brunekreef et al., 2024), https://arxiv.org/abs/2311.11837:
    places of an image apart. Ours are cells of a grid and predicted classes, not clusters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self, get_args

import numpy as np
import torch
from torch import Tensor

from doubtmap.datasets.dataset import Dataset
from doubtmap.decisions.choosing import bounded_risk
from doubtmap.engine.run import Pairs, Progress, check_request
from doubtmap.engine.seen import cause, who_has_seen
from doubtmap.engine.settings import origin_of
from doubtmap.errors import DataError, UsageError
from doubtmap.kernels.steps import STEPS, steps, top_of_step
from doubtmap.metrics.accumulator import Array, Sums
from doubtmap.prediction import Prediction, Segmenter
from doubtmap.scores.sets import MOST, Form, LabelSets, Per, nonconformity, places
from doubtmap.scores.wrong import labelled_pixels
from doubtmap.scoring import prepared, probe_logits

FIRST = int(steps(torch.tensor(2.0**-24)))
"""The first step that is told from 0."""
COUNT = int(steps(torch.tensor(MOST))) - FIRST + 2
"""Steps of nonconformity: 0, 128 to the octave from 2^-24 to 128."""
GROUPS = 4096
"""Most groups that are counted apart: 390 MB."""


@dataclass
class Nonconformity(Sums):
    """Sums over images, by group and step of nonconformity.

    Args:
        shares: `(G, K)`, summed over images: of the image's pixels in the group, the share whose
            true class is of the step.
        pixels: `(G, K)` pixels by the step of their true class.
        classes: `(G, K)` classes of all pixels by their own step.
        images: `(G,)` images that hold any of the group.
        seen: `(2,)`: images with any labelled pixel, and all.
    """

    shares: Array
    pixels: Array
    classes: Array
    images: Array
    seen: Array

    @classmethod
    def empty(cls, groups: int) -> Self:
        """Nothing seen yet."""
        shares, pixels, classes = np.zeros((3, groups, COUNT))
        return cls(shares, pixels, classes, np.zeros(groups), np.zeros(2))

    def update(self, prediction: Prediction, label: Tensor, sets: LabelSets) -> None:
        """Take an image.

        Args:
            prediction: of one image.
            label: `(1, H, W)` int64, below 0 counts for nothing.
            sets: say form and groups; their levels are not looked at.

        Raises:
            DataError: for a label that is no class of the model.
        """
        at = labelled_pixels(prediction, label)
        self.seen = self.seen + np.array([len(at) > 0, 1])
        if not len(at):
            return
        truth = label.reshape(-1)[at]
        step = steps_of(prediction, sets.form).movedim(1, -1).flatten(0, 2)[at]
        groups, width = len(self.images), step.shape[1]
        entry = torch.arange(width, device=at.device).expand(len(at), width)
        group = torch.zeros_like(truth)
        if sets.per == "class":
            group = truth
        elif sets.per == "place":
            group = places(prediction, sets.rows, sets.columns).reshape(-1)[at]
        own = _counted(group, step.gather(1, truth[:, None])[:, 0], groups)
        every = _counted(entry if sets.per == "class" else group[:, None], step, groups)
        sums = own.sum(1)
        self.shares = self.shares + own / np.maximum(sums, 1)[:, None]
        self.pixels, self.classes = self.pixels + own, self.classes + every
        self.images = self.images + (sums > 0)

    def at(self, chosen: Array) -> dict[str, float]:
        """The figures of `LabelSets` where each group has the level of a step.

        Args:
            chosen: `(G,)` steps.
        """
        inside = np.arange(COUNT) <= chosen[:, None]
        pixels = self.pixels.sum()
        held = self.images > 0
        missed = (self.shares * ~inside).sum(1)[held] / self.images[held]
        return {
            "covered": float((self.pixels * inside).sum() / pixels),
            "classes": float((self.classes * inside).sum() / pixels),
            "missed": float(missed.max()),
        }


def steps_of(prediction: Prediction, form: Form) -> Tensor:
    """`(B, C, H, W)` int64 in [0, `COUNT`): the step of each class's nonconformity."""
    strange = nonconformity(prediction.logits, prediction.classes, form)
    found = (steps(strange) - FIRST + 1).clamp_(0, COUNT - 1)
    # what lies between 0 and the first step is not 0: the level 0 has the predicted class alone
    return found.where(strange <= 0, found.clamp_min(1))


def level_of(step: int) -> float:
    """The largest nonconformity of a step: a float32 number.

    Example:
        >>> level_of(0), level_of(COUNT - 1)
        (0.0, 128.0)
    """
    return 0.0 if step == 0 else min(top_of_step(min(step - 1 + FIRST, STEPS - 1)), MOST)


def step_of(level: float) -> int:
    """The step whose level this is.

    Example:
        >>> [step_of(level_of(step)) for step in (0, 1, 7, COUNT - 1)] == [0, 1, 7, COUNT - 1]
        True
    """
    return int(steps(torch.tensor(level))) - FIRST + 1 if level > 0 else 0


def _counted(group: Tensor, step: Tensor, groups: int) -> Array:
    flat = (group * COUNT + step).reshape(-1)
    found = torch.bincount(flat, minlength=groups * COUNT).reshape(groups, COUNT)
    return np.asarray(found.cpu().numpy().astype(np.float64))


def steps_needed(shares: Array, images: Array, alpha: float) -> Array:
    """The lowest step of each group that keeps the bound at or below alpha.

    Args:
        shares: `(..., K)`, summed over n images.
        images: `(...)`, n.
        alpha: tolerated share.

    Returns:
        `(...)` int64; the last step, at which every class is in the set, where n is too small.
    """
    missed = bounded_risk(shares[..., ::-1], images)[..., :-1][..., ::-1]  # above each step
    return np.asarray(np.argmax(np.concatenate([missed[..., :-1] <= alpha, _yes(missed)], -1), -1))


def _yes(like: Array) -> Array:
    return np.ones_like(like[..., :1], bool)


def fit_sets(
    segmenter: Segmenter,
    dataset: Dataset,
    *,
    alpha: float = 0.1,
    form: Form = "lac",
    per: Per = "image",
    places: tuple[int, int] = (4, 4),
    command: str = "",
    progress: Progress | None = None,
) -> LabelSets:
    """Choose the levels of label sets on held-out images.

    Memory does not grow with the number of images. Void and unknown pixels count for nothing.

    Args:
        segmenter: the network, calibrated or not.
        dataset: labelled images that it was not trained on and will not be tested on.
        alpha: tolerated share of the pixels of an image that miss their class.
        form: `lac`, the smallest sets on average; `aps`, classes until their probability adds up;
            `raps`, the same with a price for many classes.
        per: whose share: of the `image`, of each `class` in it, or of each `place`.
        places: rows and columns of the cells of `place`.
        command: what to write into the file as its origin.
        progress: told after each image.

    Raises:
        UsageError, DataError, ModelError: each with one sentence that says what to do.
    """
    check_asked(alpha, form, per, places)
    check_request(segmenter, dataset, ())
    for note in who_has_seen(dataset, segmenter, {}):
        raise UsageError(
            f"sets: expected images that neither the network nor its calibrator has learnt from, "
            f"since the promise needs them, but {cause(note)}. Give others."
        )
    rows, columns = places if per == "place" else (1, 1)
    blank = LabelSets(torch.zeros(1), form, per, alpha, rows, columns)
    sums = _count(segmenter, dataset, blank, progress)
    least = images_needed(alpha)
    if sums.images.max() < least:
        raise DataError(
            f"sets: expected at least {least} images that hold {_WHAT[per]} to keep the missed "
            f"share below {alpha:g}, got {sums.images.max():.0f}. Take more images, or tolerate a "
            f"larger share."
        )
    chosen = steps_needed(sums.shares, sums.images, alpha)
    return LabelSets(
        torch.tensor([level_of(int(step)) for step in chosen], dtype=torch.float32),
        form,
        per,
        alpha,
        rows,
        columns,
        sums.at(chosen),
        tuple(_remarks(sums, chosen, per, alpha, segmenter.class_names)),
        origin_of(segmenter, dataset, probe_logits(segmenter), command),
    )


def check_sets(
    segmenter: Segmenter,
    dataset: Dataset,
    sets: LabelSets,
    *,
    progress: Progress | None = None,
) -> tuple[dict[str, float], tuple[str, ...]]:
    """What label sets come to on other images than their levels were chosen on.

    Args:
        segmenter: the network that they were fitted to.
        dataset: labelled images.
        sets: as `fit_sets` gave them.
        progress: told after each image.

    Returns:
        Figures as `LabelSets.figures`, and notes for the user.

    Raises:
        UsageError, DataError, ModelError: each with one sentence that says what to do.
    """
    prepared(segmenter, {sets.name: sets})
    sums = _count(segmenter, dataset, sets, progress)
    notes = who_has_seen(dataset, segmenter, {"the label sets": sets})
    return sums.at(np.array([step_of(float(level)) for level in sets.levels])), tuple(notes)


def images_needed(alpha: float) -> int:
    """The fewest images with which a share of alpha can be promised.

    Example:
        >>> images_needed(0.1), images_needed(0.3)
        (9, 3)
    """
    return math.ceil(1 / alpha - 1 - 1e-9)


def _count(
    segmenter: Segmenter, dataset: Dataset, sets: LabelSets, progress: Progress | None
) -> Nonconformity:
    sums = None
    for prediction, label in Pairs(segmenter, dataset, stage="sets", progress=progress):
        if sums is None:
            channels = prediction.native_logits.shape[1]
            cells = sets.rows * sets.columns
            groups = {"image": 1, "class": channels, "place": cells * channels}[sets.per]
            if groups > GROUPS:
                raise UsageError(
                    f"sets: expected at most {GROUPS} groups, got {cells} cells of {channels} "
                    f"classes. Take fewer --places."
                )
            sums = Nonconformity.empty(groups)
        sums.update(prediction, label, sets)
    if sums is None or not sums.images.any():
        raise DataError(
            "sets: expected pixels labelled with a class of the model, found none. Pass labelled "
            "images whose class names are the model's."
        )
    return sums


_WHAT = {
    "image": "a labelled pixel",
    "class": "one and the same class",
    "place": "one and the same class in one and the same place",
}


def _remarks(
    sums: Nonconformity, chosen: Array, per: Per, alpha: float, names: tuple[str, ...]
) -> Iterator[str]:
    """What a user of the sets should know."""
    labelled, every = (int(count) for count in sums.seen)
    if labelled < every:
        yield f"{every - labelled} of {every} images hold no labelled pixel and count for nothing."
    least, short = images_needed(alpha), sums.images < images_needed(alpha)
    if per == "class":
        for number in np.flatnonzero(short):
            name = names[number] if names else f"class {number}"
            yield (
                f"{name}: {sums.images[number]:.0f} images hold it and {least} are needed, so it "
                f"is in every set, since nothing less can be promised of it."
            )
    elif per == "place" and short.any():
        pixels = sums.pixels[short].sum() / sums.pixels.sum()
        yield (
            f"{short.sum()} of {len(short)} places have fewer than {least} images, so every class "
            f"is in the sets there: {pixels:.2%} of the pixels. Fewer --places would have more."
        )
    if not chosen.any():
        yield "The predicted class alone keeps the promise: every set is that class and no other."


def check_asked(alpha: float, form: str, per: str, places: tuple[int, int]) -> None:
    """Refuse what cannot be asked for.

    Raises:
        UsageError: for another form or group, or a share outside of (0, 1).
    """
    if form not in get_args(Form) or per not in get_args(Per):
        raise UsageError(
            f"sets: expected --form {', '.join(get_args(Form))} and --per "
            f"{', '.join(get_args(Per))}, got {form!r} and {per!r}."
        )
    if not 0 < alpha < 1:
        raise UsageError(f"alpha: expected a share between 0 and 1, such as 0.1, got {alpha}.")
    if min(places) < 1 or max(places) > 1024:
        raise UsageError(
            f"--places: expected rows and columns from 1 to 1024, such as 4x4, got "
            f"{places[0]}x{places[1]}."
        )
