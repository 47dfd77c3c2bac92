"""What a pass made of its images, kept on disk for the passes that follow.

A second look at an image then costs a read instead of a run of the network. The file has no name,
so that it goes with the process, and a limit: images beyond it are made again. What a part of a run
keeps for the merge has a name, and a list of what lies where beside it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

MOST = 1 << 32
"""Bytes that are kept at most, and never more than a quarter of what is free."""

ENOUGH = 1 << 62
"""Bytes for as many images as there is room for."""


@dataclass(frozen=True, eq=False)
class Looked:
    """What was made of one image.

    Args:
        label: `(H, W)` int16, in the model's classes, or `KNOWN`, `UNKNOWN`, `VOID`.
        classes: `(H, W)` int16, as predicted.
        maps: `(H, W)` float32 by score.
    """

    label: Tensor
    classes: Tensor
    maps: dict[str, Tensor]


class Shelf:
    """The images looked at, by number.

    Args:
        most: bytes that are kept at most.
        path: of the file; default: one without a name. What is there already is kept.
    """

    def __init__(self, most: int = MOST, path: Path | None = None) -> None:
        folder = tempfile.gettempdir() if path is None else path.parent
        self._most = min(most, shutil.disk_usage(folder).free // 4)
        self._places: dict[int, tuple[int, tuple[int, int], list[str]]] = {}
        self._file: IO[bytes] | None = None
        self._end = 0
        self._path = path
        self._list: IO[str] | None = None
        if path is not None and path.exists():
            self._recall(path)

    def __contains__(self, index: int) -> bool:
        return index in self._places

    def put(self, index: int, label: Tensor, classes: Tensor, maps: Mapping[str, Tensor]) -> None:
        """Keep an image, where there is room for it."""
        height, width = label.shape
        size = height * width * (4 + 4 * len(maps))
        if self._end + size > self._most:
            return
        try:
            self._write([label.to(torch.int16), classes.to(torch.int16), *maps.values()])
            self._note(index, (height, width), list(maps))
        except OSError:  # no room on the disk after all: the image is made again
            self._most = 0
            return
        self._places[index] = self._end, (height, width), list(maps)
        self._end += size

    def get(self, index: int) -> Looked:
        """An image that is kept."""
        start, shape, names = self._places[index]
        assert self._file is not None
        self._file.seek(start)

        def read(dtype: type[np.generic]) -> Tensor:
            assert self._file is not None
            array = np.empty(shape, dtype)
            self._file.readinto(array.data.cast("B"))  # type: ignore[attr-defined]
            return torch.from_numpy(array)

        label, classes = read(np.int16), read(np.int16)
        return Looked(label, classes, {name: read(np.float32) for name in names})

    def close(self) -> None:
        """Let go of the file."""
        for file in (self._file, self._list):
            if file is not None:
                file.close()
        self._places.clear()

    def _note(self, index: int, shape: tuple[int, int], names: list[str]) -> None:
        """Say where the image lies, on the list of a file with a name."""
        if self._list is not None:
            self._list.write(json.dumps([index, self._end, shape, names]) + "\n")
            self._list.flush()

    def _recall(self, path: Path) -> None:
        """What lies in a file with a name; a torn last line of its list is left out."""
        with suppress(ValueError, OSError), list_of(path).open() as lines:
            for line in lines:
                index, start, (height, width), names = json.loads(line)
                end = start + height * width * (4 + 4 * len(names))
                if end > path.stat().st_size:
                    break
                self._places[index] = start, (height, width), names
                self._end = max(self._end, end)
        self._open(path)

    def _open(self, path: Path) -> None:
        if not self._most:  # to read only
            self._file = path.open("rb", buffering=0)
            return
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        self._list = list_of(path).open("a")

    def _write(self, tensors: list[Tensor]) -> None:
        if self._file is None and self._path is not None:
            self._open(self._path)
        elif self._file is None:
            self._file = tempfile.TemporaryFile(prefix="doubtmap-", buffering=0)  # noqa: SIM115
        assert self._file is not None
        self._file.seek(self._end)
        for tensor in tensors:
            left = np.ascontiguousarray(tensor.cpu().numpy()).data.cast("B")
            while left:  # a disk that is nearly full takes a part, then says so
                left = left[self._file.write(left) :]


class Shelves(Shelf):
    """What several processes of this machine have kept, each in a file of a folder.

    Args:
        folder: with the files; it need not be there.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(0)
        self.folder = folder
        self._shelves = [Shelf(0, path) for path in folder.glob("*") if not path.suffix]

    def __contains__(self, index: int) -> bool:
        return any(index in shelf for shelf in self._shelves)

    def get(self, index: int) -> Looked:
        """An image that is kept."""
        return next(shelf for shelf in self._shelves if index in shelf).get(index)

    def close(self) -> None:
        """Let go of the files."""
        for shelf in self._shelves:
            shelf.close()


def list_of(path: Path) -> Path:
    """The list of what lies where in a shelf's file."""
    return path.with_name(f"{path.name}.list")
