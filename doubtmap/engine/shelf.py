"""What a pass made of its images, kept on disk for the passes that follow.

A second look at an image then costs a read instead of a run of the network. The file has no name,
so that it goes with the process, and a limit: images beyond it are made again.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

import numpy as np
import torch
from torch import Tensor

MOST = 1 << 32
"""Bytes that are kept at most, and never more than a quarter of what is free."""


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
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = min(most, shutil.disk_usage(tempfile.gettempdir()).free // 4)
        self._places: dict[int, tuple[int, tuple[int, int], list[str]]] = {}
        self._file: IO[bytes] | None = None
        self._end = 0

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
        if self._file is not None:
            self._file.close()
        self._places.clear()

    def _write(self, tensors: list[Tensor]) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="doubtmap-", buffering=0)  # noqa: SIM115
        self._file.seek(self._end)
        for tensor in tensors:
            left = np.ascontiguousarray(tensor.cpu().numpy()).data.cast("B")
            while left:  # a disk that is nearly full takes a part, then says so
                left = left[self._file.write(left) :]
