"""Image and label files as arrays, whatever their suffix says; damaged files are `DataError`s."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from doubtmap.datasets.rasters import read_header, read_raster
from doubtmap.datasets.tiff import Raster
from doubtmap.errors import DataError
from doubtmap.files.afar import path_of

AHEAD = 4
"""Images that each reading thread may be ahead."""

_DEPTHS = (8, 10, 11, 12, 14, 16)
"""Bits that cameras and satellites use, of the 16 in their files."""


@dataclass(frozen=True)
class Rendering:
    """How the images of one run become RGB of 8 bits.

    Args:
        range: the values that become black and white, in files of more than 8 bits; without it,
            each file's own.
        bands: which become red, green and blue, from 1, or one for grey; without it, those that
            the file names so, else the first three.
        upright: turn a photograph as its EXIF tag says.
        every: all bands are read, of which there must be so many, for a network that takes others
            than red, green and blue; 0: these three.
    """

    range: tuple[float, float] | None = None
    bands: tuple[int, ...] = ()
    upright: bool = True
    every: int = 0


def read_image(path: str | Path, rendering: Rendering | None = None) -> Tensor:
    """Read an image as RGB, turned upright as its EXIF tag says.

    Transparency is dropped, grey and palette images become RGB, other depths are scaled to 8 bits.

    Args:
        path: an image file; its content decides the format, not its suffix.
        rendering: the same for all images of a run; default: what this file says of itself.

    Returns:
        `(3, H, W)` uint8; all bands of the file where the rendering says so.

    Raises:
        DataError: the file is missing, damaged, too large, without the bands, or no image.
    """
    return rendered(read_raster(path), path, rendering or Rendering())


def read_labelled(path: str | Path, rendering: Rendering) -> tuple[Tensor, Tensor | None]:
    """As `read_image`, of a file that may lack data in places, which then are dark.

    Returns:
        The image, and where it has no data, `(H, W)` bool; None where it has all.
    """
    raster = read_raster(path)
    missing = (raster.upright if rendering.upright else raster).missing
    image = rendered(raster.filled, path, rendering)
    return image, None if missing is None else torch.from_numpy(np.ascontiguousarray(missing))


def rendered(raster: Raster, path: str | Path, rendering: Rendering) -> Tensor:
    """What a file holds as an image, see `read_image`; `path` names it in messages."""
    if rendering.upright:
        raster = raster.upright
    pixels = raster.coloured
    chosen = bands_of(raster, pixels.shape[2], rendering, path)
    pixels = pixels[..., list(chosen)]
    if pixels.dtype != np.uint8:
        low, high = rendering.range or implied_range([brightness(pixels, raster.white, path)], path)
        pixels = scaled(pixels, low, high, path)
    if pixels.shape[2] == 1 and not rendering.every:
        pixels = np.repeat(pixels, 3, axis=2)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def bands_of(raster: Raster, count: int, rendering: Rendering, path: str | Path) -> tuple[int, ...]:
    """Which bands, from 0, are red, green and blue, or grey; all of them for a network that asks.

    Raises:
        DataError: for a band that the file lacks.
    """
    if rendering.every:
        if rendering.every > count:
            raise DataError(
                f"{path}: expected {rendering.every} bands or more, as the network takes, got "
                f"{count}. Give files that have them, or say others with bands= (--bands)."
            )
        return tuple(range(count))
    if wanted := rendering.bands:
        if max(wanted) > count:
            raise DataError(
                f"{path}: expected {max(wanted)} bands or more, got {count}. Correct bands."
            )
        return tuple(band - 1 for band in wanted)
    if {"red", "green", "blue"} <= set(raster.band_names[:count]):
        return tuple(raster.band_names.index(name) for name in ("red", "green", "blue"))
    return (0, 1, 2) if count > 2 else (0,)


def in_colour(image: Tensor) -> NDArray[np.uint8]:
    """An image for the eye: its first three bands, or the only one as grey.

    Args:
        image: `(K, H, W)` uint8.

    Returns:
        `(H, W, 3)`.
    """
    shown = image[:3] if len(image) > 2 else image[:1].expand(3, -1, -1)
    colours: NDArray[np.uint8] = shown.permute(1, 2, 0).numpy()
    return colours


@dataclass(frozen=True)
class Brightness:
    """The values of a file of more than 8 bits: lowest, highest, and what they may be at most."""

    low: float
    high: float
    white: float | None
    whole: bool


def brightness(values: NDArray[Any], white: float | None, path: str | Path) -> Brightness:
    """How dark and bright the bands of a file are that become colours.

    Raises:
        DataError: for values that are not finite.
    """
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise DataError(_not_finite(path))
    return Brightness(low, high, white, values.dtype.kind in "ui")


def _not_finite(path: str | Path) -> str:
    return f"{path}: expected finite values, got NaN or infinity. Replace them, or remove it."


def implied_range(found: Sequence[Brightness], where: object) -> tuple[float, float]:
    """Black and white of files of more than 8 bits: as they say, else by the bits that they use.

    Raises:
        DataError: where it cannot be known.
    """
    low, high = min(each.low for each in found), max(each.high for each in found)
    said = {each.white for each in found}
    if len({each.whole for each in found}) > 1 or (len(said) > 1 and None not in said):
        raise DataError(
            f"{where}: expected images of one range of values, got whole numbers and fractions, or "
            f"other depths, {low:g} to {high:g}. {_SAY}"
        )
    if len(said) == 1 and (white := next(iter(said))) is not None and white >= high:
        return 0.0, white
    if low < 0:
        raise DataError(
            f"{where}: expected values from 0 on, got {low:g} to {high:g}, whose range is not "
            f"said. {_SAY}"
        )
    if not found[0].whole and high <= 1:
        return 0.0, 1.0
    if not found[0].whole and high < 16:
        raise DataError(
            f"{where}: expected fractions of 0 to 1, got {low:g} to {high:g}, whose range is not "
            f"said. {_SAY}"
        )
    bits = next((bits for bits in _DEPTHS if high < 2**bits), None)
    if bits is None:
        raise DataError(f"{where}: expected values of 0 to 65535, got {low:g} to {high:g}. {_SAY}")
    return 0.0, float(2**bits - 1)


_SAY = (
    "Say which are black and white: range = [LOW, HIGH] in doubtmap.toml, or --range LOW,HIGH for "
    "images without labels."
)


def scaled(
    pixels: NDArray[Any], low: float, high: float, path: str | Path = "image"
) -> NDArray[np.uint8]:
    """Values of any depth as 8 bits: `low` becomes 0, `high` 255, by rounding.

    Raises:
        DataError: for values that are not finite.
    """
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise DataError(_not_finite(path))
    if pixels.dtype == np.uint16 and low == 0 and high == int(high):
        white = int(high)
        whole = np.minimum(pixels, white).astype(np.uint32)
        eight: NDArray[np.uint8] = ((whole * 255 + white // 2) // white).astype(np.uint8)
        return eight
    shares = (pixels.astype(np.float64) - low) / (high - low)
    scaled: NDArray[np.uint8] = np.rint(shares.clip(0, 1) * 255).astype(np.uint8)
    return scaled


def read_label(path: str | Path, *, colours: bool = False, upright: bool = True) -> NDArray[Any]:
    """Read the raw values of a label file.

    Args:
        path: a file with one value per pixel, or a colour; also `.npy`.
        colours: of a palette file, give the colours, not the places in the palette.
        upright: turn it as its EXIF tag says.

    Returns:
        `(H, W)` whole numbers, or `(H, W, 3)` uint8 colours.

    Raises:
        DataError: the file is missing, damaged, too large, compressed with loss, or has fractions.
    """
    raster = read_raster(path)
    if upright:
        raster = raster.upright
    if lossy_format(path, raster.format):
        raise DataError(
            f"{path}: expected label values without loss, got a {raster.format}, which changes "
            "them. Save the labels as PNG."
        )
    pixels = raster.coloured if colours else raster.pixels
    bands = pixels.shape[2]
    if bands > 4 or raster.pages > 1:
        raise DataError(
            f"{path}: expected one label value or one colour a pixel, got {raster.pages} pages and "
            f"{bands} bands. Save them as one page with class numbers."
        )
    if bands < 3:
        return _whole(pixels[..., 0], path)
    return _colours(pixels[..., :3], path)


def lossy_format(path: str | Path, format: str) -> bool:
    """Whether a file that can be read was compressed in a way that changes values.

    Args:
        path: the file.
        format: as its `Raster` says it.
    """
    if format == "WEBP":
        return b"VP8L" not in path_of(path).read_bytes()
    if format == "JPEG2000":
        content = path_of(path).read_bytes()
        # The last byte of its coding style tells the reversible transform from the other.
        return content[content.find(b"\xff\x52") + 13] == 0
    if format == "TIFF":
        try:
            with path_of(path).open("rb") as file, Image.open(file, formats=("TIFF",)) as image:
                return image.tag_v2.get(259) in (6, 7)  # type: ignore[attr-defined]
        except UnidentifiedImageError:
            return False
    return format in ("JPEG", "MPO", "AVIF", "HEIF")


def _whole(values: NDArray[Any], path: str | Path) -> NDArray[Any]:
    if values.dtype in (np.uint8, np.uint16):
        return values
    if values.dtype.kind == "f":
        broken = ~np.isfinite(values) | (values != np.rint(values))
        if broken.any():
            y, x = np.argwhere(broken)[0]
            raise DataError(
                f"{path}: expected whole numbers as labels, got {values[y, x]:g} in row {y}, "
                f"column {x}, and {int(broken.sum())} such pixels. Save labels without blending."
            )
    limits = np.iinfo(np.int32)
    if float(values.min()) < limits.min or float(values.max()) > limits.max:
        raise DataError(
            f"{path}: expected label values of at most 32 bits, got {values.min()} to "
            f"{values.max()}. Convert the file."
        )
    return values.astype(np.int32)


def _colours(values: NDArray[Any], path: str | Path) -> NDArray[np.uint8]:
    whole = _whole(values.reshape(len(values), -1), path).reshape(values.shape)
    if whole.dtype == np.uint16 and not (whole % 257).any():
        whole = whole // 257
    if whole.min() < 0 or whole.max() > 255:
        raise DataError(
            f"{path}: expected colours of 0 to 255, got {whole.min()} to {whole.max()}. "
            "Save the labels with 8 bits a channel."
        )
    return whole.astype(np.uint8)


def read_size(path: str | Path) -> tuple[int, int]:
    """Height and width of an image as `read_image` gives it, in pixels, without decoding it.

    Raises:
        DataError: the file is missing, no image, or too large.
    """
    return read_header(path).upright_size


K = TypeVar("K")
T = TypeVar("T")


def left_out(skipped: Mapping[Path, str] | Mapping[str, str] | None) -> str:
    """Half a sentence on the images of a run that could not be used; empty where all were."""
    if not skipped:
        return ""
    return f", {len(skipped)} could not be used, such as {Path(str(next(iter(skipped)))).name}"


def none_left(count: int, skipped: Mapping[Path, str] | Mapping[str, str] | None) -> str:
    """What to say where no image of a run could be used, with the reason of the first."""
    return f"none of the {count} images could be used: {next(iter((skipped or {}).values()), '')}"


def read_ahead(
    read: Callable[[K], T], items: Iterable[K], workers: int, ahead: int = AHEAD
) -> Generator[T, None, None]:
    """`read` of each item, in order, by threads that are a few ahead of their use.

    Args:
        read: of an item.
        items: such as indices.
        workers: threads.
        ahead: how many items a thread may be ahead.
    """
    waiting: deque[Future[T]] = deque()
    own: set[int] = set()
    pool = ThreadPoolExecutor(workers, "doubtmap-read", lambda: own.add(threading.get_ident()))
    try:
        for item in items:
            waiting.append(pool.submit(read, item))
            if len(waiting) > ahead * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # What nobody uses to its end is closed by whichever thread collects it, one of these too,
        # and a thread cannot wait for itself.
        pool.shutdown(wait=threading.get_ident() not in own, cancel_futures=True)


def read_or_skip(
    read: Callable[[K], T],
    items: Iterable[K],
    workers: int,
    skipped: Callable[[K, DataError], None] | None = None,
    ahead: int = 1,
) -> Iterator[tuple[K, T]]:
    """Each item and `read` of it, in order, read by threads that are ahead of their use.

    Args:
        read: of an item.
        items: such as indices or paths.
        workers: threads.
        skipped: takes what cannot be read, and why; without it the first one ends the reading.
        ahead: how many items a thread may be ahead.

    Raises:
        DataError: for an item that cannot be read, unless `skipped` takes it.
    """

    def attempt(item: K) -> tuple[K, T | DataError]:
        try:
            return item, read(item)
        except DataError as error:
            return item, error

    for item, found in read_ahead(attempt, items, workers, ahead):
        if not isinstance(found, DataError):
            yield item, found
        elif skipped is None:
            raise found
        else:
            skipped(item, found)
