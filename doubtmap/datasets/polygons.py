"""Labels that are outlines in JSON: Labelme's file beside each image, COCO's file for all.

A pixel belongs to a shape where its centre does; later shapes lie over earlier ones.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
    content = _content(str(path), path.stat().st_mtime_ns)
    try:
        shapes = list(_shapes(content, path, image, size))
    except (KeyError, TypeError, ValueError, IndexError, OSError) as error:
        raise DataError(
            f"{path}: expected outlines as Labelme or COCO writes them, got something else "
            f"({type(error).__name__}: {error}). Export it again."
        ) from error
    labels = np.full(size, _outside(values), np.int16)
    for name, mask in shapes:
        if plain_name(name) not in values.named:
            raise DataError(
                f"{path}: expected shapes named {', '.join(values.named)}, got {name} for "
                f"{image.name}. Describe it in doubtmap.toml, or correct the name."
            )
        labels[mask] = values.named[plain_name(name)]
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
    content: Mapping[str, Any], path: Path, image: Path, size: tuple[int, int]
) -> Iterator[tuple[str, Mask]]:
    if "shapes" in content:
        said = (content.get("imageHeight") or size[0], content.get("imageWidth") or size[1])
        _check_size(said, size, path, image)
        yield from _labelme(content["shapes"], size, path)
    else:
        yield from _coco(content, image, size, path)


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
        if kind == "polygon":
            yield shape["label"], filled(points, *size)
        elif kind == "rectangle":
            (x0, y0), (x1, y1) = points
            corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
            yield shape["label"], filled(corners, *size)
        elif kind == "circle":
            rows, columns = np.ogrid[: size[0], : size[1]]
            (x, y), edge = points
            radius = np.hypot(*(edge - points[0]))
            yield shape["label"], np.hypot(columns + 0.5 - x, rows + 0.5 - y) <= radius
        elif kind == "mask":
            yield shape["label"], _pasted(shape["mask"], points, size)
        else:
            raise DataError(
                f"{path}: expected polygons, rectangles, circles or masks, got a {kind} for "
                f"{shape['label']}, which covers no area. Remove it, or draw a polygon."
            )


def _pasted(text: str, points: NDArray[np.float64], size: tuple[int, int]) -> Mask:
    """A mask in a box, as Labelme keeps those that a model drew."""
    with Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",)) as image:
        mask = np.array(image.convert("L")) > 0
    whole = np.zeros(size, bool)
    left, top = (int(value) for value in points.min(axis=0))
    part = whole[top : top + mask.shape[0], left : left + mask.shape[1]]
    part |= mask[: part.shape[0], : part.shape[1]]
    return whole


def _coco(
    content: Mapping[str, Any], image: Path, size: tuple[int, int], path: Path
) -> Iterator[tuple[str, Mask]]:
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    entries = [entry for entry in content["images"] if _is_of(entry["file_name"], image)]
    if len(entries) != 1:
        raise DataError(
            f"{path}: expected one entry for {image.name}, found {len(entries)}. Complete the file."
        )
    said = (entries[0].get("height", size[0]), entries[0].get("width", size[1]))
    _check_size(said, size, path, image)
    for found in content["annotations"]:
        if found["image_id"] == entries[0]["id"]:
            yield names[found["category_id"]], _segmentation(found["segmentation"], size)


def _is_of(file_name: str, image: Path) -> bool:
    wanted = PurePosixPath(file_name.replace("\\", "/")).parts
    return image.parts[-len(wanted) :] == wanted


def _segmentation(found: Any, size: tuple[int, int]) -> Mask:
    """COCO's polygons, or run lengths, plain or packed into text."""
    if isinstance(found, list):
        mask = np.zeros(size, bool)
        for ring in found:
            mask |= filled(np.array(ring, np.float64).reshape(-1, 2), *size)
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
    content = _content(str(path), path.stat().st_mtime_ns)
    if "categories" in content:
        return [str(entry["name"]) for entry in content["categories"]]
    return list(dict.fromkeys(str(shape["label"]) for shape in content.get("shapes", ())))


@lru_cache(maxsize=2)
def _content(path: str, _: int) -> dict[str, Any]:
    """COCO's file is large, and asked for once an image."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected JSON, got something else ({error}).") from error
    if not isinstance(content, dict):
        raise DataError(
            f"{path}: expected outlines of Labelme or COCO, got a list. Export it again."
        )
    return content
