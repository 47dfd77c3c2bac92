"""Labels meet a model's classes by name: which label is which class, and which is unknown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from doubtmap.datasets.dataset import KNOWN, UNKNOWN, VOID
from doubtmap.errors import UsageError

REST = "rest"
"""Among the unknown: every label class that the model lacks."""

ALIKE = 0.75
"""From this ratio of equal letters on, two names may be one that was spelt in two ways."""


def plain_name(name: str) -> str:
    """A class name as it is compared: without case, `_`, `-` and space being one."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


@dataclass(frozen=True)
class Matching:
    """What each label of a data set means to a model.

    Args:
        targets: for each label class of the data set, the index of the model's class, or
            `UNKNOWN` or `VOID`.
        notes: what a reader of the results must know about it, in sentences.
    """

    targets: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def apply(self, label: Tensor) -> Tensor:
        """Translate labels.

        Args:
            label: `(..., H, W)` int16: index of a label class, or `KNOWN`, `UNKNOWN`, `VOID`.

        Returns:
            The same shape, int16: index of a model's class, or `KNOWN`, `UNKNOWN`, `VOID`.
        """
        codes = range(KNOWN, 0)
        table = torch.tensor([*codes, *self.targets], dtype=torch.int16, device=label.device)
        places = label.flatten().to(torch.int32) - KNOWN
        return torch.index_select(table, 0, places).reshape(label.shape)


def match_labels(
    dataset_class_names: Sequence[str],
    model_class_names: Sequence[str] | None,
    unknown: Sequence[str] = (),
    *,
    channels: int | None = None,
) -> Matching:
    """Match the label classes of a data set with the classes of a model.

    Names are the same where they differ only in case or in `_`, `-` and space. A label class that
    the model lacks is void, unless it is unknown. A model without class names is matched by order
    with the label classes that are not unknown, if their number is right.

    Args:
        dataset_class_names: empty where labels only tell known from unknown.
        model_class_names: empty or `None` where the model does not know.
        unknown: label classes that count as unknown objects; `rest` stands for every label class
            that the model lacks.
        channels: number of classes the model tells apart, where it is known.

    Raises:
        UsageError: a name in `unknown` that the data set lacks, no class in common, or numbers of
            classes that do not fit.

    Example:
        >>> matching = match_labels(["road", "Traffic-Sign", "dog"], ["traffic sign", "road"])
        >>> matching.targets
        (1, 0, -2)
        >>> matching.notes
        ('The model lacks the label class dog, which is void. --unknown can make it unknown.',)
    """
    labels, classes = list(dataset_class_names), list(model_class_names or ())
    if classes and channels is not None and len(classes) != channels:
        raise UsageError(
            f"Expected {channels} class names, one for each channel of the model, got "
            f"{len(classes)}: {_listed(classes)}. Correct them with --classes."
        )
    chosen = _chosen(labels, unknown)
    if not labels:
        return Matching(())
    if not classes:
        return _by_order(labels, chosen, channels)
    return _by_name(labels, classes, chosen, rest=REST in map(plain_name, unknown))


def _by_name(labels: list[str], classes: list[str], chosen: set[int], *, rest: bool) -> Matching:
    index_of = {plain_name(name): index for index, name in reversed(list(enumerate(classes)))}
    places = [index_of.get(plain_name(name)) for name in labels]
    if all(place is None for place in places):
        raise UsageError(
            f"Expected classes of the data set and the model with the same names, found none. "
            f"Data set: {_listed(labels)}. Model: {_listed(classes)}. Rename the model's with "
            "--classes."
        )
    lacking = UNKNOWN if rest else VOID
    targets = tuple(
        UNKNOWN if index in chosen else lacking if place is None else place
        for index, place in enumerate(places)
    )
    return Matching(targets, tuple(_notes(labels, classes, chosen, places, targets)))


def _by_order(labels: list[str], chosen: set[int], channels: int | None) -> Matching:
    known = [index for index in range(len(labels)) if index not in chosen]
    if channels != len(known):
        number = "an unknown number of" if channels is None else channels
        raise UsageError(
            f"The model has no class names and {number} channels, the data set has {len(known)} "
            f"classes that are not unknown: {_listed([labels[index] for index in known])}. Give "
            "the model's class names with --classes."
        )
    targets = tuple(
        UNKNOWN if index in chosen else known.index(index) for index in range(len(labels))
    )
    note = (
        "The model has no class names: its channels were taken in the order of the label classes "
        f"{_listed([labels[index] for index in known])}."
    )
    return Matching(targets, (note,))


def _notes(
    labels: list[str],
    classes: list[str],
    chosen: set[int],
    places: list[int | None],
    targets: tuple[int, ...],
) -> list[str]:
    notes = []
    for index in sorted(chosen):
        if places[index] is not None:
            notes.append(
                f"{labels[index]} is a class of the model and is counted as unknown because you "
                "asked."
            )
    void = [name for name, target in zip(labels, targets) if target == VOID]
    if void:
        notes.append(_lacks(void))
    absent = [name for index, name in enumerate(classes) if index not in places]
    if absent:
        notes.append(f"The data set has no labels for the model's {_classes(absent)}.")
    doubtful = [n for i, n in enumerate(labels) if places[i] is None and i not in chosen]
    notes += _meant(doubtful, absent)
    if all(target < 0 for target in targets):
        notes.append("No label class is left that the model could get right.")
    return notes


def _meant(labels: list[str], classes: list[str]) -> list[str]:
    """A question for each unmatched label class that looks like an unmatched model class."""
    names = {plain_name(name): name for name in classes}
    near = {n: difflib.get_close_matches(plain_name(n), names, 1, ALIKE) for n in labels}
    return [
        f"Did you mean the model's class {names[found[0]]} by the label class {label}? Then give "
        "them one name with --classes."
        for label, found in near.items()
        if found
    ]


def _lacks(names: list[str]) -> str:
    if len(names) == 1:
        return (
            f"The model lacks the label class {names[0]}, which is void. --unknown can make it "
            "unknown."
        )
    return (
        f"The model lacks the label classes {_listed(names)}, which are void. --unknown can make "
        "them unknown."
    )


def _chosen(labels: list[str], unknown: Sequence[str]) -> set[int]:
    """Indices of the label classes that were asked to be unknown, `rest` apart."""
    index_of = {plain_name(name): index for index, name in enumerate(labels)}
    chosen = set()
    for name in unknown:
        if plain_name(name) in index_of:
            chosen.add(index_of[plain_name(name)])
        elif plain_name(name) != REST:
            raise UsageError(_no_such_label(name, labels))
    return chosen


def _no_such_label(name: str, labels: list[str]) -> str:
    if not labels:
        return (
            f"The labels of this data set only tell known from unknown, so {name} cannot be "
            "chosen as unknown. Leave --unknown out."
        )
    near = difflib.get_close_matches(plain_name(name), [plain_name(label) for label in labels], 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"Expected unknown classes among {_listed(labels)}, or rest, got {name}.{hint}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _classes(names: Sequence[str]) -> str:
    return f"{'class' if len(names) == 1 else 'classes'} {_listed(names)}"
