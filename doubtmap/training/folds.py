"""Folds of a data set, so that each image is judged by networks that never saw it.

Fold `k` of `N` holds consecutive images, since neighbouring frames of a drive look alike.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from doubtmap.datasets import Dataset, Sample
from doubtmap.datasets.pasting import Part
from doubtmap.errors import DataError, UsageError
from doubtmap.training.networks import CONFIGURATIONS
from doubtmap.training.teachers import Cache, Told


def fold_of(dataset: Dataset, fold: int, folds: int) -> Part:
    """The images of one fold, from 1; each image is in one fold, and their sizes differ by one.

    Raises:
        DataError: for more folds than images.
    """
    _check_count(dataset, folds)
    first, last = (len(dataset) * place // folds for place in (fold - 1, fold))
    return Part(dataset, range(first, last), f"{dataset.name} (fold {fold} of {folds})")


def without_fold(dataset: Dataset, fold: int, folds: int) -> Part:
    """The images of all folds but one.

    Raises:
        DataError: for more folds than images.
    """
    held = fold_of(dataset, fold, folds).indices
    rest = [index for index in range(len(dataset)) if index not in held]
    return Part(dataset, rest, f"{dataset.name} (without fold {fold} of {folds})")


def fold_and_folds(text: str) -> tuple[int, int]:
    """`(k, N)` of the text `k/N`.

    Raises:
        UsageError: for anything else, or `k` outside 1 to `N`.
    """
    fold, _, folds = text.partition("/")
    if fold.isdecimal() and folds.isdecimal() and 1 <= int(fold) <= int(folds) >= 2:
        return int(fold), int(folds)
    raise UsageError(f"--without-fold: expected a fold and their number such as 1/2, got {text}.")


class Folds:
    """What each image carries: the answer of the teachers that were trained without its fold.

    Args:
        dataset: all images.
        caches: for each fold in order, of the teachers that never saw it; one: no folds.
        notes: what the user should know of the teachers, in sentences.

    Raises:
        DataError: for more folds than images, or two images of one name.
    """

    def __init__(
        self, dataset: Dataset, caches: Sequence[Cache], notes: tuple[str, ...] = ()
    ) -> None:
        count, self.notes = len(caches), notes
        self.parts = [fold_of(dataset, fold, count) for fold in range(1, count + 1)]
        self.caches = tuple(caches)
        self.cache_of = {
            part.sample_name(index): cache
            for part, cache in zip(self.parts, caches)
            for index in range(len(part))
        }
        if len(self.cache_of) < len(dataset):
            raise DataError(f"{dataset.name}: expected images of different names, got two alike.")

    def __call__(self, sample: Sample) -> Tensor:
        """What the teachers say of an image; see `Cache`."""
        return self.cache_of[sample.name](sample)

    def fill(self, device: torch.device, *, part: tuple[int, int], told: Told) -> None:
        """Ask the teachers of every fold about its images; see `Cache.fill`."""
        counts = [len(range(part[0], len(images), part[1])) for images in self.parts]
        for fold, (images, cache) in enumerate(zip(self.parts, self.caches)):
            before = sum(counts[:fold])
            tell = partial(lambda before, done, _: told(before + done, sum(counts)), before)
            cache.fill(images, device, part=part, told=tell)
            cache.teachers.let_go()


def grouped(teachers: Sequence[str], folds: int) -> list[tuple[str, ...]]:
    """The teachers of each fold: the first so many are those of the first.

    Raises:
        UsageError: for a number that cannot be shared evenly, or leaves one to a fold.
    """
    each, left = divmod(len(teachers), folds)
    if left or (each < 2 and folds > 1):
        raise UsageError(
            f"--teachers: expected as many networks for each of {folds} folds, and two or more, "
            f"got {len(teachers)} in all. Name those trained without fold 1 first, then those "
            f"without fold 2, and so on."
        )
    return [tuple(teachers[each * fold : each * (fold + 1)]) for fold in range(folds)]


def check_unseen(teacher: str, dataset: Dataset, fold: int, folds: int) -> str | None:
    """Refuse a teacher whose folder says that it was not trained without this fold.

    Returns:
        A note, where it started from trained weights, of which nobody knows what they saw.

    Raises:
        UsageError: for such a teacher, or one whose epoch was chosen by validation, perhaps on this
            fold. One whose folder says nothing is believed.
    """
    folder = teacher.rpartition("@")[2] if teacher.startswith("python:") else teacher
    try:
        asked = json.loads(Path(folder, "training", "settings.json").read_text())
        seen, validated, model = asked["data"]["images"], asked["validation"], asked["model"]
        drawn = asked["from_scratch"] or _draws_weights(model)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if validated is not None:
        raise UsageError(
            f"--teachers: expected {teacher} to be trained without --validation, since its epoch "
            f"was chosen on images that may be of its fold, got one with it. Train it without."
        )
    if seen != identity(without_fold(dataset, fold, folds))["images"]:
        raise UsageError(
            f"--teachers: expected {teacher} to be trained with --without-fold {fold}/{folds} on "
            f"{dataset.name}, but its folder says that it saw other images. Name the teachers of "
            f"the first fold first, or train them without their fold."
        )
    if drawn:
        return None
    return (
        f"{teacher} started from the weights of {model}, which may have seen its fold; train "
        f"teachers with --from-scratch to be sure."
    )


def _draws_weights(model: str) -> bool:
    """Whether a network starts without weights; of a Python function that is believed."""
    maker, _, _ = model.removeprefix("python:").rpartition("@")
    return model in CONFIGURATIONS or (model.startswith("python:") and ".py:" not in maker)


def identity(dataset: Dataset) -> dict[str, Any]:
    """Which images a data set has, in which order, and what they are labelled with."""
    names = "\n".join(dataset.sample_name(index) for index in range(len(dataset)))
    return {
        "name": dataset.name,
        "images": hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest(),
        "labels": list(dataset.class_names),
    }


def _check_count(dataset: Dataset, folds: int) -> None:
    if folds > len(dataset):
        raise DataError(
            f"{dataset.name}: expected an image or more for each of {folds} folds, got "
            f"{len(dataset)}. Take fewer folds."
        )
