"""Images and maps as the bytes that the page takes.

A map is a header of 24 bytes, little-endian: `DMAP`, its kind (0: doubt, 1: codes, 2: doubt with
gaps), width, height, lowest and highest value; then 16 bits for each pixel. Doubt is `low + pixel /
65535 * (high - low)`; with gaps 0 is where there are no data. Codes are classes, or below zero what
is no class, and are compressed with gzip as a whole.
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
from doubtmap.scenes.rasters import LARGE, raster_size, scene_of
from doubtmap.viewer.run import Run

DOUBT, CODES, GAPS = 0, 1, 2
STEPS = 65535
THUMBNAIL = 320
"""Pixels across."""
MOST = 16_000_000
"""Pixels of a picture or a map in a page; larger ones are thinned."""


def doubt_bytes(values: NDArray[np.float32]) -> bytes:
    """A doubt map for the page, `(H, W)`."""
    values = values[:: (step := _step(values.shape)), ::step]
    known = np.isfinite(values)
    gaps = not known.all()
    there = values[known] if known.any() else np.zeros(1, np.float32)
    low, high = float(there.min()), float(there.max())
    if gaps:
        low -= (high - low or 1.0) / (STEPS - 1)  # so that the lowest is 1
    scale = STEPS / (high - low) if high > low else 0.0
    above = np.where(known, values.astype(np.float64) - low, 0.0)
    pixels = np.rint(above * scale).astype("<u2")
    return _header(GAPS if gaps else DOUBT, values.shape, low, high) + pixels.tobytes()


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
    layer, own = run.layer(key), run.pictures
    file = run.map_file(layer, place)
    if key.startswith("doubt:"):
        return doubt_bytes(own.doubt(layer, place) if own else read_map(file))
    return code_bytes(own.codes(layer, place) if own else read_codes(file))


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
    pixels = _photograph(run, place)
    pixels = pixels[:: (step := _step(pixels.shape)), ::step]
    return _jpeg(Image.fromarray(np.ascontiguousarray(pixels)), 92)


def thumbnail_bytes(run: Run, place: int) -> bytes:
    """A small JPEG of an image.

    Raises:
        DataError: where it cannot be read.
    """
    picture = Image.fromarray(np.ascontiguousarray(_photograph(run, place)))
    picture.thumbnail((THUMBNAIL, 4 * THUMBNAIL), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return _jpeg(picture, 80)


def _photograph(run: Run, place: int) -> NDArray[np.uint8]:
    """`(H, W, 3)`; of what is too large for memory an overview."""
    if run.pictures:
        return run.pictures.photograph(place)
    file = run.image_file(place)
    height, width = raster_size(file) or (0, 0)
    if height * width > LARGE:
        return scene_of(file, run.rendering).thumbnail()
    return in_colour(read_image(file, run.rendering))


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return stream.getvalue()
