"""Objects of georeferenced images as GeoJSON, in longitude and latitude wherever that can be.

Reference:
    The GeoJSON Format, RFC 7946 (Butler et al., 2016), https://www.rfc-editor.org/rfc/rfc7946;
    its predecessor with a `crs` member: https://geojson.org/geojson-spec (2008)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from doubtmap.errors import DataError, UsageError
from doubtmap.metrics.accumulator import Array
from doubtmap.objects.coco import described
from doubtmap.objects.find import UnknownObject
from doubtmap.objects.georeference import (
    INSTALL,
    WGS84,
    Georeference,
    ToMap,
    check_degrees,
    corners,
    named_crs,
    to_degrees,
)
from doubtmap.objects.polygons import Polygon, Ring, signed_area

DIGITS = 9
"""Decimals that are written: of degrees, a tenth of a millimetre."""


@dataclass(frozen=True)
class Map:
    """How the images of a run come to lie on one map.

    Args:
        places: from pixels to the map's coordinates, for each image that has them.
        own: from pixels to the images' own coordinates, whose reference system is known.
        crs: None for longitude and latitude as RFC 7946 wants them, else the reference system.
        notes: what a reader of the file, or who misses it, should know.
    """

    places: dict[Path, ToMap]
    crs: str | None = None
    notes: tuple[str, ...] = ()
    own: Mapping[Path, Georeference] = field(default_factory=dict)

    @property
    def first(self) -> str | None:
        """The reference system of the first image that has a place; None: none has."""
        return next((str(place.crs) for place in self.own.values()), None)


def plan_map(found: dict[Path, Georeference], images: int, crs: str | None = None) -> Map:
    """Decide, before any work, in which coordinates objects will be written.

    Longitude and latitude where that is what the images have, or where pyproj is there to turn
    their coordinates into them; else the images' own, if they share one reference system.

    Args:
        found: the images that have a georeference.
        images: how many there are in all.
        crs: what the user says of georeferences that name no reference system.

    Raises:
        UsageError: for a `crs` that is not one or contradicts an image, or images in several
            reference systems without pyproj.
        DataError: for a `crs` without any georeference, or coordinates that are none of its.
    """
    known, notes = _named(found, crs)
    if not found:
        return Map({}, None, ("No image has a georeference, so there is no GeoJSON.",))
    if len(found) < images:
        notes.append(
            f"GeoJSON: {images - len(found)} of {images} images have no georeference, so their "
            f"objects are left out."
        )
    systems = {place.crs or "" for place in known.values()}
    turns = {system: to_degrees(system) for system in systems}
    if all(turns.values()):
        places = {path: _chained(place, turns[place.crs or ""]) for path, place in known.items()}
        for path, place in known.items():
            turn = turns[place.crs or ""]
            assert turn is not None
            check_degrees(turn(corners(place)), str(path), str(place.crs))
        return Map(places, None, tuple(notes), known)
    lacking = sorted(system for system, turn in turns.items() if turn is None)
    if len(systems) > 1:
        raise UsageError(
            f"GeoJSON: expected images of one reference system, or pyproj, got "
            f"{', '.join(sorted(systems))}. Install it with: {INSTALL}."
        )
    notes.append(
        f"GeoJSON: the coordinates are those of {lacking[0]}, which RFC 7946 does not provide for; "
        f"for longitude and latitude: {INSTALL}."
    )
    notes.append(f"Areas in square metres are missing: {INSTALL}.")
    return Map(dict(known), lacking[0], tuple(notes), known)


def _named(
    found: dict[Path, Georeference], crs: str | None
) -> tuple[dict[Path, Georeference], list[str]]:
    """The georeferences whose reference system is known, and what to say of the others."""
    if crs is None:
        known = {path: place for path, place in found.items() if place.crs is not None}
        unnamed = [path for path in found if path not in known]
        if not unnamed:
            return known, []
        return known, [
            f"GeoJSON: {len(unnamed)} images have a georeference that names no reference system, "
            f"such as {unnamed[0]}, and are left out; say it with --crs EPSG:CODE."
        ]
    name = named_crs(crs)
    if not found:
        raise DataError(
            "--crs: expected georeferenced images, found none with GeoTIFF tags or a world file. "
            "Leave it out, or put world files beside the images."
        )
    for path, place in found.items():
        if place.crs not in (None, name):
            raise UsageError(
                f"--crs: expected what the images say, got {name}, but {path} says {place.crs}. "
                f"Leave it out."
            )
    return {path: replace(place, crs=name) for path, place in found.items()}, []


def _chained(place: ToMap, turn: ToMap | None) -> ToMap:
    assert turn is not None
    return lambda points: turn(place(points))


def feature(
    thing: UnknownObject,
    shape: Sequence[Polygon],
    place: ToMap,
    properties: dict[str, Any],
    class_names: Sequence[str] = (),
) -> dict[str, Any]:
    """One object as a GeoJSON feature: a polygon, or several where its pixels meet at corners only.

    Outer rings turn counter-clockwise and holes clockwise, as RFC 7946 wants them. Corners are
    placed one by one: edges are straight in the coordinates that are written.

    Args:
        thing: the object.
        shape: its outlines, exact or simplified.
        place: from pixels to coordinates.
        properties: what else to say of it.
        class_names: of the network, or empty.
    """
    polygons = [
        [
            _ring(ring, place, outer=index == 0, digits=DIGITS)
            for index, ring in enumerate(polygon.rings)
        ]
        for polygon in shape
    ]
    one = len(polygons) == 1
    return {
        "type": "Feature",
        "geometry": {
            "type": "Polygon" if one else "MultiPolygon",
            "coordinates": polygons[0] if one else polygons,
        },
        "properties": {
            **properties,
            "score": thing.score_mean,
            "area_pixels": thing.area,
            **described(thing, class_names),
        },
    }


def feature_collection(features: list[dict[str, Any]], crs: str | None = None) -> dict[str, Any]:
    """All features; `crs`, where they are not in longitude and latitude, as of 2008."""
    named = {} if crs is None or crs in WGS84 else {"crs": _crs_member(crs)}
    return {"type": "FeatureCollection", **named, "features": features}


def _crs_member(crs: str) -> dict[str, Any]:
    authority, code = crs.split(":")
    return {"type": "name", "properties": {"name": f"urn:ogc:def:crs:{authority}::{code}"}}


def _ring(ring: Ring, place: ToMap, *, outer: bool, digits: int) -> list[list[float]]:
    points: Array = place(ring)
    points[-1] = points[0]
    if (signed_area(points) > 0) != outer:
        points = points[::-1]
    rounded: list[list[float]] = np.round(points, digits).tolist()
    return rounded
