"""Doubt over the photograph: where the network is sure, the picture; where it is not, a glow."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from doubtmap.errors import DataError
from doubtmap.files import write_atomically
from doubtmap.reports.colours import ramp, ramp_index, robust_limits

_BAND = 32
"""Rows that stay in the cache while they are laid."""


def overlay(
    image: NDArray[np.uint8],
    doubt: NDArray[np.float32],
    limits: tuple[float, float] | None = None,
    opacity: float = 0.92,
) -> NDArray[np.uint8]:
    """Lay a doubt map over its image.

    Args:
        image: `(H, W, 3)` RGB.
        doubt: `(H, W)`, finite, higher = more doubt.
        limits: doubt that does not show at all, and doubt that shows most. Give the same to all
            images of a sequence; default: `robust_limits(doubt)`.
        opacity: how much of the photograph the greatest doubt hides, in [0, 1].

    Returns:
        `(H, W, 3)` RGB.

    Raises:
        DataError: where image and doubt do not fit each other, or doubt is not finite.
    """
    if image.ndim != 3 or image.shape[2] != 3 or doubt.shape != image.shape[:2]:
        raise DataError(
            f"overlay: expected image (H, W, 3) and doubt (H, W) of one size, got "
            f"{image.shape} and {doubt.shape}."
        )
    if not np.isfinite(doubt).all():
        raise DataError("overlay: expected finite doubt, got NaN or infinity.")
    limits = robust_limits(doubt) if limits is None else limits
    cover = opacity * np.linspace(0, 1, 256) ** 0.75
    glow = np.rint(256 * cover[:, None] * ramp()).astype(np.uint16)
    # at most 256 * 255 in all, which 16 bits hold
    keep = np.rint(256 * (1 - cover)).astype(np.uint16)
    glow = np.minimum(glow, 255 * (256 - keep)[:, None])
    laid = np.empty(image.shape, np.uint8)
    for start in range(0, len(doubt), _BAND):
        band = slice(start, start + _BAND)
        place = ramp_index(doubt[band], limits)
        mixed = image[band] * keep.take(place)[..., None]
        mixed += glow.take(place, axis=0)
        laid[band] = mixed >> 8
    return laid


def write_overlay(
    path: str | Path,
    image: NDArray[np.uint8],
    doubt: NDArray[np.float32],
    limits: tuple[float, float] | None = None,
    *,
    bar: bool = False,
) -> None:
    """Write `overlay(image, doubt, limits)`: JPEG for `.jpg` and `.jpeg`, PNG otherwise.

    Args:
        path: the file.
        image: `(H, W, 3)` RGB.
        doubt: `(H, W)`, finite, higher = more doubt.
        limits: as for `overlay`.
        bar: whether to put a strip of the colours below the image, with the limits in numbers.
    """
    limits = robust_limits(doubt) if limits is None else limits
    laid = overlay(image, doubt, limits)
    picture = Image.fromarray(
        np.concatenate([laid, colour_bar(laid.shape[1], limits)]) if bar else laid
    )
    stream = io.BytesIO()
    if Path(path).suffix.lower() in (".jpg", ".jpeg"):
        picture.save(stream, "JPEG", quality=90)
    else:
        picture.save(stream, "PNG", compress_level=1)
    write_atomically(path, stream.getvalue())


BAR = 16
"""Height of the strip below an overlay, in pixels."""


def colour_bar(width: int, limits: tuple[float, float]) -> NDArray[np.uint8]:
    """The colours of doubt from the lower to the upper limit, with both in numbers.

    Args:
        width: in pixels.
        limits: doubt at the left and right end.

    Returns:
        `(BAR, width, 3)` RGB; narrow ones have no numbers.
    """
    values = np.linspace(*limits, width, dtype=np.float32)[None].repeat(BAR, axis=0)
    strip = Image.fromarray(overlay(np.zeros((BAR, width, 3), np.uint8), values, limits))
    draw = ImageDraw.Draw(strip)
    low, high = f"{limits[0]:.3g}", f"{limits[1]:.3g}"
    if draw.textlength(low) + draw.textlength(high) + 12 <= width:
        draw.text((3, 2), low, fill=(255, 255, 255))
        right = width - 3 - draw.textlength(high)
        draw.text((right, 2), high, fill=(255, 255, 255), stroke_width=1, stroke_fill=(0, 0, 0))
    return np.asarray(strip)
