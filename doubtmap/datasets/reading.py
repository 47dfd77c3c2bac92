"""Image and label files as arrays, whatever their suffix says; damaged files are `DataError`s."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from doubtmap.errors import DataError

MAX_PIXELS = 178_956_970
"""Images with more pixels are refused; it is the limit at which Pillow refuses too."""

_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "WEBP", "GIF", "PPM", "JPEG2000")
"""Formats that are tried; files are not trusted, so none that runs a program, as EPS does."""
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
"""What Pillow raises on damaged files."""


def read_image(path: str | Path, *, orient: bool = False) -> Tensor:
    """Read an image as RGB.

    Transparency is dropped, grey and palette images become RGB, 16 bits are scaled to 8.

    Args:
        path: an image file; its content decides the format, not its suffix.
        orient: turn a photograph upright as its EXIF tag says. Off by default, because the labels
            of data sets lie on the pixels as stored.

    Returns:
        `(3, H, W)` uint8.

    Raises:
        DataError: the file is missing, damaged, too large, or no image.
    """
    path = Path(path)
    image = _load(path, orient=orient)
    pixels = _scaled_grey(image, path) if image.mode in _SIXTEEN_BIT else _rgb(image, path)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def read_label(path: str | Path) -> NDArray[Any]:
    """Read the raw values of a label file.

    Args:
        path: a file with one value per pixel, 8 or 16 bits; of a palette file, the index.

    Returns:
        `(H, W)` uint8 or uint16.

    Raises:
        DataError: the file is missing, damaged, too large, in colour, or compressed with loss.
    """
    path = Path(path)
    image = _load(path)
    if image.format == "JPEG":
        raise DataError(
            f"{path}: expected label values without loss, got a JPEG, which changes them. "
            "Save the labels as PNG."
        )
    if image.mode in _SIXTEEN_BIT:
        return _sixteen_bit(image, path)
    if image.mode not in ("1", "L", "P"):
        raise DataError(
            f"{path}: expected one label value per pixel, got a colour image ({image.mode}). "
            "Save the labels as a single-channel PNG whose values are class indices, and say in a "
            "doubtmap.toml what they mean, as in classes = {road = 0, car = [1, 2]}."
        )
    return np.array(image, dtype=np.uint8)


def read_size(path: str | Path) -> tuple[int, int]:
    """Height and width of an image as stored, in pixels, without decoding it.

    Raises:
        DataError: the file is missing, no image, or too large.
    """
    with _opened(Path(path)) as image:
        return image.height, image.width


def _load(path: Path, *, orient: bool = False) -> Image.Image:
    """Open, decode and perhaps turn upright."""
    with _opened(path) as image:
        image.load()
        if orient:
            ImageOps.exif_transpose(image, in_place=True)
        return image


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image whose pixels are not decoded yet, with the foreseeable failures in our words."""
    if not path.is_file():
        what = "a folder" if path.is_dir() else "nothing"
        raise DataError(f"{path}: expected an image file, found {what} there. Check the path.")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(_too_large(path, f"{image.width} x {image.height}"))
            yield image
    except Image.DecompressionBombError as error:
        raise DataError(_too_large(path, "more")) from error
    except _DAMAGE as error:
        raise DataError(
            f"{path}: expected a readable image, got a damaged file or another format than "
            f"{', '.join(_FORMATS)} ({error}). Replace, convert or remove it."
        ) from error


def _too_large(path: Path, size: str) -> str:
    return (
        f"{path}: expected at most {MAX_PIXELS / 1e6:.0f} million pixels, got {size}. "
        "Cut the image into tiles first."
    )


def _rgb(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise DataError(
            f"{path}: expected 8 or 16 bits a channel, got floating-point values, whose range is "
            "not said. Convert the image to 8 bits."
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def _scaled_grey(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    grey = _sixteen_bit(image, path).astype(np.uint32)
    eight = ((grey * 255 + 32767) // 65535).astype(np.uint8)
    return np.repeat(eight[..., None], 3, axis=2)


def _sixteen_bit(image: Image.Image, path: Path) -> NDArray[np.uint16]:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(
            f"{path}: expected values of 0 to 65535, got {values.min()} to {values.max()}. "
            "Convert the file to 8 or 16 bits."
        )
    return values.astype(np.uint16)
