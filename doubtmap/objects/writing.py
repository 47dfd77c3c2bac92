"""The files of `doubtmap objects`: unknown objects of images, for other tools and for the eye.

OUT/objects.json        COCO: images, annotations, and in `info` how all this was made
OUT/objects.csv         one row for each object
OUT/objects.geojson     the objects of georeferenced images
OUT/overlay/NAME.png    each image with its objects
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from doubtmap.datasets.reading import Rendering, in_colour, none_left
from doubtmap.datasets.survey import survey
from doubtmap.engine.settings import bands_needed
from doubtmap.errors import DataError
from doubtmap.files import alone, cell, sweep, utf8, write_atomically
from doubtmap.files.naming import outside, unique_names
from doubtmap.objects import (
    ObjectRule,
    Polygon,
    UnknownObject,
    find_objects,
    outlines,
    read_georeference,
    simplified,
)
from doubtmap.objects.coco import CATEGORY, Encoding, annotation, check_encoding
from doubtmap.objects.geojson import Map, feature, feature_collection, plan_map
from doubtmap.objects.overlay import write_object_picture
from doubtmap.objects.simplify import check_tolerance
from doubtmap.prediction import Score, Segmenter
from doubtmap.scoring import ScoredImage, score_images
from doubtmap.version import __version__

COLUMNS = (
    *("image", "object", "score", "score_max", "left", "top", "width", "height", "area"),
    *("share_of_image", "predicted_class", "predicted_share"),
)
"""Of the CSV; `object` is the annotation's id in the JSON."""


@dataclass
class Found:
    """What a run has found so far, as it will be written."""

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    features: list[dict[str, Any]] = field(default_factory=list)
    rows: list[tuple[Any, ...]] = field(default_factory=list)


@alone
def write_objects(
    segmenter: Segmenter,
    paths: Sequence[Path],
    score: tuple[str, Score],
    rule: ObjectRule,
    out: Path,
    *,
    simplify: float = 0.0,
    encoding: str = "polygon",
    crs: str | None = None,
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
        simplify: tolerance of the outlines in pixels; 0: along the pixels' edges.
        encoding: of the masks in the JSON, `polygon` (run lengths where there are holes) or `rle`.
        crs: what the user says of georeferences that name no reference system.
        skip_bad: count images that cannot be read, and go on.
        range: values that are black and white in images of more than 8 bits; default: by the bits
            that all images of the run use.
        about: more to say in `info`, such as the command.
        progress: told after each image.

    Returns:
        What was found, in short: `images`, `objects`, `per_image`, `skipped`, `files`, `notes`.

    Raises:
        UsageError: for options that cannot be.
        DataError: for an image or a georeference that cannot be read, or a folder that cannot be
            written.
    """
    check_tolerance(simplify)
    masks = check_encoding(encoding)
    paths = outside(paths, out)
    skipped: dict[Path, str] | None = {} if skip_bad else None
    earth = _earth(paths, crs, skipped)
    names, found = unique_names(paths), Found()
    sweep(out)
    sweep(out / "overlay")
    todo = [path for path in paths if path not in (skipped or ())]
    known = Rendering(range, every=bands_needed(segmenter))
    seen = survey([(path, None) for path in todo], known)
    for scored in score_images(segmenter, todo, dict([score]), skipped, seen.rendering):
        things = find_objects(scored.maps[score[0]], scored.prediction.classes[0], rule)
        shapes = [simplified(outlines(thing.mask, thing.box[:2]), simplify) for thing in things]
        _take(found, scored, things, shapes, earth, masks)
        image = in_colour(scored.image)
        write_object_picture(out / "overlay" / f"{names[scored.path]}.png", image, things, shapes)
        if progress:
            progress("objects", len(found.images) + len(skipped or ()), len(paths))
    if not found.images:
        raise DataError(none_left(len(paths), skipped))
    settings = {"simplify": simplify, "encoding": encoding, "crs": crs}
    settings |= {"range": seen.rendering.range, "notes": [*earth.notes, *seen.notes]}
    info = {
        "description": "Unknown objects",
        "doubtmap": __version__,
        "directory": str(Path.cwd()),
        "model": segmenter.description,
        "class_names": list(segmenter.class_names),
        "score": score[0],
        "rule": _written(rule),
        **settings,
        "skipped": {str(path): reason for path, reason in (skipped or {}).items()},
        **(about or {}),
    }
    files = _write(found, info, earth, out)
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
            place = read_georeference(path)
        except DataError as error:
            if skipped is None:
                raise
            skipped[path] = str(error)
            continue
        if place is not None:
            found[path] = place
    return plan_map(found, len(paths) - len(skipped or ()), crs)


def _take(
    found: Found,
    scored: ScoredImage,
    things: Sequence[UnknownObject],
    shapes: Sequence[Sequence[Polygon]],
    earth: Map,
    encoding: Encoding,
) -> None:
    """Take the objects of one image."""
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
    for thing, shape in zip(things, shapes):
        key = {"id": len(found.annotations) + 1, "image_id": number}
        said = annotation(thing, shape, size, names, encoding)
        found.annotations.append(key | said)
        figures = (key["id"], said["score"], said["score_max"], *thing.box, thing.area)
        share = thing.area / (size[0] * size[1])
        rest = (share, said["predicted_class"], said["predicted_share"])
        found.rows.append((file, *figures, *rest))
        if scored.path in earth.places:
            of = {"image": file, "object": key["id"]}
            place = earth.places[scored.path]
            found.features.append(feature(thing, shape, place, of, names))


def _write(found: Found, info: dict[str, Any], earth: Map, out: Path) -> list[Path]:
    """All files but the pictures; a GeoJSON of an earlier run that is none of this one goes."""
    coco = {
        "info": info,
        "licenses": [],
        "categories": [CATEGORY],
        "images": found.images,
        "annotations": found.annotations,
    }
    texts = {"objects.json": json.dumps(coco), "objects.csv": _table(found.rows)}
    if earth.places:
        texts["objects.geojson"] = json.dumps(feature_collection(found.features, earth.crs))
    else:
        (out / "objects.geojson").unlink(missing_ok=True)
    for name, text in texts.items():
        write_atomically(out / name, utf8(text))
    return [out / name for name in texts]


def _table(rows: Sequence[tuple[Any, ...]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([cell(v) if isinstance(v, str) else v for v in row] for row in rows)
    return stream.getvalue()


def _written(rule: ObjectRule) -> dict[str, Any]:
    """The rule for JSON, which has no infinities."""
    limit = rule.threshold
    return asdict(rule) | {"threshold": limit if math.isfinite(limit) else str(limit)}
