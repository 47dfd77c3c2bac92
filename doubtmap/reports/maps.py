"""Doubt maps and class maps as files.

A doubt map is 16-bit greyscale PNG with its scale in the text metadata, or float32 as `.npy`,
TIFF or safetensors. All files are written atomically; none can carry code.

PNG is written at memory speed. The lower byte of a doubt map is as good as noise, so that filters
and compression save a fifth to a quarter of the file and cost more than everything else that is
done to a map, by far. The pixels are stored as they are: any reader of PNG takes it, and who wants
smaller files can compress them.

Reference:
    Portable Network Graphics (PNG) Specification (W3C, 2003), https://www.w3.org/TR/png-3/
"""

from __future__ import annotations

import csv
import io
import json
import struct
import tokenize
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from doubtmap.errors import DataError, UsageError
from doubtmap.files import cell, write_atomically
from doubtmap.reports.colours import class_colours

_GREY, _STORED = 0, 0


_NO_FILTER = 0


def grey_png(pixels: NDArray[np.uint16], text: Mapping[str, str]) -> bytes:
    """The content of a PNG file.

    Args:
        pixels: `(H, W)`, at least one.
        text: what to say in the metadata, by keyword (of at most 79 Latin characters).
    """
    height, width = pixels.shape
    rows = np.empty((height, 1 + 2 * width), np.uint8)
    rows[:, 0] = _NO_FILTER
    rows[:, 1:] = pixels.astype(">u2").view(np.uint8).reshape(height, 2 * width)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _GREY, 0, 0, 0)),
            *(_text(keyword, said) for keyword, said in text.items()),
            _chunk(b"IDAT", zlib.compress(rows.data, _STORED)),
            _chunk(b"IEND", b""),
        ]
    )


def _text(keyword: str, said: str) -> bytes:
    """As Latin-1 where that has all characters, else as UTF-8."""
    try:
        return _chunk(b"tEXt", keyword.encode("latin-1") + b"\0" + said.encode("latin-1"))
    except UnicodeEncodeError:
        return _chunk(
            b"iTXt",
            keyword.encode("latin-1") + b"\0\0\0\0\0" + said.encode("utf-8", "backslashreplace"),
        )


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(content, zlib.crc32(kind))
    return b"".join([struct.pack(">I", len(content)), kind, content, struct.pack(">I", check)])


MapFormat = Literal["png", "npy", "tiff", "safetensors"]


_STEPS = 65535

_SLACK = 1e-3
"""Share of the scale by which rounding may take a value beyond it."""


_TIFF_DESCRIPTION = 270


_BAND = 32
"""Rows."""


def write_map(
    path: str | Path,
    doubt: NDArray[np.float32],
    format: MapFormat,
    name: str = "doubt",
    *,
    scale: tuple[float, float] | None = None,
) -> None:
    """Write one doubt map.

    A PNG holds `pixel = round((value - minimum) / (maximum - minimum) * 65535)` and says the scale
    as `doubtmap:score`, `doubtmap:minimum` and `doubtmap:maximum`; a constant map is all zeros.

    Args:
        path: the file, whatever its suffix.
        doubt: `(H, W)`, finite.
        format: `png`, `npy`, `tiff` or `safetensors` (one tensor, `doubt`).
        name: the score's name, kept in the metadata (`.npy` has none).
        scale: minimum and maximum of a PNG, the same for all maps that are to be compared; default:
            the map's own.

    Raises:
        DataError: for a map that is not `(H, W)`, not finite, or beyond the scale.
        UsageError: for an unknown format.
    """
    values = _checked(doubt, path)
    if format == "png":
        content = doubt_png(values, name, scale, path)
    elif format == "npy":
        content = _npy(values)
    elif format == "tiff":
        content = _tiff(values, name)
    elif format == "safetensors":
        content = safetensors.save({"doubt": values}, {"doubtmap:score": name})
    else:
        raise UsageError(f"{format}: expected a format of {', '.join(get_args(MapFormat))}.")
    write_atomically(path, content)


DAMAGE = (
    *(ValueError, KeyError, SyntaxError, EOFError, TypeError, OverflowError, IndexError),
    *(struct.error, tokenize.TokenError, zlib.error, SafetensorError),
)
"""What readers of maps raise on damaged files."""


def read_map(path: str | Path) -> NDArray[np.float32]:
    """Read a doubt map of any of the four formats, told apart by content.

    Returns:
        `(H, W)` float32; from PNG at most half a step, `(maximum - minimum) / 131070`, off.

    Raises:
        DataError: where the file is not a doubt map.
    """
    try:
        content = Path(path).read_bytes()
        if content.startswith(b"\x93NUMPY"):
            values: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
        elif content.startswith((b"\x89PNG", b"II", b"MM")):
            values = _read_image(content)
        else:
            values = safetensors.load(content)["doubt"]
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a doubt map ({error}).") from error
    except DAMAGE as error:
        raise DataError(f"{path}: is not a doubt map of doubtmap ({error}).") from error
    return _checked(values, path)


def write_classes(
    path: str | Path,
    classes: NDArray[np.integer[Any]],
    class_names: Sequence[str] = (),
    figures: Mapping[str, float] | None = None,
) -> None:
    """Write predicted classes as PNG whose pixel values are the class indices.

    Eight bits with a palette of class colours; 16-bit greyscale with more than 256 classes. The
    names stand in the metadata as `doubtmap:classes`, a JSON list.

    Args:
        path: the file.
        classes: `(H, W)` integers, from 0.
        class_names: in the order of the indices, or empty.
        figures: of the image, for `read_figures`; kept as `doubtmap:figures`, a JSON object.

    Raises:
        DataError: for anything but `(H, W)` integers in 0 ... 65535.
    """
    write_atomically(path, classes_png(classes, class_names, path, figures))


def classes_png(
    classes: NDArray[np.integer[Any]],
    class_names: Sequence[str] = (),
    path: str | Path = "classes",
    figures: Mapping[str, float] | None = None,
) -> bytes:
    """The content of the PNG that `write_classes` writes.

    Raises:
        DataError: as `write_classes`.
    """
    indices = np.asarray(classes)
    if indices.ndim != 2 or indices.size == 0 or not np.issubdtype(indices.dtype, np.integer):
        raise DataError(
            f"{path}: expected classes (H, W) of integers, got {indices.shape} {indices.dtype}."
        )
    lowest, highest = int(indices.min()), int(indices.max())
    if lowest < 0 or highest > _STEPS:
        raise DataError(f"{path}: expected classes in 0 ... {_STEPS}, got {lowest} ... {highest}.")
    count = max(len(class_names), highest + 1)
    if count <= 256:
        image = Image.fromarray(indices.astype(np.uint8))
        image.putpalette(class_colours(count, class_names).tobytes())
    else:
        image = Image.fromarray(indices.astype(np.uint16))
    text = PngInfo()
    text.add_text("doubtmap:classes", json.dumps(list(class_names)))
    if figures is not None:
        text.add_text("doubtmap:figures", json.dumps(figures))
    return _encoded(image, "PNG", pnginfo=text, compress_level=1)


def read_figures(path: str | Path) -> dict[str, float]:
    """The figures of an image that its class map carries; empty where it carries none.

    Raises:
        DataError: where the file is no picture.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return dict(json.loads(image.info.get("doubtmap:figures", "{}")))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path}: is not a class map of doubtmap ({error}).") from error


def image_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """CSV of images and their figures, safe from formulas; a figure that lacks is an empty field.

    Args:
        rows: figures by image.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    writer.writerow(["image", *map(cell, columns)])
    writer.writerows([cell(name), *(row.get(c, "") for c in columns)] for name, row in rows.items())
    return stream.getvalue()


def _checked(doubt: NDArray[Any], path: str | Path) -> NDArray[np.float32]:
    values = np.asarray(doubt)
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "fiub":
        raise DataError(
            f"{path}: expected a doubt map (H, W) of numbers, got {values.shape} {values.dtype}."
        )
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        raise DataError(
            f"{path}: expected a finite doubt map, got NaN or infinity. Check the network's "
            f"weights, or run it in float32."
        )
    return values


def read_scale(path: str | Path) -> tuple[float, float]:
    """The values that are black and white in a PNG map, by its metadata.

    Raises:
        DataError: where the file is not a PNG map of doubtmap.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return float(image.info["doubtmap:minimum"]), float(image.info["doubtmap:maximum"])
    except (OSError, ValueError, KeyError, SyntaxError) as error:
        raise DataError(f"{path}: is not a PNG doubt map of doubtmap ({error}).") from error


def doubt_png(
    values: NDArray[np.float32],
    name: str,
    limits: tuple[float, float] | None = None,
    path: str | Path = "map",
) -> bytes:
    """The content of the PNG that `write_map` writes.

    Raises:
        DataError: for values beyond the scale.
    """
    minimum, maximum = limits or (float(values.min()), float(values.max()))
    slack = _SLACK * max(maximum - minimum, 1e-6)
    if float(values.min()) < minimum - slack or float(values.max()) > maximum + slack:
        raise DataError(
            f"{path}: expected {name} in {minimum:g} to {maximum:g}, its scale, got "
            f"{values.min():g} to {values.max():g}. Write it as npy."
        )
    scale = _STEPS / (maximum - minimum) if maximum > minimum else 0.0
    pixels = np.empty(values.shape, np.uint16)
    for start in range(0, len(values), _BAND):  # numbers of double precision stay in the cache
        steps = values[start : start + _BAND].astype(np.float64)
        steps -= minimum
        steps *= scale
        np.clip(steps, 0, _STEPS, out=steps)
        pixels[start : start + _BAND] = np.rint(steps, out=steps)
    text = {
        "doubtmap:score": name,
        "doubtmap:minimum": repr(minimum),
        "doubtmap:maximum": repr(maximum),
    }
    return grey_png(pixels, text)


def plain_png(classes: NDArray[np.integer[Any]]) -> bytes:
    """The content of a PNG of classes for other tools: grey, 8 bits, 16 where they need it.

    Args:
        classes: `(H, W)` in 0 ... 65535.
    """
    depth = np.uint8 if classes.max() < 256 else np.uint16
    return _encoded(Image.fromarray(classes.astype(depth)), "PNG", compress_level=1)


def grey_picture(values: NDArray[np.float32]) -> bytes:
    """The content of a PNG of 8 bits for other tools: 0 is black, 1 is white.

    Args:
        values: `(H, W)` in [0, 1].
    """
    picture = Image.fromarray(np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8))
    return _encoded(picture, "PNG", compress_level=1)


def _npy(values: NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=False)
    return stream.getvalue()


def _tiff(values: NDArray[np.float32], name: str) -> bytes:
    tags = ImageFileDirectory_v2()
    tags[_TIFF_DESCRIPTION] = name.encode("ascii", "backslashreplace").decode()
    return _encoded(Image.fromarray(values), "TIFF", tiffinfo=tags)


def _encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def _read_image(content: bytes) -> NDArray[Any]:
    with warnings.catch_warnings():
        # damaged metadata and sizes below the limit are no errors
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(content), formats=("PNG", "TIFF")) as image:
                image.load()
                pixels = np.asarray(image)
                text = dict(image.info)
        except Image.DecompressionBombError as error:
            raise ValueError(str(error)) from error
    if image.format == "TIFF":
        return pixels
    minimum = float(text["doubtmap:minimum"])
    maximum = float(text["doubtmap:maximum"])
    return minimum + pixels / _STEPS * (maximum - minimum)
