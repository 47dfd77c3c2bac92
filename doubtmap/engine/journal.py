"""A journal on disk, so that a killed run loses at most the image in flight.

Each image's observation is appended, with its length and checksum, before the next one is taken.
When the journal grows large, the sums are saved whole and it starts anew, so that the space on
disk stays bounded. What a run resumes from is exactly what an unbroken run would have held.
"""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from doubtmap.errors import DataError, UsageError
from doubtmap.metrics.accumulator import State

_HEADER = struct.Struct("<QI")
LARGEST = 1 << 31
"""Bytes of journal after which the sums are saved whole."""


class Journal:
    """The folder in which a run keeps what it needs to go on.

    Args:
        folder: made if it is not there; removed by `finish`.
        settings: what the run was asked to do; a run goes on only with the same.
        resume: go on from what is there, if anything is; otherwise start anew.

    Raises:
        UsageError: where the folder holds a run with other settings.
        DataError: where the folder cannot be written.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], resume: bool) -> None:
        self.folder = folder
        if folder.exists() and not resume:
            shutil.rmtree(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: cannot be written: {error.strerror}.") from error
        self._check(settings)
        self._file = (folder / "journal").open("ab")

    def checkpoint(self) -> State | None:
        """The sums as saved last, or None."""
        path = self.folder / "checkpoint.safetensors"
        return dict(safetensors.numpy.load_file(path)) if path.exists() else None

    def records(self) -> Iterator[bytes]:
        """What was appended since; a torn last record is cut off."""
        path = self.folder / "journal"
        good = 0
        with path.open("rb") as file:
            while len(header := file.read(_HEADER.size)) == _HEADER.size:
                length, checksum = _HEADER.unpack(header)
                data = file.read(length)
                if len(data) < length or zlib.crc32(data) != checksum:
                    break
                good += _HEADER.size + length
                yield data
        self._file.truncate(good)

    def append(self, data: bytes) -> None:
        """Add a record; once this returns, a killed process does not lose it."""
        self._file.write(_HEADER.pack(len(data), zlib.crc32(data)) + data)
        self._file.flush()

    @property
    def full(self) -> bool:
        """Whether it is time for `save`."""
        return self._file.tell() > LARGEST

    def save(self, state: State) -> None:
        """Save the sums whole and empty the journal.

        A process killed between the two finds records that the sums hold already; their image
        numbers tell.
        """
        path = self.folder / "checkpoint.safetensors"
        partial = path.with_suffix(".partial")
        arrays = {name: np.ascontiguousarray(array) for name, array in state.items()}
        safetensors.numpy.save_file(arrays, partial)
        partial.replace(path)
        self._file.truncate(0)

    def finish(self) -> None:
        """Remove the folder; the run is done."""
        self._file.close()
        shutil.rmtree(self.folder)

    def close(self) -> None:
        """Leave the folder for a later run."""
        self._file.close()

    def _check(self, settings: dict[str, Any]) -> None:
        path = self.folder / "settings.json"
        text = json.dumps(settings, sort_keys=True, indent=1, default=str)
        if not path.exists():
            path.write_text(text)
            return
        before = json.loads(path.read_text())
        after = json.loads(text)
        changed = [key for key in sorted(before | after) if before.get(key) != after.get(key)]
        if changed:
            raise UsageError(
                f"resume: expected the settings of the run in {self.folder.parent}, but "
                f"{', '.join(changed)} differ. Use the same settings, or start anew without "
                f"--resume."
            )
