"""One street scene: what stands where, and how the layers become an image and a label map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from doubtmap.datasets.streets import buildings, plants, roadside, vehicles
from doubtmap.datasets.streets.canvas import Array, Canvas, Layers, Paint
from doubtmap.datasets.streets.ground import Ground, Street, draw_ground, draw_street
from doubtmap.datasets.streets.materials import (
    BUILDING,
    SKY,
    VEGETATION,
    Light,
    draw_light,
    pick,
    smooth_noise,
)
from doubtmap.datasets.streets.sensor import expose
from doubtmap.datasets.streets.sky import Sky, draw_sky, paint_sky
from doubtmap.datasets.streets.unknowns import unknown
from doubtmap.datasets.streets.view import View, draw_view
from doubtmap.datasets.streets.weather import WEATHERS, Frame, weathered

VOID = -2
SKY_DEPTH = 400.0
END = 130.0
"""Metres ahead at which the street's buildings stop."""

Draw = Callable[[], None]


@dataclass(frozen=True)
class Thing:
    """Something to draw: it reaches from `z` to `end`, at `s`."""

    s: float
    z: float
    end: float
    draw: Draw
    half: float = 0.5
    behind: bool = False

    @property
    def order(self) -> float:
        """Distance by which it is painted; what lines the street goes by its far end."""
        return self.end if self.behind else self.z


class _Layout:
    """Chooses what stands along a street and gathers it."""

    def __init__(self, random: Random, canvas: Canvas, street: Street, light: Light) -> None:
        self.random, self.canvas, self.street, self.light = random, canvas, street, light
        self.things: list[Thing] = []

    def add(self, s: float, z: float, draw: Draw, *, end: float | None = None, half: float = 0.5,
            behind: bool = False) -> None:  # fmt: skip
        self.things.append(Thing(s, z, z if end is None else end, draw, half, behind))

    def frontage(self, side: int, district: str) -> None:
        """Line one side with buildings, gardens, hedges and trees."""
        random = self.random
        strips = self.street.roadside(side)
        share = {"town": 0.9, "suburb": 0.6, "country": 0.14}[district]
        z = random.uniform(1.5, 9)
        while z < END:
            length = random.uniform(7, 22)
            if random.random() < share:
                line = strips.line + (random.uniform(0, 5) if district != "town" else 0.0)
                self.add(side * line, z, self._later(buildings.building, side, line, z, z + length),
                         end=z + length, behind=True)  # fmt: skip
                if line - strips.pavement > 2:
                    self._garden(side, strips.pavement + 0.2, line, z, z + length)
            else:
                self._grove(side, strips.line, z, z + length, district)
            z += length + random.choice([0.0, 0.0, 0.4, 3.0] if district == "town" else [0.5, 3, 6])
        if random.random() < (0.45 if district != "country" else 0.25):
            step, s = random.uniform(7, 14), side * max(strips.pavement - 0.5, self.street.half + 0.6)
            start = random.uniform(5, 16)
            for number in range(int((75 - start) / step)):
                if random.random() < 0.85:
                    at = start + number * step
                    self.add(s, at, self._later(plants.tree, s, at))

    def _later(self, draw: Callable[..., None], *place: object) -> Draw:
        """A drawing with its own chances: taking one thing away leaves the others as they are."""
        own = Random(self.random.getrandbits(64))
        return lambda: draw(self.canvas, own, self.light, *place)

    def _garden(self, side: int, line: float, back: float, z1: float, z2: float) -> None:
        random = self.random
        kind = random.random()
        if kind < 0.35:
            self.add(side * line, z1, self._later(plants.hedge, side, line, z1, z2), end=z2, behind=True)
        elif kind < 0.55:
            self.add(side * line, z1, self._later(buildings.wall, side, line, z1, z2), end=z2, behind=True)
        for _ in range(random.randint(0, 3)):
            s, z = side * random.uniform(line + 0.8, max(back - 0.5, line + 0.9)), random.uniform(z1, z2)
            self.add(s, z, self._later(plants.bush, s, z))

    def _grove(self, side: int, line: float, z1: float, z2: float, district: str) -> None:
        random = self.random
        if random.random() < 0.35:
            self.add(side * line, z1, self._later(plants.hedge, side, line, z1, z2), end=z2, behind=True)
        for _ in range(random.randint(1, 5) if district == "country" else random.randint(0, 3)):
            s, z = side * (line + random.uniform(1, 12)), random.uniform(z1, z2)
            draw = plants.tree if random.random() < 0.65 else plants.bush
            self.add(s, z, self._later(draw, s, z))

    def furniture(self) -> None:
        """Put lamps, signs, boards and bollards beside the road."""
        random, street = self.random, self.street
        lamps = random.choice([-1, 1])
        step, start = random.uniform(14, 30), random.uniform(6, 22)
        wooden = random.random() < 0.2
        for number in range(5):
            side = lamps if number % 2 == 0 or wooden else -lamps
            s, z = side * (street.half + 0.6), start + number * step
            draw = self._later(roadside.mast, s, z) if wooden else self._later(roadside.lamp, side, s, z)
            self.add(s, z, draw)
        for _ in range(random.randint(1, 6)):
            side = random.choice([-1, 1])
            s, z = side * (street.half + random.uniform(0.4, 0.9)), random.uniform(6, 50)
            self.add(s, z, self._later(roadside.sign, s, z))
        if random.random() < 0.4:
            side = random.choice([-1, 1])
            s, z = side * (street.half + 0.7), random.uniform(14, 50)
            self.add(s, z, self._later(roadside.board, side, s, z))
        if random.random() < 0.3:
            z = random.uniform(9, 30)
            for side in (-1, 1):
                s = side * (street.half + 0.4)
                self.add(s, z, self._later(roadside.traffic_light, s, z))
        if random.random() < 0.3:
            side = random.choice([-1, 1])
            s, z = side * (street.half + 0.35), random.uniform(5, 20)
            self.add(s, z, self._later(roadside.bollards, s, z))

    def traffic(self, keeps: int) -> None:
        """Put vehicles into lanes, along the kerb, and now and then across the road."""
        random, street = self.random, self.street
        lane = 2 * street.half / street.lanes
        places: list[vehicles.Pose] = []
        for number in range(street.lanes):
            s = -street.half + (number + 0.5) * lane
            z = random.uniform(9, 45)
            while z < 90:
                away = s * keeps >= -0.1
                places.append(vehicles.Pose(s + random.uniform(-0.3, 0.3), z, away))
                z += random.uniform(12, 60)
        for side in (-1, 1):
            if random.random() < 0.55:
                z = random.uniform(3, 20)
                while z < 60:
                    s = side * (street.half - random.uniform(0.85, 1.05))
                    places.append(vehicles.Pose(s, z, side == keeps or random.random() < 0.2))
                    z += random.uniform(5.5, 16)
        if random.random() < 0.12:
            places.append(vehicles.Pose(random.uniform(-6, 6), random.uniform(12, 30), random.random() < 0.5, crossing=True))
        random.shuffle(places)
        for pose in places:
            self._park(pose)

    def _park(self, pose: vehicles.Pose) -> None:
        model = vehicles.draw_model(self.random)
        if abs(pose.s) > self.street.half - 1.1 and model in (vehicles.BUS, vehicles.LORRY):
            model = vehicles.CAR
        half = model.length[1] / 2 if pose.crossing else 1.2
        end = pose.z + (2.2 if pose.crossing else model.length[1])
        for other in self.things:
            close = abs(other.s - pose.s) < other.half + half
            if not other.behind and close and pose.z < other.end + 1.0 and other.z < end + 1.0:
                return
        draw = self._later(vehicles.vehicle, model, pose)
        self.add(pose.s, pose.z, draw, end=end, half=half)

    def unknowns(self, random: Random) -> None:
        """Put one to four unknown things on or beside the road, the first in plain sight."""
        view, street = self.canvas.view, self.street
        nearest = view.focal * view.eye / max(0.86 * view.height - view.horizon, 1)
        for number in range(random.choice([1, 1, 2, 2, 3, 4])):
            for _ in range(20):
                first = number == 0
                z = nearest + random.uniform(0.3, 10 if first else 34)
                wide = street.half - 0.6 if first or random.random() < 0.7 else street.half + 3.5
                s = random.uniform(-wide, wide)
                if abs(view.pixel(s, 0, z)[0] / view.width - 0.5) < 0.42:
                    break
            self.things = [thing for thing in self.things if not _in_the_way(thing, s, z, first)]
            self.add(s, z, self._later(unknown, s, z), half=1.0)

    def draw(self) -> None:
        """Draw everything far to near."""
        orders = {id(thing): thing.order for thing in self.things}
        for long in self.things:
            if long.behind or long.end - long.z < 1:
                continue
            beside = self.canvas.view.centre(long.z) + long.s
            for thing in self.things:
                if long.z < thing.z < long.end and not thing.behind:
                    here = self.canvas.view.centre(thing.z) + thing.s
                    if abs(here) < abs(beside):
                        orders[id(thing)] = min(orders[id(thing)], long.z - 0.01)
        for thing in sorted(self.things, key=lambda thing: -orders[id(thing)]):
            thing.draw()


def _in_the_way(thing: Thing, s: float, z: float, clear_view: bool) -> bool:
    if thing.behind or abs(thing.s - s) > thing.half + 1.2:
        return False
    return (thing.z < z + 1.5 and (clear_view or thing.end > z - 1.5)) and thing.end > 0


def _bonnet(canvas: Canvas, random: Random) -> None:
    view = canvas.view
    high, wide = view.height * random.uniform(0.05, 0.12), view.width * random.uniform(0.3, 0.5)
    color = pick(random, vehicles.LACQUER, 0.05)
    middle = view.width * random.uniform(0.45, 0.55)
    for share in (1.0, 0.82, 0.6):
        arc = [
            (middle + wide * (k / 12 - 1), view.height - high * share * (1 - abs(k / 12 - 1) ** 3) + 1)
            for k in range(25)
        ]
        outline = [(middle - wide, view.height + 1.0), *arc, (middle + wide, view.height + 1.0)]
        canvas.pixels(outline, Paint(VOID, color, grain=0.01).lit(1.25 - 0.4 * share), 1.5)


def _compose(
    canvas: Canvas, street: Street, sky: Sky, light: Light, generator: np.random.Generator
) -> tuple[Frame, NDArray[np.int16]]:
    view = canvas.view
    shape = (view.height, view.width)
    layers, ground = canvas.layers(), draw_ground(view, street)
    fine = generator.standard_normal(shape, dtype=np.float32)
    leaf = smooth_noise(generator, shape, max(2.0, view.height / 110))
    patch = smooth_noise(generator, shape, view.height / 26)
    color = paint_sky(view, sky, generator)
    label = np.full(shape, SKY, dtype=np.int16)
    depth = np.full(shape, SKY_DEPTH, dtype=np.float32)

    cast, contact = (
        ndimage.gaussian_filter(np.asarray(image, dtype=np.float32)[ground.top :] / 255, view.height / 200)
        for image in (canvas.shadow, canvas.contact)
    )
    lit = 1 - light.shadow * cast
    grained = 1 + ground.rough * (0.5 * fine[ground.top :] + 0.6 * leaf[ground.top :])
    warmth = np.asarray(light.warmth, dtype=np.float32)
    color[ground.top :] = ground.color * (lit * (1 - 0.6 * contact) * grained)[..., None] * warmth
    label[ground.top :], depth[ground.top :] = ground.label, ground.depth

    grained = 1 + layers.grain * (0.45 * fine + 0.9 * leaf) + layers.blotch * patch
    surfaces = layers.color * grained[..., None] * warmth
    color = color * (1 - layers.cover[..., None]) + surfaces
    label = np.where(layers.owner, layers.label, label)
    depth = np.where(layers.owner, layers.depth, depth)
    air = (1 - np.exp(-depth * 0.0022) * (depth < SKY_DEPTH))[..., None] * (depth < SKY_DEPTH)[..., None]
    color += air * (np.asarray(sky.haze, dtype=np.float32) - color)
    bare = _bare(layers, ground)
    sun = np.ones(shape, dtype=np.float32)
    sun[ground.top :] = np.where(layers.owner[ground.top :], 1, lit)
    frame = Frame(color, depth, sun, bare, layers.glow[..., None] * layers.color, view.horizon, sky.haze)
    return frame, label.astype(np.int16)


def _bare(layers: Layers, ground: Ground) -> NDArray[np.bool_]:
    bare = ~layers.owner
    bare[: ground.top] = False
    bare[ground.top :] &= ground.label != VEGETATION
    return bare


def _lay_out(canvas: Canvas, street: Street, light: Light, random: Random, keeps: int) -> _Layout:
    layout = _Layout(random, canvas, street, light)
    for side in (-1, 1):
        layout.frontage(side, random.choices(["town", "suburb", "country"], [4, 3, 2])[0])
    layout.furniture()
    layout.traffic(keeps)
    return layout


def draw_scene(
    seed: tuple[int, int],
    size: tuple[int, int],
    unknowns: bool,
    weather: str,
    strength: float | None,
) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Draw scene `seed`: the image `(H, W, 3)` and the label `(H, W)`.

    Args:
        seed: of the data set, and the scene's number.
        size: height and width in pixels.
        unknowns: whether unknown things stand there.
        weather: one of `WEATHERS`, or `mixed`.
        strength: of the weather in [0, 1]; none for a strength that the seed chooses.
    """
    streams = np.random.SeedSequence(seed).spawn(5)
    numbers = [int(stream.generate_state(1, np.uint64)[0]) for stream in streams]
    random, strange, climate = (Random(number) for number in numbers[:3])
    textures, drops = (np.random.default_rng(number) for number in numbers[3:])

    street, light, sky = draw_street(random), draw_light(random), draw_sky(random)
    keeps = random.choice([-1, 1])
    lane = keeps * street.half / street.lanes * (2 if street.lanes == 3 else 1)
    view: View = draw_view(random, size[1], size[0], lane)
    canvas = Canvas(view)
    if random.random() < 0.5:
        buildings.skyline(canvas, random, BUILDING, buildings.CONCRETE)
    if random.random() < 0.8:
        buildings.skyline(canvas, random, VEGETATION, plants.FAR_LEAVES)
    layout = _lay_out(canvas, street, light, random, keeps)
    if unknowns:
        layout.unknowns(strange)
    layout.draw()
    chosen, power = climate.choice(WEATHERS), climate.uniform(0.25, 1.0)
    if climate.random() < 0.25:
        _bonnet(canvas, climate)

    frame, label = _compose(canvas, street, sky, light, textures)
    weather = chosen if weather == "mixed" else weather
    color = weathered(frame, weather, power if strength is None else strength, drops)
    return expose(color, textures), label
