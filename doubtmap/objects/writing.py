"""The files of `doubtmap objects`: unknown objects of images, for other tools and for the eye.

OUT/objects.json        COCO: images, annotations, and in `info` how all this was made
OUT/objects.csv         one row for each object
OUT/objects.parquet     the same, where that is asked for
OUT/objects.geojson     the objects of georeferenced images, in longitude and latitude
OUT/objects.gpkg        the same in the images' own coordinates, where that is asked for
OUT/overlay/NAME.png    each image with its objects

A part of a run has OUT/part.json and pictures only (`doubtmap.objects.parts`).
"""

from __future__ import annotations

import csv
import functools
import io
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from doubtmap.datasets.rasters import MAX_PIXELS
from doubtmap.datasets.reading import Rendering, in_colour, none_left, read_image
from doubtmap.datasets.survey import survey
from doubtmap.engine.parts import PART, hashes_of, write_part
from doubtmap.engine.places import PartNumber
from doubtmap.engine.settings import bands_needed, model_settings, score_settings
from doubtmap.errors import DataError, UsageError
from doubtmap.files import alone, cell, sweep, utf8, write_atomically, writing_to
from doubtmap.files.earlier import begin_in
from doubtmap.files.naming import outside, unique_names
from doubtmap.files.parquet import check_parquet, write_parquet
from doubtmap.images import ScoredImage, score_images
from doubtmap.objects import (
    ObjectRule,
    Polygon,
    UnknownObject,
    find_objects,
    outlines,
    simplified,
)
from doubtmap.objects.coco import CATEGORY, annotation, check_encoding
from doubtmap.objects.found import COLUMNS, Found
from doubtmap.objects.geojson import Map, feature, feature_collection, plan_map
from doubtmap.objects.geopackage import Layer, check_library, multipolygon, write_geopackage
from doubtmap.objects.georeference import place_of, square_metres
from doubtmap.objects.overlay import write_object_picture
from doubtmap.objects.probability import ObjectProbability
from doubtmap.objects.simplify import check_tolerance
from doubtmap.prediction import Score, Segmenter
from doubtmap.scenes import is_georeferenced
from doubtmap.scenes.rasters import RasterScene
from doubtmap.version import __version__

MAPS = ("geojson", "gpkg")
"""Forms of what has a place on earth."""


@dataclass(frozen=True)
class Form:
    """How objects are written.

    Args:
        simplify: tolerance of the outlines in pixels; 0: along the pixels' edges.
        encoding: of the masks in the JSON, `polygon` (run lengths where there are holes) or `rle`.
        crs: what the user says of georeferences that name no reference system.
        to: forms of the map, of `MAPS`.
        parquet: write the table as Parquet, too.

    Raises:
        UsageError: for what cannot be, or without the library that writes it.
    """

    simplify: float = 0.0
    encoding: str = "polygon"
    crs: str | None = None
    to: tuple[str, ...] = ("geojson",)
    parquet: bool = False

    def __post_init__(self) -> None:
        check_tolerance(self.simplify)
        check_encoding(self.encoding)
        wrong = [form for form in self.to if form not in MAPS]
        if wrong or not self.to:
            raise UsageError(f"--to: expected {' or '.join(MAPS)}, got {', '.join(wrong)}.")
        if "gpkg" in self.to:
            check_library()
        if self.parquet:
            check_parquet()


PLAIN = Form()


@alone
def write_objects(
    segmenter: Segmenter,
    paths: Sequence[Path],
    score: tuple[str, Score],
    rule: ObjectRule,
    out: Path,
    *,
    probability: ObjectProbability | None = None,
    form: Form = PLAIN,
    part: PartNumber | None = None,
    skip_bad: bool = False,
    range: tuple[float, float] | None = None,
    about: dict[str, Any] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Find the unknown objects of images and write them.

    Args:
        segmenter: the network.
        paths: of the images.
        score: its name, and the score itself.
        rule: threshold, and which objects are kept.
        out: folder, made if it is not there.
        probability: says of each how likely it is unknown; by it they are drawn and ordered.
        form: how they are written.
        part: which of the images only, for `doubtmap.objects.parts.merge_objects`.
        skip_bad: count images that cannot be read, and go on.
        range: values that are black and white in images of more than 8 bits; default: by the bits
            that all images of the run use.
        about: more to say in `info`, such as the command.
        progress: told after each image.

    Returns:
        What was found, in short: `images`, `objects`, `per_image`, `skipped`, `files`, `notes`.

    Raises:
        UsageError: for options that cannot be, or another rule than that of the probability.
        ModelError: where the probability was fitted to another network.
        DataError: for an image or a georeference that cannot be read, or a folder that cannot be
            written.
    """
    if probability is not None:
        probability.check_rule(rule)
        probability.check_network(segmenter)
    paths = outside(paths, out)
    skipped: dict[Path, str] | None = {} if skip_bad else None
    earth = _earth(paths, form.crs, skipped)
    names, found = unique_names(paths), Found(earth.first, earth.crs)
    note_files(out, list(names.values()))
    sweep(out)
    sweep(out / "overlay")
    todo = [path for path in paths if path not in (skipped or ())]
    own = {paths[at] for at in part.numbers(len(paths))} if part else set(paths)
    known = Rendering(range, every=bands_needed(segmenter))
    placed = frozenset(path for path in todo if is_georeferenced(path))
    seen = survey([(path, None) for path in todo if path not in placed], known)
    read = functools.partial(_read, rendering=seen.rendering, placed=placed, own=known)
    mine, unplaced = [path for path in todo if path in own], len(skipped or ())
    for scored in score_images(segmenter, mine, dict([score]), skipped, read=read):
        doubt = scored.maps[score[0]]
        if scored.path in placed:
            doubt = _with_data(scored.path, doubt, known)
        things = find_objects(doubt, scored.prediction.classes[0], rule)
        if probability is not None:
            things = probability(things, scored.prediction.size)
        exact = [outlines(thing.mask, thing.box[:2]) for thing in things]
        shapes = [simplified(shape, form.simplify) for shape in exact]
        _take(found, scored, [*zip(things, exact, shapes)], earth, form)
        image = in_colour(scored.image)
        write_object_picture(out / picture_of(names[scored.path]), image, things, shapes)
        if progress:
            progress("objects", len(found.images) + len(skipped or ()) - unplaced, len(mine))
    if not found.images and not part:
        raise DataError(none_left(len(paths), skipped))
    settings: dict[str, Any] = {**asdict(form)}
    settings |= {"range": seen.rendering.range, "notes": [*earth.notes, *seen.notes]}
    info = {
        "description": "Unknown objects",
        "doubtmap": __version__,
        "directory": str(Path.cwd()),
        "model": segmenter.description,
        "class_names": list(segmenter.class_names),
        "score": score[0],
        "rule": _written(rule),
        "probability": None if probability is None else probability.origin.told(),
        **settings,
        "skipped": {str(path): reason for path, reason in (skipped or {}).items()},
        **(about or {}),
    }
    if part is None:
        return finish(out, found, info, form)
    asked = model_settings(segmenter) | score_settings(dict([score]))
    done = [names[path] for path in mine if path not in (skipped or ())]
    every = {names[path]: str(path) for path in paths}
    told = {"settings": asked, "own": done, "images": every, "info": info}
    pictures = hashes_of(out, [*map(picture_of, done)])
    write_part(out, "objects", part, told | {"found": found.told(), "hashes": pictures})
    return _in_short(found, info, [out / PART])


def note_files(out: Path, names: Sequence[str]) -> None:
    """Remove the files of an earlier run, or part, and note those of this one; see `begin_in`.

    Args:
        out: folder of both.
        names: of the images.
    """
    with writing_to(out):
        (out / PART).unlink(missing_ok=True)
    begin_in(out, "objects", names, [picture_of("*"), *OF_ALL])


OF_ALL = ("objects.json", "objects.csv", "objects.parquet", *(f"objects.{name}" for name in MAPS))
"""Files of all images together."""


def picture_of(name: str) -> str:
    """The file of an image with its objects, in the run's folder."""
    return f"overlay/{name}.png"


def finish(out: Path, found: Found, info: dict[str, Any], form: Form) -> dict[str, Any]:
    """Write all files but the pictures.

    Args:
        out: folder.
        found: in all images.
        info: how all this was made.
        form: how it is written.

    Returns:
        As `write_objects`.

    Raises:
        DataError: for a folder that cannot be written.
    """
    return _in_short(found, info, _write(found, info, out, form))


def _in_short(found: Found, info: Mapping[str, Any], files: Sequence[Path]) -> dict[str, Any]:
    counts = {image["file_name"]: image["objects"] for image in found.images}
    return {
        **{"images": len(counts), "objects": len(found.annotations), "per_image": counts},
        **{key: info[key] for key in ("score", "rule", "skipped", "notes")},
        "files": [str(file) for file in files],
    }


def _earth(paths: Sequence[Path], crs: str | None, skipped: dict[Path, str] | None) -> Map:
    """Where the images lie; one whose georeference cannot be meant is skipped or ends the run."""
    found = {}
    for path in paths:
        try:
            place = place_of(path)
        except DataError as error:
            if skipped is None:
                raise
            skipped[path] = str(error)
            continue
        if place is not None:
            found[path] = place
    return plan_map(found, len(paths) - len(skipped or ()), crs)


def _read(path: Path, *, rendering: Rendering, placed: Collection[Path], own: Rendering) -> Tensor:
    """An image; one that has a place on earth as `score` reads it, by its own range and masks."""
    if path not in placed:
        return read_image(path, rendering)
    scene = RasterScene(path, own)
    height, width = scene.size
    if height * width > MAX_PIXELS:
        raise DataError(
            f"{path}: expected at most {MAX_PIXELS / 1e6:.0f} million pixels, which are held at "
            f"once, got {width} x {height}. Cut it into parts, or score it window by window."
        )
    pixels = scene.read((0, height), (0, width))
    bands = len(scene.bands) if own.every else 3
    return torch.zeros(bands, height, width, dtype=torch.uint8) if pixels is None else pixels


def _with_data(path: Path, doubt: Tensor, rendering: Rendering) -> Tensor:
    """A map that is nowhere above a threshold where a raster has no data."""
    height, width = doubt.shape
    valid = torch.from_numpy(RasterScene(path, rendering).valid((0, height), (0, width)))
    return torch.where(valid.to(doubt.device), doubt, torch.finfo(doubt.dtype).min)


def _take(
    found: Found,
    scored: ScoredImage,
    things: Sequence[tuple[UnknownObject, Sequence[Polygon], Sequence[Polygon]]],
    earth: Map,
    form: Form,
) -> None:
    """Take the objects of one image, each with its exact outlines and those that are written."""
    size, names = scored.prediction.size, scored.prediction.class_names
    file, number = str(scored.path), len(found.images) + 1
    found.images.append(
        {
            "id": number,
            "file_name": file,
            "width": size[1],
            "height": size[0],
            "objects": len(things),
        }
    )
    for thing, exact, shape in things:
        key = {"id": len(found.annotations) + 1, "image_id": number}
        said = annotation(thing, shape, size, names, check_encoding(form.encoding))
        found.annotations.append(key | said)
        figures = (key["id"], said["score"], said["score_max"], *thing.box, thing.area)
        share = thing.area / (size[0] * size[1])
        rest = (share, said["predicted_class"], said["predicted_share"], thing.probability)
        area = None
        if scored.path in earth.places:
            place = earth.places[scored.path]
            area = None if earth.crs else square_metres(exact, place)
            of = {"image": file, "object": key["id"], "area_m2": area}
            found.features.append(feature(thing, shape, place, of, names))
            if "gpkg" in form.to:
                own = earth.own[scored.path]
                layer = found.layers.setdefault(str(own.crs), Layer(str(own.crs)))
                layer.shapes.append(multipolygon(shape, own))
                layer.properties.append(found.features[-1]["properties"])
        found.rows.append((file, *figures, *rest, area))


def _write(found: Found, info: dict[str, Any], out: Path, form: Form) -> list[Path]:
    """All files but the pictures; a map of an earlier run that is none of this one goes."""
    coco = {
        "info": info,
        "licenses": [],
        "categories": [CATEGORY],
        "images": found.images,
        "annotations": found.annotations,
    }
    texts = {"objects.json": json.dumps(coco), "objects.csv": _table(found.rows)}
    for name in MAPS:
        (out / f"objects.{name}").unlink(missing_ok=True)
    if found.placed and "geojson" in form.to:
        texts["objects.geojson"] = json.dumps(feature_collection(found.features, found.crs))
    for name, text in texts.items():
        write_atomically(out / name, utf8(text))
    files = [out / name for name in texts]
    rows = (dict(zip(COLUMNS, row)) for row in found.rows)
    write_parquet(out / "objects.parquet", rows, form.parquet)
    files += [out / "objects.parquet"] if form.parquet else []
    if found.placed and "gpkg" in form.to:
        layers = [*found.layers.values()] or [Layer(found.placed)]
        write_geopackage(out / "objects.gpkg", layers)
        files.append(out / "objects.gpkg")
    return files


def _table(rows: Sequence[Sequence[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([cell(v) if isinstance(v, str) else v for v in row] for row in rows)
    return stream.getvalue()


def _written(rule: ObjectRule) -> dict[str, Any]:
    """The rule for JSON, which has no infinities."""
    limit = rule.threshold
    return asdict(rule) | {"threshold": limit if math.isfinite(limit) else str(limit)}
