"""One picture that tells the story: image, label, prediction and doubt side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from doubtmap.errors import DataError
from doubtmap.reports.colours import (
    colour_doubt,
    colour_labels,
    labels_present,
    ramp,
    robust_limits,
)
from doubtmap.reports.digits import MINUS, digits

_INK, _PAPER, _GAP, _TEXT = (34, 34, 38), (255, 255, 255), 10, 15
_LINE = _TEXT + 11


def panel(
    image: NDArray[np.uint8],
    label: NDArray[np.int16] | None,
    predicted: NDArray[np.int16],
    doubt: NDArray[np.float32],
    class_names: Sequence[str] = (),
    tile_width: int = 420,
    limits: tuple[float, float] | None = None,
) -> Image.Image:
    """Put image, label, prediction and doubt side by side, with a legend and a colour bar.

    Args:
        image: `(H, W, 3)` RGB.
        label: `(H, W)` classes or label codes, or None.
        predicted: `(H, W)` classes.
        doubt: `(H, W)`, finite.
        class_names: in the order of the classes, or empty.
        tile_width: width of each picture, in pixels.
        limits: doubt at the ends of the colour bar; default: `robust_limits(doubt)`.

    Raises:
        DataError: where the maps are not of one size.
    """
    maps = [m for m in (label, predicted, doubt) if m is not None]
    if any(m.shape != image.shape[:2] for m in maps):
        raise DataError(
            f"panel: expected maps of the image's size {image.shape[:2]}, got "
            f"{', '.join(str(m.shape) for m in maps)}."
        )
    ends = robust_limits(doubt) if limits is None else limits
    tiles = [("image", image, Image.Resampling.LANCZOS)]
    if label is not None:
        tiles.append(("label", colour_labels(label, class_names), Image.Resampling.NEAREST))
    tiles.append(("prediction", colour_labels(predicted, class_names), Image.Resampling.NEAREST))
    tiles.append(("doubt", colour_doubt(doubt, ends), Image.Resampling.BOX))

    tile_height = max(1, round(tile_width * image.shape[0] / image.shape[1]))
    width = _GAP + len(tiles) * (tile_width + _GAP)
    legend = _legend(label, predicted, class_names, width - tile_width - 3 * _GAP)
    height = _LINE + tile_height + _GAP // 2 + max(1, len(legend)) * _LINE + _GAP
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, (title, pixels, resampling) in enumerate(tiles):
        left = _GAP + place * (tile_width + _GAP)
        draw.text((left, 5), title, fill=_INK, font=_font())
        tile = Image.fromarray(pixels).resize((tile_width, tile_height), resampling)
        sheet.paste(tile, (left, _LINE))
    foot = _LINE + tile_height + _GAP // 2
    _draw_legend(draw, legend, foot)
    _draw_bar(sheet, draw, width - _GAP - tile_width, foot, tile_width, ends)
    return sheet


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_TEXT)


Entry = tuple[str, tuple[int, int, int], int]


def _legend(
    label: NDArray[np.int16] | None,
    predicted: NDArray[np.int16],
    class_names: Sequence[str],
    width: int,
) -> list[list[Entry]]:
    """Legend entries with their left edges, broken into lines."""
    lines: list[list[Entry]] = []
    left = width + 1
    for name, colour in labels_present(label, predicted, class_names):
        shown = name if len(name) <= 28 else name[:27] + "…"
        wide = round(_font().getlength(shown)) + _TEXT + 24
        if left + wide > width:
            lines.append([])
            left = 0
        lines[-1].append((shown, colour, left))
        left += wide
    return lines


def _draw_legend(draw: ImageDraw.ImageDraw, lines: list[list[Entry]], top: int) -> None:
    for row, line in enumerate(lines):
        y = top + row * _LINE + 5
        for name, colour, left in line:
            x = _GAP + left
            draw.rectangle((x, y + 1, x + _TEXT, y + _TEXT + 1), fill=colour)
            draw.text((x + _TEXT + 6, y), name, fill=_INK, font=_font())


def _draw_bar(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    left: int,
    top: int,
    width: int,
    limits: tuple[float, float],
) -> None:
    low, high = (digits(float(end)).replace(MINUS, "-") for end in limits)
    low_wide, high_wide = (round(_font().getlength(text)) + 8 for text in (low, high))
    bar = Image.fromarray(ramp()[None]).resize((max(1, width - low_wide - high_wide), _TEXT - 3))
    draw.text((left, top + 5), low, fill=_INK, font=_font())
    sheet.paste(bar, (left + low_wide, top + 8))
    draw.text((left + width - high_wide + 8, top + 5), high, fill=_INK, font=_font())
