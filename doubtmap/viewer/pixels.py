"""Images and maps as the bytes that the page takes.

A map is a header of 24 bytes, little-endian: `DMAP`, its kind (0: doubt, 1: codes), width, height,
lowest and highest value; then 16 bits for each pixel. Doubt is `low + pixel / 65535 * (high -
low)`; codes are classes, or below zero what is no class, and are compressed with gzip as a whole.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from doubtmap.datasets.reading import in_colour, read_image
from doubtmap.errors import DataError
from doubtmap.reports.maps import read_map
from doubtmap.viewer.runs import Run

DOUBT, CODES = 0, 1
STEPS = 65535
THUMBNAIL = 320
"""Pixels across."""
MOST = 16_000_000
"""Pixels of a picture or a map in a page; larger ones are thinned."""


def doubt_bytes(values: NDArray[np.float32]) -> bytes:
    """A doubt map for the page, `(H, W)`."""
    values = values[:: (step := _step(values.shape)), ::step]
    low, high = float(values.min()), float(values.max())
    scale = STEPS / (high - low) if high > low else 0.0
    pixels = np.rint((values.astype(np.float64) - low) * scale).astype("<u2")
    return _header(DOUBT, values.shape, low, high) + pixels.tobytes()


def code_bytes(codes: NDArray[np.int16]) -> bytes:
    """Classes or labels for the page, `(H, W)`."""
    codes = codes[:: (step := _step(codes.shape)), ::step]
    pixels = codes.astype("<i2").tobytes()
    return gzip.compress(_header(CODES, codes.shape, 0, 0) + pixels, 1, mtime=0)


def _header(kind: int, shape: tuple[int, ...], low: float, high: float) -> bytes:
    return struct.pack("<4sIIIff", b"DMAP", kind, shape[1], shape[0], low, high)


def _step(shape: tuple[int, ...]) -> int:
    return max(1, math.ceil(math.sqrt(shape[0] * shape[1] / MOST)))


def map_bytes(run: Run, key: str, place: int) -> bytes:
    """A layer of an image.

    Args:
        run: that keeps it.
        key: of the layer.
        place: of the image in the run.

    Raises:
        DataError: where there is none, or it cannot be read.
    """
    layer = run.layer(key)
    file = run.map_file(layer, place)
    if key.startswith("doubt:"):
        return doubt_bytes(read_map(file))
    return code_bytes(read_codes(file))


def read_codes(path: Path) -> NDArray[np.int16]:
    """A class map, or labels of 16 bits, as `(H, W)`; codes of no class are below zero.

    Raises:
        DataError: where it cannot be read.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return np.asarray(image).astype(np.uint16).view(np.int16)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Run it again.") from error


def photograph_bytes(run: Run, place: int) -> bytes:
    """An image as JPEG.

    Raises:
        DataError: where it cannot be read.
    """
    pixels = in_colour(read_image(run.image_file(place), run.rendering))
    pixels = pixels[:: (step := _step(pixels.shape)), ::step]
    return _jpeg(Image.fromarray(np.ascontiguousarray(pixels)), 92)


def thumbnail_bytes(run: Run, place: int) -> bytes:
    """A small JPEG of an image.

    Raises:
        DataError: where it cannot be read.
    """
    picture = Image.fromarray(in_colour(read_image(run.image_file(place), run.rendering)))
    picture.thumbnail((THUMBNAIL, 4 * THUMBNAIL), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return _jpeg(picture, 80)


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return stream.getvalue()
