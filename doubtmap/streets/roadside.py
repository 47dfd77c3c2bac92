"""What stands beside a road: poles, lamps, signs and traffic lights; trees, bushes and hedges."""

from __future__ import annotations

import math
from random import Random

from doubtmap.streets.canvas import Canvas, Color, Paint
from doubtmap.streets.materials import POLE, SIGN, VEGETATION, Light, mix, pick, rgb, vary

METAL = (
    rgb(128, 132, 134),
    rgb(96, 100, 102),
    rgb(70, 74, 76),
    rgb(150, 150, 146),
    rgb(74, 84, 76),
)


TIMBER = (rgb(104, 88, 70), rgb(120, 108, 94))


RED, BLUE, YELLOW = rgb(176, 42, 42), rgb(44, 84, 156), rgb(216, 176, 60)


GREEN, BLANK, GREY = rgb(48, 110, 82), rgb(224, 224, 220), rgb(140, 142, 144)


BROWN, BLACK = rgb(112, 82, 60), rgb(34, 34, 36)


def pole(
    canvas: Canvas, s: float, z: float, high: float, girth: float, paint: Paint, low: float = 0.0
) -> None:
    """Draw an upright post; girth is its half width in metres."""
    girth = max(girth, 0.45 * z / canvas.view.focal)
    canvas.panel((s - girth, s + girth), (low, high), z, paint)
    shine = paint.lit(1.3)
    canvas.panel((s - girth * 0.5, s), (low, high), z, shine)


def _pole_shadow(canvas: Canvas, light: Light, s: float, z: float, high: float) -> None:
    end_s, end_z = s + light.drift * high, max(z + light.reach * high, 1.5)
    canvas.shade([(s - 0.08, z), (s + 0.08, z), (end_s + 0.08, end_z), (end_s - 0.08, end_z)], 0.8)


def lamp(canvas: Canvas, random: Random, light: Light, s: float, z: float) -> None:
    """Draw a street lamp that reaches over the road, or a wooden mast with wires."""
    metal = Paint(POLE, pick(random, METAL), grain=0.03).lit(light.front)
    high = random.uniform(5, 8.5)
    pole(canvas, s, z, high, 0.09, metal)
    side = 1 if s > 0 else -1
    reach = -side * random.uniform(0.8, 2.0)
    thick = max(0.06, 0.45 * z / canvas.view.focal)
    arm = [(s, high - thick, z), (s, high + thick, z)]
    arm += [(s + reach, high + 0.3 + thick, z), (s + reach, high + 0.3 - thick, z)]
    canvas.polygon(arm, metal)
    head = Paint(POLE, rgb(206, 206, 200), glow=2.2)
    canvas.ellipse((s + reach, high + 0.25, z), 0.38, 0.12, head)
    _pole_shadow(canvas, light, s, z, high)


def mast(canvas: Canvas, random: Random, light: Light, s: float, z: float) -> None:
    """Draw a wooden mast with a crossbar."""
    wood = Paint(POLE, pick(random, TIMBER), grain=0.12).lit(light.front)
    high = random.uniform(6, 9)
    pole(canvas, s, z, high, 0.13, wood)
    canvas.panel((s - 0.9, s + 0.9), (high - 0.7, high - 0.5), z, wood)
    _pole_shadow(canvas, light, s, z, high)


def bollards(canvas: Canvas, random: Random, light: Light, s: float, z: float) -> None:
    """Draw a row of short posts."""
    paint = Paint(POLE, pick(random, (*METAL, rgb(160, 60, 50))), grain=0.03).lit(light.front)
    high, gap = random.uniform(0.7, 1.1), random.uniform(1.5, 3)
    for number in reversed(range(random.randint(2, 6))):
        pole(canvas, s, z + number * gap, high, 0.09, paint)


def _plate(shape: str, radius: float) -> list[tuple[float, float]]:
    corners = {"triangle": 3, "give_way": 3, "diamond": 4, "octagon": 8, "round": 20}
    if shape in corners:
        count = corners[shape]
        start = {"triangle": 0.5, "give_way": -0.5, "diamond": 0.5, "octagon": 0.125, "round": 0.0}
        turn = start[shape] * math.pi
        angles = [turn + 2 * math.pi * k / count for k in range(count)]
        return [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]
    wide, high = {"square": (1.0, 1.0), "wide": (1.7, 0.9), "tall": (0.7, 1.3)}[shape]
    return [
        (-radius * wide, -radius * high),
        (-radius * wide, radius * high),
        (radius * wide, radius * high),
        (radius * wide, -radius * high),
    ]


FACES: tuple[tuple[str, Color, Color], ...] = (
    ("triangle", RED, BLANK),
    ("give_way", RED, BLANK),
    ("round", RED, BLANK),
    ("octagon", RED, RED),
    ("round", BLUE, BLUE),
    ("diamond", BLANK, YELLOW),
    ("diamond", BLACK, YELLOW),
    ("square", BLUE, BLUE),
    ("wide", BLANK, BLUE),
    ("wide", BLANK, GREEN),
    ("tall", BLANK, BLANK),
    ("wide", BROWN, BLANK),
    ("round", GREY, GREY),
    ("square", GREY, GREY),
    ("triangle", GREY, GREY),
)


def _face(
    canvas: Canvas, random: Random, centre: tuple[float, float, float], radius: float, lit: float
) -> None:
    s, y, z = centre
    shape, rim, field = random.choice(FACES)
    outline = _plate(shape, radius)
    edge = Paint(SIGN, rim, grain=0.02, blotch=0.03).lit(lit)
    canvas.polygon([(s + right, y + up, z) for right, up in outline], edge)
    inner = Paint(SIGN, field, grain=0.02, blotch=0.03).lit(lit)
    canvas.polygon([(s + 0.78 * right, y + 0.78 * up, z) for right, up in outline], inner)
    if rim == GREY:
        return
    ink = Paint(SIGN, BLACK if field in (BLANK, YELLOW) else BLANK).lit(lit)
    for _ in range(random.randint(1, 3)):
        right, up = random.uniform(-0.25, 0.25) * radius, random.uniform(-0.3, 0.3) * radius
        wide, high = random.uniform(0.08, 0.35) * radius, random.uniform(0.06, 0.22) * radius
        canvas.panel((s + right - wide, s + right + wide), (y + up - high, y + up + high), z, ink)


def sign(canvas: Canvas, random: Random, light: Light, s: float, z: float) -> None:
    """Draw one or two plates on a post."""
    metal = Paint(POLE, pick(random, METAL), grain=0.03).lit(light.front)
    radius = random.uniform(0.32, 0.6)
    high = random.uniform(2.1, 3.0) + radius
    pole(canvas, s, z, high, 0.04, metal)
    lit = light.front * random.uniform(0.85, 1.1)
    _face(canvas, random, (s, high, z), radius, lit)
    if random.random() < 0.3:
        _face(canvas, random, (s, high - 2.0 * radius, z), radius * 0.75, lit)
    _pole_shadow(canvas, light, s, z, high)


def board(canvas: Canvas, random: Random, light: Light, s: float, z: float) -> None:
    """Draw a large direction board on two posts, or one that spans the road."""
    metal = Paint(POLE, pick(random, METAL), grain=0.03).lit(light.front)
    side = 1 if s > 0 else -1
    span = random.random() < 0.35
    wide = random.uniform(1.4, 2.6)
    low = random.uniform(5.0, 5.8) if span else random.uniform(1.8, 2.6)
    high = low + random.uniform(1.2, 2.0)
    if span:
        pole(canvas, s, z, high, 0.14, metal)
        centre = s - side * (wide + random.uniform(0.5, 2.5))
        canvas.panel((s, centre), (high - 0.3, high - 0.05), z, metal)
    else:
        centre = s + side * (wide + 0.2)
        for post in (-0.7, 0.7):
            pole(canvas, centre + post * wide, z, high, 0.07, metal)
    field = random.choice([BLUE, GREEN, BLANK, YELLOW, GREY, BROWN])
    lit = light.front
    rim = Paint(SIGN, BLANK if field != BLANK else BLUE, blotch=0.03).lit(lit)
    face = Paint(SIGN, field, grain=0.02, blotch=0.03).lit(lit)
    for grow, paint in ((0.08, rim), (0.0, face)):
        canvas.panel(
            (centre - wide - grow, centre + wide + grow), (low - grow, high + grow), z, paint
        )
    ink = Paint(SIGN, BLACK if field in (BLANK, YELLOW) else BLANK).lit(lit)
    for line in range(random.randint(1, 3)):
        y = high - 0.35 - 0.45 * line
        if y > low + 0.15 and field != GREY:
            end = centre - wide + random.uniform(0.8, 1.7) * wide
            start = centre - 0.85 * wide
            canvas.panel((start, end), (y - 0.09, y + 0.09), z, ink)


def traffic_light(canvas: Canvas, random: Random, light: Light, s: float, z: float) -> None:
    """Draw a traffic light on its post."""
    metal = Paint(POLE, pick(random, METAL), grain=0.03).lit(light.front)
    pole(canvas, s, z, 3.0, 0.07, metal)
    case = Paint(SIGN, rgb(40, 44, 42)).lit(light.front)
    canvas.panel((s - 0.2, s + 0.2), (2.3, 3.4), z, case)
    on = random.randrange(3)
    for number, color in enumerate((rgb(230, 50, 40), rgb(236, 170, 40), rgb(70, 210, 130))):
        bright = number == on
        lens = Paint(SIGN, color, glow=2.0 if bright else 0.0).lit(1.0 if bright else 0.3)
        canvas.ellipse((s, 3.2 - 0.35 * number, z), 0.13, 0.13, lens)


LEAVES = (rgb(72, 96, 48), rgb(88, 110, 58), rgb(56, 80, 46), rgb(102, 116, 60), rgb(66, 86, 62))


AUTUMN = (rgb(158, 108, 50), rgb(146, 76, 46), rgb(170, 140, 66))


BARK = (rgb(84, 70, 58), rgb(104, 92, 80), rgb(66, 58, 52))


FAR_LEAVES = (rgb(92, 110, 84), rgb(110, 122, 96), rgb(80, 100, 84))


def _leaf(random: Random) -> Color:
    return pick(random, AUTUMN if random.random() < 0.14 else LEAVES, 0.08)


def _crown(
    canvas: Canvas,
    random: Random,
    light: Light,
    leaf: Color,
    crown: tuple[float, float, float, float, float],
) -> None:
    """Many small ellipses inside a large one, the shaded ones first."""
    s, y, z, across, up = crown
    detail = canvas.view.focal * across / z / canvas.view.width
    count = int(min(120, 16 + 900 * detail))
    blobs = []
    for _ in range(count):
        angle, radius = random.uniform(0, 2 * math.pi), math.sqrt(random.random())
        blobs.append((radius * math.cos(angle), radius * math.sin(angle)))
    size = 0.9 / math.sqrt(count) + 0.09
    sun = -1 if light.drift > 0 else 1
    paint = Paint(VEGETATION, leaf, grain=0.3, blotch=0.16)
    core = paint.lit(0.6)
    canvas.ellipse((s, y, z), across * 0.72, up * 0.72, core)
    blobs.sort(key=lambda blob: blob[1] + 0.5 * sun * blob[0] + random.uniform(-0.6, 0.6))
    for right, above in blobs:
        bright = 0.82 + 0.3 * above + 0.16 * sun * right * (light.shadow + 0.2)
        grow = random.uniform(0.35, 1.45) * size
        spot = (s + right * across * 0.92, y + above * up * 0.92, z)
        shade = paint.tinted(vary(random, leaf, 0.05)).lit(bright)
        canvas.ellipse(spot, across * grow, up * grow * 0.85, shade)


def tree(canvas: Canvas, random: Random, light: Light, s: float, z: float) -> None:
    """Draw a tree: round, tall, conical or bare."""
    kind = random.choices(["round", "poplar", "cone", "young"], [5, 1.5, 1.5, 2])[0]
    high = random.uniform(3, 5) if kind == "young" else random.uniform(5, 12)
    bark = Paint(VEGETATION, pick(random, BARK, 0.08), grain=0.2, blotch=0.1)
    girth = 0.02 * high + 0.04
    crown_y = high * (0.55 if kind == "poplar" else 0.66)
    trunk = [(s - girth, 0.0, z), (s - girth * 0.6, crown_y, z)]
    trunk += [(s + girth * 0.6, crown_y, z), (s + girth, 0.0, z)]
    canvas.polygon(trunk, bark.lit(light.front))
    leaf = _leaf(random)
    across = high * {"round": 0.36, "poplar": 0.15, "cone": 0.22, "young": 0.26}[kind]
    if kind == "cone":
        _cone(canvas, random, light, leaf, (s, z, high, across))
    else:
        up = high * (0.46 if kind == "poplar" else 0.33)
        for _ in range(random.randint(1, 3)):
            shift = random.uniform(-0.4, 0.4) * across
            lift = random.uniform(-0.15, 0.2) * up
            part = random.uniform(0.7, 1.0)
            _crown(
                canvas,
                random,
                light,
                leaf,
                (s + shift, crown_y + lift, z, across * part, up * part),
            )
    fall_s, fall_z = s + light.drift * high * 0.6, z + light.reach * high * 0.6
    ring = [(math.cos(k * 0.7), math.sin(k * 0.7)) for k in range(9)]
    canvas.shade([(fall_s + across * c, max(fall_z + across * d, 1.5)) for c, d in ring], 0.9)
    canvas.shade(
        [(s - girth, z), (s + girth, z), (fall_s + girth, fall_z), (fall_s - girth, fall_z)]
    )


def _cone(
    canvas: Canvas,
    random: Random,
    light: Light,
    leaf: Color,
    shape: tuple[float, float, float, float],
) -> None:
    s, z, high, across = shape
    needle = Paint(VEGETATION, mix(leaf, rgb(44, 66, 52), 0.6), grain=0.26, blotch=0.14)
    layers = random.randint(5, 9)
    for layer in range(layers):
        low = high * (0.12 + 0.8 * layer / layers)
        wide = across * (1 - 0.85 * layer / layers) * random.uniform(0.85, 1.1)
        points = [(s - wide, low, z), (s, low + high * 0.26, z), (s + wide, low, z)]
        teeth = [(s + wide * (1 - k / 3), low + random.uniform(-0.3, 0.2), z) for k in range(1, 6)]
        canvas.polygon([*points, *teeth], needle.lit(light.front * random.uniform(0.8, 1.1)))


def bush(canvas: Canvas, random: Random, light: Light, s: float, z: float) -> None:
    """Draw a bush."""
    across, up = random.uniform(0.5, 1.8), random.uniform(0.4, 1.2)
    _crown(canvas, random, light, _leaf(random), (s, up * 0.8, z, across, up))
    canvas.shade(
        [(s - across, z - 0.3), (s + across, z - 0.3), (s + across, z + 0.5), (s - across, z + 0.5)]
    )


def hedge(
    canvas: Canvas, random: Random, light: Light, side: int, line: float, z1: float, z2: float
) -> None:
    """Draw a clipped hedge along the street."""
    high = random.uniform(0.8, 2.6)
    paint = Paint(VEGETATION, _leaf(random), grain=0.3, blotch=0.16)
    s, back = side * line, side * (line + 1.2)
    canvas.polygon(
        [(s, 0, z1), (s, high, z1), (back, high, z1), (back, 0, z1)], paint.lit(light.front)
    )
    front = paint.lit(light.side(side < 0) * 0.9)
    count = max(3, int((z2 - z1) / 1.2))
    top = [
        (s, high + random.uniform(-0.12, 0.12), z1 + (z2 - z1) * k / count)
        for k in range(count + 1)
    ]
    canvas.polygon([(s, 0, z1), *top, (s, 0, z2)], front)
