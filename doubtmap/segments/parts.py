"""The parts of `doubtmap review` as one: the files that one process would have written.

OUT/part.json              what was asked for, and which images a part has
OUT/review.safetensors     what is expected of them, see `Review.arrays`
OUT/segments.csv           its segments
OUT/segments/NAME.png      as of a review
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import safetensors.numpy

from doubtmap.datasets.reading import none_left
from doubtmap.engine.parts import (
    check_alike,
    check_files,
    directory_of,
    read_parts,
    rendering_of,
    take_files,
)
from doubtmap.errors import DataError
from doubtmap.files import alone, beside, writing_to
from doubtmap.segments.page import REVIEWED, Choice, Chosen, finish, note_files, picture_of
from doubtmap.segments.review import Review

SAID = (
    *("settings", "own", "images", "rendering", "errors", "header", "reviewed", "hashes"),
    *("class_names", "skipped", "choice"),
)
"""What a part says."""


@alone
def merge_reviews(
    out: Path, parts: Sequence[Path], *, command: str = "", chosen: Chosen | None = None
) -> str:
    """Put the parts of a review together; of the images only those that are shown are read.

    Args:
        out: folder for all files; the parts stay as they are.
        parts: their folders, in any order.
        command: what to write as the origin.
        chosen: takes the images that the page shows.

    Returns:
        One sentence about what was written.

    Raises:
        UsageError: for parts that do not belong together, are there twice, or are missing.
        DataError: for a folder without a part, or one that is damaged, or an image that cannot be
            read.
    """
    folders, abouts = read_parts("review", out, parts, SAID)
    check_alike([*map(_compared, abouts)], folders)
    check_files(folders, abouts)
    skipped = {path: why for about in abouts for path, why in about["skipped"].items()}
    full = [(f, about) for f, about in zip(folders, abouts) if about["reviewed"]]
    if not full:
        raise DataError(none_left(len(abouts[0]["images"]), skipped))
    about = full[-1][1] | {"command": command, "skipped": skipped}
    about["directory"] = directory_of(abouts)
    found = Review.joined(
        [safetensors.numpy.load_file(f / REVIEWED) for f, _ in full],
        [name for _, each in full for name in each["reviewed"]],
        about["class_names"],
        about["errors"],
    )
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
        note_files(out, list(abouts[0]["images"]))
        with beside(out / "segments.csv") as file:
            for folder, each in full:
                _add_rows(folder, each, file)
        for folder, each in full:
            take_files(folder, out, [*map(picture_of, each["own"])])
    asked = about["choice"]
    choice = Choice(**asked | {"to": tuple(asked["to"])})
    return finish(out, found, choice, rendering_of(about["rendering"]), about, chosen)


def _compared(about: Mapping[str, Any]) -> dict[str, Any]:
    asked = {"images": list(about["images"]), "rendering": about["rendering"]}
    return {**about["settings"], **about["choice"], **asked}


def _add_rows(folder: Path, about: Mapping[str, Any], file: IO[bytes]) -> None:
    """The rows of a part's segments, after a header where it is the first."""
    with (folder / "segments.csv").open("rb") as rows:
        rows.seek(about["header"] if file.tell() else 0)
        shutil.copyfileobj(rows, file)
