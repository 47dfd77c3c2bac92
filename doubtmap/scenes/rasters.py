"""Rasters of any size, window by window; this is the one place that knows rasterio.

References:
    GDAL raster data model and GeoTIFF driver, https://gdal.org/drivers/raster/gtiff.html
    OGC GeoTIFF Standard 1.1 (Open Geospatial Consortium, 2019),
    https://docs.ogc.org/is/19-008r4/19-008r4.html
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from doubtmap.datasets.reading import Rendering, brightness, implied_range, read_image, scaled
from doubtmap.errors import DataError, UsageError
from doubtmap.files import beside
from doubtmap.files.afar import for_gdal, is_afar, sentence, settings_for_gdal, why

Range = tuple[int, int]
CACHE = "256"
"""Megabytes of blocks that GDAL keeps, unless the environment says; its own choice is a twentieth
of the machine."""
THUMBNAIL = 2048
"""Pixels of the longer side of an overview."""
ZLEVEL = 1
"""Of deflate: doubts shrink no further at 4 or 6, which take up to half as long again."""
BLOCK = 512
FEW = 256
"""Classes that a byte can tell apart, with one value left for what has no data."""
LARGE = 2**26
"""Pixels above which an image stays on its disk."""


def rasters_are_read() -> bool:
    """Whether rasterio is there."""
    try:
        import rasterio  # noqa: F401
    except ImportError:
        return False
    return True


def _rasterio(path: object) -> Any:
    os.environ.setdefault("GDAL_CACHEMAX", CACHE)  # read once, at the first block
    if is_afar(str(path)):
        settings_for_gdal()
    try:
        import rasterio
    except ImportError as error:
        raise UsageError(
            f"{path}: needs rasterio to be read and written window by window. Install it with: "
            f"pip install 'doubtmap[geo]'"
        ) from error
    return rasterio


def is_georeferenced(path: Path) -> bool:
    """Whether a raster says where on earth it lies; False for what cannot be opened."""
    may = is_afar(path) or path.suffix.lower() in (".tif", ".tiff", ".vrt", ".jp2")
    about = _about(path) if may else None
    return about is not None and about[1]


def raster_size(path: Path) -> tuple[int, int] | None:
    """Height and width of a file, in pixels; None for what cannot be opened as a raster."""
    about = _about(path)
    return None if about is None else about[0]


def _about(path: Path) -> tuple[tuple[int, int], bool] | None:
    if not rasters_are_read():
        return None
    rasterio = _rasterio(path)
    try:
        with _quiet(), rasterio.open(for_gdal(path)) as source:
            placed = bool(source.crs or source.gcps[0] or source.rpcs)
            placed = placed or not source.transform.is_identity
            return (source.height, source.width), placed
    except (OSError, rasterio.errors.RasterioError, UnicodeError):  # GDAL takes UTF-8 only
        return None


def lies_at(
    path: Path,
) -> tuple[tuple[float, float, float, float, float, float], str, tuple[int, int]] | None:
    """Where a raster lies, or None where it does not say, or cannot be opened.

    Returns:
        a, b, c, d, e, f with `X = a x + b y + c` and `Y = d x + e y + f`, x and y in pixels; the
        reference system, by its EPSG code where it has one, else as WKT; height and width.
    """
    if not rasters_are_read():
        return None
    rasterio = _rasterio(path)
    try:
        with _quiet(), rasterio.open(for_gdal(path)) as source:
            ground, system = source.gcps
            where = rasterio.transform.from_gcps(ground) if ground else source.transform
            system = system if ground else source.crs
            if not system:
                return None
            code = system.to_epsg()
            name = f"EPSG:{code}" if code else system.to_wkt()
            a, b, c, d, e, f = tuple(where)[:6]
            return (a, b, c, d, e, f), name, (source.height, source.width)
    except (OSError, rasterio.errors.RasterioError, UnicodeError):
        return None


def scene_of(path: Path, rendering: Rendering) -> Scene:
    """The image: on its disk where it has a place on earth or is large, else in memory."""
    height, width = raster_size(path) or (0, 0)
    if not height and is_afar(path) and rasters_are_read():
        return RasterScene(path, rendering)  # which tells why it cannot be opened
    if is_georeferenced(path) or height * width > LARGE:
        return RasterScene(path, rendering)
    return ImageScene(path, rendering)


@dataclass(frozen=True, eq=False)
class RasterScene:
    """An image that stays on its disk, read by rasterio.

    Args:
        path: of the file, as GDAL names it.
        rendering: how its bands become what the network takes.

    Raises:
        UsageError: without rasterio.
        DataError: for what cannot be opened, or whose range of values is not known.
    """

    path: Path
    rendering: Rendering

    @cached_property
    def _source(self) -> Any:
        rasterio = _rasterio(self.path)
        try:
            with _quiet():
                return rasterio.open(for_gdal(self.path))
        except (OSError, rasterio.errors.RasterioError, UnicodeError) as error:
            if is_afar(self.path):
                raise DataError(why(self.path, error)) from error
            raise DataError(f"{self.path}: cannot be opened as a raster: {error}.") from error

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self._source.height, self._source.width

    @cached_property
    def bands(self) -> tuple[int, ...]:
        """Which bands are read, from 1.

        Raises:
            DataError: for a band that the file lacks.
        """
        count = self._source.count if self._palette is None else 3
        if self.rendering.every > count:
            raise DataError(
                f"{self.path}: expected {self.rendering.every} bands or more, as the network "
                f"takes, got {count}. Correct --bands."
            )
        if self._palette is not None:
            return (1,)
        if self.rendering.every:
            return tuple(range(1, count + 1))
        colours = [colour.name for colour in self._source.colorinterp]
        if {"red", "green", "blue"} <= set(colours):
            return tuple(colours.index(name) + 1 for name in ("red", "green", "blue"))
        return (1, 2, 3) if count > 2 else (1,)

    @cached_property
    def range(self) -> tuple[float, float] | None:
        """What becomes black and white; None where 8 bits are read as they are.

        Without a given range, the bits that an overview of the file uses.
        """
        if self._palette is not None:
            return None
        if set(self._source.dtypes) == {"uint8"}:
            bits = int(self._source.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8))
            return None if bits == 8 else (0.0, 2.0**bits - 1)
        if self.rendering.range is not None:
            return self.rendering.range
        values = self._decimated(self.bands, masked=True).compressed()
        values = values[np.isfinite(values)]
        if not values.size:
            raise DataError(
                f"{self.path}: expected pixels with data in an overview, got none. Say which are "
                f"black and white with --range LOW,HIGH."
            )
        return implied_range([brightness(values, None, self.path)], self.path)

    def read(self, rows: Range, columns: Range) -> Tensor | None:
        """`(bands, h, w)` uint8 of a part; None where there are no data in it.

        Raises:
            DataError: for a part that cannot be read.
        """
        if not self.valid(rows, columns).any():
            return None
        pixels = self._read(self._source.read, rows, columns, self.bands)
        return torch.from_numpy(self._shown(pixels))

    def valid(self, rows: Range, columns: Range) -> NDArray[np.bool_]:
        """`(h, w)`, where there are data: all bands that are read have them, as numbers."""
        whole = np.ones((rows[1] - rows[0], columns[1] - columns[0]), bool)
        flags = [self._source.mask_flag_enums[band - 1] for band in self.bands]
        if any(flag[0].name != "all_valid" for flag in flags):
            whole &= (self._read(self._source.read_masks, rows, columns, self.bands) > 0).all(0)
        if any(self._source.dtypes[band - 1].startswith("float") for band in self.bands):
            whole &= np.isfinite(self._read(self._source.read, rows, columns, self.bands)).all(0)
        return whole

    def thumbnail(self) -> NDArray[np.uint8]:
        """`(h, w, 3)`, the whole image made small."""
        pixels = self._shown(self._decimated(self.bands, masked=False))
        chosen = pixels[:3] if len(pixels) > 2 else np.repeat(pixels[:1], 3, 0)
        return np.ascontiguousarray(chosen.transpose(1, 2, 0))

    def small(self, path: Path) -> NDArray[np.float32]:
        """A map of this image, `(h, w)` of the thumbnail's size; NaN without data."""
        of, shape = RasterScene(path, self.rendering), self._small_size
        read = of._guarded(lambda: of._source.read(1, out_shape=shape), "an overview")
        return np.asarray(read)

    @property
    def place(self) -> dict[str, Any]:
        """Where it lies: what a raster of the same pixels is to say, too."""
        source = self._source
        ground, system = source.gcps
        if ground:
            return {"gcps": ground, "crs": system}
        return {"crs": source.crs, "transform": source.transform, "rpcs": source.rpcs}

    @property
    def _small_size(self) -> tuple[int, int]:
        by = max(1.0, max(self.size) / THUMBNAIL)
        return max(1, round(self.size[0] / by)), max(1, round(self.size[1] / by))

    def _decimated(self, bands: Sequence[int], *, masked: bool) -> Any:
        shape = (len(bands), *self._small_size)
        return self._guarded(
            lambda: self._source.read(list(bands), out_shape=shape, masked=masked), "an overview"
        )

    def _read(
        self, read: Callable[..., Any], rows: Range, columns: Range, bands: Sequence[int]
    ) -> NDArray[Any]:
        where = f"rows {rows[0]} to {rows[1]}, columns {columns[0]} to {columns[1]}"
        pixels: NDArray[Any] = self._guarded(
            lambda: read(list(bands), window=(rows, columns)), where
        )
        return pixels

    def _guarded(self, read: Callable[[], Any], where: str) -> Any:
        try:
            with _quiet():
                return read()
        except (OSError, _rasterio(self.path).errors.RasterioError) as error:
            cause = f"{error.__cause__ or error}"
            if is_afar(self.path):
                cause = sentence(where, _said(error)).partition("cannot be read: ")[2] or cause
            raise DataError(f"{self.path}: {where} cannot be read: {cause.rstrip('.')}.") from error

    @cached_property
    def _palette(self) -> NDArray[np.uint8] | None:
        """`(3, n)`, the colours of a raster of places in a palette."""
        if [colour.name for colour in self._source.colorinterp] != ["palette"]:
            return None
        table = self._source.colormap(1)
        return np.array([table[place][:3] for place in sorted(table)], np.uint8).T

    def _shown(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        if self._palette is not None:
            return self._palette[:, pixels[0]]
        if self.range is not None:
            values = np.nan_to_num(pixels, nan=self.range[0])
            pixels = scaled(values, *self.range)
        return np.repeat(pixels, 3, 0) if len(pixels) == 1 else pixels


@dataclass(frozen=True, eq=False)
class ImageScene:
    """A photograph that is held as a whole, for files without a place on earth."""

    path: Path
    rendering: Rendering

    @cached_property
    def _pixels(self) -> Tensor:
        return read_image(self.path, self.rendering)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self._pixels.shape[-2], self._pixels.shape[-1]

    @property
    def range(self) -> tuple[float, float] | None:
        """As the run's."""
        return self.rendering.range

    def read(self, rows: Range, columns: Range) -> Tensor | None:
        """`(3, h, w)` uint8 of a part."""
        return self._pixels[:, slice(*rows), slice(*columns)]

    def valid(self, rows: Range, columns: Range) -> NDArray[np.bool_]:
        """Everywhere."""
        return np.ones((rows[1] - rows[0], columns[1] - columns[0]), bool)

    def thumbnail(self) -> NDArray[np.uint8]:
        """`(h, w, 3)`, every so many pixels."""
        by = -(-max(self.size) // THUMBNAIL)
        return np.ascontiguousarray(self._pixels[:3, ::by, ::by].permute(1, 2, 0).numpy())

    def small(self, path: Path) -> NDArray[np.float32]:
        """A map of this image, `(h, w)` of the thumbnail's size."""
        by = -(-max(self.size) // THUMBNAIL)
        with _quiet(), _rasterio(path).open(path) as source:
            values: NDArray[np.float32] = source.read(1)[::by, ::by]
        return values

    @property
    def place(self) -> dict[str, Any]:
        """Nowhere."""
        return {}


Scene = RasterScene | ImageScene


def write_raster(
    path: Path,
    size: tuple[int, int],
    parts: Iterable[tuple[Range, Range, NDArray[Any]]],
    place: Mapping[str, Any],
    *,
    nodata: float,
    description: str,
    tags: Mapping[str, str],
    colours: NDArray[np.uint8] | None = None,
    cloud: bool = False,
) -> None:
    """Write a tiled, compressed GeoTIFF with overviews; whole, or not there.

    Args:
        path: of the file.
        size: height and width, in pixels.
        parts: rows, columns and `(h, w)` values, all of one type, from the top down.
        place: of the image, see `RasterScene.place`.
        nodata: the value that stands for no data.
        description: of the band.
        tags: metadata.
        colours: `(classes, 3)`, of a class map of bytes.
        cloud: lay it out as a cloud-optimised GeoTIFF.

    Raises:
        DataError: where it cannot be written.
    """
    rasterio = _rasterio(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as file, _quiet():
            part = Path(file.name)
            _write(rasterio, part, size, parts, place, nodata, description, tags, colours)
            _overviews(rasterio, part, size, "average" if np.isnan(nodata) else "nearest")
            if cloud:
                _as_cloud(part)
    except (OSError, rasterio.errors.RasterioError) as error:
        raise DataError(f"{path}: cannot be written ({error}). Choose another --out.") from error


def _write(
    rasterio: Any,
    path: Path,
    size: tuple[int, int],
    parts: Iterable[tuple[Range, Range, NDArray[Any]]],
    place: Mapping[str, Any],
    nodata: float,
    description: str,
    tags: Mapping[str, str],
    colours: NDArray[np.uint8] | None,
) -> None:
    following = iter(parts)
    first = next(following)
    dtype = first[2].dtype
    profile = {"height": size[0], "width": size[1], "count": 1, "dtype": dtype, "nodata": nodata}
    profile |= {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "bigtiff": "IF_SAFER"}
    profile |= {"compress": "deflate", "predictor": 3 if dtype.kind == "f" else 1}
    profile |= {"num_threads": "ALL_CPUS", "zlevel": ZLEVEL}
    profile |= {key: place[key] for key in ("crs", "transform") if place.get(key) is not None}
    with rasterio.open(path, "w", driver="GTiff", **profile) as target:
        if "gcps" in place:
            target.gcps = (place["gcps"], place["crs"])
        if place.get("rpcs") is not None:
            target.rpcs = place["rpcs"]
        target.set_band_description(1, description)
        target.update_tags(**tags)
        if colours is not None and dtype == np.uint8:
            table = {index: (*map(int, colour), 255) for index, colour in enumerate(colours)}
            target.write_colormap(1, table | {int(nodata): (0, 0, 0, 0)})
        for rows, columns, values in chain([first], following):
            target.write(values, 1, window=(rows, columns))


def _overviews(rasterio: Any, path: Path, size: tuple[int, int], how: str) -> None:
    """Halves, until the whole fits in one block."""
    levels = [2**step for step in range(1, 16) if max(size) / 2**step >= BLOCK / 2]
    if levels:
        threads = rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS", ZLEVEL_OVERVIEW=ZLEVEL)
        with threads, rasterio.open(path, "r+") as target:
            target.build_overviews(levels, rasterio.enums.Resampling[how])


def _as_cloud(path: Path) -> None:
    from rasterio.shutil import copy

    how = {"compress": "deflate", "predictor": "YES", "num_threads": "ALL_CPUS"}
    how["bigtiff"] = "IF_SAFER"  # else what only compression brings below 4 GB may not fit
    with beside(path) as file:
        copy(path, file.name, driver="COG", **how)


def _said(error: BaseException | None) -> str:
    """What GDAL said, down to its first cause."""
    return "" if error is None else f"{error} {_said(error.__cause__)}".rstrip()


@contextmanager
def _quiet() -> Iterator[None]:
    """Rasters without a place are no news."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Dataset has no geotransform")
        yield
