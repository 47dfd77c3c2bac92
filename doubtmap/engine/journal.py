"""A journal on disk, so that a killed run loses at most the image in flight.

Each image's observation is appended, with its length and checksum, before the next one is taken.
When the journal grows large, the sums are saved whole and it starts anew, so that the space on
disk stays bounded. What a run resumes from is exactly what an unbroken run would have held.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from doubtmap.engine.places import Place
from doubtmap.errors import DataError, DoubtmapError, UsageError
from doubtmap.files import beside, sweep, writing_to
from doubtmap.files.locking import wait_for
from doubtmap.files.resuming import hold_samples, hold_to
from doubtmap.metrics.accumulator import State

_HEADER = struct.Struct("<QI")
LARGEST = 1 << 31
"""Bytes of journal after which the sums are saved whole."""


class Journal:
    """The folder in which a run keeps what it needs to go on.

    Args:
        folder: made if it is not there; removed by `finish`.
        settings: what the run was asked to do; a run goes on only with the same.
        resume: go on from what is there, if anything is; otherwise there must be nothing.

    Raises:
        UsageError: where the folder holds a run with other settings, or one that is not finished
            and was not to be resumed.
        DataError: where the folder cannot be written.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], resume: bool) -> None:
        self.folder = folder
        claim(folder, settings, resume, self._holds_work())
        with writing_to(folder):
            self._file = (folder / "journal").open("ab", buffering=0)
            wait_for(self._file)

    def _holds_work(self) -> bool:
        journal = self.folder / "journal"
        kept = journal.is_file() and journal.stat().st_size > 0
        return kept or (self.folder / "checkpoint.safetensors").exists()

    def checkpoint(self) -> State | None:
        """The sums as saved last, or None."""
        path = self.folder / "checkpoint.safetensors"
        if not path.exists():
            return None
        try:
            return dict(safetensors.numpy.load(path.read_bytes()))
        except Exception as error:
            raise DataError(
                f"{path}: cannot be read ({error}). Remove it to start anew."
            ) from error

    def records(self) -> Iterator[bytes]:
        """What was appended since; a torn last record is cut off."""
        good = 0
        for data in records_in(self.folder / "journal"):
            good += _HEADER.size + len(data)
            yield data
        self._file.truncate(good)

    def hold(self, marks: Mapping[str, str], done: Iterable[str]) -> None:
        """Refuse to go on where samples that are done have changed; see `hold_samples`."""
        hold_samples(self.folder / "settings.json", marks, done)

    def append(self, data: bytes) -> None:
        """Add a record; once this returns, a killed process does not lose it."""
        with self._writing():
            left = memoryview(_record(data))
            while left:  # a disk that is nearly full takes a part
                left = left[self._file.write(left) :]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Refuse to go on where the journal is gone: what is written then would be lost unseen."""
        with writing_to(self.folder):
            if os.fstat(self._file.fileno()).st_nlink == 0:
                raise FileNotFoundError(errno.ENOENT, "it was removed while the run wrote to it")
            yield

    @property
    def full(self) -> bool:
        """Whether it is time for `save`."""
        return self._file.tell() > LARGEST

    def save(self, state: State) -> None:
        """Save the sums whole and empty the journal.

        A process killed between the two finds records that the sums hold already; their image
        numbers tell.
        """
        arrays = {name: np.ascontiguousarray(array) for name, array in state.items()}
        content = safetensors.numpy.save(arrays)
        with self._writing():
            with beside(self.folder / "checkpoint.safetensors") as file:
                file.write(content)
            self._file.truncate(0)

    def finish(self) -> None:
        """Remove the folder; the run is done."""
        self._file.close()
        with writing_to(self.folder):
            if self.folder.is_dir():
                shutil.rmtree(self.folder)

    def close(self) -> None:
        """Leave the folder for a later run."""
        self._file.close()


def records_in(path: Path) -> Iterator[bytes]:
    """The records of a file, up to the first that is torn."""
    size = path.stat().st_size
    with path.open("rb") as file:
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            length, checksum = _HEADER.unpack(header)
            if not 0 < length <= size - file.tell():  # no record is empty, as zeros seem to be
                return
            data = file.read(length)
            if zlib.crc32(data) != checksum:
                return
            yield data


def write_records(path: Path, records: Iterable[bytes]) -> None:
    """Write records into a file that appears whole."""
    with writing_to(path), beside(path) as file:
        for data in records:
            file.write(_record(data))


def _record(data: bytes) -> bytes:
    return _HEADER.pack(len(data), zlib.crc32(data)) + data


@contextmanager
def understood(folder: Path) -> Iterator[None]:
    """While what a journal says is taken in, let what is no evaluation's be one sentence.

    Raises:
        DataError: for a journal that another program, or somebody, has written into.
    """
    try:
        yield
    except DoubtmapError:
        raise
    except _TROUBLE as error:
        raise DataError(
            f"{folder}: expected what an unfinished evaluation had measured, but it cannot be used "
            f"({type(error).__name__}: {str(error)[:200]}). Remove it to start anew."
        ) from error


_TROUBLE = (
    *(SafetensorError, LookupError, TypeError, ValueError, ArithmeticError),
    *(AttributeError, RuntimeError, AssertionError),
)


@contextmanager
def journalled(
    folder: Path | None, settings: dict[str, Any], resume: bool
) -> Iterator[Journal | None]:
    """A journal, or none without a folder: left for a later run where the block fails."""
    journal = None if folder is None else Journal(folder, settings, resume)
    try:
        yield journal
    except BaseException:
        if journal:
            journal.close()
        raise
    if journal:
        journal.finish()


def going_on(place: Place, folder: Path | None) -> Place:
    """A place with as many threads as the run has begun with that goes on.

    Args:
        place: where images are looked at.
        folder: of the run; None: it begins.
    """
    try:
        settings = json.loads((folder / "settings.json").read_text()) if folder else {}
        threads = settings.get("threads", 0)
    except (OSError, ValueError, AttributeError):  # of no run, or one that cannot go on
        return place
    return replace(place, threads=threads) if isinstance(threads, int) and threads > 0 else place


def claim(folder: Path, settings: dict[str, Any], resume: bool, holds_work: bool) -> None:
    """Claim a folder for a run, or go on with the run that it holds.

    Args:
        folder: made anew, unless to be resumed from.
        settings: of the run; it goes on only with the same.
        resume: go on from what is there, if anything is.
        holds_work: whether there is something to go on from.

    Raises:
        UsageError: for other settings, or where there is work that was not to be resumed.
        DataError: where the folder cannot be written.
    """
    if holds_work and not resume:
        raise UsageError(
            f"{folder.parent}: holds a run that is not finished. Go on with --resume, choose "
            f"another --out, or remove {folder} to start anew."
        )
    with writing_to(folder):
        if not resume and folder.is_dir():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        sweep(folder.parent)
    hold_to(folder / "settings.json", settings)
