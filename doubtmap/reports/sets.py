"""Label sets as files: which classes each pixel's set has, bit by bit, and a picture of how many.

Bit c of a number is class c: 1 where it is in the set. The file is `.npy`, `(H, W)` of 8, 16, 32
or 64 bits, the least that hold all classes; with more than 64 classes `(H, W, bands)` of 64 bits,
class c being bit c % 64 of band c // 64.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from doubtmap.errors import DataError, UsageError
from doubtmap.files import write_atomically
from doubtmap.reports.colours import ramp

Bits = NDArray[np.unsignedinteger[Any]]
KINDS = ("bits", "size")
"""What is written of the label sets of an image, by the end of the folder's name."""


def packed(contains: NDArray[np.bool_]) -> Bits:
    """One number for each pixel whose bits are the classes of its set.

    Args:
        contains: `(C, H, W)`.

    Returns:
        `(H, W)` uint8, uint16, uint32 or uint64; `(H, W, bands)` uint64 for more than 64 classes.

    Example:
        >>> packed(np.array([True, False, True])[:, None, None])
        array([[5]], dtype=uint8)
    """
    count = len(contains)
    width = next((bits for bits in (8, 16, 32, 64) if count <= bits), 64)
    kind = np.dtype(f"u{width // 8}")
    bands = np.zeros((-(-count // width), *contains.shape[1:]), kind)
    for number, inside in enumerate(contains):
        bands[number // width] |= inside.astype(kind) << kind.type(number % width)
    return bands[0] if len(bands) == 1 else np.moveaxis(bands, 0, -1)


def unpacked(bits: Bits, classes: int) -> NDArray[np.bool_]:
    """`(C, H, W)`: what `packed` was given.

    Args:
        bits: as `packed` gave them.
        classes: C.

    Raises:
        UsageError: for more classes than there are bits.
    """
    bands = bits[..., None] if bits.ndim == 2 else bits
    width = bits.dtype.itemsize * 8
    if classes > width * bands.shape[-1]:
        raise UsageError(
            f"sets: expected at most {width * bands.shape[-1]} classes, which the file has bits "
            f"for, got {classes}. Give the network's number of classes."
        )
    kind = bits.dtype.type
    return np.stack(
        [bands[..., c // width] >> kind(c % width) & kind(1) > 0 for c in range(classes)]
    )


def write_sets(path: str | Path, contains: NDArray[np.bool_]) -> None:
    """Write label sets, `(C, H, W)`, bit by bit.

    Raises:
        DataError: where the file cannot be written.
    """
    stream = io.BytesIO()
    np.save(stream, packed(contains), allow_pickle=False)
    write_atomically(path, stream.getvalue())


def read_sets(path: str | Path, classes: int) -> NDArray[np.bool_]:
    """Read what `write_sets` wrote.

    Args:
        path: of the file.
        classes: C, the network's number of classes.

    Returns:
        `(C, H, W)`.

    Raises:
        DataError: where the file holds no label sets.
        UsageError: for more classes than it has bits for.
    """
    try:
        bits = np.load(path, allow_pickle=False)
        if bits.dtype.kind != "u" or bits.ndim not in (2, 3):
            raise ValueError(f"{bits.dtype} of {bits.ndim} axes")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path}: expected label sets that doubtmap score wrote, but it cannot be read as such "
            f"({error}). Score the image again with --scores sets:FILE."
        ) from error
    return unpacked(bits, classes)


BAR = 20
"""Height of the legend, in pixels."""


def sizes_picture(sizes: NDArray[np.integer[Any]], classes: int) -> Image.Image:
    """How many classes each pixel's set has, in colours, above a legend.

    Args:
        sizes: `(H, W)` from 1 to C.
        classes: C.

    Returns:
        A palette picture, `(H + 20, W)`; above the legend, index n is a set of n classes, and 255
        stands for all of 255 and more.
    """
    most = min(classes, 255)
    picture = Image.fromarray(np.minimum(sizes, 255).astype(np.uint8))
    picture.putpalette(_palette(most))
    whole = Image.new("P", (picture.width, picture.height + BAR))
    whole.putpalette(_palette(most))
    whole.paste(picture, (0, 0))
    share = np.bincount(np.minimum(sizes, 255).reshape(-1), minlength=most + 1) / sizes.size
    draw, left = ImageDraw.Draw(whole), 4
    for number in np.flatnonzero(share):
        text = f"{number}: {share[number]:.0%}"
        right = left + 14 + int(draw.textlength(text))
        if right > whole.width:
            break
        draw.rectangle((left, sizes.shape[0] + 5, left + 9, sizes.shape[0] + 14), int(number))
        draw.text((left + 13, sizes.shape[0] + 4), text, fill=WHITE)
        left = right + 10
    return whole


WHITE = 0
"""Of the palette; no set is empty."""


def _palette(most: int) -> list[int]:
    """From the dark end of the ramp for one class to its bright end for all."""
    place = np.linspace(0, 255, max(most, 2)).round().astype(int)
    colours = np.zeros((256, 3), np.uint8)
    colours[WHITE] = 255
    colours[1 : most + 1] = ramp()[place[:most]]
    return [int(part) for part in colours.reshape(-1)]


def write_sizes(path: str | Path, sizes: NDArray[np.integer[Any]], classes: int) -> None:
    """Write `sizes_picture` as PNG.

    Raises:
        DataError: where the file cannot be written.
    """
    stream = io.BytesIO()
    sizes_picture(sizes, classes).save(stream, "PNG", compress_level=1)
    write_atomically(path, stream.getvalue())
