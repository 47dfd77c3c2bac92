"""Trees, bushes and hedges."""

from __future__ import annotations

import math
from random import Random

from doubtmap.datasets.streets.canvas import Canvas, Color, Paint
from doubtmap.datasets.streets.materials import VEGETATION, Light, mix, pick, rgb, vary

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
