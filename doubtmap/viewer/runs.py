"""A folder that a command wrote, as what a viewer needs of it: images, a table, layers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from doubtmap.datasets.reading import Rendering
from doubtmap.errors import DataError
from doubtmap.evaluation.results import read_results
from doubtmap.reports.digits import number
from doubtmap.reports.maps import MapFormat
from doubtmap.version import __version__
from doubtmap.viewer.run import (
    Layer,
    Run,
    Value,
    columns_of,
    file_of,
    model_name,
    notes_of,
    read_csv,
)
from doubtmap.viewer.unfolded import film_run, scene_run, volume_run


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
        f"{model_name(figures['model'])} on {figures['data']['name']}",
        [row["image"] for row in rows],
        [file_of(figures, row.get("file")) for row in rows],
        columns_of([dict(_row(row, classes)) for row in rows]),
        classes,
        tuple(layers) if "maps" in figures else (),
        rendering=Rendering(tuple(span) if span else None),
        notes=notes_of(folder, figures, "" if "maps" in figures else "evaluate with --maps"),
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
    for key, unfold in (("films", film_run), ("volumes", volume_run)):
        if key in about:
            return unfold(folder, about)
    if any(isinstance(each, Mapping) for each in about["images"].values()):
        return scene_run(folder, about)
    listed = {name: file_of(about, path) for name, path in about["images"].items()}
    table = read_csv(folder / "images.csv")
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
        f"{model_name(about['model'])}: {', '.join(about['folders'])}",
        there,
        [listed[name] for name in there],
        {title: [values[place] for place in order] for title, values in table.items()},
        tuple(about["class_names"]),
        tuple(layers),
        rendering=Rendering(tuple(about["range"]) if about.get("range") else None),
        notes=notes_of(folder, about),
    )


def _suffix(folder: Path) -> str:
    """Of the maps in a folder."""
    first = next((f for f in folder.iterdir() if f.suffix[1:] in get_args(MapFormat)), None)
    return "png" if first is None else first.suffix[1:]


def _reviewed(folder: Path) -> Run:
    about = read_results(folder / "review.json")
    table = read_csv(folder / "images.csv")
    paths = [str(path) for path in table.pop("image")]
    names = {path: name for name, path in about["images"].items()}
    table.pop("pixels")
    return Run(
        folder,
        "review",
        f"review of {model_name(about['model'])}",
        [names[path] for path in paths],
        [file_of(about, path) for path in paths],
        {title.replace("_", " "): values for title, values in table.items()},
        tuple(about["class_names"]),
        rendering=Rendering(tuple(about["range"]) if about.get("range") else None),
        notes=notes_of(folder, about),
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
        f"objects of {model_name(info['model'])} by {info['score']}",
        [image["file_name"] for image in images],
        [file_of(info, image["file_name"]) for image in images],
        {
            "objects": [len(objects.get(at, ())) for at in place.values()],
            "largest object": largest,
            "highest object score": highest,
        },
        tuple(info["class_names"]),
        objects=objects,
        sizes={at: (image["width"], image["height"]) for at, image in enumerate(images)},
        rendering=Rendering(tuple(info["range"]) if info.get("range") else None),
        notes=notes_of(folder, info),
    )


def _labelled(folder: Path) -> Run:
    about = read_results(folder / "labels.json")
    table = read_csv(folder / "images.csv")
    names = [str(name) for name in table.pop("image")]
    place = {name: at for at, name in enumerate(names)}
    denied: dict[int, list[dict[str, Any]]] = {}
    for each in about["label_errors"]:
        denied.setdefault(place[each["image"]], []).append(each)
    return Run(
        folder,
        "labels",
        f"labels of {about['data']} by {model_name(about['model'])}",
        names,
        [file_of(about, about["images"][name]) for name in names],
        {title.replace("_", " "): values for title, values in table.items()},
        tuple(about["class_names"]),
        objects=denied,
        sizes={at: tuple(own[0]["segmentation"]["size"][::-1]) for at, own in denied.items()},
        rendering=Rendering(tuple(about["range"]) if about.get("range") else None),
        notes=notes_of(folder, about),
    )


READERS: dict[str, Callable[[Path], Run]] = {
    "results.json": _evaluated,
    "score.json": _scored,
    "review.json": _reviewed,
    "labels.json": _labelled,
    "objects.json": _with_objects,
}
