"""A folder that a command wrote, as what a viewer needs of it: images, a table, layers.

Nothing is read from outside of the folder but the images that the run names.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from doubtmap.datasets.reading import Rendering
from doubtmap.errors import DataError
from doubtmap.evaluation.results import read_results
from doubtmap.files.writing import FORMULA
from doubtmap.reports.digits import number
from doubtmap.reports.maps import MapFormat
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
        file = self.folder / layer.folder / f"{self.names[place]}.{layer.suffix}"
        if self.folder.resolve() not in file.resolve().parents:
            raise DataError(f"{self.folder}: expected maps in the folder of the run, got {file}.")
        return file

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


def open_run(folder: str | Path) -> Run:
    """Read what a command wrote into a folder.

    Args:
        folder: of `doubtmap score`, `evaluate`, `review`, `labels` or `objects`.

    Raises:
        DataError: for a folder that none of them wrote, did not end to write, or damaged files.
    """
    place = Path(folder)
    for file, read in READERS.items():
        if (place / file).is_file():
            try:
                run = read(place)
            except DataError:
                raise
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                version = _version(place / file)
                raise DataError(
                    f"{place / file}: cannot be shown, it was written by {version} and lacks or "
                    f"garbles what this one, {__version__}, reads ({error!r}). Run it again."
                ) from error
            if not run.names:
                raise DataError(f"{place}: the run has no image. Run it again with some.")
            return run
    if (place / "settings.json").exists() or (place / ".progress").exists():
        raise DataError(
            f"{place}: the run has not ended. The same command with --resume goes on with it."
        )
    raise DataError(
        f"{place}: expected a folder that doubtmap score, evaluate, review, labels or objects "
        f"wrote, with one of {', '.join(READERS)} in it. Check the path."
    )


def _version(file: Path) -> str:
    about = json.loads(file.read_text("utf-8"))
    about = about.get("info", about) if isinstance(about, dict) else {}
    return f"doubtmap {about.get('doubtmap', 'of an unknown version')}"


def _evaluated(folder: Path) -> Run:
    figures = read_results(folder / "results.json")
    curves = read_results(folder / "curves.json")
    rows = figures["images"]
    classes = tuple(curves["class_names"])
    layers = [Layer("labels", "labels"), Layer("classes", "classes")]
    for score, kept in figures.get("maps", {}).items():
        thresholds = curves["thresholds"].get(score, {})
        reached = [value for kind in thresholds.values() for value in kind["threshold"]]
        scale = (min(reached), max(reached)) if reached else None
        layers.append(Layer(f"doubt:{score}", kept, "png", scale, thresholds))
    span = figures["data"].get("range")
    return Run(
        folder,
        "evaluate",
        f"{_model(figures['model'])} on {figures['data']['name']}",
        [row["image"] for row in rows],
        [_file(figures, row.get("file")) for row in rows],
        _columns([dict(_row(row, classes)) for row in rows]),
        classes,
        tuple(layers) if "maps" in figures else (),
        rendering=Rendering(tuple(span) if span else None),
        notes=_notes(folder, figures, "" if "maps" in figures else "evaluate with --maps"),
    )


def _row(row: Mapping[str, Any], classes: tuple[str, ...]) -> Iterator[tuple[str, Value]]:
    """What is said of one image, by titles of columns."""
    yield from ((key, number(row[key])) for key in ("accuracy", "miou", "ece") if key in row)
    for score, found in row["scores"].items():
        yield f"mean {score}", number(found.get("mean"))
        yield f"missed by {score}", number(found.get("missed"))
        for kind in ("unknown", "wrong"):
            yield f"{kind} auprc of {score}", number(found.get(kind, {}).get("auprc"))
    for index, iou in enumerate(row.get("iou", ())):
        yield f"iou {classes[index] if index < len(classes) else index}", number(iou)


def _scored(folder: Path) -> Run:
    about = read_results(folder / "score.json")
    if "folders" not in about or "images" not in about:
        raise DataError(
            f"{folder}: holds the rasters, films or volumes of doubtmap score, which a browser "
            f"does not show. Open them in QGIS, a player or a viewer of NIfTI."
        )
    listed = {name: _file(about, path) for name, path in about["images"].items()}
    table = _csv(folder / "images.csv")
    at = {str(path): place for place, path in enumerate(table.pop("image"))}
    there = [name for name, path in about["images"].items() if path in at]
    order = [at[about["images"][name]] for name in there]
    layers = [Layer("classes", "classes")]
    for score, kept in about["folders"].items():
        scale = about["scales"].get(score)
        layers.append(
            Layer(f"doubt:{score}", kept, _suffix(folder / kept), tuple(scale) if scale else None)
        )
    return Run(
        folder,
        "score",
        f"{_model(about['model'])}: {', '.join(about['folders'])}",
        there,
        [listed[name] for name in there],
        {title: [values[place] for place in order] for title, values in table.items()},
        tuple(about["class_names"]),
        tuple(layers),
        rendering=Rendering(tuple(about["range"]) if about.get("range") else None),
        notes=_notes(folder, about),
    )


def _suffix(folder: Path) -> str:
    """Of the maps in a folder."""
    first = next((f for f in folder.iterdir() if f.suffix[1:] in get_args(MapFormat)), None)
    return "png" if first is None else first.suffix[1:]


def _reviewed(folder: Path) -> Run:
    about = read_results(folder / "review.json")
    table = _csv(folder / "images.csv")
    paths = [str(path) for path in table.pop("image")]
    names = {path: name for name, path in about["images"].items()}
    table.pop("pixels")
    return Run(
        folder,
        "review",
        f"review of {_model(about['model'])}",
        [names[path] for path in paths],
        [_file(about, path) for path in paths],
        {title.replace("_", " "): values for title, values in table.items()},
        tuple(about["class_names"]),
        rendering=Rendering(tuple(about["range"]) if about.get("range") else None),
        notes=_notes(folder, about),
    )


def _with_objects(folder: Path) -> Run:
    held = read_results(folder / "objects.json")
    info, images = held["info"], held["images"]
    place = {image["id"]: at for at, image in enumerate(images)}
    objects: dict[int, list[dict[str, Any]]] = {}
    for each in held["annotations"]:
        objects.setdefault(place[each["image_id"]], []).append(each)
    largest = [max((o["area"] for o in objects.get(at, ())), default=0) for at in place.values()]
    highest = [
        max((o["score"] for o in objects.get(at, ())), default=None) for at in place.values()
    ]
    return Run(
        folder,
        "objects",
        f"objects of {_model(info['model'])} by {info['score']}",
        [image["file_name"] for image in images],
        [_file(info, image["file_name"]) for image in images],
        {
            "objects": [len(objects.get(at, ())) for at in place.values()],
            "largest object": largest,
            "highest object score": highest,
        },
        tuple(info["class_names"]),
        objects=objects,
        rendering=Rendering(tuple(info["range"]) if info.get("range") else None),
        notes=_notes(folder, info),
    )


def _labelled(folder: Path) -> Run:
    about = read_results(folder / "labels.json")
    table = _csv(folder / "images.csv")
    names = [str(name) for name in table.pop("image")]
    place = {name: at for at, name in enumerate(names)}
    denied: dict[int, list[dict[str, Any]]] = {}
    for each in about["label_errors"]:
        denied.setdefault(place[each["image"]], []).append(each)
    return Run(
        folder,
        "labels",
        f"labels of {about['data']} by {_model(about['model'])}",
        names,
        [_file(about, about["images"][name]) for name in names],
        {title.replace("_", " "): values for title, values in table.items()},
        tuple(about["class_names"]),
        objects=denied,
        rendering=Rendering(tuple(about["range"]) if about.get("range") else None),
        notes=_notes(folder, about),
    )


READERS: dict[str, Callable[[Path], Run]] = {
    "results.json": _evaluated,
    "score.json": _scored,
    "review.json": _reviewed,
    "labels.json": _labelled,
    "objects.json": _with_objects,
}


def _file(about: Mapping[str, Any], path: str | None) -> Path | None:
    """An image as the run named it, seen from where it was run."""
    return None if path is None else Path(about["directory"]) / path


def _model(described: Any) -> str:
    """Name of a network, in short."""
    told = described if isinstance(described, Mapping) else {"name": described}
    source = next((str(told[k]) for k in ("name", "source", "path", "kind") if told.get(k)), "")
    return ", ".join(part.rstrip("/").rsplit("/", 1)[-1] for part in source.split(","))


def _notes(folder: Path, about: Mapping[str, Any], more: str = "") -> tuple[str, ...]:
    notes = []
    if about["doubtmap"] != __version__:
        notes.append(
            f"{folder}: was written by doubtmap {about['doubtmap']}, this is {__version__}; what "
            f"is shown may lack something."
        )
    if more:
        notes.append(f"{folder}: the run kept no maps, so that images are shown alone; {more}.")
    return tuple(notes)


def _columns(rows: list[dict[str, Value]]) -> Table:
    titles = dict.fromkeys(title for row in rows for title in row)
    table = {title: [row.get(title) for row in rows] for title in titles}
    return {title: values for title, values in table.items() if any(v is not None for v in values)}


def _csv(path: Path) -> Table:
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
