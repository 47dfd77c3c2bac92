"""Frames of films without labels as a data set, in the order in which they are shown."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import torch

from doubtmap.datasets.dataset import VOID, ComponentSizes, Sample
from doubtmap.errors import UsageError
from doubtmap.films.frames import Film, opened
from doubtmap.films.labelled import Decoder
from doubtmap.shown import ShownDataset

OPEN = 2
"""Films that are open at once."""


class Frames(ShownDataset):
    """Frames of films whose every pixel is void; implements `Dataset`.

    Args:
        films: as of `doubtmap.films.frames.opened`, one after the other.
        every: how many frames to go on, from one to the next.
        limit: how many frames of each film, at most; needed for a stream, which has no end.

    Raises:
        UsageError: without PyAV, or for a stream without a limit.
        DataError: for what cannot be opened.
    """

    class_names: tuple[str, ...] = ()
    component_sizes: ComponentSizes | None = None

    def __init__(self, films: Iterable[str], every: int = 1, limit: int | None = None) -> None:
        self._of = {film: _numbers(film, every, limit) for film in films}
        self._places = [(film, at) for film, numbers in self._of.items() for at in numbers]
        self._decoders: dict[str, Decoder] = {}
        self._every, self._opening = every, threading.Lock()

    @property
    def name(self) -> str:
        """Such as `film:drive`."""
        return "film:" + ",".join(Path(film).stem for film in self._of)

    def __len__(self) -> int:
        return len(self._places)

    def sample_name(self, index: int) -> str:
        """Such as `drive_000120`."""
        film, at = self._places[index]
        return f"{Path(film).stem}_{at:06d}"

    def own_mark(self, index: int) -> str:
        """A short hash of a frame and of its number: of a picture that stands still each counts."""
        pixels, at = self[index].image, self._places[index][1]
        return hashlib.blake2b(pixels.numpy().tobytes() + b"%d" % at, digest_size=8).hexdigest()

    def __getitem__(self, index: int) -> Sample:
        """Read a frame.

        Raises:
            DataError: for a film that is damaged, or ends before.
        """
        film, at = self._places[index]
        pixels = self._decoder(film).frame(at).pixels
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        void = torch.full(image.shape[-2:], VOID, dtype=torch.int16)
        return Sample(self.sample_name(index), image, void)

    def _decoder(self, film: str) -> Decoder:
        with self._opening:
            if film not in self._decoders:
                while len(self._decoders) >= OPEN:
                    self._decoders.pop(next(iter(self._decoders))).close()
                self._decoders[film] = Decoder(film, set(self._of[film]), self._every)
            return self._decoders[film]


def _numbers(name: str, every: int, limit: int | None) -> range:
    """The frames of a film that are looked at."""
    with closing(opened(name)) as film:
        count = film.count
        if count is not None and isinstance(film, Film):
            count = len(film.times())  # what its head says may be a guess
    if count is not None:
        return range(0, count, every)[:limit]
    if limit is None:
        raise UsageError(
            f"{name}: expected a number of frames of what has no known end. Add --limit N."
        )
    return range(0, limit * every, every)
