"""The parts of `doubtmap score` as one: the files that one process would have written.

OUT/part.json says of a part what was asked for, and which images it has; it is written last. Maps
of scores without a natural scale wait in the parts, since their scale follows from all images.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from doubtmap.datasets.reading import Rendering, left_out, none_left
from doubtmap.engine.places import PartNumber, all_parts
from doubtmap.errors import DataError, UsageError
from doubtmap.files import alone, write_atomically, writing_to
from doubtmap.files.naming import files_of
from doubtmap.files.resuming import SAMPLES, differing
from doubtmap.images.writing import PART, SETTINGS, Told, finish
from doubtmap.reports.scales import Waiting

HOW = ("scores", "folders", "sets", "format")
"""What a part says as `Told` has it."""


@alone
def merge_scores(
    out: Path, parts: Sequence[Path], *, parquet: bool = False, command: str = ""
) -> str:
    """Put the parts of a run together.

    The images are looked at again only for the overlays of scores without a natural scale.

    Args:
        out: folder for all files; the parts stay as they are.
        parts: their folders, in any order.
        parquet: write the table of images as Parquet, too.
        command: what to write as the origin.

    Returns:
        One sentence about what was written.

    Raises:
        UsageError: for parts that do not belong together, are there twice, or are missing.
        DataError: for a folder without a part, or one that is damaged.
    """
    told = [_read(folder) for folder in parts]
    order = all_parts([PartNumber(*about["part"]) for about in told], parts)
    folders, abouts = [parts[at] for at in order], [told[at] for at in order]
    settings = [_settings(folder) for folder in folders]
    _check_alike(abouts, settings, folders)
    with writing_to(out):
        Waiting(out).clear()
        for folder, about in zip(folders, abouts):
            for name in about["own"]:
                of = about["folders"], about["format"], about["sets"]
                _take(folder, out, files_of(Path(), name, *of))
        (out / PART).unlink(missing_ok=True)
    first = abouts[0]
    last = next((about for about in reversed(abouts) if about["own"]), first)
    images = {name: about["images"][name] for about in abouts for name in about["own"]}
    skipped = {path: why for about in abouts for path, why in about["skipped"].items()}
    whole = last | {"command": command, "images": images, "skipped": skipped}
    how = {key: first[key] for key in HOW}
    run = Told(rendering=_rendering(first["rendering"]), **how, about=whole)
    samples = {name: mark for each in settings for name, mark in each.get(SAMPLES, {}).items()}
    kept = {key: value for key, value in settings[0].items() if key != "part"} | {SAMPLES: samples}
    write_atomically(out / SETTINGS, json.dumps(kept, sort_keys=True, indent=1).encode())
    done = finish(out, run, parquet)
    if not done:
        raise DataError(none_left(len(images), skipped))
    return f"{done} of {len(images)} images scored{left_out(skipped)}: {out}"


def _rendering(told: Mapping[str, Any]) -> Rendering:
    span = told["range"] and (told["range"][0], told["range"][1])
    return Rendering(span, tuple(told["bands"]), told["upright"], told["every"])


def is_of_scores(parts: Sequence[Path]) -> bool:
    """Whether any of several folders is a part of scored images."""
    return any((folder / PART).is_file() and _kind(folder) == "score" for folder in parts)


def _kind(folder: Path) -> object:
    try:
        about = json.loads((folder / PART).read_text())
    except (OSError, ValueError):  # who reads it says so
        return None
    return about.get("kind") if isinstance(about, dict) else None


def _read(folder: Path) -> dict[str, Any]:
    """What a part says of itself."""
    file = folder / PART
    try:
        about: dict[str, Any] = json.loads(file.read_text())
        if about.get("kind") != "score":
            raise UsageError(
                f"merge: expected parts of one command, but {folder} is one of evaluate, and "
                f"another is one of score. Merge each by itself."
            )
        PartNumber(*about["part"])
        [
            about[key]
            for key in ("own", "rendering", "scores", "folders", "sets", "format", "images")
        ]
    except FileNotFoundError:
        raise DataError(
            f"{folder}: expected a part of doubtmap score that is finished, found none. Make it "
            f"with --part I/N, or go on with --resume."
        ) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: cannot be used ({error}). Make the part again.") from error
    return about


def _settings(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / SETTINGS).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / SETTINGS}: cannot be used ({error}). Make it again.") from error
    return found


def _check_alike(
    abouts: Sequence[Mapping[str, Any]],
    settings: Sequence[Mapping[str, Any]],
    folders: Sequence[Path],
) -> None:
    """Refuse parts of different settings, networks, images or versions."""
    compared = [
        {k: v for k, v in each.items() if k not in ("part", SAMPLES)}
        | {"images": list(about["images"]), "rendering": about["rendering"]}
        for each, about in zip(settings, abouts)
    ]
    for one, folder in zip(compared, folders):
        if changed := differing(compared[0], one):
            raise UsageError(
                f"merge: expected parts of one run, but {', '.join(changed)} differ between "
                f"{folders[0]} and {folder}. Make the parts anew with the same options, network, "
                f"images and version."
            )


def _take(folder: Path, out: Path, files: Sequence[Path]) -> None:
    """Let the files of an image be in another folder, too, with what waits of them."""
    waiting = Waiting(Path())
    for file in (*files, *map(waiting.path, files)):
        (out / file).unlink(missing_ok=True)
        if not (folder / file).exists():
            continue
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(folder / file, out / file)  # nothing is ever written into a file that is there
        except OSError:
            shutil.copyfile(folder / file, out / file)
