"""Colours, light and noise that the things of a street share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from doubtmap.streets.canvas import Array, Color

CLASS_NAMES = ("road", "pavement", "building", "vegetation", "sky", "pole", "sign", "vehicle")


ROAD, PAVEMENT, BUILDING, VEGETATION, SKY, POLE, SIGN, VEHICLE = range(8)


TILE = 256
"""Side of the square of noise that ground textures repeat."""


@dataclass(frozen=True)
class Light:
    """The sun of a scene.

    Args:
        left: brightness of faces that look to the left.
        right: brightness of faces that look to the right.
        front: brightness of faces that look at the camera.
        shadow: darkness of shadows on the ground, [0, 1].
        drift: metres to the right that a shadow moves per metre of height.
        reach: metres away from the camera that a shadow moves per metre of height.
        warmth: colour of the light.
    """

    left: float
    right: float
    front: float
    shadow: float
    drift: float
    reach: float
    warmth: Color

    def side(self, looks_right: bool) -> float:
        """Brightness of a face that looks to one side."""
        return self.right if looks_right else self.left


def draw_light(random: Random) -> Light:
    """Choose a sun: its side, its height, and how much of it the clouds let through."""
    sun = random.uniform(0.0, 1.0)
    drift = random.uniform(-1.4, 1.4)
    reach = random.uniform(-0.5, 0.8)
    tilt = 0.3 * sun * drift / 1.4
    base = random.uniform(0.78, 0.92)
    warm = random.uniform(-0.05, 0.09)
    return Light(
        left=base + tilt,
        right=base - tilt,
        front=base + 0.18 * sun * (-1 if reach < 0 else 0.6),
        shadow=0.12 + 0.5 * sun,
        drift=drift,
        reach=reach,
        warmth=(1 + warm, 1.0, 1 - warm),
    )


def rgb(red: int, green: int, blue: int) -> Color:
    """A colour from numbers in [0, 255]."""
    return red / 255, green / 255, blue / 255


def vary(random: Random, color: Color, amount: float = 0.06) -> Color:
    """A colour near this one: some brightness, less hue."""
    shade = 1 + random.uniform(-2, 2) * amount
    red, green, blue = (
        min(max(part * shade + random.uniform(-0.3, 0.3) * amount, 0.0), 1.0) for part in color
    )
    return red, green, blue


def pick(random: Random, colors: Sequence[Color], amount: float = 0.06) -> Color:
    """One of some colours, varied."""
    return vary(random, random.choice(colors), amount)


def mix(one: Color, other: Color, share: float) -> Color:
    """A colour between two."""
    red, green, blue = (a + (b - a) * share for a, b in zip(one, other, strict=True))
    return red, green, blue


def smooth_noise(generator: np.random.Generator, shape: tuple[int, int], cell: float) -> Array:
    """Noise in [-1, 1] whose bumps are about `cell` pixels wide, as `(H, W)`."""
    height, width = shape
    rows, columns = max(2, round(height / cell) + 2), max(2, round(width / cell) + 2)
    coarse = generator.random((rows, columns), dtype=np.float32) * 2 - 1
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise: Array = np.clip(np.asarray(smooth), -1, 1)
    return noise


@lru_cache(maxsize=1)
def noise_tiles() -> tuple[Array, Array, Array]:
    """Three squares of noise in about [-1, 1], fine, middle and coarse, that repeat seamlessly."""
    generator = np.random.default_rng(20)
    tiles = []
    for blur in (0.6, 2.5, 9.0):
        tile = ndimage.gaussian_filter(generator.standard_normal((TILE, TILE)), blur, mode="wrap")
        tiles.append((tile / (2 * tile.std())).astype(np.float32))
    return tiles[0], tiles[1], tiles[2]


def sample_tile(tile: Array, across: Array, ahead: Array, scale: float) -> Array:
    """Read a square of noise at coordinates of the ground, `scale` cells to the metre."""
    rows: NDArray[np.int32] = (ahead * scale).astype(np.int32) & (TILE - 1)
    columns: NDArray[np.int32] = (across * scale).astype(np.int32) & (TILE - 1)
    read: Array = tile[rows, columns]
    return read
