"""Night, fog and rain over a finished scene; at strength 0 each leaves it as it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from doubtmap.datasets.streets.canvas import Array, Color
from doubtmap.datasets.streets.materials import smooth_noise

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
