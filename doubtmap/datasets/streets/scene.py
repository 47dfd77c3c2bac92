"""One street scene: what stands where, and how the layers become an image and a label map."""

from __future__ import annotations

from random import Random

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from doubtmap.datasets.dataset import VOID
from doubtmap.datasets.streets import buildings, plants, vehicles
from doubtmap.datasets.streets.canvas import Canvas, Layers, Paint
from doubtmap.datasets.streets.ground import Ground, Street, draw_ground, draw_street
from doubtmap.datasets.streets.layout import Layout
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
from doubtmap.datasets.streets.view import View, draw_view
from doubtmap.datasets.streets.weather import WEATHERS, Frame, weathered

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


def _lay_out(canvas: Canvas, street: Street, light: Light, random: Random, keeps: int) -> Layout:
    layout = Layout(random, canvas, street, light)
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
