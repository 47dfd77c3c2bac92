"""Objects as a GeoPackage, in the reference systems of their images; the one place of pyogrio.

GDAL writes it, so that GIS tools open it at the right place: a layer for each reference system,
whose coordinates are those of the images, without a detour over degrees.

References:
    OGC GeoPackage 1.3 (Open Geospatial Consortium, 2021), https://www.geopackage.org/spec130/
    OGC Simple Feature Access 1.2.1, 8.2: well-known binary, https://www.ogc.org/standard/sfa/
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doubtmap.errors import DataError, UsageError
from doubtmap.files import write_atomically, writing_to
from doubtmap.metrics.accumulator import Array
from doubtmap.objects.georeference import INSTALL, ToMap
from doubtmap.objects.polygons import Polygon, signed_area

POLYGON, MULTIPOLYGON = 3, 6
"""Kinds of geometry in well-known binary."""


@dataclass
class Layer:
    """Objects of one reference system.

    Args:
        crs: as pyproj and GDAL take it.
        shapes: in well-known binary.
        properties: of each, all with the same keys.
    """

    crs: str
    shapes: list[bytes] = field(default_factory=list)
    properties: list[dict[str, Any]] = field(default_factory=list)


def check_library() -> None:
    """Refuse before any work where a GeoPackage cannot be written.

    Raises:
        UsageError: without pyogrio.
    """
    _pyogrio()


def _pyogrio() -> Any:
    try:
        import pyogrio
    except ImportError as error:
        raise UsageError(
            f"--to gpkg: needs pyogrio to be written. Install it with: {INSTALL}"
        ) from error
    return pyogrio


def multipolygon(shape: Sequence[Polygon], place: ToMap) -> bytes:
    """Outlines in well-known binary, outer rings counter-clockwise and holes clockwise.

    Args:
        shape: of one object.
        place: from pixels to coordinates.
    """
    polygons = [
        struct.pack("<BII", 1, POLYGON, len(polygon.rings))
        + b"".join(_ring(place(ring), outer=at == 0) for at, ring in enumerate(polygon.rings))
        for polygon in shape
    ]
    return struct.pack("<BII", 1, MULTIPOLYGON, len(polygons)) + b"".join(polygons)


def _ring(points: Array, *, outer: bool) -> bytes:
    points[-1] = points[0]
    if (signed_area(points) > 0) != outer:
        points = points[::-1]
    return struct.pack("<I", len(points)) + np.ascontiguousarray(points, "<f8").tobytes()


def write_geopackage(path: Path, layers: Sequence[Layer]) -> None:
    """Write a GeoPackage; whole, or not there.

    Args:
        path: of the file.
        layers: one for each reference system; their names are `objects`, or, of several,
            `objects_1` and so on.

    Raises:
        UsageError: without pyogrio.
        DataError: where it cannot be written.
    """
    pyogrio = _pyogrio()
    names = ["objects"] if len(layers) == 1 else [f"objects_{at + 1}" for at in range(len(layers))]
    with writing_to(path), tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        file = Path(folder) / path.name
        try:
            for name, layer in zip(names, layers):
                _write(pyogrio, file, name, layer)
        except pyogrio.errors.DataSourceError as error:
            raise DataError(
                f"{path}: cannot be written ({error}). Choose another --out."
            ) from error
        write_atomically(path, file.read_bytes())


def _write(pyogrio: Any, file: Path, name: str, layer: Layer) -> None:
    columns = _columns(layer.properties)
    pyogrio.raw.write(
        file,
        np.array(layer.shapes, object),
        list(columns.values()),
        list(columns),
        layer=name,
        driver="GPKG",
        geometry_type="MultiPolygon",
        crs=layer.crs,
        append=file.exists(),
    )


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    """Columns of text, whole numbers or fractions."""
    found = {}
    for key in rows[0] if rows else ():
        values = [row[key] for row in rows]
        text = any(isinstance(value, str) for value in values)
        missing = [np.nan if value is None else value for value in values]
        found[key] = np.array(values, object) if text else np.array(missing)
    return found
