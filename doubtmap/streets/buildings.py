"""Buildings along the street, the skyline behind them, and garden walls."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from doubtmap.streets.canvas import Canvas, Color, Paint
from doubtmap.streets.materials import BUILDING, Light, mix, pick, rgb, vary

PLASTER = (
    rgb(206, 190, 160),
    rgb(190, 176, 164),
    rgb(214, 208, 196),
    rgb(196, 158, 130),
    rgb(170, 176, 180),
    rgb(188, 178, 120),
    rgb(150, 170, 160),
)


BRICK = (rgb(142, 82, 66), rgb(120, 74, 62), rgb(164, 108, 84), rgb(112, 92, 84))


CONCRETE = (rgb(150, 150, 148), rgb(128, 130, 134), rgb(172, 168, 160), rgb(106, 108, 110))


GLASS = (rgb(104, 132, 158), rgb(80, 100, 120), rgb(142, 166, 184), rgb(70, 82, 88))


WOOD = (rgb(122, 92, 64), rgb(92, 70, 54), rgb(96, 104, 84))


ROOF = (rgb(122, 66, 52), rgb(84, 76, 74), rgb(66, 68, 74), rgb(148, 92, 70))


PANE = (rgb(52, 62, 74), rgb(74, 88, 102), rgb(38, 44, 52), rgb(128, 150, 168))


AWNING = (rgb(164, 52, 48), rgb(54, 92, 72), rgb(52, 74, 118), rgb(190, 168, 110), rgb(90, 88, 86))


LAMPLIGHT = (rgb(255, 214, 140), rgb(255, 232, 190), rgb(230, 240, 255))


def _window(
    canvas: Canvas, s: float, span: tuple[float, float, float, float], paint: Paint
) -> None:
    z1, z2, y1, y2 = span
    canvas.polygon([(s, y1, z1), (s, y2, z1), (s, y2, z2), (s, y1, z2)], paint)


def _facade_materials(random: Random) -> tuple[Color, float, str]:
    kind = random.choices(["plaster", "brick", "concrete", "glass", "wood"], [5, 4, 3, 1.5, 1])[0]
    palette = {
        "plaster": PLASTER,
        "brick": BRICK,
        "concrete": CONCRETE,
        "glass": GLASS,
        "wood": WOOD,
    }
    grain = {"plaster": 0.03, "brick": 0.12, "concrete": 0.05, "glass": 0.02, "wood": 0.09}
    return pick(random, palette[kind], 0.09), grain[kind], kind


def building(
    canvas: Canvas, random: Random, light: Light, side: int, line: float, z1: float, z2: float
) -> None:
    """Draw one building whose front stands `line` metres from the centre, from `z1` to `z2`."""
    color, grain, kind = _facade_materials(random)
    floors = (
        random.choice([1, 2, 2, 3, 3, 4, 5, 6, 9]) if kind != "glass" else random.randint(4, 12)
    )
    storey = random.uniform(2.7, 3.6)
    height = floors * storey + random.uniform(0.3, 1.2)
    deep = random.uniform(8, 16)
    s, back = side * line, side * (line + deep)
    wall = Paint(BUILDING, color, grain=grain, blotch=0.07)
    front = wall.lit(light.side(side < 0))
    gable = wall.lit(light.front * random.uniform(0.85, 1.0))

    canvas.polygon([(s, 0, z1), (s, height, z1), (back, height, z1), (back, 0, z1)], gable)
    if kind in ("plaster", "brick", "wood") and floors < 6 and random.random() < 0.7:
        _pitched_roof(canvas, random, light, gable, (s, back, height, z1, z2))
    canvas.polygon([(s, 0, z1), (s, height, z1), (s, height, z2), (s, 0, z2)], front)
    _gable_windows(canvas, random, gable, (s, back, z1, storey, floors))
    _front(canvas, random, front, kind, (s, z1, z2, storey, floors))
    cast = light.drift * -side
    if cast > 0.1:
        edge = s - side * min(height, 16) * cast * 0.8
        canvas.shade([(s, z1), (s, z2), (edge, z2 + 2), (edge, z1 + 2)])


def _pitched_roof(
    canvas: Canvas,
    random: Random,
    light: Light,
    gable: Paint,
    box: tuple[float, float, float, float, float],
) -> None:
    s, back, height, z1, z2 = box
    rise = random.uniform(2.0, 4.5)
    ridge = (s + back) / 2
    tiles = Paint(BUILDING, pick(random, ROOF, 0.08), grain=0.1, blotch=0.1)
    canvas.polygon([(s, height, z1), (ridge, height + rise, z1), (back, height, z1)], gable)
    eaves = s - 0.3 * (1 if s > 0 else -1)
    slope = [(eaves, height - 0.1, z1), (ridge, height + rise, z1), (ridge, height + rise, z2)]
    canvas.polygon([*slope, (eaves, height - 0.1, z2)], tiles.lit(light.side(s < 0) * 1.05))
    if random.random() < 0.5:
        z = random.uniform(z1, z2)
        top = height + rise + 1.0
        stack = [(ridge - 0.5, height + rise - 1, z), (ridge - 0.5, top, z)]
        stack += [(ridge + 0.5, top, z), (ridge + 0.5, height + rise - 1, z)]
        canvas.polygon(stack, gable.tinted(pick(random, BRICK)))


def _gable_windows(
    canvas: Canvas, random: Random, gable: Paint, box: tuple[float, float, float, float, int]
) -> None:
    s, back, z, storey, floors = box
    if random.random() < 0.5 or z > 60:
        return
    side = 1 if s > 0 else -1
    pane = gable.tinted(pick(random, PANE))
    for floor in range(floors):
        low = floor * storey + 0.9
        for step in (2.0, 5.0):
            near = s + side * step
            if abs(near) + 1.2 < abs(back):
                far = near + side * 1.1
                outline = [(near, low, z), (near, low + 1.4, z), (far, low + 1.4, z), (far, low, z)]
                canvas.polygon(outline, pane)


@dataclass(frozen=True)
class _Windows:
    """How the windows of one front look.

    Args:
        bays: number side by side.
        tall: part of a storey.
        wide: part of a bay.
        pane: colour of the glass.
        frame: colour of the frames, if they have any.
        shops: whether shops take the ground floor.
        lamps: part of the windows with light behind them.
    """

    bays: int
    tall: float
    wide: float
    pane: Color
    frame: Color | None
    shops: bool
    lamps: float


def _draw_windows(random: Random, wall: Color, glass: bool, length: float) -> _Windows:
    bay = random.uniform(1.6, 2.2) if glass else random.uniform(2.2, 3.8)
    tall = random.uniform(0.75, 0.92) if glass else random.uniform(0.42, 0.62)
    wide = random.uniform(0.82, 0.93) if glass else random.uniform(0.35, 0.62)
    pane = vary(random, wall, 0.1) if glass else pick(random, PANE)
    frame = mix(wall, (0.9, 0.9, 0.88), random.uniform(0.2, 0.8))
    framed = random.random() < 0.6 and not glass
    shops = random.random() < 0.35
    return _Windows(
        bays=max(1, int(length / bay)),
        tall=tall,
        wide=wide,
        pane=pane,
        frame=frame if framed else None,
        shops=shops,
        lamps=random.uniform(0.05, 0.5),
    )


def _front(
    canvas: Canvas,
    random: Random,
    front: Paint,
    kind: str,
    box: tuple[float, float, float, float, int],
) -> None:
    s, z1, z2, storey, floors = box
    windows = _draw_windows(random, front.color, kind == "glass", z2 - z1)
    shops = windows.shops and floors > 1
    if random.random() < 0.5:
        _window(canvas, s, (z1, z2, 0, random.uniform(0.4, 0.9)), front.lit(0.72))
    if random.random() < 0.4:
        band = front.tinted(vary(random, front.color, 0.12))
        for floor in range(1, floors + 1):
            _window(canvas, s, (z1, z2, floor * storey - 0.18, floor * storey + 0.08), band)
    bay = (z2 - z1) / windows.bays
    for floor in range(shops, floors):
        low = floor * storey + storey * (1 - windows.tall) * 0.55
        for number in range(windows.bays):
            start = z1 + (number + (1 - windows.wide) / 2) * bay
            if start > 90:
                break
            span = (start, start + windows.wide * bay, low, low + windows.tall * storey)
            _framed_window(canvas, random, front, windows, s, span)
    if shops:
        _shops(canvas, random, front, (s, z1, z2, storey))
    elif z1 < 60:
        start = z1 + random.uniform(0.1, 0.7) * (z2 - z1)
        _window(canvas, s, (start, start + 1.1, 0, 2.2), front.tinted(pick(random, AWNING, 0.1)))


def _framed_window(
    canvas: Canvas,
    random: Random,
    front: Paint,
    windows: _Windows,
    s: float,
    span: tuple[float, float, float, float],
) -> None:
    start, end, low, high = span
    glow = 0.9 if random.random() < windows.lamps else 0.0
    tone = vary(random, windows.pane, 0.12)
    if glow and random.random() < 0.3:
        tone = mix(tone, random.choice(LAMPLIGHT), 0.35)
    if windows.frame is not None and start < 45:
        edge = (start - 0.12, end + 0.12, low - 0.15, high + 0.1)
        _window(canvas, s, edge, front.tinted(windows.frame))
    _window(canvas, s, span, front.tinted(tone, glow))
    if windows.frame is not None and start < 25:
        middle, bar = (start + end) / 2, low + 0.68 * (high - low)
        frame = front.tinted(windows.frame)
        _window(canvas, s, (middle - 0.05, middle + 0.05, low, high), frame)
        _window(canvas, s, (start, end, bar, bar + 0.08), frame)


def _shops(
    canvas: Canvas, random: Random, front: Paint, box: tuple[float, float, float, float]
) -> None:
    s, z1, z2, storey = box
    side = 1 if s > 0 else -1
    count = max(1, int((z2 - z1) / random.uniform(5, 8)))
    width = (z2 - z1) / count
    for number in reversed(range(count)):
        start, end = z1 + number * width + 0.3, z1 + (number + 1) * width - 0.3
        pane = front.tinted(pick(random, PANE, 0.12), glow=random.choice([0.0, 1.0, 1.0]))
        _window(canvas, s, (start, end, 0.5, storey * 0.74), pane)
        fascia = front.tinted(pick(random, AWNING, 0.15), glow=random.choice([0.0, 0.5]))
        _window(canvas, s, (start, end, storey * 0.76, storey * 0.95), fascia)
        if random.random() < 0.4:
            edge = s - side * 1.2
            high, low = storey * 0.82, storey * 0.66
            outline = [(s, high, start), (s, high, end), (edge, low, end), (edge, low, start)]
            canvas.polygon(outline, fascia)


def wall(
    canvas: Canvas, random: Random, light: Light, side: int, line: float, z1: float, z2: float
) -> None:
    """Draw a low garden wall."""
    color = pick(random, (*BRICK, *CONCRETE), 0.08)
    paint = Paint(BUILDING, color, grain=0.09, blotch=0.08).lit(light.side(side < 0))
    high = random.uniform(0.8, 2.0)
    _window(canvas, side * line, (z1, z2, 0, high), paint)
    _window(canvas, side * line, (z1, z2, high, high + 0.12), paint.lit(1.2))


def skyline(canvas: Canvas, random: Random, label: int, colors: tuple[Color, ...]) -> None:
    """Draw what stands at the end of the world: far roofs or far trees."""
    view = canvas.view
    depth = random.uniform(150, 260)
    color = mix(pick(random, colors, 0.05), (0.72, 0.76, 0.8), 0.35)
    paint = Paint(label, color, grain=0.06, blotch=0.1)
    floor = view.horizon + view.focal * view.eye / depth + 2
    column = -0.02 * view.width
    outline = [(column, floor)]
    while column < 1.02 * view.width:
        high = view.focal * random.uniform(4, 22 if label == BUILDING else 14) / depth
        step = view.focal * random.uniform(5, 22) / depth
        if label == BUILDING:
            outline += [(column, view.horizon - high), (column + step, view.horizon - high)]
        else:
            for part in range(6):
                bump = math.sin(math.pi * (part + 0.5) / 6)
                row = view.horizon - high * (0.6 + 0.4 * bump)
                outline.append((column + step * part / 6, row))
        column += step
    outline.append((column, floor))
    canvas.pixels(outline, paint, depth)
