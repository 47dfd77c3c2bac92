"""A description of a folder that has none, from what lies in it: a start, to be read and mended."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np

from doubtmap.datasets.description import parsed_description
from doubtmap.datasets.labels import COLOURS, colour_value, value_text
from doubtmap.datasets.layouts import Layout
from doubtmap.datasets.patterns import IMAGE_SUFFIXES
from doubtmap.datasets.polygons import names_in
from doubtmap.datasets.reading import read_label
from doubtmap.errors import DataError

_MARKS = ("", "_mask", "_label", "_labels", "_gt", "_L", "_seg", "-mask", "_labelIds")
"""What label files add to the name of their image."""

_LABELS = (*IMAGE_SUFFIXES, "npy", "json")
_LOOKED_AT = 20
"""Label files that are opened."""


def guessed(root: Path) -> tuple[Layout, str]:
    """The layout that a folder seems to have, and its `doubtmap.toml`.

    Raises:
        DataError: where no labels can be told from images.
    """
    images, labels, files = _paired(root)
    text = f'images = "{images}"\nlabels = "{labels}"\n' + _classes(files)
    return parsed_description(text, root), text


def _paired(root: Path) -> tuple[str, str, list[Path]]:
    """Patterns of images and labels, and the label files."""
    folders: dict[Path, dict[str, list[Path]]] = {}
    for top, inner, names in os.walk(root):
        inner[:] = [name for name in inner if not name.startswith(".")]
        for name in sorted(names):
            path = Path(top) / name
            if path.suffix.lower().lstrip(".") in _LABELS and not name.startswith("."):
                folders.setdefault(Path(top), {}).setdefault(path.stem, []).append(path)
    best: tuple[int, int, str, str, list[Path]] | None = None
    for one in folders:
        for two in folders:
            for mark in _MARKS:
                if one == two and not mark and not _has(folders[one], ".json"):
                    continue
                found = _matched(folders[one], folders[two], mark, same=one == two)
                if (
                    found
                    and (score := _score(found, one, two))
                    and (best is None or score > best[0])
                ):
                    best = (score, len(found), *_patterns(root, found, mark), [b for _, b in found])
    if best is None:
        raise DataError(
            f"{root}: expected images and labels whose names go together, found none. Write a "
            'doubtmap.toml with images, labels and [classes]; of outlines, labels = "FILE.json".'
        )
    return best[2], best[3], best[4]


def _has(files: dict[str, list[Path]], suffix: str) -> bool:
    return any(path.suffix.lower() == suffix for paths in files.values() for path in paths)


def _matched(
    images: dict[str, list[Path]], labels: dict[str, list[Path]], mark: str, *, same: bool
) -> list[tuple[Path, Path]]:
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


def _score(pairs: list[tuple[Path, Path]], one: Path, two: Path) -> int:
    """How many pairs there are, and 0 where the second file does not look like labels."""
    try:
        for _, label in pairs[:3]:
            if label.suffix.lower() == ".json":
                return len(pairs)
            raw = read_label(label)
            codes = raw if raw.ndim == 2 else raw.reshape(-1, 3) @ np.array([65536, 256, 1])
            if len(np.unique(codes)) > 64:
                return 0
    except DataError:
        return 0
    return len(pairs)


def _patterns(root: Path, pairs: list[tuple[Path, Path]], mark: str) -> tuple[str, str]:
    image, label = pairs[0]
    suffixes = {pair[0].suffix.lower() for pair in pairs}
    suffix = suffixes.pop() if len(suffixes) == 1 else ".{suffix}"
    kind = Counter(pair[1].suffix.lower() for pair in pairs).most_common(1)[0][0]

    def below(path: Path) -> str:
        folder = path.parent.relative_to(root).as_posix()
        return "" if folder == "." else f"{folder}/"

    return f"{below(image)}{{frame}}{suffix}", f"{below(label)}{{frame}}{mark}{kind}"


def _classes(files: list[Path]) -> str:
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
        quoted = "\n".join(f'"{name}" = "{name}"' for name in names)
        return f'other = "void"\n\n[classes]\n{quoted}\n'
    binary = seen <= {0, 255}
    void = sorted(v for v in seen if v < 0 or (v == 255 and not binary))
    lines = [f"void = {void}"] if void else []
    shown = [v for v in sorted(seen) if v not in void]
    width = '"{}"' if any(v >= COLOURS for v in shown) else "{}"
    lines += ["", "[classes]"]
    lines += [f"class_{k} = {width.format(value_text(v))}" for k, v in enumerate(shown)]
    return "\n".join(lines) + "\n"
