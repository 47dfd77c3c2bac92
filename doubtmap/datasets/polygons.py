"""Labels that are outlines in JSON: Labelme's file beside each image, COCO's file for all.

Shapes cover the pixels that Labelme's and COCO's own programs give them, to the last one; later
shapes lie over earlier ones.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from doubtmap.datasets.labels import LabelValues
from doubtmap.errors import DataError
from doubtmap.names import plain_name

Mask = NDArray[np.bool_]


def filled(points: NDArray[np.float64], height: int, width: int) -> Mask:
    """The pixels whose centres lie inside a polygon, by the even-odd rule.

    Args:
        points: `(N, 2)`, x and y in pixels; the centre of the first pixel is at 0.5, 0.5. The last
            point is joined with the first. Parts outside the image are cut off.
        height: of the image.
        width: of the image.

    Returns:
        `(height, width)`.
    """
    (x0, y0), (x1, y1) = points.T, np.roll(points, -1, axis=0).T
    low, high = np.minimum(y0, y1), np.maximum(y0, y1)
    first = np.ceil(low - 0.5).clip(0, height).astype(np.int64)
    counts = np.ceil(high - 0.5).clip(0, height).astype(np.int64) - first
    edge = np.repeat(np.arange(len(points)), counts)
    row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - first, counts)
    slope = (x1 - x0)[edge] / (y1 - y0)[edge]
    crossing = x0[edge] + (row + 0.5 - y0[edge]) * slope
    column = np.ceil(crossing - 0.5).clip(0, width).astype(np.int64)
    toggles = np.bincount(row * (width + 1) + column, minlength=height * (width + 1))
    inside: NDArray[np.bool_] = (
        np.cumsum(toggles.reshape(height, width + 1), axis=1)[:, :-1] % 2 == 1
    )
    return inside


def coco_filled(points: NDArray[np.float64], height: int, width: int) -> Mask:
    """The pixels that COCO's own code gives a polygon.

    It draws the outline five times as fine, and toggles from the pixel below each crossing of a
    column's centre line on, column by column.

    Args:
        points: `(N, 2)`, x and y in pixels; the last is joined with the first.
        height: of the image.
        width: of the image.

    Returns:
        `(height, width)`.

    Reference:
        Microsoft COCO API, common/maskApi.c, rleFrPoly, Dollar and Lin, 2015,
        https://github.com/cocodataset/cocoapi
    """
    fine = 5
    start = (fine * points + 0.5).astype(np.int64)
    end = np.roll(start, -1, axis=0)
    steps = np.abs(end - start)
    flat = steps[:, 0] >= steps[:, 1]
    along, across = np.where(flat, 0, 1), np.where(flat, 1, 0)
    edges = np.arange(len(points))
    flip = start[edges, along] > end[edges, along]
    low, high = np.where(flip[:, None], end, start), np.where(flip[:, None], start, end)
    length = steps[edges, along]
    slope = (high - low)[edges, across] / np.maximum(length, 1)
    edge = np.repeat(edges, length + 1)
    t = np.arange(len(edge)) - np.repeat(np.cumsum(length + 1) - length - 1, length + 1)
    t = np.where(flip[edge], length[edge] - t, t)
    one = t + low[edge, along[edge]]
    other = (low[edge, across[edge]] + slope[edge] * t + 0.5).astype(np.int64)
    x, y = np.where(flat[edge], one, other), np.where(flat[edge], other, one)
    column = (np.where(x[1:] < x[:-1], x[1:], x[1:] - 1) + 0.5) / fine - 0.5
    row = np.ceil(((np.minimum(y[1:], y[:-1]) + 0.5) / fine - 0.5).clip(0, height))
    kept = (x[1:] != x[:-1]) & (column == np.floor(column)) & (column >= 0) & (column < width)
    toggles = (column[kept] * height + row[kept]).astype(np.int64)
    counts = np.bincount(toggles, minlength=height * width + 1)
    inside: NDArray[np.bool_] = np.cumsum(counts)[:-1] % 2 == 1
    return inside.reshape(width, height).T


def read_shapes(
    path: Path, image: Path, size: tuple[int, int], values: LabelValues
) -> NDArray[np.int16]:
    """Labels of one image from Labelme's or COCO's JSON.

    Args:
        path: the JSON file.
        image: the image file, by whose name COCO's file knows it.
        size: height and width of the image.
        values: which names mean which label; `background` is what no shape covers.

    Returns:
        `(H, W)` int16: class index, or `KNOWN`, `UNKNOWN`, `VOID`.

    Raises:
        DataError: for another file, size or kind of shape, a name that is not described, and pixels
            outside of all shapes where nothing says what they are.
    """
    try:
        shapes = list(_shapes(path, path.stat().st_mtime_ns, image, size))
    except (AttributeError, LookupError, TypeError, ValueError, OSError) as error:
        raise DataError(
            f"{path}: expected outlines as Labelme or COCO writes them, got something else "
            f"({type(error).__name__}: {error}). Export it again."
        ) from error
    labels = np.full(size, _outside(values), np.int16)
    for name, mask in shapes:
        label = values.named.get(plain_name(str(name)), values.other)
        if label is None:
            raise DataError(
                f"{path}: expected shapes named {', '.join(values.named)}, got {name} for "
                f"{image.name}. Describe it in doubtmap.toml, or correct the name."
            )
        labels[mask] = label
    bare = labels == _BARE
    if bare.any():
        y, x = np.argwhere(bare)[0]
        raise DataError(
            f"{path}: expected shapes over all of {image.name}, got {int(bare.sum())} pixels in "
            f"none, the first in row {y}, column {x}. Say what they are: a class background = "
            '"background", or other = "void", in doubtmap.toml.'
        )
    return labels


_BARE = np.iinfo(np.int16).min


def _outside(values: LabelValues) -> int:
    if "background" in values.named:
        return values.named["background"]
    return _BARE if values.other is None else values.other


def _shapes(
    path: Path, changed: int, image: Path, size: tuple[int, int]
) -> Iterator[tuple[str, Mask]]:
    content = _content(path, changed)
    if "shapes" in content:
        said = (content.get("imageHeight") or size[0], content.get("imageWidth") or size[1])
        _check_size(said, size, path, image)
        yield from _labelme(content["shapes"], size, path)
    else:
        yield from _coco_shapes(_coco(path, changed), image, size, path)


def said_size(path: Path, image: Path) -> tuple[int, int] | None:
    """Height and width of an image as a JSON file says them, where it does.

    Raises:
        DataError: for a file that is no JSON, or lacks the image.
    """
    changed = path.stat().st_mtime_ns
    content = _content(path, changed)
    if "shapes" in content:
        said = content.get("imageHeight"), content.get("imageWidth")
    elif {"images", "annotations", "categories"} <= set(content):
        entry = _coco(path, changed).entry(image, path)
        said = entry.get("height"), entry.get("width")
    else:
        return None
    return (int(said[0]), int(said[1])) if said[0] and said[1] else None


def _check_size(said: tuple[Any, Any], size: tuple[int, int], path: Path, image: Path) -> None:
    if tuple(said) != size:
        raise DataError(
            f"{path}: expected outlines on {size[1]} x {size[0]} pixels, the size of {image}, got "
            f"{said[1]} x {said[0]} (width x height). Export them for this image."
        )


def _labelme(
    shapes: list[dict[str, Any]], size: tuple[int, int], path: Path
) -> Iterator[tuple[str, Mask]]:
    for shape in shapes:
        kind = shape.get("shape_type") or "polygon"
        points = np.array(shape["points"], np.float64).reshape(-1, 2)
        if kind == "mask":
            yield shape["label"], _pasted(shape["mask"], points, size)
        elif kind in _DRAWN:
            yield shape["label"], _drawn(kind, points, size)
        else:
            raise DataError(
                f"{path}: expected polygons, rectangles, circles or masks, got a {kind} for "
                f"{shape['label']}, which covers no area. Remove it, or draw a polygon."
            )


_DRAWN = ("polygon", "rectangle", "circle", "oriented_rectangle", "rotation")


def _drawn(kind: str, points: NDArray[np.float64], size: tuple[int, int]) -> Mask:
    """A shape as Labelme draws it: with its outline, by way of Pillow."""
    canvas = Image.new("L", size[::-1])
    draw = ImageDraw.Draw(canvas)
    if kind == "circle":
        (x, y), edge = points.tolist()
        radius = math.dist((x, y), edge)
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, outline=1, fill=1)
    elif kind == "rectangle":
        draw.rectangle((*points.min(axis=0), *points.max(axis=0)), outline=1, fill=1)
    elif len(points) > 2:
        draw.polygon([tuple(point) for point in points.tolist()], outline=1, fill=1)
    else:
        raise ValueError(f"a polygon of {len(points)} points")
    return np.array(canvas, bool)


def _pasted(text: str, points: NDArray[np.float64], size: tuple[int, int]) -> Mask:
    """A mask in a box, as Labelme keeps those that a model drew."""
    with Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",)) as image:
        mask = np.array(image.convert("L")) > 0
    whole = np.zeros(size, bool)
    left, top = (int(value) for value in points.min(axis=0))
    mask = mask[max(0, -top) :, max(0, -left) :]
    left, top = max(0, left), max(0, top)
    part = whole[top : top + mask.shape[0], left : left + mask.shape[1]]
    part |= mask[: part.shape[0], : part.shape[1]]
    return whole


@dataclass(frozen=True)
class _Coco:
    """COCO's file by image: what it says of each, and its annotations in their order."""

    names: Mapping[Any, str]
    images: Mapping[str, list[dict[str, Any]]]
    annotations: Mapping[Any, list[dict[str, Any]]]

    def entry(self, image: Path, path: Path) -> dict[str, Any]:
        """Of the image: by the longest path that fits, else by the name alone."""
        named = self.images.get(image.name, [])
        exact = [entry for entry in named if _is_of(entry["file_name"], image)]
        longest = max((len(_parts(entry["file_name"])) for entry in exact), default=0)
        found = [e for e in exact if len(_parts(e["file_name"])) == longest] or named
        if len(found) != 1:
            raise DataError(
                f"{path}: expected one entry for {image.name}, found {len(found)}. Complete the "
                "file."
            )
        return found[0]


@lru_cache(maxsize=2)
def _coco(path: Path, changed: int) -> _Coco:
    content = _content(path, changed)
    images, annotations = defaultdict(list), defaultdict(list)
    for entry in content["images"]:
        images[_parts(entry["file_name"])[-1]].append(entry)
    for found in content["annotations"]:
        annotations[found["image_id"]].append(found)
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    return _Coco(names, images, annotations)


def _coco_shapes(
    coco: _Coco, image: Path, size: tuple[int, int], path: Path
) -> Iterator[tuple[str, Mask]]:
    entry = coco.entry(image, path)
    _check_size(_said(entry, size), size, path, image)
    for found in coco.annotations.get(entry["id"], ()):
        yield coco.names[found["category_id"]], _segmentation(found["segmentation"], size)


def _said(entry: Mapping[str, Any], size: tuple[int, int]) -> tuple[Any, Any]:
    return entry.get("height") or size[0], entry.get("width") or size[1]


def _is_of(file_name: str, image: Path) -> bool:
    wanted = _parts(file_name)
    return image.parts[-len(wanted) :] == wanted


def _parts(file_name: str) -> tuple[str, ...]:
    return PurePosixPath(file_name.replace("\\", "/")).parts


def _segmentation(found: Any, size: tuple[int, int]) -> Mask:
    """COCO's polygons, or run lengths, plain or packed into text."""
    if isinstance(found, list):
        mask = np.zeros(size, bool)
        for ring in found:
            mask |= coco_filled(np.array(ring, np.float64).reshape(-1, 2), *size)
        return mask
    counts = found["counts"]
    runs = _packed_runs(counts) if isinstance(counts, str) else counts
    if tuple(found["size"]) != size or sum(runs) != size[0] * size[1]:
        raise ValueError(f"run lengths of {found['size']} for an image of {list(size)}")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(size[::-1]).T


def _packed_runs(text: str) -> list[int]:
    """Run lengths from COCO's text: five bits a character, differences from the third run on."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        five = ord(character) - 48
        value |= (five & 31) << shift
        shift += 5
        if not five & 32:
            if five & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def names_in(path: Path) -> list[str]:
    """The names of the shapes in a JSON file.

    Raises:
        DataError: for a file that is no JSON.
    """
    content = _content(path, path.stat().st_mtime_ns)
    if "categories" in content:
        return [str(entry["name"]) for entry in content["categories"]]
    return list(dict.fromkeys(str(shape["label"]) for shape in content.get("shapes", ())))


@lru_cache(maxsize=2)
def _content(path: Path, _: int) -> dict[str, Any]:
    """COCO's file is large, and asked for once an image."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected JSON, got something else ({error}).") from error
    if not isinstance(content, dict):
        raise DataError(
            f"{path}: expected outlines of Labelme or COCO, got a list. Export it again."
        )
    return content
