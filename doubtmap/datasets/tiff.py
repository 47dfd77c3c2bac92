"""TIFF as instruments and satellites write it: any number of bands, depth, type, planes, pages.

Pillow opens the usual kinds only. But whatever the bands are, each row is a row of bytes: a plane
is written again as a grey image of eight bits that many bytes wide, which Pillow unpacks, and the
bytes are then read as what they are.

Reference:
    TIFF, Revision 6.0 (Adobe, 1992), and its Technical Note 3 on floating-point predictors (2005)
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_OFFSETS, _SAMPLES, _ROWS, _COUNTS, _PLANAR = 273, 277, 278, 279, 284
_PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS = 317, 322, 323, 324, 325
_SUBFILE, _FORMAT, _GDAL = 254, 339, 42112
_HIGHEST = (281, 341)
"""Tags that may say the brightest value."""
_UNPACKED = (1, 5, 8, 32773, 32946, 34925, 50000)
"""None, LZW, deflate, PackBits, deflate, LZMA, Zstandard: those that keep bytes as they are."""
_KINDS = {1: "u", 2: "i", 3: "f"}


@dataclass(frozen=True, eq=False)
class Tiff:
    """What a TIFF file holds.

    Args:
        pixels: `(H, W, bands)`, of the type in the file.
        bits: of each value.
        white: the brightest value that the file says it may have, where it says so.
        pages: of the size of the first, those taken as bands included.
        gdal: GDAL's metadata, which may name the bands; empty without.
    """

    pixels: NDArray[Any]
    bits: int
    white: float | None = None
    pages: int = 1
    gdal: str = ""


def read_tiff(content: bytes) -> Tiff | None:
    """Read a TIFF file's values without changing any.

    Grey pages of one size are bands where there are three or more; else the first page counts.

    Args:
        content: of the file.

    Returns:
        None where its kind is left to Pillow: JPEG inside, palettes, CMYK, YCbCr.

    Raises:
        ValueError, struct.error, OSError: for a damaged file.
    """
    pages = list(_pages(content))
    first = pages[0]
    alike = [page for page in pages if _shape(page) == _shape(first)]
    if not all(map(_is_plain, alike)):
        return None
    as_bands = len(alike) > 2 and int(first.get(_SAMPLES, 1)) == 1
    read = [_page(content, page) for page in (alike if as_bands else alike[:1])]
    said = [first[tag] for tag in _HIGHEST if tag in first]
    white = float(np.max(said[0])) if said else None
    return Tiff(
        np.concatenate(read, axis=2), _bits(first), white, len(alike), str(first.get(_GDAL, ""))
    )


def _pages(content: bytes) -> Iterator[Mapping[int, Any]]:
    """The tags of each page, without those of masks and smaller copies."""
    file = io.BytesIO(content)
    header = file.read(16)
    big = header[2:4] in (b"\x2b\0", b"\0\x2b")
    order = "<" if header[:2] == b"II" else ">"
    position = struct.unpack_from(order + ("Q" if big else "L"), header, 8 if big else 4)[0]
    seen: set[int] = set()
    while position and position not in seen:
        seen.add(position)
        file.seek(position)
        tags = TiffImagePlugin.ImageFileDirectory_v2(header if big else header[:8])
        tags.load(file)
        found: dict[int, Any] = dict(tags)
        if len(seen) == 1 or not int(found.get(_SUBFILE, 0)):
            yield found
        position = tags.next


def _shape(page: Mapping[int, Any]) -> tuple[Any, ...]:
    return page[_HEIGHT], page[_WIDTH], page.get(_SAMPLES, 1), page.get(_BITS), page.get(_FORMAT)


def _bits(page: Mapping[int, Any]) -> int:
    return int(np.max(page.get(_BITS, 1)))


def _is_plain(page: Mapping[int, Any]) -> bool:
    same = len({*np.atleast_1d(page.get(_BITS, 1)).tolist()}) == 1
    return (
        same
        and page.get(_COMPRESSION, 1) in _UNPACKED
        and page.get(_PHOTOMETRIC, 1) in (0, 1, 2)
        and _kind(page) in "uif"
        and (_bits(page) % 8 == 0 or page.get(_PREDICTOR, 1) == 1)
    )


def _kind(page: Mapping[int, Any]) -> str:
    return _KINDS.get(int(np.atleast_1d(page.get(_FORMAT, 1))[0]), "?")


def _page(content: bytes, page: Mapping[int, Any]) -> NDArray[Any]:
    """`(H, W, samples)`."""
    samples = int(page.get(_SAMPLES, 1))
    apart = samples > 1 and page.get(_PLANAR, 1) == 2
    offsets, counts = _pieces(page, len(content))
    planes = samples if apart else 1
    each = len(offsets) // planes
    read = [
        _plane(
            content, page, offsets[k * each :][:each], counts[k * each :][:each], samples // planes
        )
        for k in range(planes)
    ]
    values = np.concatenate(read, axis=2)
    if page.get(_PHOTOMETRIC, 1) == 0 and _kind(page) == "u":
        values = (2 ** _bits(page) - 1 - values.astype(np.int64)).astype(values.dtype)
    return values


def _pieces(page: Mapping[int, Any], size: int) -> tuple[list[int], list[int]]:
    tiled = _TILE_OFFSETS in page
    offsets = np.atleast_1d(page[_TILE_OFFSETS if tiled else _OFFSETS]).tolist()
    counts = page.get(_TILE_COUNTS if tiled else _COUNTS)
    found = np.atleast_1d(counts).tolist() if counts is not None else [size - offsets[0]]
    if len(found) != len(offsets) or any(o + c > size for o, c in zip(offsets, found)):
        raise ValueError("the file ends before its pixels do")
    return offsets, found


def _plane(
    content: bytes, page: Mapping[int, Any], offsets: Sequence[int], counts: Sequence[int], n: int
) -> NDArray[Any]:
    """`(H, W, n)` of the strips or tiles that hold n samples a pixel."""
    width, height, bits = int(page[_WIDTH]), int(page[_HEIGHT]), _bits(page)
    tile = int(page[_TILE_WIDTH]) if _TILE_OFFSETS in page else 0
    across = -(-width // tile) * tile if tile else width
    tags = {
        _WIDTH: [-(-across * n * bits // 8)],
        _HEIGHT: [height],
        _BITS: [8],
        _COMPRESSION: [int(page.get(_COMPRESSION, 1))],
        _PHOTOMETRIC: [1],
        _SAMPLES: [1],
    }
    if tile:
        tags |= {_TILE_WIDTH: [tile * n * bits // 8], _TILE_HEIGHT: [int(page[_TILE_HEIGHT])]}
    else:
        tags |= {_ROWS: [min(int(page.get(_ROWS, height)), height)]}
    pieces = [content[o : o + c] for o, c in zip(offsets, counts)]
    rows = _unpacked(tags, pieces, tiled=bool(tile))
    values = _values(rows, page, content[:2] == b"II", across * n, n, tile or across)
    return values.reshape(height, across, n)[:, :width]


def _unpacked(
    tags: Mapping[int, Sequence[int]], pieces: Sequence[bytes], *, tiled: bool
) -> NDArray[np.uint8]:
    """Rows of bytes, by way of a grey image of eight bits."""
    count = len(tags) + 2
    start = 8 + 2 + 12 * count + 4
    lists, places = b"", []
    table = start + (8 * len(pieces) if len(pieces) > 1 else 0)
    for piece in pieces:
        places.append(table)
        table += len(piece)
    sizes = [len(piece) for piece in pieces]
    where = {
        _TILE_OFFSETS if tiled else _OFFSETS: places,
        _TILE_COUNTS if tiled else _COUNTS: sizes,
    }
    entries = b""
    for tag, values in sorted({**tags, **where}.items()):
        packed = struct.pack(f"<{len(values)}L", *values)
        if len(values) > 1:
            position = start + len(lists)
            lists += packed
            packed = struct.pack("<L", position)
        entries += struct.pack("<HHL", tag, 4, len(values)) + packed
    file = (
        b"II*\0" + struct.pack("<LH", 8, count) + entries + b"\0\0\0\0" + lists + b"".join(pieces)
    )
    with Image.open(io.BytesIO(file), formats=("TIFF",)) as image:
        return np.array(image)


def _values(
    rows: NDArray[np.uint8], page: Mapping[int, Any], little: bool, across: int, n: int, tile: int
) -> NDArray[Any]:
    """`(H, across)` values of rows of bytes; differences within tiles are summed up."""
    bits, kind = _bits(page), _kind(page)
    if bits % 8 or bits == 24:
        return _odd(rows, bits, across)
    order = "<" if little else ">"
    predictor = int(page.get(_PREDICTOR, 1))
    size = bits // 8
    if predictor == 3:
        parts = np.split(rows, range(tile * n * size, rows.shape[1], tile * n * size), axis=1)
        return np.concatenate([_floats(part, size, n) for part in parts], axis=1)
    values = np.ascontiguousarray(rows).view(f"{order}{kind}{size}")
    values = values.astype(values.dtype.newbyteorder("="))
    if predictor == 2:
        whole = values.view(f"u{size}").reshape(len(rows), -1, tile, n)
        values = whole.cumsum(axis=2, dtype=whole.dtype).view(f"{kind}{size}")
    return values.reshape(len(rows), across)


def _floats(rows: NDArray[np.uint8], size: int, n: int) -> NDArray[Any]:
    """Undo the predictor of floating-point values: bytes by rank, then differences."""
    summed = rows.reshape(len(rows), -1, n).cumsum(axis=1, dtype=np.uint8)
    ranked = summed.reshape(len(rows), size, -1).transpose(0, 2, 1)
    values = np.ascontiguousarray(ranked).view(f">f{size}")[..., 0]
    return values.astype(values.dtype.newbyteorder("="))


def _odd(rows: NDArray[np.uint8], bits: int, across: int) -> NDArray[Any]:
    """Values of 1 to 31 bits, packed from the highest bit on."""
    flat = np.unpackbits(rows, axis=1)[:, : across * bits].reshape(len(rows), across, bits)
    values: NDArray[Any] = np.zeros((len(rows), across), np.uint32)
    for bit in range(bits):
        values = values << 1 | flat[..., bit]
    return values.astype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)
