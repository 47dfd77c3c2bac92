"""The canvas of a street, and the camera that looks at it.

The canvas holds numbered surfaces, painted far to near: the last one decides a pixel. What a
surface is (its label, colour, texture, depth) is looked up by its number at the end. The camera
says where a point beside the road, above it and ahead lands in the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

NEAREST = 0.8
"""Metres ahead of the camera; nearer points are moved there."""


@dataclass(frozen=True)
class View:
    """A pinhole camera above a curved road.

    The world has three coordinates in metres: `s` to the right of the road's centre line, `y`
    above the road, `z` ahead of the camera. The centre line itself lies `offset + heading z +
    bend z^2 / 2` to the right of the camera.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        focal: focal length, in pixels.
        horizon: row of the horizon, in pixels.
        eye: height of the camera, in metres.
        offset: of the centre line at the camera, in metres.
        heading: slope of the centre line at the camera.
        bend: change of that slope, per metre.
    """

    width: int
    height: int
    focal: float
    horizon: float
    eye: float
    offset: float
    heading: float
    bend: float

    def centre(self, z: float) -> float:
        """Where the road's centre line lies at this distance, in metres right of the camera."""
        return self.offset + self.heading * z + 0.5 * self.bend * z * z

    def pixel(self, s: float, y: float, z: float) -> tuple[float, float]:
        """Column and row of a point of the world."""
        z = max(z, NEAREST)
        column = self.width / 2 + self.focal * (self.centre(z) + s) / z
        return column, self.horizon + self.focal * (self.eye - y) / z

    def is_right(self, s: float, z: float) -> bool:
        """Whether a point lies to the right of the line of sight."""
        return self.centre(max(z, NEAREST)) + s > 0


def draw_view(random: Random, width: int, height: int, lane: float) -> View:
    """Choose a camera whose own lane lies `lane` metres right of the centre line."""
    return View(
        width=width,
        height=height,
        focal=min(width, 2 * height) * random.uniform(0.58, 0.85),
        horizon=height * random.uniform(0.33, 0.52),
        eye=random.uniform(1.25, 2.3),
        offset=-lane + random.uniform(-0.5, 0.5),
        heading=random.gauss(0, 0.035),
        bend=random.choice([0.0, 0.0, 1.0, 1.0]) * random.gauss(0, 0.0028),
    )


Color = tuple[float, float, float]


Point = tuple[float, float, float]


Array = NDArray[np.float32]


FINE = 2
"""Surfaces are drawn at this many times the image's resolution, then averaged."""


@dataclass(frozen=True)
class Paint:
    """What a surface is and looks like.

    Args:
        label: class index, or unknown or void.
        color: RGB in [0, 1].
        grain: strength of the fine texture.
        blotch: strength of the coarse texture.
        glow: how much of the colour it gives off as light at night.
    """

    label: int
    color: Color
    grain: float = 0.04
    blotch: float = 0.05
    glow: float = 0.0

    def lit(self, light: float) -> Paint:
        """The same surface under more or less light."""
        red, green, blue = self.color
        return replace(self, color=(red * light, green * light, blue * light))

    def tinted(self, color: Color, glow: float = 0.0) -> Paint:
        """The same material in another colour."""
        return replace(self, color=color, glow=glow)


@dataclass(frozen=True)
class Layers:
    """What the canvas shows, pixel by pixel.

    Args:
        color: `(H, W, 3)` in [0, 1], weighted by `cover`.
        cover: `(H, W)`, part of the pixel that surfaces hide.
        owner: `(H, W)`, whether a surface decides the pixel's label.
        label: `(H, W)` int16, where `owner`.
        depth: `(H, W)` metres, where `owner`.
        grain: `(H, W)` strength of the fine texture.
        blotch: `(H, W)` strength of the coarse texture.
        glow: `(H, W)` part of the colour that is given off as light.
    """

    color: Array
    cover: Array
    owner: NDArray[np.bool_]
    label: NDArray[np.int16]
    depth: Array
    grain: Array
    blotch: Array
    glow: Array


class Canvas:
    """Shapes of the world, drawn as the view sees them, and their shadows on the ground."""

    def __init__(self, view: View) -> None:
        self.view = view
        size = (view.width, view.height)
        self._surfaces = Image.new("I", (size[0] * FINE, size[1] * FINE), 0)
        self._pen = ImageDraw.Draw(self._surfaces)
        self.shadow = Image.new("L", size, 0)
        self.contact = Image.new("L", size, 0)
        self._shadow_pens = (ImageDraw.Draw(self.shadow), ImageDraw.Draw(self.contact))
        self._rows: list[tuple[float, ...]] = [(0.0,) * 9]

    def polygon(self, points: Sequence[Point], paint: Paint) -> None:
        """Fill a polygon of the world, its corners given as (s, y, z)."""
        corners = [self.view.pixel(*point) for point in points]
        columns = [corner[0] for corner in corners]
        left, right = min(columns), max(columns)
        if right < 0 or left > self.view.width:
            return
        rows = [corner[1] for corner in corners]
        if max(rows) < 0 or min(rows) > self.view.height:
            return
        near = 1 / max(points[columns.index(left)][2], NEAREST)
        far = 1 / max(points[columns.index(right)][2], NEAREST)
        slope = (far - near) / (right - left) if right - left > 1e-3 else 0.0
        limit = 8 * max(self.view.width, self.view.height)
        outline = [
            (min(max(column, -limit), limit) * FINE, min(max(row, -limit), limit) * FINE)
            for column, row in corners
        ]
        self._pen.polygon(outline, fill=self._number(paint, near - slope * left, slope))

    def panel(
        self,
        across: tuple[float, float],
        up: tuple[float, float],
        z: float,
        paint: Paint,
    ) -> None:
        """Fill an upright rectangle that faces the camera."""
        (left, right), (low, high) = across, up
        self.polygon([(left, low, z), (left, high, z), (right, high, z), (right, low, z)], paint)

    def ellipse(self, centre: Point, across: float, up: float, paint: Paint) -> None:
        """Fill an upright ellipse that faces the camera; half-axes in metres."""
        column, row = self.view.pixel(*centre)
        scale = self.view.focal / max(centre[2], NEAREST)
        across, up = across * scale, up * scale
        if column + across < 0 or column - across > self.view.width:
            return
        if row + up < 0 or row - up > self.view.height:
            return
        box = (column - across, row - up, column + across, row + up)
        number = self._number(paint, 1 / max(centre[2], NEAREST), 0.0)
        self._pen.ellipse([edge * FINE for edge in box], fill=number)

    def pixels(self, outline: Sequence[tuple[float, float]], paint: Paint, depth: float) -> None:
        """Fill a polygon given in pixels, all of it at one depth."""
        number = self._number(paint, 1 / depth, 0.0)
        self._pen.polygon([(column * FINE, row * FINE) for column, row in outline], fill=number)

    def shade(
        self,
        points: Sequence[tuple[float, float]],
        darkness: float = 1.0,
        *,
        contact: bool = False,
    ) -> None:
        """Let a shadow fall on a polygon of the ground, its corners given as (s, z).

        The shadow is the sun's, or the one right under a thing that no weather takes away.
        """
        outline = [self.view.pixel(s, 0, z) for s, z in points]
        limit = 8 * max(self.view.width, self.view.height)
        clipped = [
            (min(max(column, -limit), limit), min(max(row, -limit), limit))
            for column, row in outline
        ]
        self._shadow_pens[contact].polygon(clipped, fill=int(255 * darkness))

    def layers(self) -> Layers:
        """Look up what every pixel shows."""
        number = np.asarray(self._surfaces)
        table = np.asarray(self._rows, dtype=np.float32)
        palette = np.empty((len(table), 4), dtype=np.float32)
        palette[:, :3] = table[:, :3]
        palette[:, 3] = 1
        palette[0] = 0
        height, width = self.view.height, self.view.width
        fine = palette[number]
        mixed = fine[0::FINE] + fine[1::FINE]
        mixed = (mixed[:, 0::FINE] + mixed[:, 1::FINE]) / FINE**2
        owner = number[::FINE, ::FINE]
        rows = table[owner]
        column = np.arange(width, dtype=np.float32)[None]
        inverse = np.clip(rows[..., 7] + rows[..., 8] * column, 1 / 400, 1 / NEAREST)
        assert mixed.shape[:2] == (height, width)
        return Layers(
            color=np.ascontiguousarray(mixed[..., :3]),
            cover=np.ascontiguousarray(mixed[..., 3]),
            owner=owner > 0,
            label=rows[..., 3].astype(np.int16),
            depth=1 / inverse,
            grain=rows[..., 4],
            blotch=rows[..., 5],
            glow=rows[..., 6],
        )

    def _number(self, paint: Paint, inverse: float, slope: float) -> int:
        red, green, blue = paint.color
        self._rows.append(
            (red, green, blue, paint.label, paint.grain, paint.blotch, paint.glow, inverse, slope)
        )
        return len(self._rows) - 1
