"""The camera on its road: where a point beside the road, above it and ahead lands in the image."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

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
