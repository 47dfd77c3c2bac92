"""Data sets by the text a command line gives: `camvid:PATH:test`, `folder:PATH`, `synthetic:20`."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from doubtmap.datasets.dataset import Dataset
from doubtmap.datasets.description import read_description
from doubtmap.datasets.labelled_folder import open_folder
from doubtmap.datasets.layouts import LAYOUTS
from doubtmap.errors import DataError, UsageError


def open_dataset(text: str, *, seed: int = 0) -> Dataset:
    """Open a data set.

    Args:
        text: `LAYOUT:PATH` or `LAYOUT:PATH:SPLIT` with a name of `LAYOUTS`; `folder:PATH[:SPLIT]`
            for a folder with a `doubtmap.toml`; `synthetic:N` for N drawn streets.
        seed: of the drawn streets.

    Returns:
        The data set in a fixed order; images are read one by one, on demand.

    Raises:
        UsageError: the text does not name a data set.
        DataError: the folder, its images, the split or a label is missing.
    """
    name, colon, rest = text.partition(":")
    if name not in _names():
        raise UsageError(_unknown_layout(name, text))
    if not colon or not rest:
        raise UsageError(f"Expected {_form(name)}, got {text}.")
    if name == "synthetic":
        return _synthetic(rest, text, seed)
    path, split = path_and_split(rest)
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(
            f"{root}: expected the folder of the data set, found none there. Check the path "
            "(relative ones start at the current folder)."
        )
    if name == "folder":
        files, layout = read_description(root)
        return open_folder(files, layout, layout.title, split)
    return open_folder(root, LAYOUTS[name], name, split)


def _synthetic(count: str, text: str, seed: int) -> Dataset:
    if not count.isascii() or not count.isdigit() or int(count) == 0:
        raise UsageError(f"Expected synthetic:N with a number of images, got {text}.")
    from doubtmap.streets.synthetic import SyntheticStreets

    return SyntheticStreets(int(count), seed=seed)


def path_and_split(rest: str) -> tuple[str, str | None]:
    """Part PATH from SPLIT; a colon of the path itself (a drive, an existing folder) stays."""
    path, colon, split = rest.rpartition(":")
    drive = len(path) == 1 and (os.name == "nt" or split.startswith(("\\", "/")))
    if not colon or drive or "/" in split or "\\" in split or Path(rest).exists():
        return rest, None
    return path, split or None


def _form(name: str) -> str:
    return "synthetic:N" if name == "synthetic" else f"{name}:PATH or {name}:PATH:SPLIT"


def _names() -> list[str]:
    return sorted((*LAYOUTS, "folder", "synthetic"))


def _unknown_layout(name: str, text: str) -> str:
    near = difflib.get_close_matches(name.lower(), _names(), 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return (
        f"Expected LAYOUT:PATH[:SPLIT] with one of the layouts {', '.join(_names())}, got {text}."
        f"{hint}"
    )
