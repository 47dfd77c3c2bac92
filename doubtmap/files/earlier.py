"""What a run writes for each image, noted before it begins, so that the next one there removes it.

Otherwise a folder would hold pictures of images that its tables do not have. Only files that a run
of the same command noted are removed; all else in the folder is somebody's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from doubtmap.files.writing import write_atomically, writing_to


def begin_in(
    out: Path, command: str, names: Sequence[str], forms: Sequence[str], *, resume: bool = False
) -> None:
    """Remove what an earlier run of a command has left in a folder, and note what this one writes.

    Args:
        out: folder of both.
        command: of both, such as `score`.
        names: of the images.
        forms: of the files, such as `overlay/*.jpg`, where `*` stands for a name.
        resume: go on with the earlier run, whose files stay.

    Raises:
        DataError: where the folder cannot be written.
    """
    note = out / f".files-of-{command}.json"
    earlier = _noted(note)
    if resume:
        names = list(dict.fromkeys([*earlier["names"], *names]))
        forms = list(dict.fromkeys([*earlier["forms"], *forms]))
    else:
        with writing_to(out):
            _remove(out, _files_of(earlier))
    if not forms:
        note.unlink(missing_ok=True)
    else:
        write_atomically(note, json.dumps({"forms": [*forms], "names": [*names]}).encode())


def _noted(note: Path) -> Mapping[str, Sequence[str]]:
    """What an earlier run has noted; nothing where there is no note, or another's."""
    found: Any = None
    with suppress(OSError, ValueError):
        found = json.loads(note.read_text())
    told = [found.get(key) if isinstance(found, dict) else None for key in ("names", "forms")]
    names, forms = [[*map(str, each)] if isinstance(each, list) else [] for each in told]
    return {"names": names, "forms": forms}


def _files_of(noted: Mapping[str, Sequence[str]]) -> Iterator[PurePosixPath]:
    """The files that are noted, relative to their folder; what would lie outside of it is none."""
    for form in noted["forms"]:
        for name in noted["names"] if "*" in form else [""]:
            file = PurePosixPath(form.replace("*", name))
            if not file.is_absolute() and ".." not in file.parts:
                yield file


def _remove(out: Path, files: Iterator[PurePosixPath]) -> None:
    """Remove files, and folders that are empty then."""
    folders = set()
    for file in files:
        (out / file).unlink(missing_ok=True)
        folders.add(out / file.parent)
    for folder in folders - {out}:
        with suppress(OSError):  # it is not there, or holds something else
            folder.rmdir()
