"""What the values in a label file mean, and how they meet a model's classes.

A table, as data, translates raw values into the data set's classes. These meet the model's by
name: which label is which class, and which is unknown.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from doubtmap.datasets.dataset import KNOWN, UNKNOWN, VOID, Sample
from doubtmap.errors import DataError, UsageError
from doubtmap.names import plain_name

REST = "rest"
"""Among the unknown: every label class that the model lacks."""


ALIKE = 0.75
"""From this ratio of equal letters on, two names may be one that was spelt in two ways."""


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

    @property
    def unknown(self) -> tuple[int, ...]:
        """The data set's label classes that count as unknown objects."""
        return tuple(index for index, target in enumerate(self.targets) if target == UNKNOWN)

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


def check_labels(sample: Sample, classes: int) -> None:
    """Refuse labels that cannot be meant, by the sample's name.

    Raises:
        DataError: for labels of another size than the image, or that are no class.
    """
    if sample.label.shape != sample.image.shape[-2:]:
        raise DataError(
            f"{sample.name}: expected labels of the image's size {tuple(sample.image.shape[-2:])}, "
            f"got {tuple(sample.label.shape)}."
        )
    lowest, highest = int(sample.label.min()), int(sample.label.max())
    if lowest < KNOWN or highest >= classes:
        raise DataError(
            f"{sample.name}: expected labels below {classes}, KNOWN, UNKNOWN or VOID, got "
            f"{highest if highest >= classes else lowest}."
        )


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


HIGHEST_VALUE = 65535
LOWEST_VALUE = -32768
"""Label values that can be described; colours apart."""

COLOURS = 1 << 24
"""Colours are raw values from here on, red in the highest byte."""

_NAMES = {KNOWN: "known", UNKNOWN: "unknown", VOID: "void"}


_UNDESCRIBED = np.iinfo(np.int16).min


def colour_value(red: int, green: int, blue: int) -> int:
    """The raw value that a colour is."""
    return COLOURS | red << 16 | green << 8 | blue


def value_text(value: int) -> str:
    """A raw value as one writes it: 7, or #804080.

    Example:
        >>> value_text(colour_value(128, 64, 128))
        '#804080'
    """
    return f"#{value - COLOURS:06x}" if value >= COLOURS else str(value)


@dataclass(frozen=True)
class LabelValues:
    """The meaning of raw label values.

    Args:
        classes: raw values of each class, in the order of the class indices.
        known: values of pixels that are known, their class not said.
        unknown: values of something outside the classes.
        void: values of pixels that count for nothing.
        other: meaning of every other value: `KNOWN`, `UNKNOWN`, `VOID`, or `None` where such a
            value is an error.
        texts: what polygons call a class, as `plain_name` has it, where that is not its name.
    """

    classes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    known: tuple[int, ...] = ()
    unknown: tuple[int, ...] = ()
    void: tuple[int, ...] = ()
    other: int | None = None
    texts: Mapping[str, int] = field(default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their indices."""
        return tuple(self.classes)

    def described(self) -> Iterator[tuple[int, str, int]]:
        """Every described value, with the name of its meaning and the label it becomes."""
        for index, (name, values) in enumerate(self.classes.items()):
            yield from ((value, name, index) for value in values)
        for label in (KNOWN, UNKNOWN, VOID):
            values = getattr(self, _NAMES[label])
            yield from ((value, _NAMES[label], label) for value in values)

    @cached_property
    def in_colour(self) -> bool:
        """Whether only colours are described, so that palettes and grey files are read as such."""
        described = [value for value, _, _ in self.described()]
        return bool(described) and min(described) >= COLOURS

    @cached_property
    def named(self) -> dict[str, int]:
        """The label of each name that polygons may have, as `plain_name` has it."""
        names = {plain_name(name): index for index, name in enumerate(self.classes)}
        meanings = {name: label for label, name in _NAMES.items()} | {"ignore": VOID}
        return meanings | names | dict(self.texts)

    def translate(self, raw: NDArray[Any], path: Path) -> NDArray[np.int16]:
        """Labels of raw values.

        Args:
            raw: `(H, W)` whole numbers, or `(H, W, 3)` uint8 colours.
            path: the file they come from, for the message.

        Returns:
            `(H, W)`: class index, or `KNOWN`, `UNKNOWN`, `VOID`.

        Raises:
            DataError: a value has no meaning.
        """
        codes = self.codes(raw, path)
        labels = self._labels(codes)
        bare = labels == _UNDESCRIBED
        if bare.any():
            if self.other is None:
                raise DataError(self._undescribed(codes, bare, path))
            labels[bare] = self.other
        return labels

    def describe(self, raw: NDArray[Any]) -> bool:
        """Whether each value of `translate`'s `raw` is described, `other` apart."""
        try:
            return not self._is_bare(self.codes(raw, Path()))
        except DataError:
            return False

    def codes(self, raw: NDArray[Any], path: Path) -> NDArray[Any]:
        """`(H, W)` raw values as they are described: numbers, or colours from `COLOURS` on.

        Raises:
            DataError: for a colour file where only numbers are described.
        """
        if raw.ndim == 2:
            if not self.in_colour or raw.min() < 0 or raw.max() > 255:
                return raw
            raw = np.repeat(raw[..., None], 3, axis=2).astype(np.uint8)
        coloured = any(value >= COLOURS for value, _, _ in self.described())
        grey = bool((raw[..., :1] == raw).all())
        if not coloured and not grey:
            raise DataError(_no_colours(raw, path))
        red, green, blue = (raw[..., k].astype(np.int32) for k in range(3))
        colours = COLOURS | red << 16 | green << 8 | blue
        if grey and not self.in_colour:
            numbers = np.ascontiguousarray(raw[..., 0])
            if not coloured or not self._is_bare(numbers) or self._is_bare(colours):
                return numbers
        return colours

    def _is_bare(self, codes: NDArray[Any]) -> bool:
        return bool((self._labels(codes) == _UNDESCRIBED).any())

    def _labels(self, codes: NDArray[Any]) -> NDArray[np.int16]:
        if codes.dtype.itemsize <= 2 and codes.dtype.kind == "u":
            labels: NDArray[np.int16] = np.take(self._table, codes)
            return labels
        return self._looked_up(codes)

    @cached_property
    def _table(self) -> NDArray[np.int16]:
        table = np.full(HIGHEST_VALUE + 1, _UNDESCRIBED, np.int16)
        for value, _, label in self.described():
            if 0 <= value <= HIGHEST_VALUE:
                table[value] = label
        return table

    def _looked_up(self, codes: NDArray[Any]) -> NDArray[np.int16]:
        pairs = sorted((value, label) for value, _, label in self.described()) or [(-1, VOID)]
        values = np.array([value for value, _ in pairs], np.int64)
        labels = np.array([label for _, label in pairs], np.int16)
        place = np.searchsorted(values, codes).clip(0, len(values) - 1)
        found: NDArray[np.int16] = np.where(
            values[place] == codes, labels[place], np.int16(_UNDESCRIBED)
        )
        found[(found == _UNDESCRIBED) & (codes == -1)] = VOID  # as everyone means it
        return found

    def _undescribed(self, codes: NDArray[Any], where: NDArray[np.bool_], path: Path) -> str:
        values, counts = np.unique(codes[where], return_counts=True)
        found = [
            f"{value_text(int(value))} ({count} pixels)"
            for value, count in zip(values, counts, strict=True)
        ]
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        y, x = np.argwhere(where)[0]
        kind = "colours" if values[0] >= COLOURS else "label values"
        described = sorted(
            {v for v, _, _ in self.described() if (v >= COLOURS) == (values[0] >= COLOURS)}
        )
        expected = ", ".join(_ranges(described)) or "none"
        return (
            f"{path}: expected the {kind} {expected}, got {', '.join(found[:8])}{more}, the first "
            f"in row {y}, column {x}. Choose the layout that these labels were written for, or "
            "describe the values in a doubtmap.toml and use folder:PATH."
        )


def _no_colours(raw: NDArray[np.uint8], path: Path) -> str:
    y, x = np.argwhere((raw != raw[..., :1]).any(axis=2))[0]
    red, green, blue = (int(part) for part in raw[y, x])
    colour = value_text(colour_value(red, green, blue))
    return (
        f"{path}: expected one label value per pixel, got a colour image, with {colour} in row "
        f"{y}, column {x}. Say in a doubtmap.toml what colours mean, as in [classes] with road = "
        f'"#804080", or save the labels as a single-channel PNG of class numbers.'
    )


def _ranges(values: list[int]) -> Iterator[str]:
    """Sorted values in words: 0 to 11, 255."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1 and value < COLOURS:
            runs[-1].append(value)
        else:
            runs.append([value])
    for run in runs:
        yield value_text(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}"
