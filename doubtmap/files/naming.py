"""Names of what is written for each image and each score: no two files have one place."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from doubtmap.errors import DataError


def score_folders(
    scores: Iterable[str], taken: Iterable[str] = ("classes", "overlay")
) -> dict[str, str]:
    """The folder of each score's maps: its name without special characters, and no other's.

    Args:
        scores: their names.
        taken: folders that hold something else.

    Example:
        >>> score_folders(["entropy", "density:a+b", "density:a@b"])
        {'entropy': 'entropy', 'density:a+b': 'density_a_b', 'density:a@b': 'density_a_b_2'}
    """
    taken, folders = set(taken), {}
    for score in scores:
        name = folder = re.sub(r"[^\w.=-]+", "_", score).strip("_.") or "score"
        number = 2
        while folder.casefold() in taken:
            folder, number = f"{name}_{number}", number + 1
        taken.add(folder.casefold())
        folders[score] = folder
    return folders


def files_of(
    out: Path,
    name: str,
    folders: dict[str, str],
    format: str,
    sets: Mapping[str, Sequence[str]] | None = None,
) -> list[Path]:
    """The files of one image: classes, a map for each score, two for label sets, the overlay."""
    maps = [out / folder / f"{name}.{format}" for folder in folders.values()]
    for bits, size in (sets or {}).values():
        maps += [out / bits / f"{name}.npy", out / size / f"{name}.png"]
    return [out / "classes" / f"{name}.png", *maps, out / "overlay" / f"{name}.jpg"]


def outside(paths: Sequence[Path], out: Path) -> list[Path]:
    """The images that do not lie in the output folder, where an earlier run wrote pictures.

    Raises:
        DataError: where there are none.
    """
    kept = [path for path in paths if out.resolve() not in path.resolve().parents]
    if not kept:
        raise DataError(f"{out}: expected images outside of the output folder, found none.")
    return kept


def unique_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A file name without suffix for each image; equal ones get folder and, if need be, number."""
    names = {path: path.stem for path in paths}
    count = Counter(name.casefold() for name in names.values())
    taken: set[str] = set()
    for path, stem in names.items():
        name = stem if count[stem.casefold()] == 1 else f"{path.parent.name}_{stem}"
        number = 2
        while name.casefold() in taken:
            name, number = f"{path.parent.name}_{stem}_{number}", number + 1
        taken.add(name.casefold())
        names[path] = name
    return names
