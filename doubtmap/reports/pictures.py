"""Pictures inside a page: arrays as small `data:` addresses."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from doubtmap.datasets.dataset import KNOWN, UNKNOWN, VOID
from doubtmap.reports.colours import CODE_COLOURS, colour_labels, ramp, ramp_index

_WIDEST = 760
"""Pixels; enough for a quarter of a wide page on a fine screen."""


def photograph(image: NDArray[np.uint8]) -> str:
    """An RGB image as JPEG."""
    picture = Image.fromarray(image)
    picture = picture.resize(_size(image), Image.Resampling.LANCZOS)
    return _address(picture, "JPEG", quality=82, optimize=True)


def label_picture(labels: NDArray[np.int16], class_names: tuple[str, ...]) -> str:
    """Classes and label codes in their colours, as PNG without smoothing."""
    small = np.asarray(
        Image.fromarray(labels.astype(np.int32)).resize(_size(labels), Image.Resampling.NEAREST)
    )
    picture = Image.fromarray(colour_labels(small.astype(np.int16), class_names))
    return _address(picture, "PNG", optimize=True)


STATE_COLOURS = {
    "right": (61, 143, 209),
    "wrong": (200, 36, 140),
    "unknown": CODE_COLOURS[UNKNOWN],
    "void": CODE_COLOURS[VOID],
    "known": CODE_COLOURS[KNOWN],
}
"""Of pixels by what the network makes of their labels."""


def state_picture(labels: NDArray[np.int16], predicted: NDArray[np.int16]) -> str:
    """Which pixels are right and which are wrong, as PNG without smoothing."""
    states = np.where(labels >= 0, (labels != predicted).astype(np.int16), 0)
    for code, state in ((UNKNOWN, 2), (VOID, 3), (KNOWN, 4)):
        states[labels == code] = state
    whole = Image.fromarray(states.astype(np.uint8))
    picture = whole.resize(_size(labels), Image.Resampling.NEAREST)
    picture.putpalette([part for colour in STATE_COLOURS.values() for part in colour])
    return _address(picture, "PNG", optimize=True)


def doubt_picture(doubt: NDArray[np.float32], limits: tuple[float, float]) -> str:
    """A doubt map on the ramp, as PNG; a small pixel is the mean of what it covers."""
    small = np.asarray(
        Image.fromarray(doubt.astype(np.float32)).resize(_size(doubt), Image.Resampling.BOX)
    )
    picture = Image.fromarray(ramp_index(small, limits))
    picture.putpalette(ramp().tobytes())
    return _address(picture, "PNG", optimize=True)


def ramp_picture() -> str:
    """The colour bar."""
    return _address(Image.fromarray(ramp()[None]), "PNG")


def _size(pixels: NDArray[np.generic]) -> tuple[int, int]:
    height, width = pixels.shape[:2]
    shrink = min(1.0, _WIDEST / width)
    return max(1, round(width * shrink)), max(1, round(height * shrink))


def _address(picture: Image.Image, format: str, **options: int) -> str:
    stream = io.BytesIO()
    picture.save(stream, format, **options)
    encoded = base64.b64encode(stream.getvalue()).decode()
    return f"data:image/{format.lower()};base64,{encoded}"
