"""One street scene: what stands where, in what order it is drawn, and the image of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from doubtmap.datasets.dataset import VOID
from doubtmap.streets import buildings, roadside, vehicles
from doubtmap.streets import roadside as plants
from doubtmap.streets.canvas import Canvas, Layers, Paint, View, draw_view
from doubtmap.streets.ground import Ground, Street, draw_ground, draw_street
from doubtmap.streets.materials import (
    BUILDING,
    SKY,
    VEGETATION,
    Light,
    draw_light,
    pick,
    smooth_noise,
)
from doubtmap.streets.unknowns import unknown
from doubtmap.streets.weather import WEATHERS, Frame, Sky, draw_sky, expose, paint_sky, weathered

END = 130.0
"""Metres ahead at which the street's buildings stop."""


BUILT = {"town": 0.9, "suburb": 0.6, "country": 0.14}
"""How much of a street's sides is built up, by district."""


@dataclass(frozen=True)
class Thing:
    """Something to draw.

    Args:
        s: where its middle stands, metres right of the centre line.
        z: its near end, metres ahead.
        end: its far end.
        half: half its width, metres.
        lining: whether it lines the street, and so stands behind all that is before its far end.
        draw: draws it.
    """

    s: float
    z: float
    end: float
    half: float
    lining: bool
    draw: Callable[[], None]


class StreetPlan:
    """Chooses what stands along a street, gathers it, and draws it far to near."""

    def __init__(self, random: Random, canvas: Canvas, street: Street, light: Light) -> None:
        self.random, self.canvas, self.street, self.light = random, canvas, street, light
        self.things: list[Thing] = []

    def frontage(self, side: int) -> None:
        """Line one side with buildings, gardens, groves and a row of trees."""
        random, strips = self.random, self.street.roadside(side)
        district = random.choices(list(BUILT), [4, 3, 2])[0]
        z = random.uniform(1.5, 9)
        while z < END:
            end = z + random.uniform(7, 22)
            if random.random() < BUILT[district]:
                line = strips.line + (random.uniform(0, 5) if district != "town" else 0.0)
                self._line(buildings.building, side, line, z, end)
                if line - strips.pavement > 2:
                    self._garden(side, strips.pavement + 0.2, line, z, end)
            else:
                self._grove(side, strips.line, z, end, district)
            gaps = [0.0, 0.0, 0.4, 3.0] if district == "town" else [0.5, 3, 6]
            z = end + random.choice(gaps)
        if random.random() < (0.45 if district != "country" else 0.25):
            self._row_of_trees(side * max(strips.pavement - 0.5, self.street.half + 0.6))

    def furniture(self) -> None:
        """Put lamps, signs, boards, traffic lights and bollards beside the road."""
        random, half = self.random, self.street.half
        self._lamps()
        for _ in range(random.randint(1, 6)):
            side = random.choice([-1, 1])
            s, z = side * (half + random.uniform(0.4, 0.9)), random.uniform(6, 50)
            self._stand(roadside.sign, s, z)
        if random.random() < 0.4:
            side = random.choice([-1, 1])
            self._stand(roadside.board, side * (half + 0.7), random.uniform(14, 50))
        if random.random() < 0.3:
            z = random.uniform(9, 30)
            for side in (-1, 1):
                self._stand(roadside.traffic_light, side * (half + 0.4), z)
        if random.random() < 0.3:
            side = random.choice([-1, 1])
            self._stand(roadside.bollards, side * (half + 0.35), random.uniform(5, 20))

    def traffic(self, keeps: int) -> None:
        """Put vehicles into lanes, along the kerb, and now and then across the road.

        Args:
            keeps: the side that traffic keeps to, -1 (left) or 1 (right).
        """
        poses = [*self._driving(keeps), *self._parked(keeps)]
        random = self.random
        if random.random() < 0.12:
            s, z = random.uniform(-6, 6), random.uniform(12, 30)
            poses.append(vehicles.Pose(s, z, random.random() < 0.5, crossing=True))
        random.shuffle(poses)
        for pose in poses:
            self._place_vehicle(pose)

    def unknowns(self, random: Random) -> None:
        """Put one to four unknown things on or beside the road, the first in plain sight."""
        for number in range(random.choice([1, 1, 2, 2, 3, 4])):
            first = number == 0
            s, z = self._spot(random, first)
            self.things = [thing for thing in self.things if not _in_the_way(thing, s, z, first)]
            self._stand(unknown, s, z, half=1.0)

    def draw(self) -> None:
        """Draw everything far to near."""
        orders = {id(thing): thing.end if thing.lining else thing.z for thing in self.things}
        for long in self.things:
            if long.lining or long.end - long.z < 1:
                continue
            for thing in self.things:
                beside = long.z < thing.z < long.end and not thing.lining
                # nearer to the line of sight than a long vehicle: in front of it
                if beside and abs(self._aside(thing)) < abs(self._aside(long)):
                    orders[id(thing)] = min(orders[id(thing)], long.z - 0.01)
        for thing in sorted(self.things, key=lambda thing: -orders[id(thing)]):
            thing.draw()

    def _aside(self, thing: Thing) -> float:
        return self.canvas.view.centre(thing.z) + thing.s

    def _later(self, draw: Callable[..., None], *place: object) -> Callable[[], None]:
        """A drawing with its own chances: taking one thing away leaves the others as they are."""
        own = Random(self.random.getrandbits(64))
        return lambda: draw(self.canvas, own, self.light, *place)

    def _stand(self, draw: Callable[..., None], s: float, z: float, half: float = 0.5) -> None:
        """Add something that stands at one point."""
        self.things.append(Thing(s, z, z, half, False, self._later(draw, s, z)))

    def _line(
        self, draw: Callable[..., None], side: int, line: float, z: float, end: float
    ) -> None:
        """Add something that lines the street from `z` to `end`."""
        later = self._later(draw, side, line, z, end)
        self.things.append(Thing(side * line, z, end, 0.5, True, later))

    def _row_of_trees(self, s: float) -> None:
        random = self.random
        step, start = random.uniform(7, 14), random.uniform(5, 16)
        for number in range(int((75 - start) / step)):
            if random.random() < 0.85:
                self._stand(plants.tree, s, start + number * step)

    def _garden(self, side: int, line: float, back: float, z: float, end: float) -> None:
        random = self.random
        kind = random.random()
        if kind < 0.55:
            self._line(plants.hedge if kind < 0.35 else buildings.wall, side, line, z, end)
        for _ in range(random.randint(0, 3)):
            s = side * random.uniform(line + 0.8, max(back - 0.5, line + 0.9))
            self._stand(plants.bush, s, random.uniform(z, end))

    def _grove(self, side: int, line: float, z: float, end: float, district: str) -> None:
        random = self.random
        if random.random() < 0.35:
            self._line(plants.hedge, side, line, z, end)
        for _ in range(random.randint(1, 5) if district == "country" else random.randint(0, 3)):
            s, at = side * (line + random.uniform(1, 12)), random.uniform(z, end)
            self._stand(plants.tree if random.random() < 0.65 else plants.bush, s, at)

    def _lamps(self) -> None:
        random = self.random
        first = random.choice([-1, 1])
        step, start = random.uniform(14, 30), random.uniform(6, 22)
        wooden = random.random() < 0.2
        for number in range(5):
            side = first if number % 2 == 0 or wooden else -first
            draw = roadside.mast if wooden else roadside.lamp
            self._stand(draw, side * (self.street.half + 0.6), start + number * step)

    def _driving(self, keeps: int) -> list[vehicles.Pose]:
        random, street = self.random, self.street
        lane = 2 * street.half / street.lanes
        poses = []
        for number in range(street.lanes):
            s = -street.half + (number + 0.5) * lane
            z = random.uniform(9, 45)
            while z < 90:
                poses.append(vehicles.Pose(s + random.uniform(-0.3, 0.3), z, s * keeps >= -0.1))
                z += random.uniform(12, 60)
        return poses

    def _parked(self, keeps: int) -> list[vehicles.Pose]:
        random = self.random
        poses = []
        for side in (-1, 1):
            if random.random() < 0.55:
                z = random.uniform(3, 20)
                while z < 60:
                    s = side * (self.street.half - random.uniform(0.85, 1.05))
                    poses.append(vehicles.Pose(s, z, side == keeps or random.random() < 0.2))
                    z += random.uniform(5.5, 16)
        return poses

    def _place_vehicle(self, pose: vehicles.Pose) -> None:
        """Add a vehicle where there is room for it."""
        model = vehicles.draw_model(self.random)
        if abs(pose.s) > self.street.half - 1.1 and model in (vehicles.BUS, vehicles.LORRY):
            model = vehicles.CAR
        half = model.length[1] / 2 if pose.crossing else 1.2
        end = pose.z + (2.2 if pose.crossing else model.length[1])
        for other in self.things:
            close = abs(other.s - pose.s) < other.half + half
            if not other.lining and close and pose.z < other.end + 1.0 and other.z < end + 1.0:
                return
        draw = self._later(vehicles.vehicle, model, pose)
        self.things.append(Thing(pose.s, pose.z, end, half, False, draw))

    def _spot(self, random: Random, first: bool) -> tuple[float, float]:
        """Somewhere on the road or its pavements that the camera sees."""
        view, street = self.canvas.view, self.street
        nearest = view.focal * view.eye / max(0.86 * view.height - view.horizon, 1)
        for _ in range(20):
            z = nearest + random.uniform(0.3, 10 if first else 34)
            on_road = first or random.random() < 0.7
            left, right = (
                street.half - 0.6 if on_road else strips.pavement - 0.3
                for strips in (street.left, street.right)
            )
            s = random.uniform(-left, right)
            if abs(view.pixel(s, 0, z)[0] / view.width - 0.5) < 0.42:
                break
        return s, z


def _in_the_way(thing: Thing, s: float, z: float, clear_view: bool) -> bool:
    """Whether a thing stands where something else shall stand or, if asked, in front of it."""
    if thing.lining or abs(thing.s - s) > thing.half + 1.2 or thing.z >= z + 1.5:
        return False
    return clear_view or thing.end > z - 1.5


SKY_DEPTH = 400.0
"""Metres that the sky is away, for weather."""


def _bonnet(canvas: Canvas, random: Random) -> None:
    view = canvas.view
    high, wide = view.height * random.uniform(0.05, 0.12), view.width * random.uniform(0.3, 0.5)
    color = pick(random, vehicles.LACQUER, 0.05)
    middle = view.width * random.uniform(0.45, 0.55)
    for share in (1.0, 0.82, 0.6):
        arc = [
            (
                middle + wide * (k / 12 - 1),
                view.height - high * share * (1 - abs(k / 12 - 1) ** 3) + 1,
            )
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
        ndimage.gaussian_filter(
            np.asarray(image, dtype=np.float32)[ground.top :] / 255, view.height / 200
        )
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
    air = np.where(depth < SKY_DEPTH, 1 - np.exp(-depth * 0.0022), 0)[..., None]
    color += air * (np.asarray(sky.haze, dtype=np.float32) - color)
    bare = _bare(layers, ground)
    sun = np.ones(shape, dtype=np.float32)
    sun[ground.top :] = np.where(layers.owner[ground.top :], 1, lit)
    frame = Frame(
        color, depth, sun, bare, layers.glow[..., None] * layers.color, view.horizon, sky.haze
    )
    return frame, label.astype(np.int16)


def _bare(layers: Layers, ground: Ground) -> NDArray[np.bool_]:
    bare = ~layers.owner
    bare[: ground.top] = False
    bare[ground.top :] &= ground.label != VEGETATION
    return bare


def _lay_out(
    canvas: Canvas, street: Street, light: Light, random: Random, keeps: int
) -> StreetPlan:
    layout = StreetPlan(random, canvas, street, light)
    for side in (-1, 1):
        layout.frontage(side)
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
        buildings.skyline(canvas, Random(random.getrandbits(64)), BUILDING, buildings.CONCRETE)
    if random.random() < 0.8:
        buildings.skyline(canvas, Random(random.getrandbits(64)), VEGETATION, plants.FAR_LEAVES)
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
