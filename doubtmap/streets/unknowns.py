"""Things that no class names: animals, boxes, tyres, furniture, debris, rocks, people ...

A `Stand` is where a thing stands, with the pen that draws it there. Each thing has one function,
which draws it on a `Stand`; `MAKERS` lists them with their sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from doubtmap.datasets.dataset import UNKNOWN
from doubtmap.streets.canvas import Canvas, Color, Paint
from doubtmap.streets.materials import Light, mix, pick, rgb, vary

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


FUR = (
    rgb(120, 88, 62),
    rgb(62, 52, 46),
    rgb(176, 150, 118),
    rgb(206, 200, 192),
    rgb(92, 90, 90),
    rgb(160, 100, 56),
)


CARDBOARD = (rgb(172, 134, 92), rgb(150, 116, 82), rgb(196, 166, 128))


STONE = (rgb(126, 122, 116), rgb(98, 94, 90), rgb(150, 138, 120))


CLOTH = (
    rgb(60, 70, 110),
    rgb(150, 40, 44),
    rgb(196, 160, 60),
    rgb(58, 92, 70),
    rgb(90, 60, 100),
    rgb(40, 40, 44),
)


SKIN = (rgb(206, 160, 130), rgb(150, 104, 78), rgb(98, 66, 50))


RUBBER = rgb(36, 36, 38)


Maker = Callable[[Stand, float], None]


def _animal(stand: Stand, size: float) -> None:
    random = stand.random
    coat = stand.material(FUR, loud=0.12)
    fur, dark = stand.paint(coat, 0.16, 0.2), stand.paint(mix(coat, (0, 0, 0), 0.35), 0.16)
    way = random.choice([-1, 1])
    long, leg = size * random.uniform(0.5, 0.7), size * random.uniform(0.3, 0.5)
    thick = size * random.uniform(0.18, 0.26)
    body = leg + thick * 0.8
    for foot, paint in ((-0.75, dark), (0.55, dark), (-0.55, fur), (0.75, fur)):
        hip = foot * long * 0.9
        stand.bar((hip, body), (hip + random.uniform(-0.06, 0.06) * size, 0), size * 0.08, paint)
    stand.bar(
        (-way * long, body + thick * 0.4),
        (-way * long * 1.4, body + size * random.uniform(-0.2, 0.3)),
        size * 0.05,
        dark,
    )
    stand.oval(0, body, long, thick, fur)
    stand.oval(way * long * 0.1, body - thick * 0.4, long * 0.8, thick * 0.55, fur.lit(0.75))
    for _ in range(random.choice([0, 0, 5])):
        stand.oval(
            random.uniform(-0.7, 0.7) * long,
            body + random.uniform(-0.4, 0.5) * thick,
            thick * 0.3,
            thick * 0.25,
            dark,
        )
    head = (way * long * 1.15, body + thick * random.uniform(0.3, 1.4))
    stand.bar((way * long * 0.8, body + thick * 0.2), head, thick * 0.9, fur)
    stand.oval(*head, thick * 0.62, thick * 0.5, fur)
    stand.oval(
        head[0] + way * thick * 0.55, head[1] - thick * 0.1, thick * 0.35, thick * 0.25, dark
    )
    for ear in (-0.25, 0.2):
        stand.shape(
            [
                (head[0] + (ear - 0.15) * thick, head[1] + 0.3 * thick),
                (head[0] + ear * thick, head[1] + thick),
                (head[0] + (ear + 0.18) * thick, head[1] + 0.3 * thick),
            ],
            dark,
        )
    stand.shadow(long, size * 0.6)


def _box(stand: Stand, size: float) -> None:
    random, canvas = stand.random, stand.canvas
    count = random.choice([1, 1, 2, 3])
    floor = 0.0
    for number in range(count):
        wide, high = size * random.uniform(0.35, 0.6), size * random.uniform(0.4, 0.9) / count
        shift = random.uniform(-0.15, 0.15) * size * bool(number)
        face = stand.paint(stand.material(CARDBOARD), 0.05, 0.1)
        left, right = stand.s + shift - wide, stand.s + shift + wide
        z, back, top = stand.z, stand.z + 2 * wide, floor + high
        flank = left if canvas.view.is_right(stand.s, z) else right
        canvas.polygon(
            [(flank, floor, z), (flank, top, z), (flank, top, back), (flank, floor, back)],
            face.lit(0.7),
        )
        canvas.polygon(
            [(left, top, z), (right, top, z), (right, top, back), (left, top, back)], face.lit(1.15)
        )
        canvas.polygon([(left, floor, z), (left, top, z), (right, top, z), (right, floor, z)], face)
        tape = face.tinted(vary(random, mix(face.color, (0.9, 0.85, 0.7), 0.5)))
        stand.block((shift - 0.07 * wide, shift + 0.07 * wide), (floor, top), tape)
        floor = top
    stand.shadow(size * 0.55, size * 0.6)


def _tyre(stand: Stand, size: float) -> None:
    radius = min(size, 1.1) * 0.45
    rubber = stand.paint(vary(stand.random, RUBBER, 0.1), 0.1)
    if stand.random.random() < 0.5:
        stand.oval(0, radius, radius, radius, rubber)
        stand.oval(0, radius, radius * 0.62, radius * 0.62, rubber.lit(1.7))
        stand.oval(0, radius, radius * 0.5, radius * 0.5, stand.paint(rgb(86, 84, 82)))
    else:
        for number in range(stand.random.randint(1, 4)):
            low = number * radius * 0.42
            shift = stand.random.uniform(-0.1, 0.1) * radius
            stand.oval(shift, low + radius * 0.22, radius, radius * 0.3, rubber.lit(0.8))
            stand.oval(shift, low + radius * 0.36, radius, radius * 0.26, rubber.lit(1.3))
            stand.oval(shift, low + radius * 0.38, radius * 0.6, radius * 0.15, rubber.lit(0.6))
    stand.shadow(radius, radius)


def _barrel(stand: Stand, size: float) -> None:
    random = stand.random
    high, half = size * 0.9, size * 0.32
    skin = stand.paint(stand.material(LOUD, CARDBOARD), 0.03, 0.1)
    stripe = stand.paint(pick(random, (rgb(230, 230, 226), rgb(40, 40, 42), *LOUD)), 0.03)
    stand.oval(0, half * 0.16, half, half * 0.22, skin.lit(0.7))
    for part in range(10):
        x1, x2 = (-1 + part / 5) * half, (-0.8 + part / 5) * half
        shade = 0.65 + 0.5 * math.sin(math.pi * (part + 1) / 11)
        stand.block((x1, x2), (half * 0.1, high), skin.lit(shade))
        for band in (0.25, 0.6):
            stand.shape(
                [
                    (x1, high * band),
                    (x1, high * (band + 0.14)),
                    (x2, high * (band + 0.14)),
                    (x2, high * band),
                ],
                stripe.lit(shade),
            )
    stand.oval(0, high, half, half * 0.2, skin.lit(1.1))
    stand.shadow(half, high)


def _furniture(stand: Stand, size: float) -> None:
    random = stand.random
    cloth = stand.paint(stand.material(CLOTH, FUR), 0.08, 0.14)
    wide = size * random.uniform(0.5, 0.9)
    if random.random() < 0.5:
        stand.block((-wide, wide), (0.12 * size, 0.85 * size), cloth.lit(0.8))
        stand.block((-wide, wide), (0.12 * size, 0.45 * size), cloth.lit(1.1), 0.3)
        for cushion in (-0.5, 0.4):
            stand.oval(
                (cushion + 0.05) * wide, 0.55 * size, 0.42 * wide, 0.14 * size, cloth.lit(1.25), 0.2
            )
        for arm in (-1, 1):
            edge = arm * wide
            stand.block(
                (edge - 0.12 * size, edge + 0.12 * size), (0.05 * size, 0.6 * size), cloth, 0.35
            )
    else:
        wood = stand.paint(pick(random, CARDBOARD), 0.1)
        wide *= 0.5
        for leg in (-1, 1):
            stand.bar((leg * wide, 0), (leg * wide, 0.5 * size), 0.07 * size, wood)
            stand.bar(
                (leg * wide * 0.8, 0.08), (leg * wide * 0.8, size), 0.06 * size, wood.lit(0.8)
            )
        stand.block((-wide * 0.9, wide * 0.9), (0.6 * size, size), cloth)
        stand.shape(
            [
                (-wide * 1.1, 0.44 * size),
                (-wide * 0.9, 0.55 * size),
                (wide * 0.9, 0.55 * size),
                (wide * 1.1, 0.44 * size),
            ],
            cloth.lit(1.2),
        )
    stand.shadow(wide, size * 0.6)


def _ball(stand: Stand, size: float) -> None:
    radius = min(size, 1.4) * 0.35
    first, second = (
        pick(stand.random, LOUD, 0.1),
        pick(stand.random, (rgb(236, 236, 232), *LOUD), 0.1),
    )
    stand.oval(0, radius, radius, radius, stand.paint(first, 0.02).lit(0.75))
    stand.oval(-0.1 * radius, 1.12 * radius, 0.86 * radius, 0.84 * radius, stand.paint(first, 0.02))
    stand.oval(0.05 * radius, 1.05 * radius, 0.3 * radius, 0.88 * radius, stand.paint(second, 0.02))
    stand.oval(
        -0.35 * radius, 1.45 * radius, 0.18 * radius, 0.14 * radius, stand.paint((1, 1, 1), 0.0)
    )
    stand.shadow(radius, radius)


def _debris(stand: Stand, size: float) -> None:
    random = stand.random
    count = random.randint(12, 26)
    for number in range(count):
        far = 1 - (number + 1) / count
        right = random.gauss(0, 0.35) * size
        up = max(0.0, random.uniform(0, 0.55) * size * far * math.exp(-((right / size) ** 2) * 4))
        reach = size * random.uniform(0.08, 0.26)
        corners = sorted(random.uniform(0, 2 * math.pi) for _ in range(random.randint(3, 6)))
        piece = [
            (right + reach * math.cos(a), max(0.0, up + reach * 0.5 * (1 + math.sin(a))))
            for a in corners
        ]
        color = stand.material(STONE, CARDBOARD, CLOTH, loud=0.2)
        stand.shape(piece, stand.paint(color, 0.12, 0.15).lit(random.uniform(0.7, 1.2)))
    stand.shadow(size * 0.6, size * 0.3)


def _rock(stand: Stand, size: float) -> None:
    random = stand.random
    color = stand.material(STONE, loud=0.15)
    for number in range(random.choice([1, 1, 2, 3])):
        right = random.uniform(-0.4, 0.4) * size * bool(number)
        radius = size * random.uniform(0.35, 0.5) / (1 + 0.5 * number)
        rough = [random.uniform(0.75, 1.1) for _ in range(9)]
        for grow, bright, lift in ((1.0, 0.7, 0.0), (0.8, 1.0, 0.08), (0.45, 1.2, 0.2)):
            ring = []
            for step, bump in enumerate(rough):
                angle = 2 * math.pi * step / 9
                x = right + grow * bump * radius * math.cos(angle) - (1 - grow) * 0.2 * radius
                ring.append(
                    (
                        x,
                        max(
                            0.0,
                            radius * (0.6 + lift) + 0.8 * grow * bump * radius * math.sin(angle),
                        ),
                    )
                )
            stand.shape(ring, stand.paint(color, 0.14, 0.2).lit(bright), 0.01 * number)
    stand.shadow(size * 0.45, size * 0.5)


def _person(stand: Stand, size: float) -> None:
    random = stand.random
    high = min(max(size, 1.0), 1.9)
    coat, legs = (stand.paint(stand.material(CLOTH), 0.05, 0.1) for _ in range(2))
    skin = stand.paint(pick(random, SKIN), 0.02)
    stride, bend = random.uniform(0.05, 0.2) * high, random.choice([-1, 1])
    stand.bar((0.03, 0.5 * high), (stride, 0), 0.11 * high, legs.lit(0.8))
    stand.bar((-0.03, 0.5 * high), (-stride, 0), 0.11 * high, legs)
    stand.bar(
        (-0.02 * bend, 0.78 * high), (-bend * 0.17 * high, 0.5 * high), 0.07 * high, coat.lit(0.8)
    )
    stand.shape(
        [
            (-0.1 * high, 0.46 * high),
            (-0.13 * high, 0.8 * high),
            (0, 0.86 * high),
            (0.13 * high, 0.8 * high),
            (0.1 * high, 0.46 * high),
        ],
        coat,
    )
    stand.bar(
        (0.1 * bend * high, 0.78 * high),
        (bend * 0.2 * high, 0.55 * high),
        0.07 * high,
        coat.lit(1.1),
    )
    stand.oval(0, 0.92 * high, 0.06 * high, 0.08 * high, skin)
    stand.oval(0, 0.96 * high, 0.065 * high, 0.05 * high, stand.paint(pick(random, FUR), 0.1))
    if random.random() < 0.3:
        stand.oval(
            -bend * 0.15 * high,
            0.66 * high,
            0.1 * high,
            0.15 * high,
            stand.paint(pick(random, LOUD), 0.05),
        )
    stand.shadow(0.2 * high, high)


def _cone(stand: Stand, size: float) -> None:
    high = min(size, 1.0)
    skin, white = (
        stand.paint(vary(stand.random, rgb(232, 92, 30)), 0.02),
        stand.paint(rgb(232, 232, 228), 0.02),
    )
    stand.taper((0.35 * high, 0), (0.3 * high, 0.08 * high), skin.lit(0.8))
    stand.taper((0.22 * high, 0.08 * high), (0.04 * high, high), skin)
    stand.taper((0.16 * high, 0.4 * high), (0.11 * high, 0.65 * high), white)
    stand.shadow(0.3 * high, high)


def _bale(stand: Stand, size: float) -> None:
    """A round thing wrapped in checks: nothing that the street's palette has."""
    random = stand.random
    half, high = size * 0.55, size * 0.7
    first, second = pick(random, LOUD, 0.1), pick(random, LOUD + FUR, 0.1)
    cells = random.randint(3, 6)
    for row in range(cells):
        for column in range(cells):
            paint = stand.paint(first if (row + column) % 2 else second, 0.05)
            x, y = -half + 2 * half * column / cells, high * row / cells
            x2, y2 = x + 2 * half / cells, y + high / cells
            stand.block((x, x2), (y, y2), paint)
    stand.shadow(half, high)


MAKERS: tuple[tuple[Maker, float, float], ...] = (
    (_animal, 0.5, 2.2),
    (_animal, 0.5, 2.2),
    (_box, 0.4, 1.8),
    (_tyre, 0.6, 1.1),
    (_barrel, 0.7, 1.3),
    (_furniture, 0.8, 1.4),
    (_ball, 0.4, 1.4),
    (_debris, 0.6, 2.2),
    (_rock, 0.4, 1.8),
    (_person, 1.1, 1.9),
    (_cone, 0.5, 1.0),
    (_bale, 0.5, 1.8),
)
"""What can stand there, and its smallest and largest size in metres."""


def unknown(canvas: Canvas, random: Random, light: Light, s: float, z: float) -> None:
    """Draw one unknown thing."""
    maker, small, large = random.choice(MAKERS)
    maker(Stand(canvas, random, light, s, z), random.uniform(small, large))
