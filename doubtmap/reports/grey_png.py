"""Sixteen-bit greyscale PNG, written at memory speed.

The lower byte of a doubt map is as good as noise, so that filters and compression save a fifth to a
quarter of the file and cost more than everything else that is done to a map, by far. The pixels
are stored as they are: any reader of PNG takes it, and who wants smaller files can compress them.

Reference:
    Portable Network Graphics (PNG) Specification (W3C, 2003), https://www.w3.org/TR/png-3/
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

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
        return _chunk(b"iTXt", keyword.encode("latin-1") + b"\0\0\0\0\0" + said.encode())


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(content, zlib.crc32(kind))
    return b"".join([struct.pack(">I", len(content)), kind, content, struct.pack(">I", check)])
