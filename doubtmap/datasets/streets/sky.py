"""The sky: a gradient and clouds."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np

from doubtmap.datasets.streets.canvas import Array, Color
from doubtmap.datasets.streets.materials import mix, pick, rgb, smooth_noise
from doubtmap.datasets.streets.view import View

ZENITH = (rgb(84, 132, 196), rgb(110, 156, 208), rgb(150, 166, 184), rgb(176, 180, 184))
HAZE = (rgb(208, 220, 230), rgb(224, 224, 220), rgb(232, 214, 190), rgb(200, 204, 208))


@dataclass(frozen=True)
class Sky:
    """Colours and clouds of a sky.

    Args:
        zenith: colour far above the horizon.
        haze: colour at the horizon.
        cloud: colour of clouds.
        cover: how much of it is cloud, [0, 1].
    """

    zenith: Color
    haze: Color
    cloud: Color
    cover: float


def draw_sky(random: Random) -> Sky:
    """Choose a sky."""
    zenith = pick(random, ZENITH, 0.04)
    haze = mix(pick(random, HAZE, 0.03), zenith, 0.2)
    cloud = pick(random, (rgb(240, 240, 240), rgb(196, 200, 206), rgb(226, 214, 204)), 0.03)
    return Sky(zenith, haze, cloud, random.uniform(0.0, 0.9))


def paint_sky(view: View, sky: Sky, generator: np.random.Generator) -> Array:
    """Colour of the sky over the whole image, `(H, W, 3)` in [0, 1]."""
    height, width = view.height, view.width
    rows = np.arange(height, dtype=np.float32) / max(view.horizon, 1.0)
    fall = (np.clip(rows, 0, 1) ** 1.5)[:, None, None]
    zenith, haze = (np.asarray(color, dtype=np.float32) for color in (sky.zenith, sky.haze))
    color = zenith + fall * (haze - zenith)
    # wider than high: clouds are seen from below
    high = smooth_noise(generator, (height, width // 3 + 1), height * 0.16)
    wide = np.repeat(high, 3, axis=1)[:, :width]
    fluff = smooth_noise(generator, (height, width), height * 0.045)
    puffs = smooth_noise(generator, (height, width), height * 0.12)
    amount = np.clip((0.5 * wide + 0.35 * puffs + 0.2 * fluff + sky.cover - 0.5) * 2.2, 0, 1)
    shade = np.asarray(sky.cloud, dtype=np.float32) * (1 + 0.06 * fluff)[..., None]
    painted: Array = color + (0.85 * amount * (1 - 0.4 * fall[..., 0]))[..., None] * (shade - color)
    return painted
