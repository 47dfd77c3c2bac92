"""The ground: road with its markings, kerbs, pavements and verges, computed pixel by pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from doubtmap.streets.canvas import Array, Color, View
from doubtmap.streets.materials import (
    PAVEMENT,
    ROAD,
    VEGETATION,
    noise_tiles,
    pick,
    rgb,
    sample_tile,
    vary,
)

ASPHALT = (rgb(92, 92, 95), rgb(112, 110, 108), rgb(76, 78, 82), rgb(128, 124, 118))


CONCRETE = (rgb(150, 147, 142), rgb(168, 160, 150), rgb(128, 127, 126), rgb(150, 128, 116))


GRASS = (rgb(92, 112, 60), rgb(112, 120, 70), rgb(76, 98, 54), rgb(140, 132, 86))


WHITE, YELLOW = rgb(214, 214, 208), rgb(206, 176, 84)


FARTHEST = 300.0


@dataclass(frozen=True)
class Roadside:
    """The strips beside one side of the road, in metres from its centre line.

    Args:
        verge: where the grass between kerb and pavement ends.
        pavement: where the pavement ends.
        line: where buildings and gardens begin.
        paved: whether the ground between pavement and line is paved too.
    """

    verge: float
    pavement: float
    line: float
    paved: bool


@dataclass(frozen=True)
class Street:
    """The ground plan and its materials.

    Args:
        half: half the road's width, in metres.
        lanes: number of lanes.
        left: strips to the left.
        right: strips to the right.
        asphalt: colour of the road.
        slabs: colour of the pavement.
        grass: colour of the verges.
        paint: colour of the markings.
        markings: how well they are kept, [0, 1].
        dashed: whether the centre line is dashed.
        edges: whether the road has edge lines.
        zebra: distance of a pedestrian crossing, metres, or none.
        patches: darker repairs as (s, z, half width, half length).
        cycle_lane: colour and width of a strip at the right edge, or none.
        seed: offset into the noise.
    """

    half: float
    lanes: int
    left: Roadside
    right: Roadside
    asphalt: Color
    slabs: Color
    grass: Color
    paint: Color
    markings: float
    dashed: bool
    edges: bool
    zebra: float | None
    patches: tuple[tuple[float, float, float, float], ...]
    cycle_lane: tuple[Color, float] | None
    seed: float

    def roadside(self, side: int) -> Roadside:
        """The strips of side -1 (left) or 1 (right)."""
        return self.right if side > 0 else self.left


def draw_street(random: Random) -> Street:
    """Choose a ground plan."""
    lanes = random.choice([2, 2, 2, 3, 4])
    half = lanes * random.uniform(2.7, 3.6) / 2
    asphalt = pick(random, ASPHALT, 0.08)
    slabs = vary(random, asphalt, 0.1) if random.random() < 0.3 else pick(random, CONCRETE, 0.08)
    patches = tuple(
        (
            random.uniform(-half, half),
            random.uniform(4, 40),
            random.uniform(0.3, 1.6),
            random.uniform(0.4, 4.0),
        )
        for _ in range(random.randint(0, 4))
    )
    cycle_lane = None
    if random.random() < 0.2:
        cycle_lane = (pick(random, (rgb(150, 84, 72), rgb(96, 122, 92), rgb(120, 110, 104))), 1.4)
    return Street(
        half=half,
        lanes=lanes,
        left=_roadside(random, half),
        right=_roadside(random, half),
        asphalt=asphalt,
        slabs=slabs,
        grass=pick(random, GRASS, 0.08),
        paint=YELLOW if random.random() < 0.15 else WHITE,
        markings=random.uniform(0.3, 1.0) if random.random() < 0.9 else 0.0,
        dashed=random.random() < 0.7,
        edges=random.random() < 0.5,
        zebra=random.uniform(8, 28) if random.random() < 0.22 else None,
        patches=patches,
        cycle_lane=cycle_lane,
        seed=random.uniform(0, 1000),
    )


def _roadside(random: Random, half: float) -> Roadside:
    verge = half + (random.uniform(0.8, 2.5) if random.random() < 0.25 else 0.0)
    pavement = verge + (random.uniform(1.5, 4.5) if random.random() < 0.9 else 0.3)
    line = pavement + (random.uniform(1.0, 7.0) if random.random() < 0.55 else 0.0)
    return Roadside(verge, pavement, line, paved=random.random() < 0.35)


@dataclass(frozen=True)
class Ground:
    """The ground as the camera sees it, from row `top` down.

    Args:
        top: first row of the ground.
        color: `(h, W, 3)` in [0, 1].
        label: `(h, W)` int16.
        depth: `(h, W)` metres.
        rough: `(h, W)` strength of fine texture still to be added.
    """

    top: int
    color: Array
    label: NDArray[np.int16]
    depth: Array
    rough: Array


class _Plan:
    """Ground coordinates of the pixels below the horizon, and soft masks over them."""

    def __init__(self, view: View, street: Street) -> None:
        self.top = max(0, math.ceil(view.horizon + 0.5))
        rows = np.arange(self.top, view.height, dtype=np.float32) + 0.5 - view.horizon
        self.z = np.minimum(view.focal * view.eye / rows, FARTHEST)[:, None].astype(np.float32)
        columns = np.arange(view.width, dtype=np.float32)[None] + 0.5 - view.width / 2
        centre = view.offset + view.heading * self.z + 0.5 * view.bend * self.z**2
        self.s = (columns * self.z / view.focal - centre).astype(np.float32)
        self.pixel = self.z / view.focal
        self.long = self.pixel * self.z / view.eye
        self.across = self.s + np.float32(street.seed)
        self.ahead = np.broadcast_to(self.z, self.s.shape) + np.float32(street.seed)
        self.near = np.clip(14 / self.z, 0.05, 1)

    def stripe(self, at: float, width: float) -> Array:
        """Cover of a line along the road, `width` metres wide."""
        mask = np.clip((width / 2 - np.abs(self.s - np.float32(at))) / self.pixel + 0.5, 0, 1)
        covered: Array = mask * np.minimum(1, width / self.pixel)
        return covered

    def bar(self, at: float, width: float) -> Array:
        """Cover of a band across the road, as `(h, 1)`."""
        mask = np.clip((width / 2 - np.abs(self.z - np.float32(at))) / self.long + 0.5, 0, 1)
        covered: Array = mask * np.minimum(1, width / self.long)
        return covered


def _blend(color: Array, mask: Array, other: Color) -> None:
    color += mask[..., None] * (np.asarray(other, dtype=np.float32) - color)


def _road(plan: _Plan, street: Street, middle: Array, coarse: Array) -> Array:
    color = np.empty((*plan.s.shape, 3), dtype=np.float32)
    tone = 1 + 0.06 * coarse + 0.05 * middle * plan.near
    lane = 2 * street.half / street.lanes
    within = np.mod(plan.s + np.float32(street.half), np.float32(lane)) / lane - 0.5
    tone -= 0.07 * np.exp(-(((np.abs(within) - 0.26) / 0.09) ** 2))
    for s, z, half_width, half_length in street.patches:
        patch = plan.stripe(s, 2 * half_width) * plan.bar(z, 2 * half_length)
        tone *= 1 - 0.22 * patch
    crack = np.clip(1 - np.abs(middle + 0.3 * coarse - 0.4) * 22, 0, 1) * plan.near
    tone -= 0.14 * crack * (coarse > 0.1)
    color[:] = tone[..., None] * np.asarray(street.asphalt, dtype=np.float32)
    if street.cycle_lane is not None:
        tint, width = street.cycle_lane
        _blend(color, 0.85 * plan.stripe(street.half - width / 2 - 0.1, width), tint)
    if street.markings:
        _mark(plan, street, color, lane, np.clip(0.9 + 0.8 * middle, 0, 1))
    return color


def _mark(plan: _Plan, street: Street, color: Array, lane: float, wear: Array) -> None:
    kept = wear * street.markings
    if street.zebra is not None:
        bands = np.clip(np.abs(np.mod(plan.s, 1.0) - 0.5) * 8 - 1.5, 0, 1)
        inside = np.abs(plan.s) < street.half - 0.3
        _blend(color, kept * plan.bar(street.zebra, 3.2) * bands * inside, street.paint)
        _blend(color, kept * plan.bar(street.zebra - 3.2, 0.4) * inside, street.paint)
    for number in range(1, street.lanes):
        at = -street.half + number * lane
        middle = 2 * number == street.lanes
        mask = plan.stripe(at, 0.15)
        if street.dashed or not middle:
            mask = mask * np.clip(4 - np.abs(np.mod(plan.z, 9.0) - 4.5) * 2.2, 0, 1)
        _blend(color, kept * mask, street.paint)
    if street.edges:
        for at in (-street.half + 0.3, street.half - 0.3):
            _blend(color, kept * plan.stripe(at, 0.13), street.paint)


def _slabs(plan: _Plan, street: Street, middle: Array, coarse: Array) -> Array:
    tone = 1 + 0.05 * coarse + 0.05 * middle * plan.near
    joint_across = np.abs(np.mod(plan.s, 0.75) - 0.375) > 0.355
    joint_ahead = np.abs(np.mod(plan.z, 0.75) - 0.375) > 0.34
    tone -= 0.16 * (joint_across | joint_ahead) * np.clip(9 / plan.z, 0, 1)
    shaded: Array = tone[..., None] * np.asarray(street.slabs, dtype=np.float32)
    return shaded


def draw_ground(view: View, street: Street) -> Ground:
    """Compute colour, label and depth of everything below the horizon."""
    plan = _Plan(view, street)
    _, middle_tile, coarse_tile = noise_tiles()
    middle = sample_tile(middle_tile, plan.across, plan.ahead, 14)
    coarse = sample_tile(coarse_tile, plan.across, plan.ahead, 9)
    color = _road(plan, street, middle, coarse)
    label = np.full(plan.s.shape, ROAD, dtype=np.int16)
    rough = np.full(plan.s.shape, 0.05, dtype=np.float32)

    slabs = _slabs(plan, street, middle, coarse)
    tone = 1 + 0.16 * coarse + 0.22 * middle * np.clip(25 / plan.z, 0.3, 1)
    grass = tone[..., None] * np.asarray(street.grass, dtype=np.float32)
    grass[..., 0] *= 1 + 0.12 * coarse

    def lay(mask: NDArray[np.bool_], material: Array, kind: int, grain: float) -> None:
        np.copyto(color, material, where=mask[..., None])
        label[mask] = kind
        rough[mask] = grain

    for side in (-1, 1):
        strips = street.roadside(side)
        distance = plan.s * side
        lay(distance > street.half, grass, VEGETATION, 0.16)
        outer = strips.line + 0.5 if strips.paved else strips.pavement
        lay((distance > strips.verge) & (distance < outer), slabs, PAVEMENT, 0.05)
        kerb = (distance > street.half) & (distance < street.half + 0.25)
        lay(kerb, slabs * np.float32(1.22), PAVEMENT, 0.05)
        gutter = (distance > street.half - 0.22) & (distance <= street.half)
        color[gutter] *= 0.8
    depth = np.broadcast_to(plan.z, plan.s.shape)
    return Ground(plan.top, color, label, depth, rough * np.clip(18 / plan.z, 0.4, 1))
