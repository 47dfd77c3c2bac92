"""Cars, vans, buses and lorries: profiles pushed out into bodies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from doubtmap.streets.canvas import Canvas, Color, Paint, Point
from doubtmap.streets.materials import VEHICLE, Light, pick, rgb, vary

LACQUER = (
    rgb(196, 198, 200),
    rgb(226, 226, 224),
    rgb(38, 40, 44),
    rgb(96, 100, 106),
    rgb(140, 32, 34),
    rgb(44, 66, 112),
    rgb(74, 92, 58),
    rgb(150, 138, 112),
    rgb(104, 60, 48),
    rgb(188, 128, 48),
    rgb(108, 128, 140),
)


CANVAS_COVER = (
    rgb(190, 178, 160),
    rgb(142, 86, 70),
    rgb(82, 98, 66),
    rgb(206, 206, 204),
    rgb(70, 92, 128),
)


PANE, RUBBER = rgb(44, 52, 60), rgb(28, 28, 30)


TAIL, HEAD = rgb(178, 30, 30), rgb(236, 234, 220)


Profile = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class VehicleModel:
    """A kind of vehicle; its profile runs over the top from tail to nose, in parts of its size.

    Args:
        length: metres, from and to.
        width: metres.
        height: metres, from and to.
        profile: (along, up) points.
        glass: which edges of the profile are windows.
        windows: side windows as (along from, along to at the top, up from, up to).
        wheels: positions along.
        taper: how much narrower the roof is than the body.
    """

    length: tuple[float, float]
    width: float
    height: tuple[float, float]
    profile: Profile
    glass: tuple[int, ...]
    windows: tuple[tuple[float, float, float, float], ...]
    wheels: tuple[float, ...]
    taper: float = 0.0


CAR = VehicleModel(
    length=(3.8, 4.9),
    width=1.8,
    height=(1.4, 1.75),
    profile=(
        (0, 0.16),
        (0, 0.58),
        (0.05, 0.64),
        (0.2, 1.0),
        (0.58, 1.0),
        (0.74, 0.64),
        (0.99, 0.52),
        (1, 0.16),
    ),
    glass=(2, 4),
    windows=((0.13, 0.4, 0.66, 0.94), (0.42, 0.68, 0.66, 0.94)),
    wheels=(0.19, 0.8),
    taper=0.2,
)


HATCH = VehicleModel(
    length=(3.5, 4.4),
    width=1.75,
    height=(1.45, 1.8),
    profile=(
        (0, 0.16),
        (0, 0.58),
        (0.03, 0.62),
        (0.1, 0.97),
        (0.55, 1.0),
        (0.74, 0.62),
        (0.99, 0.5),
        (1, 0.16),
    ),
    glass=(2, 4),
    windows=((0.09, 0.4, 0.63, 0.93), (0.42, 0.68, 0.63, 0.93)),
    wheels=(0.18, 0.8),
    taper=0.18,
)


VAN = VehicleModel(
    length=(4.8, 6.2),
    width=2.0,
    height=(2.1, 2.7),
    profile=((0, 0.1), (0, 0.98), (0.02, 1.0), (0.76, 1.0), (0.88, 0.58), (1, 0.46), (1, 0.1)),
    glass=(3,),
    windows=((0.68, 0.84, 0.55, 0.88),),
    wheels=(0.17, 0.82),
    taper=0.06,
)


BUS = VehicleModel(
    length=(9.5, 12.5),
    width=2.5,
    height=(2.9, 3.6),
    profile=((0, 0.09), (0, 1.0), (1, 1.0), (1, 0.09)),
    glass=(),
    windows=tuple((0.03 + 0.135 * k, 0.15 + 0.135 * k, 0.42, 0.82) for k in range(7)),
    wheels=(0.2, 0.76),
    taper=0.0,
)


LORRY = VehicleModel(
    length=(7.0, 10.5),
    width=2.5,
    height=(3.1, 3.9),
    profile=(
        (0, 0.2),
        (0, 1.0),
        (0.76, 1.0),
        (0.76, 0.8),
        (0.8, 0.8),
        (0.98, 0.78),
        (1, 0.45),
        (1, 0.12),
    ),
    glass=(5,),
    windows=((0.84, 0.94, 0.5, 0.72),),
    wheels=(0.12, 0.24, 0.88),
    taper=0.0,
)


@dataclass(frozen=True)
class Pose:
    """Where a vehicle stands: its nearest left corner region and which way it points.

    Args:
        s: of its middle, metres right of the centre line.
        z: of its nearest end, metres ahead.
        away: whether we see its tail.
        crossing: whether it stands across the road.
    """

    s: float
    z: float
    away: bool = True
    crossing: bool = False


class _Body:
    """Turns parts of a vehicle's length, width and height into points of the world."""

    def __init__(self, model: VehicleModel, pose: Pose, size: tuple[float, float, float]) -> None:
        self.model, self.pose = model, pose
        self.length, self.width, self.height = size

    def point(self, along: float, across: float, up: float) -> Point:
        """`along` in [0, 1] from tail to nose, `across` in [-1, 1], `up` in [0, 1]."""
        reach = (along if self.pose.away else 1 - along) * self.length
        narrow = 1 - self.model.taper * max(0.0, (up - 0.6) / 0.4)
        shift = across * narrow * self.width / 2
        if self.pose.crossing:
            return (
                self.pose.s + reach - self.length / 2,
                up * self.height,
                self.pose.z + self.width / 2 + shift,
            )
        return self.pose.s + shift, up * self.height, self.pose.z + reach


def draw_model(random: Random) -> VehicleModel:
    """Choose a kind of vehicle."""
    return random.choices([CAR, HATCH, VAN, BUS, LORRY], [5, 4, 2, 1, 1])[0]


def vehicle(canvas: Canvas, random: Random, light: Light, model: VehicleModel, pose: Pose) -> None:
    """Draw one vehicle with its shadow."""
    size = (
        random.uniform(*model.length),
        model.width * random.uniform(0.95, 1.05),
        random.uniform(*model.height),
    )
    body = _Body(model, pose, size)
    palette = CANVAS_COVER if model is LORRY else LACQUER
    paint = Paint(VEHICLE, pick(random, palette, 0.07), grain=0.015, blotch=0.05)
    cab = paint.tinted(pick(random, LACQUER, 0.07)) if model is LORRY else paint
    _shadow(canvas, light, body)
    _ends_and_top(canvas, light, body, paint, cab)
    _near_end(canvas, random, light, body)
    right = canvas.view.is_right(pose.s, pose.z)
    face = -1.0 if pose.crossing or right else 1.0
    lit = light.front if pose.crossing else light.side(not right)
    _flank(canvas, random, body, paint.lit(lit), cab.lit(lit), face)


def _shadow(canvas: Canvas, light: Light, body: _Body) -> None:
    corners = [body.point(along, across, 0) for along, across in ((0, -1), (0, 1), (1, 1), (1, -1))]
    canvas.shade([(s, z - 0.15) for s, _, z in corners], contact=True)
    fall_s, fall_z = light.drift * body.height * 0.7, light.reach * body.height * 0.4
    for first, second in zip(corners, corners[1:] + corners[:1], strict=True):
        canvas.shade(
            [
                (first[0], first[2]),
                (second[0], second[2]),
                (second[0] + fall_s, second[2] + fall_z),
                (first[0] + fall_s, first[2] + fall_z),
            ]
        )


def _ends_and_top(canvas: Canvas, light: Light, body: _Body, paint: Paint, cab: Paint) -> None:
    profile = body.model.profile
    strips = []
    for number, (one, two) in enumerate(pairwise(profile)):
        outline = [
            body.point(one[0], -1, one[1]),
            body.point(one[0], 1, one[1]),
            body.point(two[0], 1, two[1]),
            body.point(two[0], -1, two[1]),
        ]
        steep = abs(two[1] - one[1]) / (abs(two[1] - one[1]) + abs(two[0] - one[0]) * 2 + 1e-6)
        bright = 1.15 + (light.front - 1.15) * steep
        skin = cab if min(one[0], two[0]) > 0.75 else paint
        strips.append(
            (max(point[2] for point in outline), outline, skin.lit(bright), number, one, two)
        )
    for _, outline, skin, number, one, two in sorted(strips, key=lambda strip: -strip[0]):
        canvas.polygon(outline, skin)
        if number in body.model.glass:
            inset = [(0.12, -0.86), (0.12, 0.86), (0.9, 0.86), (0.9, -0.86)]
            pane = [
                body.point(one[0] + (two[0] - one[0]) * t, across, one[1] + (two[1] - one[1]) * t)
                for t, across in inset
            ]
            canvas.polygon(pane, skin.tinted(PANE))


def _near_end(canvas: Canvas, random: Random, light: Light, body: _Body) -> None:
    if body.pose.crossing:
        return
    tail = body.pose.away
    end = 0.0 if tail else 1.0
    profile = body.model.profile
    top = profile[1][1] if tail else profile[-2][1]
    foot = profile[0][1] if tail else profile[-1][1]

    def patch(left: float, right: float, low: float, high: float, paint: Paint) -> None:
        y1, y2 = foot + (top - foot) * low, foot + (top - foot) * high
        canvas.polygon(
            [
                body.point(end, left, y1),
                body.point(end, left, y2),
                body.point(end, right, y2),
                body.point(end, right, y1),
            ],
            paint,
        )

    trim = Paint(VEHICLE, RUBBER, grain=0.02).lit(light.front)
    tall = body.height > 2
    patch(-1, 1, 0, 0.12 if tall else 0.2, trim)
    if tall and (tail or body.model is BUS):
        if body.model is not LORRY:
            patch(-0.85, 0.85, 0.5, 0.86, trim.tinted(PANE))
        patch(-0.03, 0.03, 0.14, 0.95 if body.model is LORRY else 0.5, trim)
    if not tail and not tall:
        patch(-0.5, 0.5, 0.25, 0.6, trim)
    lens = Paint(VEHICLE, TAIL if tail else HEAD, glow=1.6 if tail else 3.0)
    low, high = (0.14, 0.24) if tall else (0.55, 0.86)
    patch(-0.95, -0.66, low, high, lens)
    patch(0.66, 0.95, low, high, lens)
    plate = Paint(VEHICLE, random.choice([rgb(220, 220, 210), rgb(206, 178, 80)]))
    patch(-0.24, 0.24, low - 0.1 if tall else 0.28, low if tall else 0.45, plate.lit(light.front))
    for side in (-0.78, 0.78):
        y = body.point(end, side, 0)
        wide, high_m = 0.12 * body.width / 2, foot * body.height
        canvas.polygon(
            [
                (y[0] - wide, 0, y[2]),
                (y[0] - wide, high_m, y[2]),
                (y[0] + wide, high_m, y[2]),
                (y[0] + wide, 0, y[2]),
            ],
            trim,
        )


def _flank(
    canvas: Canvas, random: Random, body: _Body, paint: Paint, cab: Paint, face: float
) -> None:
    profile = body.model.profile
    canvas.polygon([body.point(along, face, up) for along, up in profile], paint)
    if body.model is LORRY:
        canvas.polygon(
            [body.point(along, face, up) for along, up in profile[4:]]
            + [body.point(0.8, face, 0.12)],
            cab,
        )
    floor = min(profile[0][1], profile[-1][1])
    skirt = [(0, floor), (0, floor + 0.1), (1, floor + 0.1), (1, floor)]
    canvas.polygon([body.point(along, face, up) for along, up in skirt], paint.lit(0.6))
    if body.model in (BUS, VAN) and random.random() < 0.5:
        stripe = paint.tinted(vary(random, random.choice(LACQUER), 0.1))
        low = random.uniform(0.2, 0.32)
        canvas.polygon(
            [
                body.point(along, face, up)
                for along, up in ((0, low), (0, low + 0.1), (1, low + 0.1), (1, low))
            ],
            stripe,
        )
    glow = 0.8 if body.model is BUS else 0.0
    for number, (start, end, low, high) in enumerate(body.model.windows):
        lean = 0.05 if body.model.taper > 0.1 else 0.0
        first = lean if number == 0 else 0.0
        last = lean * 1.6 if number == len(body.model.windows) - 1 else 0.0
        pane = [(start, low), (start + first, high), (end - last, high), (end, low)]
        canvas.polygon(
            [body.point(along, face, up) for along, up in pane], paint.tinted(PANE, glow)
        )
    radius = 0.48 if body.height > 2.8 else 0.33
    for along in body.model.wheels:
        for share, color in ((1.0, RUBBER), (0.55, rgb(136, 138, 140))):
            _wheel(canvas, body, (along, face), (radius, share), color)


def _wheel(
    canvas: Canvas, body: _Body, at: tuple[float, float], size: tuple[float, float], color: Color
) -> None:
    radius, share = size
    rim = []
    for step in range(14):
        angle = 2 * math.pi * step / 14
        along = at[0] + share * radius * math.cos(angle) / body.length
        rim.append(
            body.point(along, at[1], (radius + share * radius * math.sin(angle)) / body.height)
        )
    canvas.polygon(rim, Paint(VEHICLE, color, grain=0.02))
