"""What lies between a scene and its image: weather, sky and the camera.

Night, fog and rain lie over a finished scene, and at strength 0 each leaves it as it is; the sky is
a gradient with clouds; the camera adds exposure, colour cast, vignette, blur and noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from doubtmap.streets.canvas import Array, Color, View
from doubtmap.streets.materials import mix, pick, rgb, smooth_noise

WEATHERS = ("clear", "night", "fog", "rain")


@dataclass(frozen=True)
class Frame:
    """A scene before weather and sensor.

    Args:
        color: `(H, W, 3)` in [0, 1], may run a little over.
        depth: `(H, W)` metres.
        sun: `(H, W)`, how much of the sun's light reaches the bare ground, 1 elsewhere.
        ground: `(H, W)`, whether the bare ground is seen.
        glow: `(H, W, 3)`, light that surfaces give off.
        horizon: row of the horizon.
        haze: colour of the air far away.
    """

    color: Array
    depth: Array
    sun: Array
    ground: NDArray[np.bool_]
    glow: Array
    horizon: float
    haze: Color


def weathered(frame: Frame, weather: str, strength: float, generator: np.random.Generator) -> Array:
    """Colour of the scene in some weather, `(H, W, 3)`."""
    if strength == 0 or weather == "clear":
        return frame.color
    return {"night": _night, "fog": _fog, "rain": _rain}[weather](frame, strength, generator)


def _without_sun(frame: Frame, share: float) -> Array:
    """The scene with its cast shadows filled."""
    filled: Array = frame.color * (frame.sun ** np.float32(-share))[..., None]
    return filled


def _night(frame: Frame, strength: float, generator: np.random.Generator) -> Array:
    height, width = frame.depth.shape
    dark = np.asarray([0.1, 0.12, 0.19], dtype=np.float32) * generator.uniform(0.6, 1.5)
    ambient = 1 - strength * (1 - dark)
    columns = (np.arange(width, dtype=np.float32)[None] / width - 0.5) / 0.34
    rows = (np.arange(height, dtype=np.float32)[:, None] - frame.horizon) / height
    cone = np.exp(-(columns**2)) / (1 + np.exp(-(rows + 0.05) * 40))
    reach = np.exp(-frame.depth / 20) * np.clip(frame.depth / 5, 0.2, 1)
    beam = (1.35 * strength * cone * reach)[..., None]
    color = _without_sun(frame, 0.9 * strength) * (
        ambient + beam * np.asarray([1.0, 0.95, 0.82], dtype=np.float32)
    )
    light = frame.glow * strength
    near = ndimage.gaussian_filter(light, (height / 160, height / 160, 0))
    wide = ndimage.uniform_filter(light, (height // 14 + 1, height // 14 + 1, 1))
    wide = ndimage.uniform_filter(wide, (height // 14 + 1, height // 14 + 1, 1))
    warm = np.asarray([1.0, 0.9, 0.7], dtype=np.float32)
    lit: Array = color + 0.55 * light + (0.7 * near + 1.1 * wide) * warm
    return lit


def _fog(frame: Frame, strength: float, generator: np.random.Generator) -> Array:
    height, width = frame.depth.shape
    drift = smooth_noise(generator, (height, width), height * 0.35)
    thick = 0.05 * strength * (1 + 0.35 * drift)
    clear = np.exp(-np.minimum(frame.depth, 250) * thick)[..., None]
    haze = np.asarray(frame.haze, dtype=np.float32)
    air = 0.35 * haze + 0.65 * (haze.mean() * 0.92 + 0.02 * drift[..., None])
    fogged: Array = _without_sun(frame, 0.8 * strength) * clear + air * (1 - clear)
    return fogged


def _rain(frame: Frame, strength: float, generator: np.random.Generator) -> Array:
    height, width = frame.depth.shape
    grey = frame.color.mean(axis=2, keepdims=True)
    color = _without_sun(frame, 0.7 * strength)
    color = color + 0.45 * strength * (grey - color)
    veil = 1 - np.exp(-np.minimum(frame.depth, 200) * 0.008 * strength)[..., None]
    color = color * (1 - 0.12 * strength) * (1 - veil) + 0.6 * veil
    color = _wet(frame, color, strength, generator)
    drops = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(drops)
    slant = float(generator.uniform(-0.3, 0.3))
    count = int(420 * strength)
    starts, lengths = generator.random((count, 2)), generator.uniform(0.02, 0.09, count)
    for (x, y), long in zip(starts, lengths, strict=True):
        top, left = (y * 1.1 - 0.1) * height, x * width
        line = (left, top, left + slant * long * height, top + long * height)
        pen.line(line, fill=int(60 + 120 * long / 0.09), width=max(1, round(height / 300)))
    streaks = ndimage.gaussian_filter(np.asarray(drops, dtype=np.float32) / 255, height / 420)
    rained: Array = color + (0.34 * strength * streaks)[..., None] * (0.85 - color)
    return rained


def _wet(frame: Frame, color: Array, strength: float, generator: np.random.Generator) -> Array:
    """The ground darker, and what stands on it mirrored at its foot."""
    height, width = frame.depth.shape
    rows = np.arange(height)[:, None]
    foot = np.maximum.accumulate(np.where(frame.ground, 0, rows), axis=0)
    source = np.clip(2 * foot - rows, 0, height - 1)
    mirrored = color[source, np.arange(width)[None]]
    blur = max(1, height // 40)
    mirrored = ndimage.uniform_filter1d(mirrored, blur * 2 + 1, axis=0)
    mirrored = ndimage.uniform_filter1d(mirrored, max(1, blur // 2) * 2 + 1, axis=1)
    puddle = smooth_noise(generator, (height, width // 3 + 1), height * 0.06)
    puddles = np.clip(0.5 + 1.4 * np.repeat(puddle, 3, axis=1)[:, :width], 0.15, 1)
    grazing = np.clip(1 - (rows - frame.horizon) / (0.75 * height), 0.25, 1)
    share = (strength * 0.62 * puddles * grazing * frame.ground)[..., None]
    wet = color * (1 - 0.3 * strength * frame.ground[..., None]) * (1 - share)
    reflecting: Array = wet + mirrored * share
    return reflecting


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


def expose(color: Array, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Turn light into an image, `(H, W, 3)` uint8."""
    height, width = color.shape[:2]
    gain = np.float32(generator.uniform(0.95, 1.22))
    cast = generator.uniform(-0.05, 0.05, 3).astype(np.float32)
    contrast = generator.uniform(0.85, 1.15)
    blur = generator.uniform(0.25, 0.7) * max(1.0, height / 400)
    noise = np.float32(generator.uniform(0.006, 0.022))
    exposed = ndimage.gaussian_filter1d(color, blur, axis=0)
    exposed = ndimage.gaussian_filter1d(exposed, blur, axis=1)
    rows = (np.arange(height, dtype=np.float32)[:, None] / height - 0.5) ** 2
    columns = (np.arange(width, dtype=np.float32)[None] / width - 0.5) ** 2
    exposed *= (gain * (1 - 0.35 * (rows + columns)))[..., None] * (1 + cast)
    exposed = np.clip(exposed, 0, None)
    # a soft shoulder instead of clipped lights
    exposed = np.where(exposed > 0.85, 0.85 + 0.15 * np.tanh((exposed - 0.85) / 0.15), exposed)
    exposed = (exposed - 0.45) * np.float32(contrast) + 0.45
    grain = generator.standard_normal((height, width, 3), dtype=np.float32)
    exposed += noise * grain
    developed: NDArray[np.uint8] = (np.clip(exposed, 0, 1) * 255 + 0.5).astype(np.uint8)
    return developed
