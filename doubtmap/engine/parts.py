"""What the parts of a run say of themselves: read, put in order, and held to each other.

OUT/part.json says of a part which command made it, which one of how many it is, and what was asked
for. It is written last: a folder without it holds no part, or one that was stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from doubtmap.datasets.reading import Rendering
from doubtmap.engine.places import PartNumber, all_parts
from doubtmap.errors import DataError, UsageError
from doubtmap.files import write_atomically
from doubtmap.files.resuming import SAMPLES, differing, sha256_of

PART = "part.json"
SETTINGS = "settings.json"
GOING_ON = (".progress", SETTINGS)
"""What a run leaves that can be gone on with."""


def write_part(out: Path, command: str, part: PartNumber, about: Mapping[str, Any]) -> None:
    """Say of a part what the merge must know; to be written after all else.

    Args:
        out: the part's folder.
        command: that made it.
        part: which it is.
        about: JSON values.

    Raises:
        DataError: for a folder that cannot be written.
    """
    which = {"kind": command, "part": [part.number, part.of], "directory": str(Path.cwd())}
    told = {**which, **about}
    write_atomically(out / PART, json.dumps(told | {"digest": _digest(told)}).encode())


def _digest(told: Mapping[str, Any]) -> str:
    """Of what a part says, by which what was changed or damaged since is known."""
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def command_of(folders: Sequence[Path]) -> str:
    """The command whose parts these are, as the first says that can be read."""
    for folder in folders:
        try:
            about = json.loads((folder / PART).read_text())
        except (OSError, ValueError):  # who reads it says so
            continue
        if isinstance(about, dict) and about.get("kind"):
            return str(about["kind"])
    return "evaluate"


def read_parts(
    command: str, out: Path, folders: Sequence[Path], keys: Sequence[str]
) -> tuple[list[Path], list[dict[str, Any]]]:
    """All parts of a run, in order.

    Args:
        command: that made them.
        out: folder for what comes of them, which is none of theirs.
        folders: of the parts, in any order.
        keys: what each part of this command says.

    Returns:
        Their folders, and what each says of itself.

    Raises:
        UsageError: for parts of several commands, some that are there twice or missing, or a part
            where the results would go.
        DataError: for a folder without a part, or one that cannot be read.
    """
    if out.resolve() in [folder.resolve() for folder in folders]:
        raise UsageError(
            f"merge: expected a folder for the results that is none of the parts', got {out}. "
            f"Name another one first, then the parts."
        )
    told = [_read(command, folder, keys) for folder in folders]
    order = all_parts([PartNumber(*about["part"]) for about in told], folders)
    return [folders[at] for at in order], [told[at] for at in order]


def _read(command: str, folder: Path, keys: Sequence[str]) -> dict[str, Any]:
    file = folder / PART
    if not file.exists():
        raise DataError(_no_part(command, folder))
    try:
        about: dict[str, Any] = json.loads(file.read_text())
        if about.pop("digest") != _digest(about):
            raise DataError(damaged(file))
        PartNumber(*about["part"]), Path(about["directory"])
        if about["kind"] == command:
            [about[key] for key in keys]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: cannot be used ({error}). Make the part again.") from error
    if about["kind"] != command:
        raise UsageError(
            f"merge: expected parts of one command, but {folder} is one of {about['kind']}, and "
            f"another is one of {command}. Merge each by itself."
        )
    return about


def _no_part(command: str, folder: Path) -> str:
    if any((folder / name).exists() for name in GOING_ON):
        return (
            f"{folder}: expected a part that is finished, found one that was stopped. Go on with "
            f"the same command and --resume."
        )
    return (
        f"{folder}: expected a part of doubtmap {command} that is finished, found none. Make it "
        f"with --part I/N --out {folder}."
    )


def check_alike(asked: Sequence[Mapping[str, Any]], folders: Sequence[Path]) -> None:
    """Refuse parts of different settings, networks, images or versions.

    Args:
        asked: what must be the same, of each part.
        folders: of the parts.

    Raises:
        UsageError: where it is not; what differs is named.
    """
    for each, folder in zip(asked, folders):
        if changed := differing(asked[0], each):
            raise UsageError(
                f"merge: expected parts of one run, but {', '.join(changed)} differ between "
                f"{folders[0]} and {folder}. Make the parts anew with the same options, network, "
                f"data and version."
            )


READERS = 4
"""Threads that hash files."""


def directory_of(abouts: Sequence[Mapping[str, Any]]) -> str:
    """The folder from which parts name their images, where they agree and it is here; else this."""
    told = {str(about["directory"]) for about in abouts}
    return first if len(told) == 1 and Path(first := min(told)).is_dir() else str(Path.cwd())


def hashes_of(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """SHA-256 of files of a part, by their names in its folder."""
    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip(names, pool.map(lambda name: sha256_of(folder / name), names)))


def as_written(folder: Path, name: str, hashes: Mapping[str, str]) -> Path:
    """A file of a part, where it is what the part wrote; else it would count as if it were right.

    Args:
        folder: of the part.
        name: of the file.
        hashes: as of `hashes_of` when the part was written.

    Raises:
        DataError: for another file, or one that cannot be read.
    """
    file = folder / name
    try:
        same = sha256_of(file) == hashes[name]
    except (OSError, LookupError) as error:
        raise DataError(f"{file}: cannot be used ({error}). Make the part again.") from error
    if not same:
        raise DataError(damaged(file))
    return file


def damaged(file: Path) -> str:
    """What to say of a file of a part that is not as it was written."""
    return (
        f"{file}: cannot be used: expected what its part wrote, got something else, as of a copy "
        f"that was cut short. Copy it again, or make the part again."
    )


def rendering_of(told: Mapping[str, Any]) -> Rendering:
    """How the images of a run became RGB, as its parts say."""
    span = told["range"] and (told["range"][0], told["range"][1])
    return Rendering(span, tuple(told["bands"]), told["upright"], told["every"])


def settings_of(folder: Path, hashes: Mapping[str, str]) -> dict[str, Any]:
    """The settings of a part.

    Raises:
        DataError: for others than it wrote.
    """
    found: dict[str, Any] = json.loads(as_written(folder, SETTINGS, hashes).read_text())
    return found


def write_settings(out: Path, settings: Sequence[Mapping[str, Any]]) -> None:
    """Write the settings of parts as those of the whole run.

    Raises:
        DataError: where they cannot be written.
    """
    samples = {name: mark for each in settings for name, mark in each.get(SAMPLES, {}).items()}
    kept = {key: value for key, value in settings[0].items() if key != "part"} | {SAMPLES: samples}
    write_atomically(out / SETTINGS, json.dumps(kept, sort_keys=True, indent=1).encode())


def check_files(folders: Sequence[Path], abouts: Sequence[Mapping[str, Any]]) -> None:
    """Hold all files of parts to the hashes that the parts have noted.

    Raises:
        DataError: for a file that is not what its part wrote, or is none of its folder.
    """
    places = [(folder, name) for folder, about in zip(folders, abouts) for name in about["hashes"]]
    for folder, name in places:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(damaged(folder / name))
    wanted = {folder: about["hashes"] for folder, about in zip(folders, abouts)}
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(lambda place: as_written(place[0], place[1], wanted[place[0]]), places))


def take_files(folder: Path, out: Path, files: Sequence[str]) -> None:
    """Let files of a part be in another folder, too, as links where the disk can.

    Args:
        folder: of the part, held to its hashes before; see `check_files`.
        out: the other folder.
        files: by their names in both.
    """
    for name in files:
        (out / name).unlink(missing_ok=True)
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(folder / name, out / name)  # nothing is ever written into a file that is there
        except OSError:
            shutil.copyfile(folder / name, out / name)
