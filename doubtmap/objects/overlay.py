"""The photograph with its unknown objects: they stand out, the rest steps back."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from doubtmap.datasets.dataset import UNKNOWN
from doubtmap.errors import UsageError
from doubtmap.files import write_atomically
from doubtmap.objects import Polygon, UnknownObject
from doubtmap.reports.colours import CODE_COLOURS

_EDGE, _DARK = CODE_COLOURS[UNKNOWN], (18, 18, 22)


_WIDE, _LARGEST = 960, 4
"""Smaller pictures are enlarged to about this width, by a whole factor of at most four."""


_TEXT = 14


Box = tuple[float, float, float, float]


def object_picture(
    image: NDArray[np.uint8],
    objects: Sequence[UnknownObject],
    shapes: Sequence[Sequence[Polygon]],
) -> Image.Image:
    """Draw objects on their image: outlines of all, box and number where there is room.

    The number is P(unknown) where it is known, else the mean score.

    Args:
        image: `(H, W, 3)` RGB.
        objects: the most important first: they are given room first.
        shapes: the outlines of each.

    Raises:
        UsageError: where there are not as many shapes as objects.
    """
    if len(objects) != len(shapes):
        raise UsageError(
            f"object_picture: expected outlines for each of {len(objects)} objects, got "
            f"{len(shapes)}."
        )
    factor = min(_LARGEST, max(1, -(-_WIDE // image.shape[1])))
    size = (image.shape[1] * factor, image.shape[0] * factor)
    sheet = Image.fromarray(_spotlight(image, objects)).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(sheet)
    for colour, width in ((_DARK, 4), (_EDGE, 2)):
        for ring in (ring for shape in shapes for piece in shape for ring in piece.rings):
            draw.line([tuple(p) for p in (ring * factor).tolist()], colour, width)
    taken: list[Box] = []
    for thing in objects:
        _tag(draw, thing, factor, size, taken)
    return sheet


def write_object_picture(
    path: str | Path,
    image: NDArray[np.uint8],
    objects: Sequence[UnknownObject],
    shapes: Sequence[Sequence[Polygon]],
) -> None:
    """Write `object_picture(image, objects, shapes)` as PNG."""
    stream = io.BytesIO()
    object_picture(image, objects, shapes).save(stream, "PNG", compress_level=1)
    write_atomically(path, stream.getvalue())


def _spotlight(image: NDArray[np.uint8], objects: Sequence[UnknownObject]) -> NDArray[np.uint8]:
    """The objects as they are, the rest paler and darker."""
    grey = image.mean(2, keepdims=True)
    picture: NDArray[np.uint8] = (0.7 * (0.4 * image + 0.6 * grey)).astype(np.uint8)
    for thing in objects:
        x, y, width, height = thing.box
        place = np.s_[y : y + height, x : x + width]
        picture[place] = np.where(thing.mask[..., None], image[place], picture[place])
    return picture


def _tag(
    draw: ImageDraw.ImageDraw,
    thing: UnknownObject,
    factor: int,
    size: tuple[int, int],
    taken: list[Box],
) -> None:
    """Box and number of one object, unless the number's place is taken."""
    x, y, width, height = (side * factor for side in thing.box)
    text = _number(thing)
    font = ImageFont.load_default(_TEXT)
    wide, high = font.getlength(text) + 8, _TEXT + 5
    left = max(0.0, min(x, size[0] - wide))
    top = y - high if y >= high else min(y + height, size[1] - high)
    place = (left, top, left + wide, top + high)
    if any(_overlap(place, other) for other in taken):
        return
    taken.append(place)
    draw.rectangle((x, y, x + width - 1, y + height - 1), outline=(255, 255, 255))
    draw.rectangle(place, fill=_DARK)
    draw.text((left + 4, top + 1), text, fill=(255, 255, 255), font=font)


def _number(thing: UnknownObject) -> str:
    if thing.probability is not None:
        return f"{thing.probability:.0%}"
    mean = thing.score_mean
    return f"{mean:.0f}" if 1e3 <= abs(mean) < 1e6 else f"{mean:.3g}"


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
