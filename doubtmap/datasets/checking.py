"""What a data set holds, on one screen, before anything is measured on it.

`doubtmap check` prints it: images, splits, sizes, classes with their shares and what they are to
the model, label values that nothing describes, and what is suspicious; for a folder without a
description, one to start from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from doubtmap.datasets.dataset import KNOWN, UNKNOWN, VOID, Dataset, notes_of
from doubtmap.datasets.description import read_description
from doubtmap.datasets.guessing import guessed
from doubtmap.datasets.labelled_folder import LabelledFolder, open_folder, read_raw, splits_of
from doubtmap.datasets.labels import Matching, match_labels
from doubtmap.datasets.layouts import LAYOUTS
from doubtmap.datasets.opening import fitting_layouts, open_dataset, path_and_split
from doubtmap.datasets.pairs import is_saved, saved_splits
from doubtmap.datasets.patterns import sequence_of
from doubtmap.datasets.reading import read_size
from doubtmap.datasets.suspicions import Counts, suspicious, suspicious_labels
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
    dataset, written, others = _opened(text, model_classes or ())
    lines = [_row("data", f"{dataset.name}, {len(dataset)} images")]
    if others:
        lines.append(_row("layout", f"{', '.join(others)} would fit, too: name the one it is"))
    counts = counted(dataset) if isinstance(dataset, LabelledFolder) else counted_samples(dataset)
    if isinstance(dataset, LabelledFolder):
        lines += [_row(*row) for row in _splits(dataset)]
    lines += [_row(*row) for row in _sizes(dataset, counts)]
    matching, warnings = _matching(dataset.class_names, model_classes or ())
    if written and matching is None and model_classes:
        listed = ", ".join(model_classes)
        warnings = [f"No class has the name of one of the model's yet ({listed}): name them."]
    lines += ["", *_classes(dataset.class_names, counts, matching, model_classes or ()), ""]
    if isinstance(dataset, LabelledFolder):
        notes, contradictions = _notes(dataset)
        lines += [_row("note", note) for note in notes]
        warnings = [*contradictions, *suspicious(dataset, counts), *warnings]
    else:
        lines += [_row("note", note) for note in notes_of(dataset)]
        warnings = [*suspicious_labels(dataset, counts), *warnings]
    lines += [f"! {warning}" for warning in warnings]
    if not warnings:
        lines.append("Nothing suspicious was found.")
    if written:
        lines += ["", "A doubtmap.toml to start from, in the folder:", "", written.rstrip()]
    return "\n".join(lines)


def _row(name: str, text: str) -> str:
    return f"{name:<10} {text}"


def _opened(text: str, model: Sequence[str]) -> tuple[Dataset, str, list[str]]:
    """The data set, the description that was guessed where there is none, other layouts."""
    fit: list[str] | None = None
    prefix, colon, rest = text.partition(":")
    if (
        (prefix == "folder" or prefix in LAYOUTS)
        and colon
        and Path(path_and_split(rest)[0]).expanduser().is_dir()
    ):
        text, fit = rest, [prefix]
    path, split = path_and_split(text)
    root = Path(path).expanduser()
    if not root.is_dir():
        if not colon:
            raise DataError(f"{root}: expected the folder of a data set, found none. Check it.")
        return open_dataset(text), "", []
    if fit is None or (fit == ["folder"] and "folder" not in fitting_layouts(root)):
        fit = fitting_layouts(root)
    if fit:
        name = "folder" if "folder" in fit else fit[0]
        others = [] if name == "folder" else fit[1:]
        return _with_a_split(name, path, split), "", others
    layout, written = guessed(root, model)
    return open_folder(root, layout, layout.title, split or layout.default_split), written, []


def _with_a_split(name: str, path: str, split: str | None) -> Dataset:
    """The data set; without the split that it needs or prefers, one of those that are there."""
    if split:
        return open_dataset(f"{name}:{path}:{split}")
    try:
        return open_dataset(f"{name}:{path}")
    except (DataError, UsageError):
        for other in sorted(splits_in(name, Path(path).expanduser()), key=_preference):
            try:
                return open_dataset(f"{name}:{path}:{other}")
            except (DataError, UsageError):
                continue  # the first error says what is amiss
        raise


def splits_in(name: str, root: Path) -> list[str]:
    """The splits of a data set by the name of its layout, or of `folder`."""
    if name != "folder":
        return splits_of(root, LAYOUTS[name])
    if is_saved(root):
        return saved_splits(root)
    return splits_of(*read_description(root))


def _preference(split: str) -> int:
    return _PREFERRED.index(split) if split in _PREFERRED else len(_PREFERRED)


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


def counted_samples(dataset: Dataset) -> Counts:
    """The same of a data set that is no folder: its samples are read whole."""
    counts = Counts()
    for index in range(len(dataset)):
        try:
            sample = dataset[index]
        except DataError as error:
            counts.broken[dataset.sample_name(index)] = str(error)
            continue
        height, width = sample.label.shape
        counts.sizes[height, width] += 1
        counts.take(sample.label.numpy(), sample.name)
    return counts


def _count(dataset: LabelledFolder, index: int, size: tuple[int, int], counts: Counts) -> None:
    image, path = dataset.files[index]
    assert path is not None
    values = dataset.layout.values
    if path.suffix.lower() == ".json":
        labels = dataset.read_labels(index, size)
    else:
        raw = read_raw(path, values)
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
    counts.take(labels, dataset.sample_name(index))


def _splits(dataset: LabelledFolder) -> Iterator[tuple[str, str]]:
    sizes = {}
    for split in splits_of(dataset.root, dataset.layout):
        try:
            sizes[split] = len(open_folder(dataset.root, dataset.layout, "", split))
        except (DataError, UsageError):
            continue
    if sizes:
        yield "splits", ", ".join(f"{name} {count}" for name, count in sizes.items())


def _sizes(dataset: Dataset, counts: Counts) -> Iterator[tuple[str, str]]:
    most = [f"{w} x {h} ({count})" for (h, w), count in counts.sizes.most_common(4)]
    more = f", {len(counts.sizes) - 4} more" if len(counts.sizes) > 4 else ""
    yield "sizes", ", ".join(most) + more + ", width x height"
    sequences: dict[str, int] = {}
    for name in map(dataset.sample_name, range(len(dataset))):
        sequences[sequence_of(name)] = sequences.get(sequence_of(name), 0) + 1
    named = [f"{name}* ({count})" for name, count in sequences.items() if name and count > 2]
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
    names: Sequence[str], counts: Counts, matching: Matching | None, model: Sequence[str]
) -> list[str]:
    """A table: each class, its share of the pixels, its images, and what it is to the model."""
    rows = [("class", "share", "images", "to the model" if matching else "")]
    whole = max(sum(counts.labels.values()), 1)
    unlisted = sum(number for number, _ in counts.raw.values())
    shown = range(len(names))
    if len(names) > _MOST_ROWS:
        shown = sorted(shown, key=lambda k: -counts.labels[k])[:_MOST_ROWS]  # type: ignore[assignment]
    for label in (*shown, KNOWN, UNKNOWN, VOID):
        pixels = counts.labels[label] - (unlisted if label == VOID else 0)
        if label >= 0 or pixels:
            name = names[label] if label >= 0 else f"({_NAMES[label]})"
            target = matching.targets[label] if matching and label >= 0 else None
            said = "" if target is None else model[target] if target >= 0 else "lacks it: void"
            rows.append((name, _share(pixels / whole), str(counts.images[label]), said))
    if unlisted:
        rows.append(("(not listed)", _share(unlisted / whole), "", ""))
    width = max(len(row[0]) for row in rows)
    lines = [f"{a:<{width}}  {b:>7}  {c:>6}  {d}".rstrip() for a, b, c, d in rows]
    if len(names) > _MOST_ROWS:
        absent = sum(not counts.labels[k] for k in range(len(names)))
        lines.append(f"and {len(names) - _MOST_ROWS} classes more; {absent} of all are absent")
    return lines


def _share(share: float) -> str:
    return "-" if not share else f"{100 * share:.1f} %" if share >= 5e-4 else "< 0.1 %"
