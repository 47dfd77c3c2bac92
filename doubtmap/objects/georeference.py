"""Where an image lies on the earth: from the tags of a GeoTIFF, or from a world file beside it.

From any reference system to longitude and latitude; this is the one place that knows pyproj.

Reference:
    OGC GeoTIFF Standard 1.1 (Open Geospatial Consortium, 2019),
    https://docs.ogc.org/is/19-008r4/19-008r4.html
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from doubtmap.errors import DataError, UsageError
from doubtmap.files.afar import is_afar
from doubtmap.metrics.accumulator import Array
from doubtmap.objects.polygons import Polygon
from doubtmap.scenes.rasters import lies_at

SCALE, TIEPOINTS, TRANSFORMATION, GEO_KEYS, ORIENTATION = 33550, 33922, 34264, 34735, 274
"""TIFF tags."""


MODEL_TYPE, RASTER_TYPE, GEOGRAPHIC, PROJECTED = 1024, 1025, 2048, 3072
"""GeoKeys; the model type is 1 for projected and 2 for geographic coordinates."""


IS_POINT, USER_DEFINED = 2, 32767


@dataclass(frozen=True)
class Georeference:
    """An affine map from an image to coordinates on the earth, and what these are.

    Args:
        affine: a, b, c, d, e, f with `X = a x + b y + c` and `Y = d x + e y + f`, where x and y
            are pixels from the image's upper left *corner*, the first pixel's centre being 0.5,
            0.5. X is the easting or longitude.
        crs: the coordinate reference system, as in `EPSG:32640`, or None where it is not said.
        size: height and width of the image.
    """

    affine: tuple[float, float, float, float, float, float]
    crs: str | None
    size: tuple[int, int]

    def __call__(self, points: Array) -> Array:
        """`(n, 2)` X and Y of `(n, 2)` x and y."""
        a, b, c, d, e, f = self.affine
        x, y = points.astype(np.float64).T
        return np.stack([a * x + b * y + c, d * x + e * y + f], 1)


DAMAGE = (
    *(OSError, ValueError, SyntaxError, EOFError, KeyError, TypeError, IndexError),
    *(OverflowError, Image.DecompressionBombError),
)
"""What the reader of tags raises on damaged files, which whoever reads the pixels tells."""


def read_georeference(path: Path) -> Georeference | None:
    """Where an image lies, or None where it does not say.

    A GeoTIFF's own tags go before a world file (`.tfw`, `.jgw`, `.pgw`, `.wld` and the like), whose
    origin is the centre of the first pixel and which names no reference system.

    Args:
        path: of the image.

    Returns:
        None also for what is no image; reading its pixels will tell.

    Raises:
        DataError: for tags or a world file that cannot be meant, or an image that is stored
            turned.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata that does not matter here
            with path.open("rb") as file, Image.open(file) as image:
                size = (image.height, image.width)
                tags = dict(getattr(image, "tag_v2", {}))
                orientation = tags.get(ORIENTATION) or image.getexif().get(ORIENTATION, 1)
    except (*DAMAGE, DataError):
        return None
    world = _world_file(path)
    if TRANSFORMATION in tags or (SCALE in tags and TIEPOINTS in tags):
        keys = _geo_keys(tags.get(GEO_KEYS, ()))
        found = Georeference(_from_tags(tags, keys, path), _crs(keys), size)
    elif world is not None:
        found = Georeference(_from_world_file(world), None, size)
    else:
        return None
    if orientation != 1:
        raise DataError(
            f"{path}: expected a georeferenced image that is stored upright, got the orientation "
            f"{orientation}. Turn its pixels, or remove that tag."
        )
    return _checked(found, path)


def place_of(path: Path) -> Georeference | None:
    """Where an image lies, as its tags or a world file say, else as rasterio does.

    By rasterio come ground control points, by the affine map that fits them best, and reference
    systems without a code. Files afar are asked by rasterio first, which reads no more than tags.

    Raises:
        DataError: see `read_georeference`.
    """
    far = is_afar(path)
    found = None if far else read_georeference(path)
    if found is not None and found.crs is not None:
        return found
    said = lies_at(path)
    if said is not None and (said[1].startswith("EPSG:") or _has_pyproj()):
        return _checked(Georeference(*said), path)
    return read_georeference(path) if far else found


def _has_pyproj() -> bool:
    try:
        import pyproj  # noqa: F401
    except ImportError:
        return False
    return True


def _from_tags(
    tags: Mapping[int, Any], keys: Mapping[int, int], path: Path
) -> tuple[float, float, float, float, float, float]:
    """The affine map of a GeoTIFF."""
    scale, tie, matrix = (
        _numbers(tags, tag, least, path)
        for tag, least in ((SCALE, 2), (TIEPOINTS, 6), (TRANSFORMATION, 16))
    )
    if matrix:
        a, b, c, d, e, f = matrix[0], matrix[1], matrix[3], matrix[4], matrix[5], matrix[7]
    else:
        a, b, d, e = scale[0], 0.0, 0.0, -scale[1]
        c, f = tie[3] - a * tie[0], tie[4] - e * tie[1]
    # where the tags speak of pixel centres, the corner lies half a pixel before
    half = 0.5 if keys.get(RASTER_TYPE) == IS_POINT else 0.0
    return a, b, c - half * (a + b), d, e, f - half * (d + e)


def _numbers(tags: Mapping[int, Any], tag: int, least: int, path: Path) -> tuple[float, ...]:
    if tag not in tags:
        return ()
    value = tags[tag]
    try:
        found = tuple(map(float, value if isinstance(value, (tuple, list)) else (value,)))
    except (TypeError, ValueError):
        found = ()
    if len(found) < least:
        raise DataError(
            f"{path}: expected at least {least} numbers in the TIFF tag {tag}, got {value!r}. "
            f"Write the georeference anew, or remove it."
        )
    return found


def _geo_keys(directory: Any) -> dict[int, int]:
    """Those keys whose value stands in the directory itself, as all that are read here do."""
    try:
        entries = np.array(directory, int)[4:]
    except (TypeError, ValueError, OverflowError):
        return {}
    rows = entries[: len(entries) // 4 * 4].reshape(-1, 4)
    return {int(key): int(value) for key, location, _, value in rows if location == 0}


def _crs(keys: Mapping[int, int]) -> str | None:
    wanted = {1: PROJECTED, 2: GEOGRAPHIC}.get(keys.get(MODEL_TYPE, 0))
    code = keys.get(wanted, 0) if wanted else 0
    return f"EPSG:{code}" if 1024 <= code < USER_DEFINED else None


def _world_file(path: Path) -> Path | None:
    """Beside it; not looked for afar, where each question is a request."""
    if is_afar(path):
        return None
    suffix = path.suffix.lstrip(".")
    names = [f"{suffix[:1]}{suffix[-1:]}w", f"{suffix}w", "wld"] if suffix else ["wld"]
    for name in names:
        for spelt in (name.lower(), name.upper()):
            if (found := path.with_suffix(f".{spelt}")).is_file():
                return found
    return None


def _from_world_file(path: Path) -> tuple[float, float, float, float, float, float]:
    """Six lines: a, d, b, e, and X and Y of the first pixel's centre."""
    try:
        words = path.read_text(encoding="utf-8").split()
        a, d, b, e, c, f = map(float, words)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: expected a world file of six numbers, got another text ({error}). Correct or "
            f"remove it."
        ) from error
    return a, b, c - (a + b) / 2, d, e, f - (d + e) / 2


def _checked(found: Georeference, path: Path) -> Georeference:
    a, b, _, d, e, _ = found.affine
    if not all(map(math.isfinite, found.affine)) or a * e - b * d == 0:
        raise DataError(
            f"{path}: expected a georeference of finite numbers under which pixels have an area, "
            f"got {found.affine}. Correct or remove it."
        )
    return found


def corners(found: Georeference) -> Array:
    """`(4, 2)`, X and Y of the image's corners."""
    height, width = found.size
    return found(np.array([[0, 0], [width, 0], [width, height], [0, height]]))


ToMap = Callable[[Array], Array]
"""`(n, 2)` pixels to `(n, 2)` coordinates."""


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


def square_metres(shape: Sequence[Polygon], place: ToMap) -> float | None:
    """The area of outlines on the ellipsoid of WGS84, with geodesics between their corners.

    So it is the same whatever reference system the image has, also one that stretches areas.

    Args:
        shape: of one object.
        place: from pixels to longitude and latitude.

    Returns:
        None without pyproj.

    Reference:
        Algorithms for geodesics (Karney, 2013), https://doi.org/10.1007/s00190-012-0578-z
    """
    try:
        from pyproj import Geod
    except ImportError:
        return None
    ellipsoid = Geod(ellps="WGS84")

    def of(ring: Array) -> float:
        area, _ = ellipsoid.polygon_area_perimeter(*place(ring[:-1]).T)
        return abs(float(area))

    return sum(of(polygon.outer) - sum(map(of, polygon.holes)) for polygon in shape)


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
