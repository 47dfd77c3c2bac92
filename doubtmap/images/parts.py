"""The parts of `doubtmap score` as one: the files that one process would have written.

OUT/part.json says of a part what was asked for, which images it has, and hashes of their files; it
is written last. Maps of scores without a natural scale wait in the parts, since their scale follows
from all images.
"""

from __future__ import annotations

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
from doubtmap.errors import DataError
from doubtmap.files import alone, writing_to
from doubtmap.files.resuming import SAMPLES
from doubtmap.images.writing import Told, finish, note_files
from doubtmap.reports.scales import Waiting

HOW = ("scores", "folders", "sets", "format")
"""What a part says as `Told` has it."""

SAID = ("own", "rendering", "images", "skipped", "hashes", *HOW)
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
    settings = [settings_of(folder, about["hashes"]) for folder, about in zip(folders, abouts)]
    check_alike([*map(_compared, abouts, settings)], folders)
    check_files(folders, abouts)
    with writing_to(out):
        Waiting(out).clear()
        note_files(out, list(abouts[0]["images"]), *(abouts[0][key] for key in HOW[1:]))
        for folder, about in zip(folders, abouts):
            take_files(folder, out, [name for name in about["hashes"] if name != SETTINGS])
        (out / PART).unlink(missing_ok=True)
    first = abouts[0]
    last = next((about for about in reversed(abouts) if about["own"]), first)
    images = {name: about["images"][name] for about in abouts for name in about["own"]}
    skipped = {path: why for about in abouts for path, why in about["skipped"].items()}
    whole = last | {"command": command, "images": images, "skipped": skipped}
    whole["directory"] = directory_of(abouts)
    how = {key: first[key] for key in HOW}
    run = Told(rendering=rendering_of(first["rendering"]), **how, about=whole)
    write_settings(out, settings)
    done = finish(out, run, parquet)
    if not done:
        raise DataError(none_left(len(images), skipped))
    return f"{done} of {len(images)} images scored{left_out(skipped)}: {out}"


def _compared(about: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    asked = {k: v for k, v in settings.items() if k not in ("part", SAMPLES)}
    return asked | {"images": list(about["images"]), "rendering": about["rendering"]}
