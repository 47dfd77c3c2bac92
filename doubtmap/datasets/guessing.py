"""A description of a folder that has none, from what lies in it: a start, to be read and mended."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from doubtmap.datasets.description import parsed_description
from doubtmap.datasets.labels import COLOURS, colour_value, value_text
from doubtmap.datasets.layouts import Layout
from doubtmap.datasets.patterns import IMAGE_SUFFIXES
from doubtmap.datasets.polygons import names_in
from doubtmap.datasets.rasters import read_raster
from doubtmap.datasets.reading import read_label
from doubtmap.errors import DataError

_MARKS = ("", "_mask", "_label", "_labels", "_gt", "_L", "_seg", "-mask", "_labelIds")
"""What label files add to the name of their image."""

_LABELS = (*IMAGE_SUFFIXES, "npy", "json")
_MOST_VALUES = 64
"""Of a file of labels; photographs have more."""
_LOOKED_AT = 20
"""Label files that are opened."""


Pairs = list[tuple[Path, Path]]
Folders = dict[Path, dict[str, list[Path]]]


def guessed(root: Path, model: Sequence[str] = ()) -> tuple[Layout, str]:
    """The layout that a folder seems to have, and its `doubtmap.toml`.

    Args:
        root: the folder.
        model: class names of a network, which stand for the numbers of its classes.

    Raises:
        DataError: where no labels can be told from images.
    """
    pairs, mark, place, splits = _paired(root)
    images, labels = _patterns(root, pairs, mark, place)
    text = f"images = {json.dumps(images)}\nlabels = {json.dumps(labels)}\n"
    if splits:
        text += f"split = {json.dumps(splits[0])}\n"
    text += _classes([label for _, label in pairs], model)
    return parsed_description(text, root), text


def _paired(root: Path) -> tuple[Pairs, str, int | None, list[str]]:
    """Images and labels, what labels add to names, which folder of the path is a split, and them.

    The split with the most images comes last but for those on which one measures.
    """
    folders: Folders = {}
    for top, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            path = Path(top) / name
            if path.suffix.lower().lstrip(".") in _LABELS and not name.startswith("."):
                folders.setdefault(Path(top), {}).setdefault(path.stem, []).append(path)
    best: tuple[tuple[bool, int], Pairs, str, Path, Path] | None = None
    for one in folders:
        for two in folders:
            for mark in _MARKS:
                if one == two and not mark and not _has(folders[one], ".json"):
                    continue
                found = _matched(folders[one], folders[two], mark, same=one == two)
                score = (bool(found) and _is_photograph(found[0][0]), _score(found) if found else 0)
                if score[1] and (best is None or score > best[0]):
                    best = (score, found, mark, one, two)
    if best is None:
        raise DataError(
            f"{root}: expected images and labels whose names go together, found none. Write a "
            'doubtmap.toml with images, labels and [classes]; of outlines, labels = "FILE.json".'
        )
    _, pairs, mark, one, two = best
    return _with_splits(root, folders, pairs, mark, one, two)


def _with_splits(
    root: Path, folders: Folders, pairs: Pairs, mark: str, one: Path, two: Path
) -> tuple[Pairs, str, int | None, list[str]]:
    """The same of all folders that differ in one name, where images and labels have it both."""
    places = one.relative_to(root).parts
    for place, name in enumerate(places):
        if two.relative_to(root).parts[place : place + 1] != (name,):
            continue
        found = {}
        for other in folders:
            parts = other.relative_to(root).parts
            if len(parts) == len(places) and (*parts[:place], *parts[place + 1 :]) == (
                *places[:place],
                *places[place + 1 :],
            ):
                label = root.joinpath(*_put(two.relative_to(root).parts, place, parts[place]))
                same = other == label
                matched = _matched(folders[other], folders.get(label, {}), mark, same=same)
                if matched:
                    found[parts[place]] = matched
        if len(found) > 1:
            splits = sorted(found, key=lambda split: (*_measured(split), -len(found[split])))
            return [pair for split in found for pair in found[split]], mark, place, splits
    return pairs, mark, None, []


def _put(parts: tuple[str, ...], place: int, name: str) -> tuple[str, ...]:
    return (*parts[:place], name, *parts[place + 1 :])


def _measured(split: str) -> tuple[bool, bool]:
    """Sorts what one measures on before what one trains on."""
    return (not split.lower().startswith(("val", "dev")), not split.lower().startswith("test"))


def _has(files: dict[str, list[Path]], suffix: str) -> bool:
    return any(path.suffix.lower() == suffix for paths in files.values() for path in paths)


def _matched(
    images: dict[str, list[Path]], labels: dict[str, list[Path]], mark: str, *, same: bool
) -> Pairs:
    pairs = []
    for stem, paths in images.items():
        image = next((p for p in paths if p.suffix.lower().lstrip(".") in IMAGE_SUFFIXES), None)
        there = labels.get(stem + mark, [])
        label = next(
            (p for p in there if p != image and (mark or not same or p.suffix == ".json")), None
        )
        if image is not None and label is not None:
            pairs.append((image, label))
    return pairs


def _is_photograph(path: Path) -> bool:
    """Whether an image has more values than labels would."""
    try:
        return len(np.unique(read_raster(path).coloured)) > _MOST_VALUES
    except DataError:
        return False


def _score(pairs: Pairs) -> int:
    """How many pairs there are, and 0 where the second file does not look like labels."""
    try:
        for _, label in pairs[:3]:
            if label.suffix.lower() == ".json":
                return len(pairs)
            raw = read_label(label)
            codes = raw if raw.ndim == 2 else raw.reshape(-1, 3) @ np.array([65536, 256, 1])
            if len(np.unique(codes)) > _MOST_VALUES:
                return 0
    except DataError:
        return 0
    return len(pairs)


def _patterns(root: Path, pairs: Pairs, mark: str, place: int | None) -> tuple[str, str]:
    image, label = pairs[0]
    suffixes = {pair[0].suffix.lower() for pair in pairs}
    suffix = suffixes.pop() if len(suffixes) == 1 else ".{suffix}"
    kind = Counter(pair[1].suffix.lower() for pair in pairs).most_common(1)[0][0]

    def below(path: Path) -> str:
        parts = path.parent.relative_to(root).parts
        if place is not None:
            parts = _put(parts, place, "{split}")
        return "".join(f"{part}/" for part in parts)

    return f"{below(image)}{{frame}}{suffix}", f"{below(label)}{{frame}}{mark}{kind}"


def _classes(files: list[Path], model: Sequence[str]) -> str:
    """The table of classes, by the values in some of the label files."""
    step = max(1, len(files) // _LOOKED_AT)
    seen: set[int] = set()
    names: dict[str, None] = {}
    for path in files[::step]:
        if path.suffix.lower() == ".json":
            names.update(dict.fromkeys(names_in(path)))
            continue
        raw = read_label(path)
        if raw.ndim == 3:
            grey = bool((raw[..., :1] == raw).all())
            colours = np.unique(raw.reshape(-1, 3), axis=0).tolist()
            seen |= {c[0] if grey else colour_value(*c) for c in colours}
        else:
            seen |= {*np.unique(raw).tolist()}
    if any(value >= COLOURS for value in seen):
        seen = {v if v >= COLOURS else colour_value(v, v, v) for v in seen}
    if names:
        quoted = "\n".join(f"{json.dumps(name)} = {json.dumps(name)}" for name in names)
        return f'other = "void"\n\n[classes]\n{quoted}\n'
    binary = len(seen) == 2 and seen <= {0, 1, 255} and 0 in seen
    void = sorted(v for v in seen if v < 0 or (v == 255 and not binary))
    shown = [v for v in sorted(seen) if v not in void]
    lines = [f"void = {void}"] if void else []
    lines += ["", "[classes]", *_named(shown, model, binary=binary)]
    return "\n".join(lines) + "\n"


def _named(values: list[int], model: Sequence[str], *, binary: bool) -> Iterator[str]:
    """A line for each class; names are those of the model, where the numbers may be its own."""
    if values and max(values) < len(model):
        yield "# The names are the model's, in its order: check that the numbers mean them."
        yield from (f"{json.dumps(model[value])} = {value}" for value in values)
        return
    coloured = any(value >= COLOURS for value in values)
    yield "# Give each class its name."
    for k, value in enumerate(values):
        name = ("background", "foreground")[k] if binary else f"class_{k}"
        yield f'{name} = "{value_text(value)}"' if coloured else f"{name} = {value}"
