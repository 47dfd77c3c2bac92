"""What a data set holds, on one screen, before anything is measured on it.

`doubtmap check` prints it: images, splits, sizes, classes with their shares, label values that
nothing describes, and what is suspicious; for a folder without a description, one to start from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from doubtmap.datasets.dataset import UNKNOWN, VOID, Dataset
from doubtmap.datasets.guessing import guessed
from doubtmap.datasets.labelled_folder import LabelledFolder, open_folder, splits_of
from doubtmap.datasets.labels import match_labels, value_text
from doubtmap.datasets.opening import fitting_layouts, open_dataset, path_and_split
from doubtmap.datasets.reading import read_image, read_label, read_size
from doubtmap.errors import DataError, UsageError

_MOST_COMPARED = 1500
"""Images whose likeness across splits is looked at; more would take minutes."""

_NEAR = 6
"""Of 256 signs, those in which nearly equal frames may differ."""

_NAMES = {-1: "unknown", -2: "void", -3: "known"}


@dataclass
class Counts:
    """What was counted over all labels of a data set.

    Args:
        labels: pixels of each label.
        raw: pixels of each raw value that nothing describes, and the first file with it.
        images: images in which each class occurs.
        alone: images whose labels are of one class only.
        turned: images whose labels lie on their side.
        broken: files that cannot be read, and why.
        sizes: of the images, height and width.
    """

    labels: Counter[int] = field(default_factory=Counter)
    raw: dict[int, tuple[int, str]] = field(default_factory=dict)
    images: Counter[int] = field(default_factory=Counter)
    alone: list[str] = field(default_factory=list)
    turned: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)


def check(text: str, model_classes: Sequence[str] | None = None) -> str:
    """Look at a data set, and say what it holds.

    Args:
        text: as for `open_dataset`, or the path of a folder alone.
        model_classes: of the network that is to be measured on it.

    Returns:
        The lines, among them those that begin with `!`, which need a look.

    Raises:
        UsageError, DataError: where there is no data set.
    """
    dataset, written = _opened(text)
    lines = [f"{dataset.name}: {len(dataset)} images"]
    if isinstance(dataset, LabelledFolder):
        lines += _of_folder(dataset)
    else:
        lines.append(f"classes  {', '.join(dataset.class_names)}")
    lines += _matches(dataset.class_names, model_classes)
    if written:
        lines += ["", "A doubtmap.toml to start from:", "", written.rstrip()]
    return "\n".join(lines)


def _opened(text: str) -> tuple[Dataset, str]:
    """The data set, and the description that was guessed where there is none."""
    prefix, colon, rest = text.partition(":")
    path, split = path_and_split(text)
    root = Path(path).expanduser()
    if root.is_dir():
        fit = fitting_layouts(root)
        if "folder" in fit or (fit and not split):
            name = "folder" if "folder" in fit else fit[0]
            return open_dataset(f"{name}:{path}" + (f":{split}" if split else "")), ""
    elif prefix == "folder" and colon and Path(rest).expanduser().is_dir():
        root = Path(rest).expanduser()
        if "folder" in fitting_layouts(root):
            return open_dataset(text), ""
    else:
        return open_dataset(text), ""
    layout, written = guessed(root)
    return open_folder(root, layout, layout.title, layout.default_split), written


def _of_folder(dataset: LabelledFolder) -> Iterator[str]:
    counts = counted(dataset)
    yield from _splits(dataset)
    yield f"sizes    {_sizes(counts)}"
    yield from _shares(dataset, counts)
    yield from (f"note     {note}" for note in _notes(dataset))
    yield from (f"! {line}" for line in _suspicious(dataset, counts))


def _notes(dataset: LabelledFolder) -> tuple[str, ...]:
    try:
        return dataset.notes
    except DataError as error:
        return (f"! {error}",)


def counted(dataset: LabelledFolder) -> Counts:
    """Read all labels, and count what is in them; files that cannot be read are counted too."""
    counts = Counts()
    for index, (image, label) in enumerate(dataset.files):
        name = dataset.sample_name(index)
        try:
            size = read_size(image)
            counts.sizes[size] += 1
            if label is None:
                raise DataError(dataset.missing[index])
            _count(dataset, index, size, counts)
        except DataError as error:
            counts.broken[name] = str(error)
    return counts


def _count(dataset: LabelledFolder, index: int, size: tuple[int, int], counts: Counts) -> None:
    image, path = dataset.files[index]
    assert path is not None
    values = dataset.layout.values
    if path.suffix.lower() != ".json":
        raw = read_label(path, colours=values.in_colour)
        if raw.shape[:2] != size:
            if raw.shape[1::-1] == size:
                counts.turned.append(dataset.sample_name(index))
            raise DataError(
                f"{path}: {raw.shape[1]} x {raw.shape[0]}, {image}: {size[1]} x {size[0]}"
            )
        _count_raw(dataset, values.codes(raw, path), path, counts)
        labels = replace(values, other=VOID if values.other is None else values.other).translate(
            raw, path
        )
    else:
        labels = dataset.read_labels(index, size)
    found, pixels = np.unique(labels, return_counts=True)
    for label, number in zip(found.tolist(), pixels.tolist()):
        counts.labels[label] += number
        counts.images[label] += 1
    if len(found) == 1 and len(values.classes) > 1:
        counts.alone.append(dataset.sample_name(index))


def _count_raw(
    dataset: LabelledFolder, codes: NDArray[np.int32], path: Path, counts: Counts
) -> None:
    described = {value for value, _, _ in dataset.layout.values.described()}
    found, pixels = np.unique(codes, return_counts=True)
    for value, number in zip(found.tolist(), pixels.tolist()):
        if value not in described and dataset.layout.values.other is None:
            before = counts.raw.get(value, (0, path.name))
            counts.raw[value] = (before[0] + number, before[1])


def _splits(dataset: LabelledFolder) -> Iterator[str]:
    sizes = {}
    for split in splits_of(dataset.root, dataset.layout):
        try:
            sizes[split] = len(open_folder(dataset.root, dataset.layout, "", split))
        except (DataError, UsageError):
            continue
    if sizes:
        yield "splits   " + ", ".join(f"{name} {count}" for name, count in sizes.items())


def _sizes(counts: Counts) -> str:
    most = [f"{w} x {h} ({count})" for (h, w), count in counts.sizes.most_common(4)]
    more = f", {len(counts.sizes) - 4} more" if len(counts.sizes) > 4 else ""
    return ", ".join(most) + more + " (width x height)"


def _shares(dataset: LabelledFolder, counts: Counts) -> Iterator[str]:
    whole = max(sum(counts.labels.values()), 1)
    names = dict(enumerate(dataset.class_names)) | _NAMES
    cells = [
        f"{names[label]} {100 * counts.labels[label] / whole:.2g} %"
        for label in [*range(len(dataset.class_names)), -3, -1, -2]
        if counts.labels[label]
    ]
    yield "classes  " + (", ".join(cells) or "none")
    absent = [n for i, n in enumerate(dataset.class_names) if not counts.labels[i]]
    if absent:
        yield f"absent   {', '.join(absent[:30])}{' ...' if len(absent) > 30 else ''}"


def _matches(names: Sequence[str], model: Sequence[str] | None) -> Iterator[str]:
    if not model:
        return
    try:
        matching = match_labels(names, model)
    except UsageError as error:
        yield f"! {error}"
        return
    same = [name for name, target in zip(names, matching.targets) if target >= 0]
    yield f"model    {len(same)} of {len(model)} classes match: {', '.join(same)}"
    yield from (f"! {note}" for note in matching.notes)


def _suspicious(dataset: LabelledFolder, counts: Counts) -> Iterator[str]:
    if counts.raw:
        found = [
            f"{value_text(value)} ({number} pixels, {name})"
            for value, (number, name) in sorted(counts.raw.items())[:8]
        ]
        yield f"Label values that nothing describes: {', '.join(found)}."
        yield from _other_numbers(dataset, counts)
    if counts.alone:
        yield (
            f"{len(counts.alone)} of {len(dataset)} images have labels of one kind only, such as "
            f"{counts.alone[0]}."
        )
    if counts.turned:
        yield (
            f"{len(counts.turned)} labels lie on their side against their images, such as "
            f"{counts.turned[0]}."
        )
    if counts.broken:
        name, why = next(iter(counts.broken.items()))
        yield f"{len(counts.broken)} of {len(dataset)} samples cannot be used: {name}: {why}"
    classes = [label for label in counts.labels if label >= 0]
    if len(classes) == 1 and len(dataset.class_names) > 1:
        yield f"All labels are of one class: {dataset.class_names[classes[0]]}."
    if UNKNOWN in counts.labels and not any(
        label not in (UNKNOWN, VOID) for label in counts.labels
    ):
        yield "Nothing is known here: scores of the unknown have no figures."
    yield from _alike_across_splits(dataset)


def _other_numbers(dataset: LabelledFolder, counts: Counts) -> Iterator[str]:
    """Train ids under the name of label ids, and classes counted from 0 for classes from 1."""
    described = sorted(v for v, _, label in dataset.layout.values.described() if label >= 0)
    if dataset.layout.title.startswith("Cityscapes") and "labelIds" in dataset.layout.title:
        return
    if described and set(counts.raw) == {0} and described[0] == 1:
        yield "0 is seen and not listed: is it void, or a class, and are the others counted from 1?"


def _alike_across_splits(dataset: LabelledFolder) -> Iterator[str]:
    signs: dict[str, list[tuple[str, NDArray[np.bool_]]]] = {}
    for split in splits_of(dataset.root, dataset.layout):
        try:
            part = open_folder(dataset.root, dataset.layout, "", split)
        except (DataError, UsageError):
            continue
        signs[split] = [
            (i.name, s) for i, _ in part.files[:_MOST_COMPARED] if (s := _signs(i)) is not None
        ]
    for (one, first), (two, second) in combinations(signs.items(), 2):
        if (
            not first
            or not second
            or one in dataset.layout.selections
            or two in dataset.layout.selections
        ):
            continue
        bits = np.array([s for _, s in second], np.float32)
        pairs = [
            (name, second[int(near.argmin())][0])
            for name, s in first
            if (near := np.abs(bits - s.astype(np.float32)).sum(axis=1)).min() <= _NEAR
        ]
        if pairs:
            yield (
                f"{len(pairs)} of {len(first)} images of {one} look like images of {two}, such as "
                f"{pairs[0][0]} and {pairs[0][1]}."
            )


def _signs(path: Path) -> NDArray[np.bool_] | None:
    """`(256,)`, whether brightness rises from left to right; None where nothing shows."""
    try:
        image = Image.fromarray(read_image(path).permute(1, 2, 0).numpy()).convert("L")
    except DataError:
        return None
    small = np.asarray(image.resize((17, 16), Image.Resampling.BOX), np.int32)
    steps = np.diff(small, axis=1)
    if np.abs(steps).mean() < 2:
        return None
    return (steps > 0).ravel()
