"""What lies in buckets and must be a file or folder of this machine: networks, and what is written.

`near` brings it into a cache by its mark. `sent` lets a command write into a folder here, and
sends at the end, however that comes, what is new.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from doubtmap.errors import DataError, DoubtmapError, UsageError
from doubtmap.files.afar import (
    KEPT_IN,
    WEB,
    address_of,
    found_by,
    is_afar,
    said_of,
    translated,
)
from doubtmap.files.locking import NAME as LOCK
from doubtmap.files.locking import held
from doubtmap.files.writing import writing_to
from doubtmap.names import ADDRESSES

log = logging.getLogger("doubtmap")
CACHE = "DOUBTMAP_CACHE"
"""Variable of the environment that says where the cache is."""
BESIDE = {".onnx": "", ".xml": ".xml"}
"""Files of networks beside which others of the same start may lie, and what that start lacks."""


def cache() -> Path:
    """Where this machine keeps what it has fetched, and what it has yet to send."""
    if own := os.environ.get(CACHE):
        return Path(own).expanduser().absolute()
    every = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(every, "doubtmap").absolute()


def near(path: str | Path) -> Path:
    """The path of something on this machine; what lies elsewhere is fetched, unless it has been.

    Args:
        path: a path, or the address of a file or of a folder.

    Raises:
        UsageError, DataError: as `doubtmap.files.afar.open_afar`, or where it cannot be kept.
    """
    if not is_afar(path):
        return Path(path)
    address = address_of(str(path)).rstrip("/")
    every = _below(address)
    if not every:
        raise DataError(f"{address}: nothing lies there. Check the address.")
    mark = _short({name: said_of(about) for name, (_, about) in every.items()})
    name = Path(address.partition("::")[0]).name
    place = cache() / "fetched" / mark / name
    if place.exists():
        log.info("%s: was fetched before, to %s.", address, place)
    else:
        size = sum(int(about.get("size") or 0) for _, about in every.values()) / 1e6
        log.warning("%s: %.1f MB are fetched to %s.", address, size, place.parent)
        with writing_to(place, CACHE):
            half = place.parent.with_name(f".{mark}-{secrets.token_hex(4)}")
            try:
                for relative, (remote, about) in every.items():
                    _fetch(address, remote, half / name / relative, about)
                _move(half, place.parent)
            finally:
                shutil.rmtree(half, ignore_errors=True)
    ADDRESSES[str(place)] = address
    return place


def _move(half: Path, whole: Path) -> None:
    """Let what was fetched be there; another process may have been first."""
    try:
        half.rename(whole)
    except OSError:
        if not whole.exists():
            raise


def _below(address: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """The files that an address stands for: by their place below it, name there and facts.

    Of one file the place is empty; a network's other files are beside it, at `../NAME`.
    """
    with translated(address):
        system, name = found_by(address)
        system.invalidate_cache()  # others may have written there since it was listed
        if address.startswith(WEB) or system.isfile(name):
            found = {"": (name, system.info(name))}
            ending = Path(name).suffix.lower()
            if ending in BESIDE and not address.startswith(WEB):
                folder, _, own = name.rpartition("/")
                start = own.removesuffix(BESIDE[ending])
                for about in system.ls(folder, detail=True):
                    other = about["name"].rpartition("/")[2]
                    if about["type"] == "file" and other != own and other.startswith(start):
                        found[f"../{other}"] = (about["name"], about)
            return found
        listed = system.find(name, detail=True)
    start = name.strip("/")
    return {
        each.strip("/").removeprefix(start).lstrip("/"): (each, about)
        for each, about in sorted(listed.items())
        if about.get("type") != "directory" and not each.endswith("/")
    }


def _fetch(address: str, remote: str, place: Path, about: Mapping[str, Any]) -> None:
    """Bring one file here.

    Raises:
        DataError: where it cannot be read, or not whole.
    """
    place = Path(os.path.normpath(place))
    place.parent.mkdir(parents=True, exist_ok=True)
    with translated(address):
        system, _ = found_by(address)
        system.get_file(remote, str(place))
    size = about.get("size")
    if size is not None and place.stat().st_size != int(size):
        raise DataError(
            f"{address}: expected {size} bytes of {remote}, got {place.stat().st_size}: the "
            f"connection was cut off. Try again."
        )


def _short(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@contextmanager
def sent(out: Path, resume: bool | None) -> Iterator[Path]:
    """Where a command writes what is meant for an address; at the end it is sent.

    It is sent as well where the block fails or is stopped. What a killed process has left here
    is gone on with, or stays until the user has decided. A path of this machine is given as it is.

    Args:
        out: a path or an address, of a folder or of a file.
        resume: whether a run goes on, whose files are then fetched first; None where the command
            always starts anew.

    Raises:
        UsageError: for an address that nothing can be written to, or that another run writes to.
        DataError: where something cannot be fetched, written or sent.
    """
    if not is_afar(out):
        yield out
        return
    address = address_of(str(out)).rstrip("/")
    place = cache() / "unsent" / _short(address) / address.rpartition("/")[2]
    ADDRESSES[str(place)] = address
    try:
        with held(place.parent):
            yield from _through(address, place, resume)
    except UsageError as error:
        start = f"{place.parent}:"  # of what `held` says
        if not str(error).startswith(start):
            raise
        raise UsageError(f"{address}:{str(error).removeprefix(start)}") from error


def _through(address: str, place: Path, resume: bool | None) -> Iterator[Path]:
    _check_writable(address)
    before = _prepare(address, place, resume)
    try:
        yield place
    except BaseException as error:
        try:
            _send(address, place, before)
        except DoubtmapError as unsent:
            log.error("%s", unsent)
            raise error from None
        raise
    _send(address, place, before)


def _check_writable(address: str) -> None:
    """Refuse, before any work, what cannot be written.

    Raises:
        UsageError: for what is only read.
        DataError: where a file of one byte is refused.
    """
    if not address.startswith(KEPT_IN):
        raise UsageError(
            f"--out: expected a folder of this machine or an address that can be written, of "
            f"{', '.join(KEPT_IN)}, got {address}."
        )
    trial = f"{address}.{secrets.token_hex(4)}.part"
    with translated(address, "written"):
        system, name = found_by(trial)
        system.pipe_file(name, b".")
        with suppress(Exception):  # some may write and not remove
            system.rm_file(name)


Seen = dict[str, tuple[int, int]]
"""Files here by their place, with size and time in nanoseconds."""


def _prepare(address: str, place: Path, resume: bool | None) -> Seen:
    """Fetch what the run must find: all of one that goes on, else what is hidden.

    Returns:
        What was fetched.
    """
    left = place.exists()
    if left and resume is None:
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        left = False
    if left and not resume:
        raise UsageError(
            f"--out: expected nothing to lie here that is meant for {address}, but a run that was "
            f"killed or could not send has left {place.parent}. Go on with --resume, or remove "
            f"that folder to start anew."
        )
    found: Seen = {}
    if resume is None:
        return found
    for relative, (remote, about) in _there(address).items():
        file = place / relative
        hidden = any(part.startswith(".") for part in Path(relative).parts)
        if (resume or hidden) and not file.exists():
            with writing_to(file, CACHE):
                _fetch(address, remote, file, about)
            found[relative] = _facts(file)
    if left:
        log.warning("%s: what a run has left here is gone on with.", address)
    return found


def _there(address: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """What lies at an address, if anything does."""
    with translated(address):
        system, name = found_by(address)
        system.invalidate_cache()
        if not system.exists(name):
            return {}
    return _below(address)


def _facts(file: Path) -> tuple[int, int]:
    about = file.stat()
    return about.st_size, about.st_mtime_ns


def _files(place: Path) -> dict[str, Path]:
    """All files that are whole, by their place; of one file that is empty."""
    if place.is_file():
        return {"": place}
    every = (path for path in place.rglob("*") if path.is_file())
    kept = (path for path in every if path.name != LOCK and path.suffix != ".part")
    return {path.relative_to(place).as_posix(): path for path in kept}


def _send(address: str, place: Path, before: Seen) -> None:
    """Send what is new, remove there what is gone here, and then what lies here.

    Raises:
        DataError: where it cannot be sent; it then stays here.
    """
    files = _files(place)
    fresh = {name: path for name, path in files.items() if before.get(name) != _facts(path)}
    try:
        with translated(address, "written"):
            system, start = found_by(address)
            if fresh:
                targets = [f"{start}/{name}".rstrip("/") for name in fresh]
                system.put([*map(str, fresh.values())], targets)
            for gone in before.keys() - files.keys():
                system.rm_file(f"{start}/{gone}")
    except DataError as error:
        raise DataError(f"{error} What was written lies in {place.parent}.") from error
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    log.info("%s: %d files were sent.", address, len(fresh))
