"""TIFF as instruments and satellites write it: any number of bands, depth, type, planes, pages.

Pillow reads the usual kinds, and `is_usual` says which of them it reads without changing a value.
All others are for tifffile, an extra, which this file alone imports.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from doubtmap.errors import DataError

# Both log what they refuse as an error, which would be shown where nothing handles it.
for _name in ("PIL.TiffImagePlugin", "tifffile"):
    logging.getLogger(_name).addHandler(logging.NullHandler())

INSTALL = 'pip install "doubtmap[tiff]"'

_SUBFILE, _PHOTOMETRIC, _SAMPLES, _PLANAR, _BITS, _FORMAT, _GDAL = (
    254,
    262,
    277,
    284,
    258,
    339,
    42112,
)
_HIGHEST = (281, 341)
"""Tags that may say the brightest value."""
_COMPRESSION = 259
_UNPACKED = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 50000)
"""What every libtiff can undo: none, fax, LZW, JPEG, deflate, PackBits, Zstandard."""
_MASK = 4
_LEFT_OUT = 1 | _MASK
"""Bits of the subfile tag: a smaller copy, a mask."""
_EXTRA, _NO_DATA = 338, 42113
"""Tags of what bands beyond the colours are, and of the number that GDAL writes for no data."""
_PLACE = (33922, 34264)
"""Tags of a place on earth: tie points, a transformation."""
_PALETTE = 3


@dataclass(frozen=True, eq=False)
class Raster:
    """The numbers in a file.

    Args:
        pixels: `(H, W, bands)` of any type of number, turned as stored.
        format: of the file, such as `PNG`.
        palette: `(256, 3)` uint8 where the one band holds places in it; also the greys as which
            values of one, two and four bits are shown.
        white: the brightest value that the file says it may have, where it says so.
        orientation: EXIF's, 1 to 8; how to turn the pixels upright.
        pages: pages of one size in the file.
        band_names: in the order of the bands, where the file says them.
        missing: `(H, W)` bool, where a TIFF has no data, if anywhere.
    """

    pixels: NDArray[Any]
    format: str
    palette: NDArray[np.uint8] | None = None
    white: float | None = None
    orientation: int = 1
    pages: int = 1
    band_names: tuple[str, ...] = ()
    missing: NDArray[np.bool_] | None = None

    @property
    def upright(self) -> Raster:
        """Turned as its EXIF tag says."""
        pixels, missing = turn(self.pixels, self.orientation), self.missing
        missing = None if missing is None else turn(missing, self.orientation)
        return replace(self, pixels=pixels, orientation=1, missing=missing)

    @property
    def filled(self) -> Raster:
        """With the lowest of its numbers where it has no data; bytes stay as they are."""
        if self.missing is None or self.pixels.dtype == np.uint8:
            return self
        known = self.pixels[~self.missing]
        dark = known.min() if known.size else 0
        return replace(self, pixels=np.where(self.missing[..., None], dark, self.pixels))

    @property
    def coloured(self) -> NDArray[Any]:
        """`(H, W, bands)`, the palette applied where there is one."""
        if self.palette is None:
            return self.pixels
        colours: NDArray[Any] = self.palette[self.pixels[..., 0]]
        return colours


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


def said_orientation(said: object) -> int:
    """An EXIF orientation as a file says it; 1 for what is none."""
    return said if isinstance(said, int) and 1 <= said <= 8 else 1


def is_usual(image: Image.Image) -> bool:
    """Whether every value of a TIFF can be had from Pillow, which opened it.

    That is: one page, the bands of a pixel side by side, and a type that it has. Of 16-bit colours
    it keeps the upper byte, and can be asked for the lower.
    """
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits = {*np.atleast_1d(tags.get(_BITS, 1)).tolist()}
    kinds = {*np.atleast_1d(tags.get(_FORMAT, 1)).tolist()}
    samples = int(tags.get(_SAMPLES, 1))
    try:
        pages = _pages(image)
    except SyntaxError:  # a page, such as a mask of one bit, is of a kind that it does not know
        return False
    if len(bits) > 1 or len(kinds) > 1 or pages > 1:
        return False
    if samples > len(image.getbands()) or (samples > 1 and tags.get(_PLANAR, 1) != 1):
        return False
    if tags.get(_COMPRESSION, 1) not in _UNPACKED or "RGBa" in str(getattr(image, "tile", "")):
        return False  # RGBa: colours that Pillow would divide by their alpha
    kind = (bits.pop(), kinds.pop())
    deep = kind == (16, 1) or (samples == 1 and kind in ((16, 2), (32, 2), (32, 3)))
    # Pillow swaps the bytes of some deep values that libtiff has swapped already.
    swapped = tags.prefix == b"MM" and tags.get(_COMPRESSION, 1) != 1
    plain = tags.get(_PHOTOMETRIC, 1) in (1, 2) and not swapped
    return kind in ((1, 1), (8, 1)) or (deep and plain)


def _pages(image: Image.Image) -> int:
    """Pages without smaller copies and masks; the first always counts."""
    count = getattr(image, "n_frames", 1)
    found = 1
    for page in range(1, count):
        image.seek(page)
        tags = image.tag_v2  # type: ignore[attr-defined]
        found += not int(tags.get(_SUBFILE, 0)) & _LEFT_OUT
    if count > 1:
        image.seek(0)
    return found


def said_white(tags: Any) -> float | None:
    """The brightest value that the tags of a page say it may have, where they do."""
    said = [tags[tag] for tag in _HIGHEST if tag in tags]
    return float(np.max(said[0])) if said else None


def band_names(tags: Any) -> tuple[str, ...]:
    """The names of the bands in the tag of GDAL, in order and in small letters."""
    gdal = str(tags.get(_GDAL, ""))
    named = re.findall(r'name="DESCRIPTION" sample="(\d+)"[^>]*>([^<]*)<', gdal)
    named += re.findall(r'sample="(\d+)" name="DESCRIPTION"[^>]*>([^<]*)<', gdal)
    return tuple(name for _, name in sorted((int(k), name.strip().lower()) for k, name in named))


def masks_of(image: Image.Image) -> list[NDArray[np.bool_]]:
    """The masks of a TIFF that Pillow opened, `(H, W)`, True where there are data."""
    found = []
    for page in range(1, getattr(image, "n_frames", 1)):
        image.seek(page)
        if int(image.tag_v2.get(_SUBFILE, 0)) & _MASK:  # type: ignore[attr-defined]
            found.append(np.array(image) > 0)
    return found


def without_data(
    pixels: NDArray[Any], tags: Mapping[int, Any], masks: Sequence[NDArray[np.bool_]]
) -> NDArray[np.bool_] | None:
    """Where a TIFF has no data: by its masks, no finite number, or that which stands for none.

    By its alpha, too, where it has a place on earth: elsewhere transparency is dropped.

    Args:
        pixels: `(H, W, bands)`, as stored.
        tags: of the page.
        masks: True where there are data; those of smaller copies are passed over.

    Returns:
        `(H, W)`, where any band has none; None where all have data.
    """
    found = np.zeros(pixels.shape[:2], bool)
    for mask in masks:
        found |= ~mask if mask.shape == found.shape else False
    if pixels.dtype.kind == "f":
        found |= ~np.isfinite(pixels).all(2)
    placed = any(tag in tags for tag in _PLACE)
    extra = [int(kind) for kind in np.atleast_1d(tags.get(_EXTRA, ()))] if placed else []
    for band, kind in enumerate(extra, pixels.shape[2] - len(extra)):
        found |= (pixels[..., band] == 0) if kind in (1, 2) and band > 0 else False
    with suppress(ValueError):
        number: Any = float(str(tags.get(_NO_DATA)).strip("\0 "))
        number = pixels.dtype.type(number) if pixels.dtype.kind == "f" else number
        found |= (pixels == number).any(2)
    return found if found.any() else None


def read_tiff(content: bytes, where: object, check_size: Callable[[int, int], None]) -> Raster:
    """Read a TIFF file's values without changing any.

    Grey pages of one size are bands where there are three or more; else the first page counts.

    Args:
        content: of the file.
        where: the file, for messages.
        check_size: called with height and width before anything is decoded; may refuse.

    Raises:
        DataError: without tifffile, or for values that are no numbers of grey, colour or bands.
        ValueError: for a damaged file.
    """
    try:
        import tifffile
    except ImportError as error:
        raise DataError(_needs_library(where, "tifffile")) from error
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            return _read(file, where, check_size)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # of damaged files tifffile and its codecs raise all kinds
        if "imagecodecs" in str(error):
            raise DataError(_needs_library(where, "imagecodecs")) from error
        raise ValueError(str(error)) from error


def _read(file: Any, where: object, check_size: Callable[[int, int], None]) -> Raster:
    pages = [page.aspage() for page in file.pages]
    first = pages[0]
    check_size(first.imagelength, first.imagewidth)
    alike = [first, *(page for page in pages[1:] if _alike(page, first))]
    as_bands = len(alike) > 2 and first.samplesperpixel == 1 and first.photometric != _PALETTE
    read = [_values(page, where) for page in (alike if as_bands else alike[:1])]
    tags = {tag.code: tag.value for tag in first.tags}
    pixels, bits, white = np.concatenate(read, axis=2), int(first.bitspersample), said_white(tags)
    if white is None and bits not in (8, 16, 32, 64):
        white = float(2**bits - 1)
    masks = [page.asarray() > 0 for page in pages[1:] if int(page.subfiletype) & _MASK]
    missing = without_data(pixels, tags, masks)
    turned = said_orientation(tags.get(274, 1))
    return Raster(
        pixels, "TIFF", _palette(first), white, turned, len(alike), band_names(tags), missing
    )


def _needs_library(where: object, name: str) -> str:
    return (
        f"{where}: expected {name}, which reads TIFF files of this kind (several bands, pages, "
        f"planes or an unusual depth), found none. Install it with: {INSTALL}."
    )


def _alike(page: Any, first: Any) -> bool:
    return (
        not int(page.subfiletype) & _LEFT_OUT
        and page.shape == first.shape
        and page.dtype == first.dtype
        and page.photometric == first.photometric
    )


def _values(page: Any, where: object) -> NDArray[Any]:
    """`(H, W, samples)`."""
    values: NDArray[Any] = page.asarray()
    if page.axes == "YX":
        values = values[..., None]
    elif page.axes == "SYX":
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.dtype.kind not in "uif" or page.photometric not in _PHOTOMETRICS:
        raise DataError(
            f"{where}: expected a TIFF of grey values, colours or bands, got {page.axes} of "
            f"{values.dtype}, {page.photometric.name}. Convert it."
        )
    if page.photometric == 0 and values.dtype.kind == "u":
        values = (2 ** int(page.bitspersample) - 1 - values.astype(np.int64)).astype(values.dtype)
    return values


_PHOTOMETRICS = (0, 1, 2, _PALETTE, 6)
"""White is zero, black is zero, RGB, a palette, YCbCr, which becomes RGB."""


def _palette(page: Any) -> NDArray[np.uint8] | None:
    """The palette; of grey values of fewer than eight bits, their shades."""
    colours = np.zeros((256, 3), np.uint8)
    if page.photometric == _PALETTE:
        listed = (page.colormap.T >> 8).astype(np.uint8)[:256]
    elif page.samplesperpixel == 1 and page.bitspersample < 8:
        highest = 2**page.bitspersample - 1
        listed = np.repeat(np.arange(highest + 1) * 255 // highest, 3).reshape(-1, 3)
    else:
        return None
    colours[: len(listed)] = listed
    return colours
