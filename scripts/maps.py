"""Look at what `doubtmap score` made of a raster, as a GIS would show it, and at its seams.

    python scripts/maps.py MODEL IMAGE SCORED [--objects FILE] [--score NAME] [--out runs/maps]

IMAGE is the raster, SCORED the folder that `doubtmap score MODEL IMAGE --tile T --overlap O` wrote,
FILE the `objects.gpkg` of `doubtmap objects`. `map.png`: the image and its doubt, warped by GDAL to
north-up Web Mercator with a grid of degrees, a scale bar and the objects; what lies at the right
place here does so in QGIS. `seams.png`: a place where four windows meet, as windows with blending
gave it, as one pass over all around it did, and as windows side by side without overlap would; and
how far the first and the last are from the second. Pictures of other people's images stay out of
the repository: `runs/` is ignored.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

import doubtmap as dm
from doubtmap.prediction import Prediction
from doubtmap.reports.colours import colour_doubt, robust_limits
from doubtmap.reports.overlay import colour_bar, overlay
from doubtmap.scores.parsing import parse_scores
from doubtmap.windows.spans import Span, spans

SIDE = 1400
"""Pixels of the map's longer side."""
FRAME, INK, PAPER = 70, (34, 34, 38), (255, 255, 255)
CROP, AROUND = 384, 512
"""Pixels of the place that is looked at, and around it for the one pass."""
Pixels = NDArray[np.uint8]
Doubt = NDArray[np.float32]


def warped(path: Path, like: WarpedVRT | None = None) -> WarpedVRT:
    """A raster in Web Mercator; on the grid of another where one is given."""
    opened = rasterio.open(path)
    about = {"crs": "EPSG:3857", "resampling": Resampling.bilinear}
    about |= {"add_alpha": opened.nodata is None}
    if like is not None:
        about |= {"transform": like.transform, "width": like.width, "height": like.height}
    return WarpedVRT(opened, **about)


def laid(image: Path, doubt: Path) -> tuple[Pixels, rasterio.Affine, tuple[float, float]]:
    """The image with its doubt, `(H, W, 3)`, where that lies, and the limits of the doubt."""
    with warped(image) as source, warped(doubt, source) as over:
        by = max(source.width, source.height) / SIDE
        size = round(source.height / by), round(source.width / by)
        pixels = source.read((1, 2, 3), out_shape=(3, *size)).transpose(1, 2, 0)
        there = source.dataset_mask(out_shape=size) > 0
        values = over.read(1, out_shape=size, masked=True).filled(np.nan)
        transform = source.transform * rasterio.Affine.scale(source.width / size[1], by)
    limits = robust_limits(values[np.isfinite(values)])
    shown = overlay(pixels, np.nan_to_num(values, nan=limits[0]).astype(np.float32), limits)
    shown[~there] = PAPER
    return shown, transform, limits


def graticule(transform: rasterio.Affine, size: tuple[int, int]) -> Iterator[tuple[str, float]]:
    """Meridians (`x`) and parallels (`y`) in pixels, a few of each, with their degrees."""
    turn = Transformer.from_crs("EPSG:3857", "EPSG:4326", always_xy=True)
    west, north = turn.transform(*(transform @ (0, 0)))
    east, south = turn.transform(*(transform @ (size[1], size[0])))
    step = 10 ** math.floor(math.log10((east - west) / 2))
    step = next(step * part for part in (1, 2, 5, 10) if (east - west) / (step * part) < 5)
    for low, high, which in ((west, east, "x"), (south, north, "y")):
        for at in range(math.ceil(low / step), math.floor(high / step) + 1):
            yield which, at * step


def drawn_map(image: Path, doubt: Path, objects: Path | None) -> Image.Image:
    """The map with its frame."""
    shown, transform, limits = laid(image, doubt)
    height, width = shown.shape[:2]
    sheet = Image.new("RGB", (width + 2 * FRAME, height + 2 * FRAME + 40), PAPER)
    sheet.paste(Image.fromarray(shown), (FRAME, FRAME))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    back = Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True)
    west, north = Transformer.from_crs("EPSG:3857", "EPSG:4326", always_xy=True).transform(
        *(transform @ (0, 0))
    )
    for which, degrees in graticule(transform, (height, width)):
        x, y = ~transform @ back.transform(*((degrees, north) if which == "x" else (west, degrees)))
        if which == "x":
            draw.line([(FRAME + x, FRAME), (FRAME + x, FRAME + height)], INK, 1)
            draw.text((FRAME + x, FRAME - 20), f"{degrees:.4f}°", INK, font, "ma")
        else:
            draw.line([(FRAME, FRAME + y), (FRAME + width, FRAME + y)], INK, 1)
            draw.text((FRAME - 4, FRAME + y), f"{degrees:.4f}°", INK, font, "rm")
    if objects is not None:
        draw_objects(draw, objects, transform)
    scale_bar(draw, font, transform, math.radians(north), (FRAME, FRAME + height + 24))
    bar = Image.fromarray(colour_bar(400, limits))
    sheet.paste(bar, (FRAME + width - 400, FRAME + height + 16))
    draw.rectangle([FRAME, FRAME, FRAME + width, FRAME + height], outline=INK)
    return sheet


def draw_objects(draw: ImageDraw.ImageDraw, file: Path, transform: rasterio.Affine) -> None:
    """Boxes of the objects, from their own reference systems."""
    for layer in pyogrio.list_layers(file)[:, 0]:
        crs = pyogrio.read_info(file, layer=layer)["crs"]
        turn = Transformer.from_crs(crs, "EPSG:3857", always_xy=True)
        _, boxes = pyogrio.read_bounds(file, layer=layer)
        for left, bottom, right, top in boxes.T:
            corners = [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)]
            points = [~transform @ turn.transform(*corner) for corner in corners]
            draw.line([(FRAME + x, FRAME + y) for x, y in points], (255, 255, 0), 2)


def scale_bar(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    transform: rasterio.Affine,
    latitude: float,
    at: tuple[int, int],
) -> None:
    """A round number of metres; Web Mercator stretches by the latitude."""
    metres = 180 * transform.a * math.cos(latitude)
    whole = 10 ** math.floor(math.log10(metres))
    whole *= max(part for part in (1, 2, 5) if whole * part <= metres)
    long = whole / (transform.a * math.cos(latitude))
    draw.rectangle([at[0], at[1], at[0] + long, at[1] + 6], INK)
    draw.text((at[0] + long + 8, at[1] - 4), f"{whole:g} m", INK, font)


def seams(model: str, image: Path, doubt: Path, score: str) -> tuple[Image.Image, dict[str, float]]:
    """The place where four windows meet, in three ways, and how far these are apart."""
    about = json.loads((doubt.parents[1] / "score.json").read_text())["model"]["windows"]
    with rasterio.open(image) as source:
        size = source.height, source.width
        centre = [middle(spans(side, about["tile"], about["overlap"])) for side in size]
        rows, columns = (
            (max(0, at - CROP // 2), min(side, at + CROP // 2)) for at, side in zip(centre, size)
        )
        near = tuple(
            (max(0, low - AROUND) // 32 * 32, min(side, high + AROUND))
            for (low, high), side in zip((rows, columns), size)
        )
        pixels = source.read((1, 2, 3), window=near)
    inside = tuple(
        slice(low - start[0], high - start[0]) for (low, high), start in zip((rows, columns), near)
    )
    with rasterio.open(doubt) as source:
        through = source.read(1, window=(rows, columns))
    segmenter, (rule,) = dm.load(model), parse_scores(score).values()

    def scored(part: Pixels) -> Doubt:
        prediction: Prediction = segmenter(torch.from_numpy(np.ascontiguousarray(part))[None])
        return rule(prediction)[0].numpy()

    whole = scored(pixels)[inside]
    cut = [at - start[0] for at, start in zip(centre, near)]
    quarters = [
        [scored(pixels[:, low, high]) for high in (slice(None, cut[1]), slice(cut[1], None))]
        for low in (slice(None, cut[0]), slice(cut[0], None))
    ]
    bare = np.block(quarters)[inside]
    limits = robust_limits(whole)
    apart = [np.abs(each - whole) for each in (through, bare)]
    top = [
        pixels[:, *inside].transpose(1, 2, 0),
        *(colour_doubt(m, limits) for m in (whole, through, bare)),
    ]
    below = [np.full_like(top[0], 255)] * 2 + [
        colour_doubt(each, (0, limits[1] / 4)) for each in apart
    ]
    names = ("image", "one pass", "windows, blended", "side by side")
    sheet = Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in (top, below)]))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for at, name in enumerate(names):
        draw.text((at * top[0].shape[1] + 8, 8), name, PAPER, font, stroke_width=2, stroke_fill=INK)
    draw.text((8, top[0].shape[0] + 8), "how far from one pass (a quarter of the scale)", INK, font)
    edge = [(at - low) for at, (low, _) in zip(centre, (rows, columns))]
    jump = {
        name: float(np.abs(np.diff(each, axis=1))[:, edge[1] - 1].mean())
        for name, each in zip(names[1:], (whole, through, bare))
    }
    mean = {name: float(each.mean()) for name, each in zip(names[2:], apart)}
    return sheet, {f"step across the border, {k}": v for k, v in jump.items()} | {
        f"mean difference, {k}": v for k, v in mean.items()
    }


def middle(found: tuple[Span, ...]) -> int:
    """The border of two windows in the middle of an axis."""
    each = found[len(found) // 2]
    return int(sum(each.rise) / 2)


def main() -> None:
    """Draw both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("image", type=Path)
    parser.add_argument("scored", type=Path)
    parser.add_argument("--objects", type=Path)
    parser.add_argument("--score", default="entropy")
    parser.add_argument("--out", type=Path, default=Path("runs/maps"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    doubt = given.scored / given.score / f"{given.image.stem}.tif"
    drawn_map(given.image, doubt, given.objects).save(given.out / "map.png")
    picture, figures = seams(given.model, given.image, doubt, given.score)
    picture.save(given.out / "seams.png")
    for name, value in figures.items():
        print(f"{name}: {value:.5f}")


if __name__ == "__main__":
    main()
