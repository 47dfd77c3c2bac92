"""From any reference system to longitude and latitude; the one place that knows pyproj."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from doubtmap.errors import DataError, UsageError
from doubtmap.metrics.accumulator import Array

INSTALL = 'pip install "doubtmap[geo]"'
WGS84 = ("EPSG:4326", "OGC:CRS84")
"""Names of longitude and latitude as GeoJSON has them; X is the longitude in both."""


def named_crs(text: str) -> str:
    """A coordinate reference system as it is written here: `EPSG:` and its number.

    Raises:
        UsageError: for another form.

    Example:
        >>> named_crs("epsg:32640")
        'EPSG:32640'
    """
    name = text.strip().upper()
    if name in WGS84:
        return WGS84[0]
    if not re.fullmatch(r"EPSG:[0-9]{4,6}", name):
        raise UsageError(f"--crs: expected a code such as EPSG:4326, got {text}.")
    return name


def to_degrees(crs: str) -> Callable[[Array], Array] | None:
    """What turns `(n, 2)` X and Y into longitude and latitude, or None without pyproj.

    Raises:
        UsageError: for a reference system that pyproj does not know.
    """
    if crs in WGS84:
        return lambda points: points
    try:
        from pyproj import Transformer
        from pyproj.exceptions import ProjError
    except ImportError:
        return None
    try:
        transformer = Transformer.from_crs(crs, WGS84[0], always_xy=True)
    except ProjError as error:
        raise UsageError(
            f"--crs: expected a reference system that pyproj knows, got {crs} ({error}). Correct "
            f"the code."
        ) from error

    def transformed(points: Array) -> Array:
        longitude, latitude = transformer.transform(points[:, 0], points[:, 1])
        return np.stack([np.asarray(longitude), np.asarray(latitude)], 1).astype(np.float64)

    return transformed


def check_degrees(points: Array, of: str, crs: str) -> None:
    """Refuse what is no longitude and latitude.

    Args:
        points: `(n, 2)`, longitude and latitude.
        of: whose, for the message.
        crs: of which they were said to be.

    Raises:
        DataError: for numbers outside of [-180, 180] and [-90, 90], or not finite.
    """
    limits = np.array([180.0, 90.0])
    outside = ~(np.abs(points) <= limits).all(1)
    if outside.any():
        x, y = points[outside][0]
        raise DataError(
            f"{of}: expected longitudes within 180 and latitudes within 90 degrees, got {x:.6g}, "
            f"{y:.6g} from {crs}. Name the right reference system, or correct the georeference."
        )
