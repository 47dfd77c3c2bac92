"""What a data set holds, on one screen, before anything is measured on it.

`doubtmap check` prints it: images, splits, sizes, classes with their shares and what they are to
the model, label values that nothing describes, and what is suspicious; for a folder without a
description, one to start from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from doubtmap.datasets.dataset import KNOWN, UNKNOWN, VOID, Dataset
from doubtmap.datasets.guessing import guessed
from doubtmap.datasets.labelled_folder import LabelledFolder, open_folder, splits_of
from doubtmap.datasets.labels import Matching, match_labels
from doubtmap.datasets.opening import fitting_layouts, open_dataset, path_and_split
from doubtmap.datasets.patterns import sequence_of
from doubtmap.datasets.reading import read_label, read_size
from doubtmap.datasets.suspicions import Counts, suspicious
from doubtmap.errors import DataError, UsageError

_NAMES = {UNKNOWN: "unknown", VOID: "void", KNOWN: "known"}

_PREFERRED = ("val", "validation", "valid", "test")
"""Of the splits of a data set without a default one, which is looked at."""

_MOST_ROWS = 24
"""Classes of which each has its line."""


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
    dataset, written = _opened(text, model_classes or ())
    lines = [_row("data", f"{dataset.name}, {len(dataset)} images")]
    counts = None
    if isinstance(dataset, LabelledFolder):
        counts = counted(dataset)
        lines += [_row(*row) for row in _of_files(dataset, counts)]
    matching, warnings = _matching(dataset.class_names, model_classes or ())
    lines += ["", *_classes(dataset.class_names, counts, matching, model_classes or ()), ""]
    if isinstance(dataset, LabelledFolder) and counts:
        notes, contradictions = _notes(dataset)
        lines += [_row("note", note) for note in notes]
        warnings = [*contradictions, *suspicious(dataset, counts), *warnings]
    lines += [f"! {warning}" for warning in warnings]
    if not warnings:
        lines.append("Nothing suspicious was found.")
    if written:
        lines += ["", "A doubtmap.toml to start from, in the folder:", "", written.rstrip()]
    return "\n".join(lines)


def _row(name: str, text: str) -> str:
    return f"{name:<10} {text}"


def _opened(text: str, model: Sequence[str]) -> tuple[Dataset, str]:
    """The data set, and the description that was guessed where there is none."""
    prefix, colon, rest = text.partition(":")
    if prefix == "folder" and colon and Path(path_and_split(rest)[0]).expanduser().is_dir():
        text = rest
    path, split = path_and_split(text)
    root = Path(path).expanduser()
    if not root.is_dir():
        return _with_a_split(text), ""
    fit = fitting_layouts(root)
    if fit:
        name = "folder" if "folder" in fit else fit[0]
        return _with_a_split(f"{name}:{path}" + (f":{split}" if split else "")), ""
    layout, written = guessed(root, model)
    return open_folder(root, layout, layout.title, split or layout.default_split), written


def _with_a_split(text: str) -> Dataset:
    """The data set; where it needs a split and none is named, one of its own."""
    try:
        return open_dataset(text)
    except UsageError as error:
        there = str(error).partition("Splits there: ")[2].rstrip(".").split(", ")
        if path_and_split(text.partition(":")[2])[1] or there == [""]:
            raise
        return open_dataset(f"{text}:{preferred(there)}")


def preferred(splits: Sequence[str]) -> str:
    """Which of the splits to look at where none is named."""
    return next((split for split in _PREFERRED if split in splits), splits[0])


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
    if path.suffix.lower() == ".json":
        labels = dataset.read_labels(index, size)
    else:
        raw = read_label(path, colours=values.in_colour)
        if raw.shape[:2] != size:
            if raw.shape[1::-1] == size:
                counts.turned.append(dataset.sample_name(index))
            raise DataError(
                f"{path} has {raw.shape[1]} x {raw.shape[0]} pixels, {image} {size[1]} x {size[0]}"
            )
        counts.take_raw(values.codes(raw, path), path, values)
        counts.take_palette(path, in_colour=values.in_colour)
        known = replace(values, other=VOID if values.other is None else values.other)
        labels = known.translate(raw, path)
    found, pixels = np.unique(labels, return_counts=True)
    for label, number in zip(found.tolist(), pixels.tolist()):
        counts.labels[label] += number
        counts.images[label] += 1
    if len(found) == 1 and len(values.classes) > 1:
        counts.alone.append(dataset.sample_name(index))


def _of_files(dataset: LabelledFolder, counts: Counts) -> Iterator[tuple[str, str]]:
    sizes = {}
    for split in splits_of(dataset.root, dataset.layout):
        try:
            sizes[split] = len(open_folder(dataset.root, dataset.layout, "", split))
        except (DataError, UsageError):
            continue
    if sizes:
        yield "splits", ", ".join(f"{name} {count}" for name, count in sizes.items())
    most = [f"{w} x {h} ({count})" for (h, w), count in counts.sizes.most_common(4)]
    more = f", {len(counts.sizes) - 4} more" if len(counts.sizes) > 4 else ""
    yield "sizes", ", ".join(most) + more + ", width x height"
    sequences: dict[str, int] = {}
    for name in dataset.sample_names:
        sequences[sequence_of(name)] = sequences.get(sequence_of(name), 0) + 1
    named = [f"{name}* ({count})" for name, count in sequences.items() if name and count > 1]
    if named and len(named) == len(sequences):
        yield "sequences", ", ".join(named[:4]) + (f", {len(named) - 4} more" * (len(named) > 4))


def _notes(dataset: LabelledFolder) -> tuple[Sequence[str], list[str]]:
    """What the files together say, and where they contradict each other."""
    try:
        return dataset.notes, []
    except DataError as error:
        return (), [str(error)]


def _matching(names: Sequence[str], model: Sequence[str]) -> tuple[Matching | None, list[str]]:
    """How the names meet the model's, and what needs a look there."""
    if not model or not names:
        return None, []
    try:
        matching = match_labels(names, model)
    except UsageError as error:
        return None, [str(error)]
    return matching, [note for note in matching.notes if not note.startswith("The model lacks")]


def _classes(
    names: Sequence[str], counts: Counts | None, matching: Matching | None, model: Sequence[str]
) -> list[str]:
    """A table: each class, its share of the pixels, its images, and what it is to the model."""
    rows = [("class", "share", "images", "to the model" if matching else "")]
    whole = max(sum(counts.labels.values()), 1) if counts else 1
    unlisted = sum(number for number, _ in counts.raw.values()) if counts else 0
    shown = range(len(names))
    if counts and len(names) > _MOST_ROWS:
        shown = sorted(shown, key=lambda k: -counts.labels[k])[:_MOST_ROWS]  # type: ignore[assignment]
    for label in (*shown, KNOWN, UNKNOWN, VOID):
        pixels = counts.labels[label] - (unlisted if label == VOID else 0) if counts else 0
        if label >= 0 or pixels:
            name = names[label] if label >= 0 else f"({_NAMES[label]})"
            share, images = _share(pixels / whole), counts.images[label] if counts else 0
            target = matching.targets[label] if matching and label >= 0 else None
            said = "" if target is None else model[target] if target >= 0 else "lacks it: void"
            rows.append((name, share if counts else "", str(images) if counts else "", said))
    if unlisted:
        rows.append(("(not listed)", _share(unlisted / whole), "", ""))
    width = max(len(row[0]) for row in rows)
    lines = [f"{a:<{width}}  {b:>7}  {c:>6}  {d}".rstrip() for a, b, c, d in rows]
    if counts and len(names) > _MOST_ROWS:
        absent = sum(not counts.labels[k] for k in range(len(names)))
        lines.append(f"and {len(names) - _MOST_ROWS} classes more; {absent} of all are absent")
    return lines


def _share(share: float) -> str:
    return "-" if not share else f"{100 * share:.1f} %" if share >= 5e-4 else "< 0.1 %"
