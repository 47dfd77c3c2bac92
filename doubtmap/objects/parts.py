"""The parts of `doubtmap objects` as one: the files that one process would have written.

OUT/part.json holds what a part has found and what was asked for; the pictures lie beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from doubtmap.datasets.reading import none_left
from doubtmap.engine.parts import check_alike, check_files, read_parts, take_files
from doubtmap.errors import DataError
from doubtmap.files import alone, writing_to
from doubtmap.files.parquet import check_parquet
from doubtmap.objects.found import Found
from doubtmap.objects.writing import Form, finish, note_files, picture_of

SAID = ("settings", "own", "images", "info", "found", "hashes")
"""What a part says."""

ASKED = ("rule", "probability", "simplify", "encoding", "crs", "to", "range", "seed")
"""Of `info`: what must be the same in all parts."""


@alone
def merge_objects(
    out: Path, parts: Sequence[Path], *, parquet: bool = False, command: str = ""
) -> dict[str, Any]:
    """Put the parts of a run together; neither network nor images are needed.

    Args:
        out: folder for all files; the parts stay as they are.
        parts: their folders, in any order.
        parquet: write the table of objects as Parquet, too.
        command: what to write as the origin.

    Returns:
        As `doubtmap.objects.writing.write_objects`.

    Raises:
        UsageError: for parts that do not belong together, are there twice, or are missing.
        DataError: for a folder without a part, or one that is damaged.
    """
    if parquet:
        check_parquet()
    folders, abouts = read_parts("objects", out, parts, SAID)
    check_alike([*map(_compared, abouts)], folders)
    check_files(folders, abouts)
    found, skipped = Found(), dict[str, str]()
    note_files(out, list(abouts[0]["images"]))
    for folder, about in zip(folders, abouts):
        found.take(about["found"])
        skipped |= about["info"]["skipped"]
        with writing_to(out):
            take_files(folder, out, [*map(picture_of, about["own"])])
    if not found.images:
        raise DataError(none_left(len(abouts[0]["images"]), skipped))
    last = next(about["info"] for about in reversed(abouts) if about["found"]["images"])
    more: dict[str, Any] = {"command": command, "skipped": skipped, "parquet": parquet}
    info = {key: more.get(key, value) for key, value in last.items()}
    form = Form(info["simplify"], info["encoding"], info["crs"], tuple(info["to"]), parquet)
    return finish(out, found, info, form)


def _compared(about: Mapping[str, Any]) -> dict[str, Any]:
    asked = {key: about["info"].get(key) for key in ASKED}
    return {**about["settings"], **asked, "images": list(about["images"])}
