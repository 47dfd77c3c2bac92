"""What a run writes for each image, noted before it begins, so that the next one there removes it.

Otherwise a folder would hold pictures of images that its tables do not have. Only files that a run
of the same command noted are removed; all else in the folder is somebody's own, and so is what lay
there before that run: it may never have come to write its own.
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
    told = {"forms": [*forms], "names": [*names], "before": [*earlier["before"]]}
    if not resume:
        there = _files_of(told | {"before": []})
        told["before"] = [str(file) for file in there if (out / file).exists()]
    with writing_to(out):
        if forms:
            write_atomically(note, json.dumps(told).encode())
        else:
            note.unlink(missing_ok=True)


def _noted(note: Path) -> Mapping[str, Sequence[str]]:
    """What an earlier run has noted; nothing where there is no note, or another's."""
    found: Any = None
    with suppress(OSError, ValueError):
        found = json.loads(note.read_text())
    told = {key: found.get(key) if isinstance(found, dict) else None for key in NOTED}
    return {k: [*map(str, each)] if isinstance(each, list) else [] for k, each in told.items()}


NOTED = ("names", "forms", "before")
"""Names of images, forms of files, and those of them that lay there before the run."""


def _files_of(noted: Mapping[str, Sequence[str]]) -> Iterator[PurePosixPath]:
    """The files that a run writes, relative to their folder; what lies outside of it is none."""
    before = {*noted["before"]}
    for form in noted["forms"]:
        for name in noted["names"] if "*" in form else [""]:
            file = PurePosixPath(form.replace("*", name))
            if not file.is_absolute() and ".." not in file.parts and str(file) not in before:
                yield file


def _remove(out: Path, files: Iterator[PurePosixPath]) -> None:
    """Remove files, and folders that are empty then."""
    folders: set[Path] = set()
    for file in files:
        (out / file).unlink(missing_ok=True)
        folders.update(out / parent for parent in file.parents)
    for folder in sorted(folders - {out}, key=lambda folder: -len(folder.parts)):
        with suppress(OSError):  # it is not there, or holds something else
            folder.rmdir()
