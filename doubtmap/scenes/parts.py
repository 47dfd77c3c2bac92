"""The parts of `doubtmap score` on rasters as one: the files that one process would have written.

A part is a share of the rows of all rasters. OUT/part.json says of it what was asked for and how
each raster is gone through; its strips wait in OUT/.strips until the merge writes the maps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from doubtmap.datasets.reading import left_out, none_left
from doubtmap.engine.parts import (
    PART,
    SETTINGS,
    check_alike,
    check_files,
    directory_of,
    read_parts,
    rendering_of,
    settings_of,
    take_files,
    write_settings,
)
from doubtmap.errors import DataError, UsageError
from doubtmap.files import alone, write_atomically, writing_to
from doubtmap.files.afar import again_in
from doubtmap.files.resuming import SAMPLES
from doubtmap.scenes.maps import Maps, Seen
from doubtmap.scenes.writing import KIND, note_files
from doubtmap.windows.blocks import Strips

SAID = (
    *("doubtmap", "model", "class_names", "folders", "images", "skipped", "notes"),
    *("seen", "names", "rendering", "hashes"),
)
"""What a part says."""


@alone
def merge_scenes(out: Path, parts: Sequence[Path], *, command: str = "") -> str:
    """Put the parts of a run together; the rasters are read for their place and a small picture.

    Args:
        out: folder for all files; the parts stay as they are.
        parts: their folders, in any order.
        command: what to write as the origin.

    Returns:
        One sentence about what was written.

    Raises:
        UsageError: for parts that do not belong together, are there twice, or are missing.
        DataError: for a folder without a part, one that is damaged, or a raster that cannot be
            read.
    """
    folders, abouts = read_parts(KIND, out, parts, SAID)
    settings = [settings_of(folder, about["hashes"]) for folder, about in zip(folders, abouts)]
    check_alike([*map(_compared, abouts, settings)], folders)
    _check_same_rasters(settings, folders)
    check_files(folders, abouts)
    first = abouts[0]
    with writing_to(out):
        (out / PART).unlink(missing_ok=True)
    note_files(out, list(first["names"]), first["folders"])
    for folder, about in zip(folders, abouts):
        with writing_to(out):
            take_files(folder, out, [n for n in about["hashes"] if n != SETTINGS])
    skipped = {path: why for about in abouts for path, why in about["skipped"].items()}
    images, directory = {}, directory_of(abouts)
    for name, path in first["names"].items():
        if path not in skipped:
            images[name] = _written(out, abouts, name, directory, settings[0]["cloud"], command)
    if not images:
        raise DataError(none_left(len(first["names"]), skipped))
    write_settings(out, settings)
    facts = {"doubtmap": first["doubtmap"], "command": command, "directory": directory}
    facts |= {key: abouts[-1][key] for key in ("model", "class_names", "folders")}
    facts |= {"images": images, "skipped": skipped, "notes": first["notes"]}
    write_atomically(out / "score.json", json.dumps(facts, indent=1).encode())
    return f"{len(images)} of {len(first['names'])} images scored{left_out(skipped)}: {out}"


def _compared(about: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    asked = {key: value for key, value in settings.items() if key not in ("part", SAMPLES)}
    return asked | {"images": list(about["names"]), "rendering": about["rendering"]}


def _check_same_rasters(settings: Sequence[Mapping[str, Any]], folders: Sequence[Path]) -> None:
    """Refuse parts that share a raster which was another for one of them."""
    seen: dict[str, tuple[str, Path]] = {}
    for each, folder in zip(settings, folders):
        for name, mark in each.get(SAMPLES, {}).items():
            before, first = seen.setdefault(name, (mark, folder))
            if mark != before:
                raise UsageError(
                    f"merge: expected parts of the same images, but {name} was another in {folder} "
                    f"than in {first}. Make one of them again, where the image is the other's."
                )


def _written(
    out: Path,
    abouts: Sequence[Mapping[str, Any]],
    name: str,
    directory: str,
    cloud: bool,
    command: str,
) -> Any:
    """Write the maps of an image of which all strips are there, and tell of it."""
    told = [each["seen"][name] for each in abouts if name in each["seen"]]
    strips = Strips(**told[0]["strips"] | {"size": tuple(told[0]["strips"]["size"])})
    about = next(each for each in abouts if name in each["seen"])
    maps = Maps(
        again_in(directory, about["names"][name]),
        rendering_of(about["rendering"]),
        *(out, name, about["folders"], tuple(about["class_names"])),
    )
    whole = all(maps.strip(key).exists() for key in strips.keys)
    if not whole or any(each != told[0] for each in told) or maps.scene.size != strips.size:
        height, width = strips.size
        raise DataError(
            f"{maps.path}: expected the image that the parts have seen, of {width} x {height} "
            f"pixels, and all its strips in them. Put that image back, or make the parts again."
        )
    maps.write(Seen(strips, told[0]["classes"]), cloud, command)
    return about["images"][name]
