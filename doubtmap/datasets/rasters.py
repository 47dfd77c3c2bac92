"""Files as arrays of numbers, as they are stored: every band, every bit.

Images of all kinds come through here, and label files too: what the numbers mean is for others.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import struct
import sys
import tokenize
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from doubtmap.datasets.tiff import (
    Raster,
    band_names,
    is_usual,
    masks_of,
    read_tiff,
    said_orientation,
    said_white,
    turn,
    without_data,
)
from doubtmap.errors import DataError, is_out_of_memory
from doubtmap.files.afar import path_of

MAX_PIXELS = 178_956_970
"""Images with more pixels are refused; it is the limit at which Pillow refuses too."""

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "WEBP", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF")
"""Formats that are tried; files are not trusted, so none that runs a program, as EPS does."""

_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError),
    *(struct.error, tokenize.TokenError, NotImplementedError),
)
"""What readers raise on damaged files."""

_BIG_TIFF = (b"II+\0", b"MM\0+")
_TIFF = (b"II*\0", b"MM\0*", *_BIG_TIFF)
"""How such files begin; of the big ones Pillow misreads some tags."""

_STILL = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
"""Brands of pictures; other files of this container are films."""
_ORIENTATION = 0x0112
_SPREAD = {"L;2": 85, "L;4": 17}
"""By what greys of two and four bits are multiplied to be shown."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself before its pixels are decoded."""

    height: int
    width: int
    mode: str
    format: str
    orientation: int = 1
    deep: bool = False

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width once it is turned upright."""
        if self.orientation > 4:
            return self.width, self.height
        return self.height, self.width


def read_raster(path: str | Path) -> Raster:
    """Read the numbers of an image or label file; its content decides the format.

    Raises:
        DataError: the file is missing, damaged, too large, or of another format.
    """
    path = path_of(path)
    content = _content(path)
    with _sentences(path):
        if content.startswith(b"\x93NUMPY"):
            return Raster(_array(content, path), "NPY")
        if content[:4] in _BIG_TIFF:
            return read_tiff(content, path, functools.partial(_check_size, path))
        try:
            with _opened(io.BytesIO(content), path) as image:
                if image.format != "TIFF" or is_usual(image):
                    return _of_image(image, content)
        except UnidentifiedImageError:
            if content[:4] not in _TIFF:
                raise
        return read_tiff(content, path, functools.partial(_check_size, path))


class TooLargeError(DataError):
    """An image has more pixels than may be decoded, as its header says."""


def raster_of(content: bytes, name: Path, most: int) -> Raster:
    """Read the numbers of an image that somebody sent, of a kind that Pillow reads whole.

    Raises:
        TooLargeError: for more than `most` pixels; seen before any is decoded.
        DataError: as `read_raster`; also for a TIFF of several pages, planes or unusual depth.
    """
    with _sentences(name, content), _opened(io.BytesIO(content), name, most) as image:
        if (tags := getattr(image, "tag_v2", None)) and (tags.next or not is_usual(image)):
            raise DataError(f"{name}: expected a TIFF of one page of grey or RGB. Save it as PNG.")
        return _of_image(image, content)


def read_header(path: str | Path) -> Header:
    """Read what a file says of itself, without decoding its pixels.

    Raises:
        DataError: as `read_raster`.
    """
    path = path_of(path)
    if not path.is_file():
        _content(path)
    with _sentences(path), path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start == b"\x93NUM":
            shape = read_raster(path).pixels.shape
            return Header(shape[0], shape[1], "NPY", "NPY")
        try:
            if start in _BIG_TIFF:
                raise UnidentifiedImageError
            with _opened(file, path) as image:
                mode = image.mode
                deep = mode.startswith(("I", "F")) or _is_deep_png(image)
                if image.format == "TIFF":
                    deep = deep or np.max(image.tag_v2.get(258, 8)) > 8  # type: ignore[attr-defined]
                turned = _orientation(image, file)
                height, width = image.height, image.width
                if image.format == "TIFF":
                    tags = image.tag_v2  # type: ignore[attr-defined]
                    height, width = int(tags[257]), int(tags[256])
                return Header(height, width, mode, image.format or "", turned, bool(deep))
        except UnidentifiedImageError:
            if start[:2] not in (b"II", b"MM"):
                raise
            raster = read_raster(path)
            height, width, _ = raster.pixels.shape
            deep = raster.pixels.dtype != np.uint8
            return Header(height, width, "TIFF", "TIFF", raster.orientation, deep=deep)


opening: ContextVar[Path | None] = ContextVar("opening", default=None)
"""The file that this thread decodes, for whoever is told what Pillow warns of."""


@contextmanager
def _sentences(path: Path, held: bytes | None = None) -> Iterator[None]:
    before = opening.set(path)
    try:
        yield
    except Image.DecompressionBombError as error:
        raise _too_large(path, "more") from error
    except (MemoryError, *_DAMAGE, zlib.error) as error:
        content = path.read_bytes() if held is None else held
        if is_out_of_memory(error):
            raise DataError(
                f"{path}: out of memory while it was read ({len(content) / 1e6:.0f} MB). "
                "Cut the image into tiles first."
            ) from error
        raise DataError(_unreadable(path, content[:64], error)) from error
    finally:
        opening.reset(before)


def _unreadable(path: Path, start: bytes, error: Exception) -> str:
    if start.startswith(b"version https://git-lfs"):
        return f"{path}: expected an image, got a Git LFS pointer to one. Fetch it: git lfs pull."
    if start[4:8] == b"ftyp" and start[8:12] not in _STILL:
        return (
            f"{path}: expected an image, got a film. Give films to doubtmap score, or take its "
            "frames out first."
        )
    if start[4:8] == b"ftyp":
        return (
            f"{path}: expected an image that Pillow can read here, got HEIC or AVIF, which it "
            "cannot. Install pillow-heif, or convert the file to JPEG or PNG."
        )
    if not start:
        return f"{path}: expected a readable image, got an empty file. Replace or remove it."
    why = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"  # names our buffer
    return (
        f"{path}: expected a readable image, got a damaged file or another format than "
        f"{', '.join(_formats())}{why}. Replace, convert or remove it."
    )


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those that Pillow can read here."""
    if importlib.util.find_spec("pillow_heif"):
        importlib.import_module("pillow_heif").register_heif_opener()
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        what = "a folder" if path.is_dir() else "nothing"
        raise DataError(
            f"{path}: expected an image file, found {what} there. Check the path."
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Check the path.") from error


@contextmanager
def _opened(file: Any, path: Path, most: int | None = None) -> Iterator[Image.Image]:
    with Image.open(file, formats=_formats()) as image:
        _check_size(path, image.height, image.width, most)
        yield image


def _check_size(path: Path, height: int, width: int, most: int | None = None) -> None:
    if width * height > (most or MAX_PIXELS):
        raise _too_large(path, f"{width} x {height}", most)


def _too_large(path: Path, size: str, most: int | None = None) -> TooLargeError:
    millions = f"{(most or MAX_PIXELS) / 1e6:.3g} million pixels"
    return TooLargeError(
        f"{path}: expected at most {millions}, got {size}. Cut the image into tiles first."
    )


def _array(content: bytes, path: Path) -> NDArray[Any]:
    """`(H, W, bands)` of a NumPy file, whose bands may come first."""
    values: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim == 3 and 4 < values.shape[2] > values.shape[0] <= 16:
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.dtype.kind not in "buif" or not values.size:
        raise DataError(
            f"{path}: expected numbers (H, W) or (H, W, bands), got {values.shape} {values.dtype}. "
            "Save one image in each file."
        )
    return values.astype(np.uint8) if values.dtype.kind == "b" else values


def _of_stored_tiff(image: Image.Image, content: bytes) -> Raster:
    """A TIFF that Pillow reads, which turns it on the way: turned back, with what its tags say."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    orientation = said_orientation(tags.get(274, 1))
    white, names, known = said_white(tags), band_names(tags), dict(tags)
    pixels, format, palette = _pixels(image, content)
    stored = turn(pixels, {6: 8, 8: 6}.get(orientation, orientation))
    missing = without_data(stored, known, masks_of(image))
    return Raster(stored, format, palette, white, orientation, 1, names, missing)


def _of_image(image: Image.Image, content: bytes) -> Raster:
    format = image.format or ""
    if format == "TIFF":
        return _of_stored_tiff(image, content)
    orientation = _orientation(image, io.BytesIO(content))
    return Raster(*_pixels(image, content), orientation=orientation)


def _pixels(
    image: Image.Image, content: bytes
) -> tuple[NDArray[Any], str, NDArray[np.uint8] | None]:
    """`(H, W, bands)`, the format, and the palette where there is one."""
    format = image.format or ""
    if _has_deep_colours(image):
        return _deep_colours(content, format), format, None
    spread = next((_SPREAD.get(mode, 0) for mode in _raw_modes(image)), 0)
    image.load()
    palette = None
    if image.mode == "1":
        palette = _greys(255)
    elif image.mode == "P":
        palette = _palette(image)
    elif image.mode not in ("1", "L", "LA", "RGB", "RGBA", "F") and not image.mode.startswith("I"):
        image = image.convert("RGB")
    pixels = np.array(image.convert("L") if image.mode == "1" else image)
    if image.mode == "1":
        pixels = (pixels > 0).astype(np.uint8)
    if spread and image.mode == "L":
        pixels //= spread
        palette = _greys(spread)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    return pixels.astype(pixels.dtype.newbyteorder("=")), format, palette


def _greys(spread: int) -> NDArray[np.uint8]:
    """The palette of greys of few bits."""
    shades = (np.arange(256) * spread).clip(0, 255).astype(np.uint8)
    return shades[:, None].repeat(3, axis=1)


def _palette(image: Image.Image) -> NDArray[np.uint8]:
    colours = np.zeros((256, 3), np.uint8)
    assert image.palette is not None
    listed = np.frombuffer(bytes(image.palette.palette), np.uint8)
    said = listed.reshape(-1, len(image.palette.mode))[:256, :3]
    colours[: len(said)] = said
    return colours


def _raw_modes(image: Image.Image) -> list[str]:
    """How Pillow unpacks the pixels of a file."""
    kinds = [tile[3] for tile in getattr(image, "tile", ())]
    return [str(kind[0]) if isinstance(kind, tuple) and kind else str(kind) for kind in kinds]


def _is_deep_png(image: Image.Image) -> bool:
    return image.format == "PNG" and any("16" in mode for mode in _raw_modes(image))


def _has_deep_colours(image: Image.Image) -> bool:
    """Whether Pillow would keep the upper of the two bytes of each value."""
    return image.mode in ("RGB", "RGBA", "LA") and any("16" in mode for mode in _raw_modes(image))


_LOWER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
"""The order of bytes by which Pillow unpacks the lower one, by that for the upper one."""


def _deep_colours(content: bytes, format: str) -> NDArray[Any]:
    """Both bytes of 16-bit colours, of which Pillow keeps the upper: read again for the lower."""
    halves = []
    for lower in (False, True):
        with Image.open(io.BytesIO(content), formats=(format,)) as image:
            if image.mode == "LA":
                # Four bytes a pixel: high and low of grey, high and low of alpha.
                image._mode = "RGBA"
                image.tile = [tile._replace(args="RGBA") for tile in image.tile]
                four = np.array(image).astype(np.uint16)
                return four[..., :1] << 8 | four[..., 1:2]
            if lower:
                image.tile = [_lower(tile) for tile in image.tile]
            halves.append(np.array(image).astype(np.uint16))
    return halves[0] << 8 | halves[1]


def _lower(tile: Any) -> Any:
    mode, *rest = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    mode = mode[:-1] + _LOWER[mode[-1]]
    return tile._replace(args=(mode, *rest) if isinstance(tile.args, tuple) else mode)


def _orientation(image: Image.Image, file: Any) -> int:
    if image.format == "PNG" and "exif" not in image.info:
        # Pillow would decode the pixels to find a tag that lies behind them.
        block = _png_exif(file)
        if block is None:
            return 1
        exif = Image.Exif()
        exif.load(block)
        return said_orientation(exif.get(_ORIENTATION, 1))
    if image.format == "TIFF":
        return said_orientation(image.tag_v2.get(274, 1))  # type: ignore[attr-defined]
    return said_orientation(image.getexif().get(_ORIENTATION, 1))


def _png_exif(file: Any) -> bytes | None:
    place = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">L4s", head)
            if kind == b"eXIf":
                block: bytes = file.read(length)
                return b"Exif\0\0" + block
            file.seek(length + 4, 1)
        return None
    finally:
        file.seek(place)
