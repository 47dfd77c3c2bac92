"""Labelled frames of a film as a data set: `film:FILM` or `film:FILM:LABELS`.

    FILM                     any film that PyAV reads
    LABELS/*_000120.png      labels of frame 120, counted from 0: the last number of the name
    LABELS/4.8s.png          labels of the frame that is shown at 4.8 seconds
    LABELS/classes.txt       names of the numbers in the labels, one a line, from 0 on; 255 is void

LABELS is FILM without its suffix where nobody says it. Frames without labels are passed over.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from doubtmap.datasets.dataset import VOID, ComponentSizes, Sample
from doubtmap.datasets.fingerprints import file_marks
from doubtmap.datasets.patterns import IMAGE_SUFFIXES
from doubtmap.datasets.reading import read_label
from doubtmap.errors import DataError, UsageError
from doubtmap.films.frames import Film, Frame, opened

VOID_VALUE = 255
HELD = 8
"""Labelled frames that are held for whoever asks for them out of order."""
_TIME = re.compile(r"(?:.*?[_-])?(\d+(?:\.\d+)?)s", re.IGNORECASE)
_NUMBER = re.compile(r"(\d+)(?!.*\d)")
_OF_LABELS = "Remove the labels of later ones, or correct their names."


class LabelledFilm:
    """The labelled frames of a film, in order; implements `Dataset`.

    Args:
        film: the file.
        labels: files of labels, by the frame that they belong to.
        class_names: of the numbers in the labels.
    """

    component_sizes: ComponentSizes | None = None

    def __init__(
        self, film: Path, labels: Mapping[int, Path], class_names: tuple[str, ...]
    ) -> None:
        self.film, self.class_names = film, class_names
        self.labels = dict(sorted(labels.items()))
        self._wanted = list(self.labels)
        self._decoder = Decoder(str(film), set(labels), advice=_OF_LABELS)

    @property
    def name(self) -> str:
        """Such as `film:drive`."""
        return f"film:{self.film.stem}"

    @property
    def fields(self) -> list[dict[str, str]]:
        """Of each sample: its film and frame."""
        return [{"film": self.film.stem, "frame": f"{at:06d}"} for at in self._wanted]

    @cached_property
    def settings(self) -> dict[str, object]:
        """What the samples depend on: the content of the files."""
        marks = file_marks(dict.fromkeys([self.film, *self.labels.values()]))
        return {"files": hashlib.sha256(json.dumps(list(marks.values())).encode()).hexdigest()}

    def __len__(self) -> int:
        return len(self._wanted)

    def sample_name(self, index: int) -> str:
        """Such as `drive_000120`."""
        return f"{self.film.stem}_{self._wanted[index]:06d}"

    def __getitem__(self, index: int) -> Sample:
        """Read a frame and its labels.

        Raises:
            DataError: for a film that ends before, or labels of another size or without meaning.
        """
        at = self._wanted[index]
        pixels = self._decoder.frame(at).pixels
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        return Sample(self.sample_name(index), image, torch.from_numpy(self._label(at, pixels)))

    def _label(self, at: int, pixels: NDArray[np.uint8]) -> NDArray[np.int16]:
        path = self.labels[at]
        raw = read_label(path)
        if raw.shape != pixels.shape[:2]:
            raise DataError(
                f"{path}: expected labels of the frame's {pixels.shape[1]} x {pixels.shape[0]} "
                f"pixels, one number each, got {raw.shape[1]} x {raw.shape[0]}"
                f"{' colours' if raw.ndim == 3 else ''}."
            )
        known = (raw >= 0) & (raw < len(self.class_names))
        strange = raw[~known & (raw != VOID_VALUE)]
        if strange.size:
            raise DataError(
                f"{path}: expected numbers below {len(self.class_names)}, or {VOID_VALUE} for "
                f"void, got {strange[0]}. Name it in classes.txt."
            )
        return np.where(known, raw.astype(np.int16), VOID).astype(np.int16)


@dataclass(eq=False)
class Decoder:
    """Goes through a film once, as long as frames are asked for in order or nearly so.

    Args:
        film: its name.
        wanted: numbers of the frames that may be asked for.
        every: a divisor of them all.
        advice: where the film ends before.
    """

    film: str
    wanted: Set[int]
    every: int = 1
    advice: str = "Replace it by a whole one."
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _held: OrderedDict[int, Frame] = field(default_factory=OrderedDict)
    _frames: Generator[Frame, None, None] | None = None
    _last: int = -1

    def frame(self, index: int) -> Frame:
        """The frame of this number.

        Raises:
            DataError: for a film that ends before it.
        """
        with self._lock:
            if index not in self._held and (self._frames is None or index <= self._last):
                self._begin()
            while index not in self._held:
                assert self._frames is not None
                found = next(self._frames, None)
                if found is None:
                    raise DataError(
                        f"{self.film}: expected frame {index}, but it ends after frame "
                        f"{self._last}. {self.advice}"
                    )
                self._take(found)
            return self._held[index]

    def _take(self, found: Frame) -> None:
        self._last = found.index
        if found.index in self.wanted:
            self._held[found.index] = found
            while len(self._held) > HELD:
                self._held.popitem(last=False)

    def close(self) -> None:
        """Let go of the film and of what is held."""
        with self._lock:
            self._end()

    def _begin(self) -> None:
        self._end()
        self._frames = _whole(self.film, self.every)

    def _end(self) -> None:
        if self._frames is not None:
            self._frames.close()
        self._frames, self._last = None, -1
        self._held.clear()


def _whole(name: str, every: int) -> Generator[Frame, None, None]:
    with closing(opened(name)) as film, closing(film.frames(every)) as frames:
        yield from frames


def open_film(place: str) -> LabelledFilm:
    """Open a film with labels of some of its frames.

    Args:
        place: `FILM` or `FILM:LABELS`.

    Raises:
        UsageError: without PyAV, or for labels that are named after no frame.
        DataError: for a film, labels or class names that are not there.
    """
    path, colon, folder = place.rpartition(":")
    if not colon or Path(place).exists():
        path, folder = place, str(Path(place).with_suffix(""))
    film, labels = Path(path).expanduser(), Path(folder).expanduser()
    for what, there in ((film, film.is_file()), (labels, labels.is_dir())):
        if not there:
            kind = "a film" if what == film else "a folder with labels of its frames"
            raise DataError(f"{what}: expected {kind}, found none there. Check the path.")
    found: dict[int, Path] = {}
    with closing(Film(str(film))) as shown:
        times = cache(shown.times)
        for file in sorted(labels.iterdir()):
            if file.suffix.lower().lstrip(".") in IMAGE_SUFFIXES or file.suffix == ".npy":
                at = frame_of(file, times)
                if at in found:
                    raise DataError(
                        f"{file}: expected one file for frame {at}, got {found[at]}, too."
                    )
                found[at] = file
    if not found:
        raise DataError(f"{labels}: expected labels such as 000120.png, found none.")
    return LabelledFilm(film, found, _names(labels))


def frame_of(file: Path, times: Callable[[], Sequence[float]]) -> int:
    """The frame whose labels a file holds, by its name.

    Args:
        file: with the labels.
        times: of the film's frames in seconds, which are asked for only where the name has one.

    Raises:
        UsageError: for a name that says none.
        DataError: for a time after the film.

    Example:
        >>> times = lambda: [0.0, 0.1, 0.2, 1.2]
        >>> frame_of(Path("drive_000120.png"), times), frame_of(Path("1.2s.png"), times)
        (120, 3)
    """
    if time := _TIME.fullmatch(file.stem):
        seconds = np.asarray(times())
        if not len(seconds) or float(time[1]) > seconds[-1] + 1:
            raise DataError(
                f"{file}: expected a time within the film, whose last frame is at "
                f"{seconds[-1] if len(seconds) else 0:g} s. Correct the name."
            )
        return int(np.abs(seconds - float(time[1])).argmin())
    if number := _NUMBER.search(file.stem):
        return int(number[1])
    raise UsageError(
        f"{file}: expected labels named after their frame, as 000120.png, or after its time, as "
        f"4.8s.png. Rename it."
    )


def _names(labels: Path) -> tuple[str, ...]:
    file = labels / "classes.txt"
    try:
        names = tuple(filter(None, map(str.strip, file.read_text().splitlines())))
    except OSError as error:
        raise DataError(
            f"{file}: expected names of the labels' numbers, one a line from 0 on, found none. "
            f"Write it."
        ) from error
    return names
