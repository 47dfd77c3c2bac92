"""Colours: one ramp for doubt, one palette for classes, both computed in OKLab.

In OKLab equal distances look about equally different, so the ramp takes equal steps there and
the palette keeps its colours far apart. The ramp's lightness only rises: it reads in grey and
with any colour vision.

Reference:
    A perceptual color space for image processing (Ottosson, 2020),
    https://bottosson.github.io/posts/oklab/
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from doubtmap.datasets.dataset import KNOWN, UNKNOWN, VOID
from doubtmap.errors import UsageError

CODE_COLOURS: dict[int, tuple[int, int, int]] = {
    KNOWN: (205, 205, 205),
    UNKNOWN: (255, 92, 0),
    VOID: (24, 24, 24),
}
"""Colours of the label codes that are no class."""

CODE_NAMES: dict[int, str] = {KNOWN: "known", UNKNOWN: "unknown", VOID: "void"}
"""Words for the label codes that are no class."""

# lightness, chroma and hue in degrees, from calm to alarming: night blue, violet, red, gold, cream
_RAMP = (
    (0.13, 0.030, 285.0),
    (0.28, 0.120, 295.0),
    (0.44, 0.170, 345.0),
    (0.60, 0.190, 25.0),
    (0.74, 0.165, 55.0),
    (0.87, 0.150, 90.0),
    (0.975, 0.045, 105.0),
)

_NATURAL = {
    "road": (128, 84, 140),
    "street": (128, 84, 140),
    "drivablearea": (128, 84, 140),
    "lanemarking": (233, 226, 160),
    "roadmarking": (233, 226, 160),
    "lanemkgsdriv": (233, 226, 160),
    "sidewalk": (224, 122, 190),
    "pavement": (224, 122, 190),
    "footpath": (224, 122, 190),
    "parking": (190, 150, 200),
    "building": (140, 134, 122),
    "house": (140, 134, 122),
    "wall": (112, 120, 150),
    "fence": (190, 153, 133),
    "pole": (178, 186, 192),
    "columnpole": (178, 186, 192),
    "trafficlight": (250, 190, 40),
    "trafficsign": (222, 205, 20),
    "signsymbol": (222, 205, 20),
    "sign": (222, 205, 20),
    "vegetation": (72, 128, 44),
    "tree": (72, 128, 44),
    "forest": (34, 92, 50),
    "grass": (140, 190, 80),
    "terrain": (150, 206, 132),
    "land": (178, 146, 92),
    "soil": (150, 104, 60),
    "sand": (222, 196, 132),
    "sky": (122, 184, 232),
    "water": (32, 92, 172),
    "sea": (32, 92, 172),
    "river": (32, 92, 172),
    "person": (214, 30, 66),
    "pedestrian": (214, 30, 66),
    "rider": (255, 110, 100),
    "bicyclist": (255, 110, 100),
    "cyclist": (255, 110, 100),
    "car": (26, 48, 160),
    "vehicle": (26, 48, 160),
    "truck": (24, 20, 96),
    "bus": (0, 88, 110),
    "train": (0, 120, 120),
    "motorcycle": (84, 60, 230),
    "bicycle": (132, 22, 44),
    "bike": (132, 22, 44),
    "background": (70, 74, 80),
    "other": (70, 74, 80),
    "unlabeled": (70, 74, 80),
}


def class_colours(count: int, class_names: Sequence[str] = ()) -> NDArray[np.uint8]:
    """Colours for classes, far apart from each other and from the label codes.

    Well-known names get the colour of the thing (sky is blue); the others take, one after the
    other, what is farthest from everything chosen. The same input gives the same colours, and
    more classes without names never change the colours of the first ones.

    Args:
        count: how many.
        class_names: in the order of the indices; shorter than `count` or empty is fine.

    Returns:
        `(count, 3)` uint8 sRGB, all different.

    Example:
        >>> class_colours(2, ["sky", "road"]).tolist()
        [[122, 184, 232], [128, 84, 140]]
    """
    if not 0 <= count <= 65536:
        raise UsageError(f"class_colours: expected 0 to 65536 classes, got {count}.")
    return _class_colours(count, tuple(class_names[:count])).copy()


def ramp() -> NDArray[np.uint8]:
    """The colours of doubt, from the least to the most: `(256, 3)` uint8 sRGB."""
    return _ramp().copy()


def colour_labels(labels: NDArray[np.int16], class_names: Sequence[str] = ()) -> NDArray[np.uint8]:
    """Paint a label map: `(H, W)` classes and label codes to `(H, W, 3)` uint8."""
    count = max(len(class_names), int(labels.max(initial=0)) + 1)
    # negative codes index from the end of the table, as NumPy reads them
    codes = np.array([CODE_COLOURS[code] for code in range(KNOWN, 0)], np.uint8)
    table = np.concatenate([class_colours(count, class_names), codes])
    painted: NDArray[np.uint8] = table[np.clip(labels, KNOWN, None)]
    return painted


def colour_doubt(doubt: NDArray[np.float32], limits: tuple[float, float]) -> NDArray[np.uint8]:
    """Paint a doubt map with the ramp: `(H, W)` to `(H, W, 3)` uint8."""
    painted: NDArray[np.uint8] = _ramp()[ramp_index(doubt, limits)]
    return painted


def ramp_index(doubt: NDArray[np.float32], limits: tuple[float, float]) -> NDArray[np.uint8]:
    """Place of each pixel on the ramp, 0 at the lower limit and below, 255 at the upper.

    Args:
        doubt: `(H, W)`.
        limits: lower and upper; where they are equal, all is 0.
    """
    low, high = limits
    if not high > low:
        return np.zeros(doubt.shape, np.uint8)
    place = (doubt.astype(np.float32) - np.float32(low)) * np.float32(255.0 / (high - low))
    index: NDArray[np.uint8] = np.rint(np.clip(place, 0, 255)).astype(np.uint8)
    return index


def robust_limits(doubt: NDArray[np.float32]) -> tuple[float, float]:
    """Limits that a few extreme pixels do not move: the 1st and the 99.5th percentile.

    Taken from at most about half a million evenly spaced pixels.

    Example:
        >>> robust_limits(np.linspace(0, 1, 201, dtype=np.float32))
        (0.009999999776482582, 0.9950000047683716)
    """
    pixels = doubt.ravel()[:: max(1, doubt.size // 500_000)]
    low, high = np.quantile(pixels, (0.01, 0.995))
    if high > low:
        return float(low), float(high)
    return float(doubt.min()), float(doubt.max())


@lru_cache(maxsize=1)
def _ramp() -> NDArray[np.uint8]:
    lightness, chroma, hue = np.array(_RAMP).T
    hue = np.degrees(np.unwrap(np.radians(hue)))
    knots, fine = np.linspace(0, 1, len(_RAMP)), np.linspace(0, 1, 4096)
    lightness, chroma, hue = (np.interp(fine, knots, axis) for axis in (lightness, chroma, hue))
    angle = np.radians(hue)
    path = np.stack([lightness, chroma * np.cos(angle), chroma * np.sin(angle)], 1)
    length = np.concatenate([[0], np.linalg.norm(np.diff(path, axis=0), axis=1).cumsum()])
    even = np.linspace(0, length[-1], 256)
    return _srgb(np.stack([np.interp(even, length, axis) for axis in path.T], 1))


@lru_cache(maxsize=64)
def _class_colours(count: int, names: tuple[str, ...]) -> NDArray[np.uint8]:
    chosen: dict[int, tuple[int, int, int]] = {}
    for index, name in enumerate(names):
        colour = _NATURAL.get(re.sub(r"[^a-z]", "", name.lower()))
        if colour is not None and colour not in chosen.values():
            chosen[index] = colour
    free = [index for index in range(count) if index not in chosen]
    others = _far_apart(min(len(free), 256), tuple(chosen.values()))
    chosen |= dict(zip(free, others))
    taken = set(chosen.values())
    colours = (colour for colour in _scrambled() if colour not in taken)
    chosen |= dict(zip(free[len(others) :], colours))
    return np.array([chosen[index] for index in range(count)], np.uint8).reshape(count, 3)


def _far_apart(count: int, taken: tuple[tuple[int, int, int], ...]) -> list[tuple[int, int, int]]:
    """Greedy farthest points of a grid over sRGB, measured in OKLab."""
    levels = np.arange(13) * 21
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    points = _oklab(grid)
    chroma = np.linalg.norm(points[:, 1:], axis=1)
    vivid = (points[:, 0] > 0.42) & (points[:, 0] < 0.92) & (chroma > 0.06)
    grid, points = grid[vivid], points[vivid]
    distance = np.full(len(points), np.inf)
    for colour in (*CODE_COLOURS.values(), *taken):
        distance = np.minimum(distance, np.linalg.norm(points - _oklab(np.array(colour)), axis=1))
    colours = []
    for _ in range(count):
        best = int(distance.argmax())
        colours.append((int(grid[best, 0]), int(grid[best, 1]), int(grid[best, 2])))
        distance = np.minimum(distance, np.linalg.norm(points - points[best], axis=1))
    return colours


def _scrambled() -> list[tuple[int, int, int]]:
    """Enough different colours for 65536 classes; an odd factor permutes the 24-bit numbers."""
    numbers = (np.arange(1, 66200, dtype=np.int64) * 0x9E3779B1) % (1 << 24)
    return [(int(n) >> 16, int(n) >> 8 & 255, int(n) & 255) for n in numbers]


def _oklab(colour: NDArray[np.generic]) -> NDArray[np.float64]:
    value = colour.astype(np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    result: NDArray[np.float64] = np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T
    return result


def _srgb(lab: NDArray[np.float64]) -> NDArray[np.uint8]:
    cones = (lab @ np.linalg.inv(_TO_LAB).T) ** 3
    linear = np.clip(cones @ np.linalg.inv(_TO_CONES).T, 0, 1)
    value = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    colour: NDArray[np.uint8] = np.rint(value * 255).astype(np.uint8)
    return colour


_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def labels_present(
    label: NDArray[np.int16] | None, predicted: NDArray[np.int16], class_names: Sequence[str]
) -> list[tuple[str, tuple[int, int, int]]]:
    """Names and colours of the classes and label codes in the maps: classes first."""
    maps = [predicted] if label is None else [predicted, label]
    there = sorted({int(v) for m in maps for v in np.unique(m)})
    colours = class_colours(max(len(class_names), there[-1] + 1), class_names)
    classes = [
        (class_names[v] if v < len(class_names) else f"class {v}", _rgb(colours[v]))
        for v in there
        if v >= 0
    ]
    return classes + [(CODE_NAMES[v], CODE_COLOURS[v]) for v in there[::-1] if v in CODE_NAMES]


def _rgb(colour: NDArray[np.uint8]) -> tuple[int, int, int]:
    return int(colour[0]), int(colour[1]), int(colour[2])
