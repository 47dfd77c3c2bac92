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
from doubtmap.engine.parts import PART, check_alike, damaged, read_parts
from doubtmap.errors import DataError
from doubtmap.files import alone, write_atomically, writing_to
from doubtmap.files.naming import files_of
from doubtmap.files.resuming import SAMPLES
from doubtmap.images.writing import SETTINGS, Told, finish
from doubtmap.reports.scales import Waiting

HOW = ("scores", "folders", "sets", "format")
"""What a part says as `Told` has it."""

SAID = ("own", "rendering", "images", "skipped", *HOW)
"""What a part says."""


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
    folders, abouts = read_parts("score", out, parts, SAID)
    settings = [_settings(folder) for folder in folders]
    check_alike([*map(_compared, abouts, settings)], folders)
    with writing_to(out):
        Waiting(out).clear()
        for folder, about in zip(folders, abouts):
            for name in about["own"]:
                of = about["folders"], about["format"], about["sets"]
                files = files_of(Path(), name, *of)
                take_files(folder, out, [*files, *map(Waiting(Path()).path, files)], all=False)
        (out / PART).unlink(missing_ok=True)
    first = abouts[0]
    last = next((about for about in reversed(abouts) if about["own"]), first)
    images = {name: about["images"][name] for about in abouts for name in about["own"]}
    skipped = {path: why for about in abouts for path, why in about["skipped"].items()}
    whole = last | {"command": command, "images": images, "skipped": skipped}
    how = {key: first[key] for key in HOW}
    run = Told(rendering=rendering_of(first["rendering"]), **how, about=whole)
    samples = {name: mark for each in settings for name, mark in each.get(SAMPLES, {}).items()}
    kept = {key: value for key, value in settings[0].items() if key != "part"} | {SAMPLES: samples}
    write_atomically(out / SETTINGS, json.dumps(kept, sort_keys=True, indent=1).encode())
    done = finish(out, run, parquet)
    if not done:
        raise DataError(none_left(len(images), skipped))
    return f"{done} of {len(images)} images scored{left_out(skipped)}: {out}"


def rendering_of(told: Mapping[str, Any]) -> Rendering:
    """How the images of a run became RGB, as its parts say."""
    span = told["range"] and (told["range"][0], told["range"][1])
    return Rendering(span, tuple(told["bands"]), told["upright"], told["every"])


def _settings(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / SETTINGS).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / SETTINGS}: cannot be used ({error}). Make it again.") from error
    return found


def _compared(about: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    asked = {k: v for k, v in settings.items() if k not in ("part", SAMPLES)}
    return asked | {"images": list(about["images"]), "rendering": about["rendering"]}


def take_files(folder: Path, out: Path, files: Sequence[Path], all: bool = True) -> None:
    """Let files of a part be in another folder, too, as links where the disk can.

    Args:
        folder: of the part.
        out: the other folder.
        files: relative to both.
        all: whether the part must have them all; else those that it lacks are removed.

    Raises:
        DataError: for a file that is not there.
    """
    for file in files:
        (out / file).unlink(missing_ok=True)
        if not (folder / file).exists():
            if all:
                raise DataError(damaged(folder / file))
            continue
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(folder / file, out / file)  # nothing is ever written into a file that is there
        except OSError:
            shutil.copyfile(folder / file, out / file)
