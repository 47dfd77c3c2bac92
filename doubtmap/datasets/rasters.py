"""Files as arrays of numbers, as they are stored: every band, every bit.

Images of all kinds come through here, and label files too: what the numbers mean is for others.
"""

from __future__ import annotations

import importlib.util
import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from doubtmap.datasets.tiff import read_tiff
from doubtmap.errors import DataError

MAX_PIXELS = 178_956_970
"""Images with more pixels are refused; it is the limit at which Pillow refuses too."""

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "WEBP", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF")
"""Formats that are tried; files are not trusted, so none that runs a program, as EPS does."""

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error)
"""What readers raise on damaged files."""

_STILL = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
"""Brands of pictures; other files of this container are films."""

_ORIENTATION = 0x0112

_BLACK_AND_WHITE = np.array([[0] * 3] + [[255] * 3] * 255, np.uint8)
"""The palette of files of one bit."""


@dataclass(frozen=True, eq=False)
class Raster:
    """The numbers in a file.

    Args:
        pixels: `(H, W, bands)` of any type of number, turned as stored.
        format: of the file, such as `PNG`.
        palette: `(256, 3)` uint8 where the one band holds places in it.
        white: the brightest value that the file says it may have, where it says so.
        orientation: EXIF's, 1 to 8; how to turn the pixels upright.
        pages: pages of one size in the file.
        band_names: in the order of the bands, where the file says them.
    """

    pixels: NDArray[Any]
    format: str
    palette: NDArray[np.uint8] | None = None
    white: float | None = None
    orientation: int = 1
    pages: int = 1
    band_names: tuple[str, ...] = ()

    @property
    def upright(self) -> Raster:
        """Turned as its EXIF tag says."""
        turned = turn(self.pixels, self.orientation)
        return replace(self, pixels=turned, orientation=1)

    @property
    def coloured(self) -> NDArray[Any]:
        """`(H, W, bands)`, the palette applied where there is one."""
        if self.palette is None:
            return self.pixels
        colours: NDArray[Any] = self.palette[self.pixels[..., 0]]
        return colours


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


def turn(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn `(H, W, ...)` pixels upright by an EXIF orientation, 1 to 8."""
    turned = pixels
    if orientation > 4:
        turned = turned.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return turned


def read_raster(path: str | Path) -> Raster:
    """Read the numbers of an image or label file; its content decides the format.

    Raises:
        DataError: the file is missing, damaged, too large, or of another format.
    """
    path = Path(path)
    content = _content(path)
    with _sentences(path):
        if content.startswith(b"\x93NUMPY"):
            return Raster(_array(content, path), "NPY")
        if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") and not _is_usual(content, path):
            tiff = read_tiff(content)
            if tiff is not None:
                return _of_tiff(tiff, content, path)
        with _opened(io.BytesIO(content), path) as image:
            return _of_image(image, content)


def read_header(path: str | Path) -> Header:
    """Read what a file says of itself, without decoding its pixels.

    Raises:
        DataError: as `read_raster`.
    """
    path = Path(path)
    if not path.is_file():
        _content(path)
    with _sentences(path), path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start == b"\x93NUM":
            shape = read_raster(path).pixels.shape
            return Header(shape[0], shape[1], "NPY", "NPY")
        try:
            with _opened(file, path) as image:
                mode = image.mode
                deep = mode.startswith(("I", "F")) or _sixteen_bit_png(image)
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
            return Header(height, width, "TIFF", "TIFF", raster.orientation, deep=True)


opening: ContextVar[Path | None] = ContextVar("opening", default=None)
"""The file that this thread decodes, for whoever is told what Pillow warns of."""


@contextmanager
def _sentences(path: Path) -> Iterator[None]:
    before = opening.set(path)
    try:
        yield
    except Image.DecompressionBombError as error:
        raise DataError(_too_large(path, "more")) from error
    except MemoryError as error:
        raise DataError(f"{path}: out of memory. Cut the image into tiles first.") from error
    except (*_DAMAGE, zlib.error) as error:
        raise DataError(_unreadable(path, error)) from error
    finally:
        opening.reset(before)


def _unreadable(path: Path, error: Exception) -> str:
    start = path.read_bytes()[:64]
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


@cache
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
def _opened(file: Any, path: Path) -> Iterator[Image.Image]:
    with Image.open(file, formats=_formats()) as image:
        if image.width * image.height > MAX_PIXELS:
            raise DataError(_too_large(path, f"{image.width} x {image.height}"))
        yield image


def _too_large(path: Path, size: str) -> str:
    return (
        f"{path}: expected at most {MAX_PIXELS / 1e6:.0f} million pixels, got {size}. "
        "Cut the image into tiles first."
    )


def _array(content: bytes, path: Path) -> NDArray[Any]:
    """`(H, W, bands)` of a NumPy file, whose bands may come first."""
    values: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim == 3 and values.shape[2] > 16 and values.shape[0] <= 16:
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.dtype.kind not in "buif" or not values.size:
        raise DataError(
            f"{path}: expected numbers (H, W) or (H, W, bands), got {values.shape} {values.dtype}. "
            "Save one image in each file."
        )
    return values.astype(np.uint8) if values.dtype.kind == "b" else values


def _is_usual(content: bytes, path: Path) -> bool:
    """Whether Pillow reads a TIFF as it is: one page, at most 8 bits, one, three or four bands."""
    try:
        with _opened(io.BytesIO(content), path) as image:
            pages = getattr(image, "n_frames", 1)
            deep = np.max(image.tag_v2.get(258, 1)) > 8  # type: ignore[attr-defined]
            odd = np.max(image.tag_v2.get(339, 1)) != 1  # type: ignore[attr-defined]
            # Pillow turns a TIFF by itself, so that what is stored would be lost.
            return pages == 1 and not deep and not odd and _orientation(image, None) == 1
    except UnidentifiedImageError:
        return False


def _of_tiff(tiff: Any, content: bytes, path: Path) -> Raster:
    height, width, _ = tiff.pixels.shape
    if height * width > MAX_PIXELS:
        raise DataError(_too_large(path, f"{width} x {height}"))
    white = tiff.white
    if white is None and tiff.bits not in (8, 16, 32, 64):
        white = float(2**tiff.bits - 1)
    return Raster(
        tiff.pixels,
        "TIFF",
        white=white,
        orientation=_tiff_orientation(content),
        pages=tiff.pages,
        band_names=_band_names(tiff.gdal),
    )


def _tiff_orientation(content: bytes) -> int:
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + content)
    return _turns(exif.get(_ORIENTATION, 1))


def _band_names(gdal: str) -> tuple[str, ...]:
    import re

    named = re.findall(r'name="DESCRIPTION" sample="(\d+)"[^>]*>([^<]*)<', gdal)
    named += re.findall(r'sample="(\d+)" name="DESCRIPTION"[^>]*>([^<]*)<', gdal)
    return tuple(name for _, name in sorted((int(k), name.strip().lower()) for k, name in named))


def _of_image(image: Image.Image, content: bytes) -> Raster:
    format = image.format or ""
    orientation = 1 if format == "TIFF" else _orientation(image, io.BytesIO(content))
    if _sixteen_bit_png(image) and image.mode in ("RGB", "RGBA", "LA"):
        return Raster(_deep_png(content), format, orientation=orientation)
    image.load()
    palette = None
    if image.mode == "1":
        palette = _BLACK_AND_WHITE
    elif image.mode == "P":
        palette = _palette(image)
    elif image.mode not in ("1", "L", "LA", "RGB", "RGBA", "F") and not image.mode.startswith("I"):
        image = image.convert("RGB")
    pixels = np.array(image.convert("L") if image.mode == "1" else image)
    if palette is _BLACK_AND_WHITE:
        pixels = (pixels > 0).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    return Raster(pixels, format, palette, orientation=orientation)


def _palette(image: Image.Image) -> NDArray[np.uint8]:
    colours = np.zeros((256, 3), np.uint8)
    assert image.palette is not None
    listed = np.frombuffer(bytes(image.palette.palette), np.uint8)
    said = listed.reshape(-1, len(image.palette.mode))[:256, :3]
    colours[: len(said)] = said
    return colours


def _sixteen_bit_png(image: Image.Image) -> bool:
    return image.format == "PNG" and any(
        "16" in str(tile[3]) for tile in getattr(image, "tile", ())
    )


def _deep_png(content: bytes) -> NDArray[Any]:
    """Both bytes of 16-bit colours, of which Pillow keeps one: read once for each."""
    halves = []
    for kind in "BL":
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            mode = image.mode
            if mode == "LA":
                # Four bytes a pixel: high and low of grey, high and low of alpha.
                image._mode = "RGBA"
                image.tile = [tile._replace(args="RGBA") for tile in image.tile]
                four = np.array(image).astype(np.uint16)
                return four[..., :1] << 8 | four[..., 1:2]
            image.tile = [tile._replace(args=f"{mode};16{kind}") for tile in image.tile]
            halves.append(np.array(image).astype(np.uint16)[..., :3])
    return halves[0] << 8 | halves[1]


def _orientation(image: Image.Image, file: Any) -> int:
    if image.format == "PNG" and "exif" not in image.info:
        # Pillow would decode the pixels to find a tag that lies behind them.
        block = _png_exif(file)
        if block is None:
            return 1
        exif = Image.Exif()
        exif.load(block)
        return _turns(exif.get(_ORIENTATION, 1))
    if image.format == "TIFF":
        return _turns(image.tag_v2.get(274, 1))  # type: ignore[attr-defined]
    return _turns(image.getexif().get(_ORIENTATION, 1))


def _turns(said: object) -> int:
    return said if isinstance(said, int) and 1 <= said <= 8 else 1


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
