"""Doubt maps of images without labels, one after the other, and the files of `doubtmap score`.

OUT/classes/NAME.png    predicted classes, a palette picture
OUT/SCORE/NAME.png      a doubt map for each score
OUT/overlay/NAME.jpg    the first score laid over the image; written last
OUT/images.csv          a row for each image: its doubt, and the share of each class
OUT/images.parquet      the same, where that is asked for
OUT/score.json          how all this was made
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from doubtmap.datasets.fingerprints import file_marks
from doubtmap.datasets.reading import (
    Rendering,
    in_colour,
    left_out,
    none_left,
    read_image,
)
from doubtmap.datasets.survey import survey
from doubtmap.engine.settings import bands_needed, model_settings, score_settings
from doubtmap.engine.spread import looked_at
from doubtmap.errors import DataError, UsageError, within_memory
from doubtmap.files import alone, sweep, utf8, write_atomically, writing_to
from doubtmap.files.naming import files_of, outside, score_folders, unique_names
from doubtmap.files.parquet import write_parquet
from doubtmap.files.resuming import hold_samples, hold_to
from doubtmap.prediction import (
    Prediction,
    Score,
    Segmenter,
    showing,
)
from doubtmap.reports.maps import MapFormat, image_table, read_figures, write_classes, write_map
from doubtmap.reports.overlay import write_overlay
from doubtmap.reports.scales import Waiting, natural_scale
from doubtmap.scoring import is_probability, prepared, score_maps
from doubtmap.version import __version__


@dataclass(frozen=True, eq=False)
class ScoredImage:
    """What a network said about one image, and how far to trust it.

    Args:
        path: of the image.
        image: `(3, H, W)` uint8, or all bands for a network that takes others.
        prediction: of this image alone.
        maps: `(H, W)` float32 by score, higher = more doubt.
    """

    path: Path
    image: Tensor
    prediction: Prediction
    maps: dict[str, Tensor]


def score_images(
    segmenter: Segmenter,
    paths: Sequence[Path],
    scores: dict[str, Score],
    skipped: dict[Path, str] | None = None,
    rendering: Rendering | None = None,
) -> Iterator[ScoredImage]:
    """Score images in order; the next one is read while the network works.

    Args:
        segmenter: the network.
        paths: of the images.
        scores: by name.
        skipped: takes the images that cannot be read, and why; without it the first ends the run.
        rendering: how all of them become RGB; default: as a survey of them all says.

    Raises:
        DataError: for an image that cannot be read, unless `skipped` takes it.
    """
    return _passing(segmenter, paths, scores, skipped, rendering, _itself)


Made = TypeVar("Made")


def _passing(
    segmenter: Segmenter,
    paths: Sequence[Path],
    scores: dict[str, Score],
    skipped: dict[Path, str] | None,
    rendering: Rendering | None,
    make: Callable[[ScoredImage], Made],
) -> Iterator[Made]:
    """What is made of each image once it is scored."""
    segmenter = prepared(segmenter, scores)
    if rendering is None:
        known = Rendering(every=bands_needed(segmenter))
        rendering = survey([(path, None) for path in paths], known).rendering
    read = functools.partial(read_image, rendering=rendering)

    def skip(path: Path, error: DataError) -> None:
        assert skipped is not None
        skipped[path] = str(error)

    look = functools.partial(_scored, scores=scores, make=make)
    yield from looked_at(segmenter, paths, read, look, None if skipped is None else skip, 1)


def _scored(
    segmenter: Segmenter,
    path: Path,
    image: Tensor,
    *,
    scores: dict[str, Score],
    make: Callable[[ScoredImage], Made],
) -> Made:
    try:
        with showing(path.name), within_memory(image.shape[-2:]):
            prediction = segmenter(image[None])
            return make(ScoredImage(path, image, prediction, score_maps(prediction, scores)))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _itself(scored: ScoredImage) -> ScoredImage:
    return scored


WRITERS = 2


@alone
def write_scores(
    segmenter: Segmenter,
    paths: Sequence[Path],
    scores: dict[str, Score],
    out: Path,
    *,
    format: str = "png",
    resume: bool = False,
    skip_bad: bool = False,
    range: tuple[float, float] | None = None,
    parquet: bool = False,
    command: str = "",
    progress: Callable[[str, int, int], None] | None = None,
) -> str:
    """Score images and write what came out; files are whole or not there.

    Args:
        segmenter: the network.
        paths: of the images.
        scores: by name.
        out: folder, made if it is not there.
        format: of the maps: png (16 bits, with its scale), npy, tiff or safetensors.
        resume: leave out images whose files are all there; the settings must be the same.
        skip_bad: count images that cannot be read, and go on.
        range: values that are black and white in images of more than 8 bits; default: by the bits
            that all images of the run use.
        parquet: write the table of images as Parquet, too.
        command: what to write as the origin.
        progress: told after each image.

    Returns:
        One sentence about what was written.

    Raises:
        UsageError: for an unknown format.
        DataError: for an image that cannot be read, or a folder that cannot be written.
    """
    if format not in get_args(MapFormat):
        raise UsageError(
            f"--format: expected one of {', '.join(get_args(MapFormat))}, got {format}."
        )
    paths = outside(paths, out)
    names = unique_names(paths)
    folders = score_folders(scores)
    every = {path: files_of(out, names[path], folders, format) for path in paths}
    with writing_to(out):
        for folder in ("", "classes", "overlay", *folders.values()):
            (out / folder).mkdir(parents=True, exist_ok=True)
            sweep(out / folder)
    seen = survey([(path, None) for path in paths], Rendering(range, every=bands_needed(segmenter)))
    settings = model_settings(segmenter) | score_settings(scores) | {"format": format}
    settings |= {"range": seen.rendering.range}
    asked, waiting = out / "settings.json", Waiting(out)
    if not resume:
        with writing_to(out):
            for file in (asked, *(files[-1] for files in every.values())):
                file.unlink(missing_ok=True)  # so that no map of an earlier run counts as done
        waiting.clear()
    hold_to(asked, settings)
    todo = [path for path in paths if not (resume and waiting.has_all(every[path]))]
    kept = set(paths) - set(todo)
    hold_samples(asked, file_marks(names), [names[path] for path in kept])
    skipped: dict[Path, str] | None = {} if skip_bad else None
    done = len(paths) - len(todo)
    if not todo:  # a network says what it is once it has seen an image
        next(score_images(segmenter, paths, {}, {}, seen.rendering), None)
    with ThreadPoolExecutor(WRITERS, thread_name_prefix="doubtmap-write") as pool:
        writing: list[Future[None]] = []
        make = functools.partial(_written_of, scores=scores)
        for what in _passing(segmenter, todo, scores, skipped, seen.rendering, make):
            if not asked.exists():
                raise DataError(
                    f"{out}: the folder was removed while maps were written to it. Score again."
                )
            writing.append(pool.submit(_write, what, every[what.path], format, waiting))
            del what
            while len(writing) > WRITERS:
                writing.pop(0).result()
            done += 1
            if progress:
                progress("score", done + len(skipped or ()), len(paths))
        for future in writing:
            future.result()
    if not done:
        raise DataError(none_left(len(paths), skipped))
    pictures = {path: functools.partial(_picture, path, seen.rendering) for path in every}
    scales = waiting.finish([(*every[path],) for path in every], list(scores), pictures.values())
    rows = {str(path): read_figures(files[0]) for path, files in every.items() if files[0].exists()}
    write_atomically(out / "images.csv", utf8(image_table(rows)))
    every_row = ({"image": name} | row for name, row in rows.items())
    write_parquet(out / "images.parquet", every_row, parquet)
    about = {
        "doubtmap": __version__,
        "command": command,
        "model": segmenter.description,
        "class_names": list(segmenter.class_names),
        "folders": folders,
        "scales": scales,
        "range": seen.rendering.range,
        "notes": list(seen.notes),
        "directory": str(Path.cwd()),
        "images": {names[path]: str(path) for path in paths},
        "skipped": {str(path): reason for path, reason in (skipped or {}).items()},
    }
    write_atomically(out / "score.json", json.dumps(about, indent=1).encode())
    return f"{done} of {len(paths)} images scored{left_out(skipped)}: {out}"


def _picture(path: Path, rendering: Rendering) -> NDArray[np.uint8]:
    return in_colour(read_image(path, rendering))


@dataclass(frozen=True, eq=False)
class _Written:
    """What the files of one image hold: its classes, doubt maps and picture.

    The features, which are many times that, are gone.
    """

    path: Path
    classes: NDArray[np.int64]
    class_names: tuple[str, ...]
    maps: dict[str, NDArray[np.float32]]
    scales: dict[str, tuple[float, float] | None]
    image: NDArray[np.uint8]


def _written_of(scored: ScoredImage, scores: Mapping[str, Score]) -> _Written:
    prediction = scored.prediction
    return _Written(
        scored.path,
        prediction.classes[0].cpu().numpy(),
        prediction.class_names,
        {score: values.cpu().numpy() for score, values in scored.maps.items()},
        {
            name: natural_scale(
                name, prediction.native_logits.shape[1], probability=is_probability(score)
            )
            for name, score in scores.items()
        },
        in_colour(scored.image),
    )


def _write(what: _Written, files: list[Path], format: str, waiting: Waiting) -> None:
    classes, *maps, overlay = files
    write_classes(classes, what.classes, what.class_names, _figures_of(what))
    for path, (score, values) in zip(maps, what.maps.items()):
        if format == "png" and what.scales[score] is None:
            path.unlink(missing_ok=True)
            waiting.keep(path, values)
        else:
            write_map(path, values, format, score, scale=what.scales[score])  # type: ignore[arg-type]
    first, doubt = next(iter(what.maps.items()))
    if (limits := what.scales[first]) is None:
        overlay.unlink(missing_ok=True)
        waiting.keep_overlay(overlay, doubt)
    else:
        write_overlay(overlay, what.image, doubt, limits, bar=True)


def _figures_of(what: _Written) -> dict[str, float]:
    """What the table of images says of one: its doubt, and the share of each class it has."""
    found = {}
    for score, values in what.maps.items():
        found[f"mean {score}"] = float(values.mean(dtype=np.float64))
        found[f"highest {score}"] = float(values.max())
    names = what.class_names or tuple(str(index) for index in range(int(what.classes.max()) + 1))
    share = np.bincount(what.classes.reshape(-1), minlength=len(names)) / what.classes.size
    found |= {f"share {name}": float(part) for name, part in zip(names, share)}
    return {name: float(f"{value:.6g}") for name, value in found.items()}
