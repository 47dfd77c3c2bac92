"""What a viewer shows of one run, and how what runs wrote is read.

Nothing is read from outside of the folder but the images that the run names.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from doubtmap.datasets.reading import Rendering
from doubtmap.errors import DataError
from doubtmap.files.writing import FORMULA
from doubtmap.version import __version__

Value = float | str | None
Table = dict[str, list[Value]]


@dataclass(frozen=True)
class Layer:
    """One kind of map that a run keeps of each image.

    Args:
        key: `labels`, `classes`, or `doubt:` and the name of a score.
        folder: below that of the run.
        suffix: of its files.
        scale: lowest and highest doubt of the run; None: each map's own.
        thresholds: by `unknown` and `wrong`: `threshold`, `recall` and `precision` of the run.
    """

    key: str
    folder: str
    suffix: str = "png"
    scale: tuple[float, float] | None = None
    thresholds: Mapping[str, Any] = field(default_factory=dict)


class Pictures(Protocol):
    """Images that lie in no file of their own: rasters made small, slices, frames."""

    def photograph(self, place: int) -> NDArray[np.uint8]:
        """`(H, W, 3)` of an image, by its place in the run."""
        ...

    def codes(self, layer: Layer, place: int) -> NDArray[np.int16]:
        """`(H, W)`, predicted classes; below zero what is none."""
        ...

    def doubt(self, layer: Layer, place: int) -> NDArray[np.float32]:
        """`(H, W)`, NaN where there are no data."""
        ...


@dataclass(frozen=True, eq=False)
class Run:
    """What a viewer shows of one run.

    Args:
        folder: of the run.
        kind: the command that wrote it.
        title: the network and the data, in short.
        names: of the images, unique, as their files in the folder are called.
        files: of the images; None where the run says none.
        table: columns by their titles, one value for each image.
        class_names: of the network, or empty.
        layers: kinds of maps.
        objects: of each image, annotations as COCO has them, by the image's place.
        rendering: how the images become RGB.
        notes: sentences to tell.
        pictures: where images and maps come from, if each has no file of its own.
        sizes: width and height that the coordinates of objects are of, by the image's place.
    """

    folder: Path
    kind: str
    title: str
    names: list[str]
    files: list[Path | None]
    table: Table
    class_names: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = ()
    objects: Mapping[int, list[dict[str, Any]]] = field(default_factory=dict)
    rendering: Rendering = field(default_factory=Rendering)
    notes: tuple[str, ...] = ()
    pictures: Pictures | None = None
    sizes: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    def layer(self, key: str) -> Layer:
        """The layer of a key.

        Raises:
            DataError: where there is none.
        """
        for layer in self.layers:
            if layer.key == key:
                return layer
        raise DataError(f"{self.folder}: expected a layer of the run, got {key!r}.")

    def map_file(self, layer: Layer, place: int) -> Path:
        """The file of a layer of an image.

        Raises:
            DataError: where it would lie outside of the run's folder.
        """
        return inside(self.folder, layer.folder, f"{self.names[place]}.{layer.suffix}")

    def image_file(self, place: int) -> Path:
        """The image as the run names it, or as it keeps it.

        Raises:
            DataError: where the run has neither.
        """
        named = self.files[place]
        if named is not None:
            return named
        kept = self.map_file(Layer("image", "images", "jpg"), place)
        if not kept.exists():
            raise DataError(
                f"{self.names[place]}: lies in no file. Evaluate with --maps, which keeps it."
            )
        return kept


def inside(folder: Path, *parts: str) -> Path:
    """A file of a run.

    Raises:
        DataError: where it would lie outside of the run's folder.
    """
    file = folder.joinpath(*parts)
    if folder.resolve() not in file.resolve().parents:
        raise DataError(f"{folder}: expected maps in the folder of the run, got {file}.")
    return file


def file_of(about: Mapping[str, Any], path: str | None) -> Path | None:
    """An image as the run named it, seen from where it was run."""
    return None if path is None else Path(about["directory"]) / path


def model_name(described: Any) -> str:
    """Name of a network, in short."""
    told = described if isinstance(described, Mapping) else {"name": described}
    source = next((str(told[k]) for k in ("name", "source", "path", "kind") if told.get(k)), "")
    return ", ".join(part.rstrip("/").rsplit("/", 1)[-1] for part in source.split(","))


def notes_of(folder: Path, about: Mapping[str, Any], more: str = "") -> tuple[str, ...]:
    """What to tell of a run: that another version wrote it, and how it would keep `more`."""
    notes = []
    if about["doubtmap"] != __version__:
        notes.append(
            f"{folder}: was written by doubtmap {about['doubtmap']}, this is {__version__}; what "
            f"is shown may lack something."
        )
    if more:
        notes.append(f"{folder}: the run kept no maps, so that images are shown alone; {more}.")
    return tuple(notes)


def columns_of(rows: list[dict[str, Value]]) -> Table:
    """A table of rows that need not have the same titles."""
    titles = dict.fromkeys(title for row in rows for title in row)
    table = {title: [row.get(title) for row in rows] for title in titles}
    return {title: values for title, values in table.items() if any(v is not None for v in values)}


def read_csv(path: Path) -> Table:
    """A table as doubtmap writes it: numbers where all fields are numbers or empty.

    Raises:
        DataError: where it cannot be read.
    """
    try:
        rows = list(csv.reader(io.StringIO(path.read_text("utf-8"))))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}). Run it again.") from error
    titles = [_as_meant(title) for title in rows[0]]
    return {title: _values([row[place] for row in rows[1:]]) for place, title in enumerate(titles)}


def _as_meant(text: str) -> str:
    """A text without what `doubtmap.files.cell` put before it."""
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA) else text


def _values(texts: list[str]) -> list[Value]:
    try:
        return [float(text) if text else None for text in texts]
    except ValueError:
        return [_as_meant(text) for text in texts]
