"""Rasters, volumes and films as images: one made small, one slice, one frame.

Of a raster what is shown is no larger than an overview. The frames are those of the film that the
run wrote, which has the doubt laid over them.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doubtmap.datasets.dataset import VOID
from doubtmap.datasets.reading import Rendering
from doubtmap.errors import DataError
from doubtmap.films.frames import FilmReader
from doubtmap.scenes.rasters import RasterScene, scene_of
from doubtmap.viewer.run import (
    Layer,
    Run,
    Table,
    Value,
    file_of,
    inside,
    model_name,
    notes_of,
    read_csv,
)
from doubtmap.volumes.nifti import Volume, slice_name

HELD = 4
"""Volumes in memory."""


@dataclass(frozen=True, eq=False)
class Scenes:
    """Rasters of any size, each made small.

    Args:
        folder: of the run.
        names: of the images.
        files: of the images.
        ranges: values that are black and white, or None.
    """

    folder: Path
    names: list[str]
    files: list[Path]
    ranges: list[tuple[float, float] | None]

    def photograph(self, place: int) -> NDArray[np.uint8]:
        """See `Pictures`."""
        return scene_of(self.files[place], Rendering(self.ranges[place])).thumbnail()

    def codes(self, layer: Layer, place: int) -> NDArray[np.int16]:
        """See `Pictures`."""
        raster = self._raster(layer, place)
        found: NDArray[Any] = raster.small(raster.path)
        highest = np.iinfo(found.dtype).max  # what has no data
        return np.where(found == highest, VOID, found.astype(np.int16)).astype(np.int16)

    def doubt(self, layer: Layer, place: int) -> NDArray[np.float32]:
        """See `Pictures`."""
        raster = self._raster(layer, place)
        return raster.small(raster.path).astype(np.float32)

    def _raster(self, layer: Layer, place: int) -> RasterScene:
        file = inside(self.folder, layer.folder, f"{self.names[place]}.{layer.suffix}")
        return RasterScene(file, Rendering())


def scene_run(folder: Path, about: Mapping[str, Any]) -> Run:
    """What `doubtmap score` wrote of rasters, window by window."""
    images = about["images"]
    names, files = [*images], [_named(about, each["path"]) for each in images.values()]
    ranges = [tuple(each["range"]) if each["range"] else None for each in images.values()]
    sizes = [each["size"] for each in images.values()]
    layers = [Layer("classes", "classes", "tif")]
    layers += [Layer(f"doubt:{score}", kept, "tif") for score, kept in about["folders"].items()]
    return Run(
        folder,
        "score",
        f"{model_name(about['model'])}: {', '.join(about['folders'])}",
        names,
        [*files],
        {"megapixels": [round(height * width / 1e6, 3) for height, width in sizes]},
        tuple(about["class_names"]),
        tuple(layers),
        notes=(*notes_of(folder, about), f"{folder}: rasters are shown as overviews of them."),
        pictures=Scenes(folder, names, files, ranges),
    )


@dataclass(frozen=True, eq=False)
class Slices:
    """Volumes slice by slice.

    Args:
        folder: of the run.
        of: for each slice, the name of its volume and its number there.
        volumes: by name, as they were scored.
    """

    folder: Path
    of: list[tuple[str, int]]
    volumes: Mapping[str, Volume]

    def __post_init__(self) -> None:
        held = functools.lru_cache(HELD)(self._opened)
        object.__setattr__(self, "_held", held)
        object.__setattr__(self, "_lock", threading.Lock())

    def photograph(self, place: int) -> NDArray[np.uint8]:
        """See `Pictures`."""
        name, index = self.of[place]
        volume = self._volume("", name)
        return volume.image(index, volume.bands(0)).permute(1, 2, 0).numpy()

    def codes(self, layer: Layer, place: int) -> NDArray[np.int16]:
        """See `Pictures`."""
        name, index = self.of[place]
        return self._volume(layer.folder, name).slice(index).astype(np.int16)

    def doubt(self, layer: Layer, place: int) -> NDArray[np.float32]:
        """See `Pictures`."""
        name, index = self.of[place]
        return self._volume(layer.folder, name).slice(index)

    def means(self, layer: Layer, name: str) -> list[float]:
        """Of the doubt of each slice of a volume."""
        values = self._opened(layer.folder, name).values
        axes = tuple({0, 1, 2} - {self.volumes[name].axis})
        return [float(mean) for mean in values.mean(axes, np.float64)]

    def _volume(self, kept: str, name: str) -> Volume:
        with self._lock:  # type: ignore[attr-defined]
            return self._held(kept, name)  # type: ignore[attr-defined,no-any-return]

    def _opened(self, kept: str, name: str) -> Volume:
        """A volume of the run's folder, or, without a name of that, the one that was scored."""
        own = self.volumes[name]
        file = inside(self.folder, kept, f"{name}.nii.gz")
        found = Volume(file, own.axis) if kept else own
        found.values  # noqa: B018 (read once, and kept)
        return found


def volume_run(folder: Path, about: Mapping[str, Any]) -> Run:
    """What `doubtmap score` wrote of volumes."""
    volumes = {
        name: Volume(_named(about, each["path"]), each["axis"], tuple(each["range"]))
        for name, each in about["volumes"].items()
    }
    of = [
        (name, index)
        for name, each in about["volumes"].items()
        for index in range(each["shape"][each["axis"]])
    ]
    pictures = Slices(folder, of, volumes)
    layers = [Layer("classes", "classes", "nii.gz")]
    layers += [Layer(f"doubt:{score}", kept, "nii.gz") for score, kept in about["folders"].items()]
    layers = [layer for layer in layers if layer.key != "doubt:classes"]
    table: Table = {"case": [name for name, _ in of], "slice": [float(index) for _, index in of]}
    for layer in layers[1:]:
        means = [mean for name in volumes for mean in pictures.means(layer, name)]
        table[f"mean {layer.key.removeprefix('doubt:')}"] = list[Value](means)
    return Run(
        folder,
        "score",
        f"{model_name(about['model'])}: {', '.join(layer.key[6:] for layer in layers[1:])}",
        [slice_name(Path(name), index) for name, index in of],
        [None] * len(of),
        table,
        tuple(about["class_names"]),
        tuple(layers),
        notes=notes_of(folder, about),
        pictures=pictures,
    )


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames of films that a run wrote.

    Args:
        of: for each frame, its film and its number there.
        films: by name.
    """

    of: list[tuple[str, int]]
    films: Mapping[str, FilmReader]

    def photograph(self, place: int) -> NDArray[np.uint8]:
        """See `Pictures`."""
        name, index = self.of[place]
        return self.films[name].frame(index)

    def codes(self, layer: Layer, place: int) -> NDArray[np.int16]:
        """Films keep none."""
        raise DataError(f"{layer.key}: films keep no maps.")

    def doubt(self, layer: Layer, place: int) -> NDArray[np.float32]:
        """Films keep none."""
        raise DataError(f"{layer.key}: films keep no maps.")


def film_run(folder: Path, about: Mapping[str, Any]) -> Run:
    """What `doubtmap score` wrote of films."""
    of: list[tuple[str, int]] = []
    tables: list[Table] = []
    for name in about["films"]:
        tables.append(read_csv(folder / f"{name}.csv"))
        of += [(name, index) for index in range(len(tables[-1]["frame"]))]
    titles = dict.fromkeys(title for table in tables for title in table)
    table: Table = {"film": [name for name, _ in of]}
    for title in titles:
        own = [table.get(title, [None] * len(table["frame"])) for table in tables]
        table[title.replace("_", " ")] = [value for values in own for value in values]
    numbers, seconds = table["frame"], table["seconds"]
    films = {name: FilmReader(inside(folder, f"{name}.mp4")) for name in about["films"]}
    return Run(
        folder,
        "score",
        f"{model_name(about['model'])} on {', '.join(about['films'])}",
        [
            f"{name}_{int(float(number or 0)):06d} ({float(second or 0):.2f} s)"
            for (name, _), number, second in zip(of, numbers, seconds)
        ],
        [None] * len(of),
        table,
        tuple(about["class_names"]),
        notes=(
            *notes_of(folder, about),
            f"{folder}: films keep no maps; each frame is shown with its doubt laid over it.",
        ),
        pictures=Frames(of, films),
    )


def _named(about: Mapping[str, Any], path: str) -> Path:
    """A file as the run named it; runs of older versions do not say from where."""
    return file_of({"directory": ".", **about}, path) or Path(path)
