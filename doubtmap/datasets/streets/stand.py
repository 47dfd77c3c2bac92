"""Where an unknown thing stands, and the pen that draws it there."""

from __future__ import annotations

import math
from random import Random

from doubtmap.datasets.dataset import UNKNOWN
from doubtmap.datasets.streets.canvas import Canvas, Color, Paint
from doubtmap.datasets.streets.materials import Light, pick, rgb

LOUD = (
    rgb(212, 40, 120),
    rgb(236, 118, 28),
    rgb(40, 190, 186),
    rgb(122, 52, 168),
    rgb(228, 208, 40),
    rgb(60, 190, 80),
)
"""Colours that nothing known has."""


class Stand:
    """A place on the ground where something stands, and the pen that draws there."""

    def __init__(self, canvas: Canvas, random: Random, light: Light, s: float, z: float) -> None:
        self.canvas, self.random, self.light, self.s, self.z = canvas, random, light, s, z

    def paint(self, color: Color, grain: float = 0.08, blotch: float = 0.12) -> Paint:
        """A material of something unknown, under this scene's light."""
        return Paint(UNKNOWN, color, grain, blotch).lit(self.light.front)

    def oval(
        self, right: float, up: float, across: float, high: float, paint: Paint, near: float = 0.0
    ) -> None:
        """An ellipse, by its middle and half-axes in metres."""
        self.canvas.ellipse((self.s + right, up, self.z - near), across, high, paint)

    def shape(self, points: list[tuple[float, float]], paint: Paint, near: float = 0.0) -> None:
        """A polygon that faces the camera, as (right, up) in metres."""
        self.canvas.polygon([(self.s + right, up, self.z - near) for right, up in points], paint)

    def block(
        self, across: tuple[float, float], up: tuple[float, float], paint: Paint, near: float = 0.0
    ) -> None:
        """An upright rectangle, by its extent to the right and up, in metres."""
        (left, right), (low, high) = across, up
        self.shape([(left, low), (left, high), (right, high), (right, low)], paint, near)

    def taper(self, foot: tuple[float, float], top: tuple[float, float], paint: Paint) -> None:
        """A shape that narrows upwards, by its half widths and their heights in metres."""
        (wide, low), (narrow, high) = foot, top
        self.shape([(-wide, low), (-narrow, high), (narrow, high), (wide, low)], paint)

    def bar(
        self, start: tuple[float, float], end: tuple[float, float], thick: float, paint: Paint
    ) -> None:
        """A straight limb, from one point to another."""
        (x1, y1), (x2, y2) = start, end
        long = math.hypot(x2 - x1, y2 - y1) + 1e-6
        dx, dy = -(y2 - y1) / long * thick / 2, (x2 - x1) / long * thick / 2
        self.shape(
            [(x1 + dx, y1 + dy), (x2 + dx, y2 + dy), (x2 - dx, y2 - dy), (x1 - dx, y1 - dy)], paint
        )

    def shadow(self, half: float, high: float) -> None:
        """Darken the ground under and beside it."""
        s, z, light = self.s, self.z, self.light
        ring = [(math.cos(k * 0.63), math.sin(k * 0.63)) for k in range(10)]
        self.canvas.shade(
            [(s + half * 1.05 * c, max(z + half * 0.4 * d, 1.2)) for c, d in ring], contact=True
        )
        fall_s, fall_z = s + light.drift * high * 0.7, max(z + light.reach * high * 0.7, 1.2)
        self.canvas.shade(
            [
                (s - half * 0.8, z),
                (s + half * 0.8, z),
                (fall_s + half * 0.6, fall_z),
                (fall_s - half * 0.6, fall_z),
            ],
            0.9,
        )

    def material(self, *palettes: tuple[Color, ...], loud: float = 0.35) -> Color:
        """A colour from these palettes, or with some chance a loud one."""
        palette = LOUD if self.random.random() < loud else self.random.choice(palettes)
        return pick(self.random, palette, 0.1)
