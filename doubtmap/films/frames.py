"""Films and streams, frame by frame; this is the one place that knows PyAV."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from doubtmap.datasets import collect_images
from doubtmap.datasets.patterns import IMAGE_SUFFIXES
from doubtmap.datasets.reading import Rendering, in_colour, read_ahead, read_image
from doubtmap.datasets.survey import survey
from doubtmap.errors import DataError, UsageError

SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"),
    ".ogv",
)
WEB = ("http", "https")
OF_IMAGES = {f".{suffix}" for suffix in (*IMAGE_SUFFIXES, "vrt", "nii", "gz")}
"""Of what web addresses name that is no film."""
CODECS = ("libx264", "libopenh264", "mpeg4")
"""That films are written with: the first that is there."""
AHEAD = 4
"""Frames that the decoder is ahead."""
FRAMES, RATE = "frames:", Fraction(25)
"""How a folder of frames is named, and how many of them are a second where nobody says."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture of a film.

    Args:
        index: in the film, from 0; those left out count.
        seconds: when it is shown, from the first frame on.
        pixels: `(H, W, 3)` RGB.
    """

    index: int
    seconds: float
    pixels: NDArray[np.uint8]


def is_film(name: str) -> bool:
    """Whether a name is that of a film, a stream (`rtsp://...`) or a camera (`/dev/video0`).

    Or `frames:FOLDER`, of a folder of frames.
    """
    if name.startswith(FRAMES):
        return True
    scheme = name.partition("://")[0]
    if scheme in WEB:
        suffix = Path(urlsplit(name).path).suffix.lower()
        return suffix not in OF_IMAGES
    return (
        Path(name).suffix.lower() in SUFFIXES
        or name.startswith("/dev/video")
        or scheme in ("rtsp", "rtmp", "udp", "srt", "tcp")
    )


def _av(name: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise UsageError(
            f"{name}: needs PyAV to be read. Install it with: pip install 'doubtmap[video]'"
        ) from error
    return av


class Film:
    """An opened film or stream.

    Args:
        name: of the file, or its address.

    Raises:
        UsageError: without PyAV.
        DataError: for what cannot be opened, or has no pictures.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._av = _av(name)
        form = "v4l2" if name.startswith("/dev/video") else None
        try:
            self._container = self._av.open(name, format=form)
        except (OSError, ValueError, self._av.FFmpegError) as error:
            raise DataError(
                f"{name}: cannot be opened as a film ({_cause(error)}). Check the path and file."
            ) from error
        if not self._container.streams.video:
            self.close()
            raise DataError(f"{name}: expected a film, found no pictures in it.")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"

    @property
    def rate(self) -> Fraction:
        """Frames a second."""
        return Fraction(self._stream.average_rate or self._stream.guessed_rate or 25)

    @property
    def count(self) -> int | None:
        """Frames in all, where that is known before."""
        stream = self._stream
        if stream.frames:
            return int(stream.frames)
        if self._container.duration:
            return int(self._container.duration / self._av.time_base * self.rate)
        return None

    def times(self) -> list[float]:
        """Seconds from the first frame to each, in the order in which they are shown.

        Found without decoding, at any rate, also one that changes; nothing is left to read then.

        Raises:
            DataError: for a film that is damaged.
        """
        try:
            packets = [each for each in self._container.demux(self._stream) if each.size]
        except self._av.FFmpegError as error:
            raise DataError(f"{self.name}: cannot be read: {_cause(error)}.") from error
        shown = sorted(each.pts for each in packets if each.pts is not None)
        if len(shown) < len(packets):  # there are containers that do not say it
            return [float(index / self.rate) for index in range(len(packets))]
        return [float((each - shown[0]) * self._stream.time_base) for each in shown]

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()

    def numbered(self, index: int) -> Iterator[tuple[int, Any]]:
        """Frames as PyAV has them with their numbers, from one at or before `index` on.

        By their times: the rate must be constant.

        Raises:
            DataError: for a film that is damaged.
        """
        start = self._stream.start_time or 0
        ticks = 1 / (self.rate * self._stream.time_base)
        try:
            self._container.seek(int(start + index * ticks), stream=self._stream)
            for frame in self._container.decode(self._stream):
                yield round((frame.pts - start) / ticks), frame
        except self._av.FFmpegError as error:
            raise DataError(f"{self.name}: cannot be read: {_cause(error)}.") from error

    def frames(self, every: int = 1) -> Generator[Frame, None, None]:
        """Each `every`-th frame, decoded by a thread that is a few ahead of their use.

        Raises:
            DataError: for a film that is damaged, after the frames before.
        """
        decoded = self._decoded(every)
        with closing(read_ahead(lambda _: next(decoded, None), count(), 1, AHEAD)) as read:
            for frame in read:
                if frame is None:
                    return
                yield frame

    def _decoded(self, every: int) -> Iterator[Frame]:
        index, first = -1, 0.0
        try:
            for index, frame in enumerate(self._container.decode(self._stream)):
                seconds = float(index / self.rate) if frame.time is None else frame.time
                first = first if index else seconds  # streams seldom begin at 0
                if index % every == 0:
                    turns = round(getattr(frame, "rotation", 0) / 90) % 4  # as the camera was held
                    pixels = np.rot90(frame.to_ndarray(format="rgb24"), turns)
                    yield Frame(index, float(seconds - first), np.ascontiguousarray(pixels))
        except self._av.FFmpegError as error:
            raise DataError(
                f"{self.name}: cannot be read after frame {index}: {_cause(error)}."
            ) from error


class FilmReader:
    """Any frame of a film of constant rate, such as those that are written here.

    One frame after the other is decoded as it comes; for another the film is sought through.

    Args:
        path: of the film.
    """

    NEAR = 100
    """Frames ahead that are decoded sooner than sought."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._film: Film | None = None
        self._coming: Iterator[tuple[int, Any]] = iter(())
        self._next = 0

    def frame(self, index: int) -> NDArray[np.uint8]:
        """`(H, W, 3)` RGB.

        Raises:
            UsageError: without PyAV.
            DataError: where there is no such frame.
        """
        with self._lock:
            if self._film is None or not self._next <= index < self._next + self.NEAR:
                self._seek(index)
            found = next((frame for at, frame in self._coming if at >= index), None)
            self._next = index + 1
            if found is None:
                raise DataError(f"{self._path}: expected frame {index}, the film ends before it.")
            return np.asarray(found.to_ndarray(format="rgb24"))

    def _seek(self, index: int) -> None:
        self._film = self._film or Film(str(self._path))
        self._coming = self._film.numbered(index)


class FolderOfFrames:
    """The images of a folder as a film, in the order of their names, numbers in them as numbers.

    Args:
        name: `frames:FOLDER`, or `frames:FOLDER@RATE` with frames a second.

    Raises:
        UsageError: for a rate that is no number above 0.
        DataError: for a folder without images.
    """

    def __init__(self, name: str) -> None:
        self.name, self.rate = name, RATE
        folder, at, rate = name.removeprefix(FRAMES).rpartition("@")
        if not at or Path(name.removeprefix(FRAMES)).exists():
            folder, rate = name.removeprefix(FRAMES), ""
        if rate:
            with suppress(ValueError, ZeroDivisionError):
                self.rate = Fraction(rate).limit_denominator(1001)
            if self.rate <= 0 or not re.fullmatch(r"[\d./]+", rate):
                raise UsageError(
                    f"{name}: expected frames a second after @, such as 25, got {rate}."
                )
        self._files = sorted(collect_images([folder]), key=_natural)

    @property
    def count(self) -> int:
        """Frames in all."""
        return len(self._files)

    def close(self) -> None:
        """There is nothing to let go of."""

    def frames(self, every: int = 1) -> Generator[Frame, None, None]:
        """Each `every`-th frame, read by a thread that is a few ahead of their use.

        Raises:
            DataError: for a frame that cannot be read.
        """
        chosen = range(0, len(self._files), every)
        rendering = survey([(file, None) for file in self._files], Rendering()).rendering

        def read(index: int) -> Frame:
            pixels = in_colour(read_image(self._files[index], rendering))
            return Frame(index, float(index / self.rate), pixels)

        yield from read_ahead(read, chosen, 1, AHEAD)


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    """By which names are ordered so that 10 comes after 9."""
    parts = re.findall(r"\d+|\D+", str(path))
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def opened(name: str) -> Film | FolderOfFrames:
    """A film, a stream, or a folder of frames.

    Raises:
        UsageError, DataError: for what cannot be opened.
    """
    return FolderOfFrames(name) if name.startswith(FRAMES) else Film(name)


def _cause(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)


class FilmWriter:
    """A film on its way: all frames of one size, H.264 where the encoder is there.

    Args:
        path: of the film, `.mp4`.
        rate: frames a second.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self._av = _av(str(path))
        self._container = self._av.open(str(path), "w", format="mp4")
        codec = next(name for name in CODECS if name in self._av.codecs_available)
        self._stream = self._container.add_stream(codec, rate=rate.limit_denominator(1001))
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "20", "preset": "veryfast"} if codec == "libx264" else {}
        self._size: tuple[int, int] | None = None

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """Append a frame, `(H, W, 3)` RGB; an odd last row or column is left out."""
        height, width = (side // 2 * 2 for side in pixels.shape[:2])
        if self._size is None:
            self._size = height, width
            self._stream.height, self._stream.width = height, width
        frame = self._av.VideoFrame.from_ndarray(
            np.ascontiguousarray(pixels[: self._size[0], : self._size[1]]), format="rgb24"
        )
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what is left."""
        if self._size is not None:
            self._container.mux(self._stream.encode())
        self._container.close()


@contextmanager
def written(path: Path, rate: Fraction) -> Iterator[FilmWriter]:
    """A film that appears whole, or, where a run was stopped, up to where it was.

    Raises:
        DataError: where it cannot be written.
    """
    beside = path.with_name(f".{secrets.token_hex(8)}.part")  # for `sweep`
    av = _av(str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = FilmWriter(beside, rate)
        try:
            yield writer
        finally:
            writer.close()
            beside.replace(path)
    except (OSError, av.FFmpegError) as error:
        raise DataError(
            f"{path}: cannot be written ({_cause(error)}). Choose another --out."
        ) from error
    finally:
        with suppress(OSError):
            beside.unlink()


def write_film(path: Path, frames: Iterable[NDArray[np.uint8]], rate: Fraction) -> None:
    """Write frames, `(H, W, 3)` RGB of one size, as a film."""
    with written(path, rate) as writer:
        for pixels in frames:
            writer.add(pixels)
