"""Doubt maps of images without labels, one after the other, and the files of `doubtmap score`.

OUT/classes/NAME.png    predicted classes, a palette picture
OUT/SCORE/NAME.png      a doubt map for each score
OUT/sets_bits/NAME.npy  of label sets: which classes, see `doubtmap.reports.sets`
OUT/sets_size/NAME.png  of label sets: how many, with a legend
OUT/overlay/NAME.jpg    the first score laid over the image; written last
OUT/images.csv          a row for each image: its doubt, and the share of each class
OUT/images.parquet      the same, where that is asked for
OUT/score.json          how all this was made
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from doubtmap.datasets.fingerprints import file_marks
from doubtmap.datasets.reading import Rendering, in_colour, left_out, none_left, read_image
from doubtmap.datasets.survey import survey
from doubtmap.engine.parts import PART, SETTINGS, hashes_of, write_part
from doubtmap.engine.places import PartNumber
from doubtmap.engine.settings import bands_needed, model_settings, score_settings
from doubtmap.errors import DataError, UsageError
from doubtmap.files import alone, sweep, utf8, write_atomically, writing_to
from doubtmap.files.afar import again_in
from doubtmap.files.earlier import begin_in
from doubtmap.files.naming import files_of, outside, score_folders, unique_names
from doubtmap.files.parquet import write_parquet
from doubtmap.files.resuming import hold_samples, hold_to
from doubtmap.images.scoring import ScoredImage, passing, score_images
from doubtmap.prediction import Score, Segmenter
from doubtmap.reports.maps import MapFormat, image_table, read_figures, write_classes, write_map
from doubtmap.reports.overlay import write_overlay
from doubtmap.reports.scales import Waiting, natural_scale
from doubtmap.reports.sets import KINDS, write_sets, write_sizes
from doubtmap.scores.sets import sets_among
from doubtmap.scoring import is_probability
from doubtmap.version import __version__

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
    part: PartNumber | None = None,
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
        part: which of the images only, for `merge_scores`.
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
    own = [paths[at] for at in part.numbers(len(paths))] if part else paths
    names = unique_names(paths)
    folders = score_folders(scores)
    further = {name: [f"{folders[name]}_{kind}" for kind in KINDS] for name in sets_among(scores)}
    every = {path: files_of(out, names[path], folders, format, further) for path in paths}
    with writing_to(out):
        inner = (*folders.values(), *itertools.chain(*further.values()))
        for folder in ("", "classes", "overlay", *inner):
            (out / folder).mkdir(parents=True, exist_ok=True)
            sweep(out / folder)
    seen = survey([(path, None) for path in paths], Rendering(range, every=bands_needed(segmenter)))
    settings = model_settings(segmenter) | score_settings(scores) | {"format": format}
    settings |= {"range": seen.rendering.range} | ({"part": str(part)} if part else {})
    asked, waiting = out / SETTINGS, Waiting(out)
    if not resume:
        with writing_to(out):
            for file in (asked, out / PART, *(files[-1] for files in every.values())):
                file.unlink(missing_ok=True)  # so that no map of an earlier run counts as done
        waiting.clear()
    hold_to(asked, settings)
    note_files(out, list(names.values()), folders, further, format, resume=resume)
    todo = [path for path in own if not (resume and waiting.has_all(every[path]))]
    kept = set(own) - set(todo)
    marks = file_marks({path: names[path] for path in own})
    hold_samples(asked, marks, [names[path] for path in kept])
    skipped: dict[Path, str] | None = {} if skip_bad else None
    done = len(own) - len(todo)
    if not todo and own:  # a network says what it is once it has seen an image
        next(score_images(segmenter, own, {}, {}, seen.rendering), None)
    with ThreadPoolExecutor(WRITERS, thread_name_prefix="doubtmap-write") as pool:
        writing: list[Future[None]] = []
        make = functools.partial(_written_of, scores=scores)
        for what in passing(segmenter, todo, scores, skipped, seen.rendering, make):
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
                progress("score", done + len(skipped or ()), len(own))
        for future in writing:
            future.result()
    told = Told(
        seen.rendering,
        list(scores),
        folders,
        further,
        format,
        {
            "doubtmap": __version__,
            "command": command,
            "model": segmenter.description,
            "class_names": list(segmenter.class_names),
            "notes": list(seen.notes),
            "directory": str(Path.cwd()),
            "images": {names[path]: str(path) for path in paths},
            "skipped": {str(path): reason for path, reason in (skipped or {}).items()},
        },
    )
    summary = f"{done} of {len(own)} images scored{left_out(skipped)}: {out}"
    if part:
        written = {
            "own": [names[path] for path in own],
            "hashes": hashes_of(
                out, [SETTINGS, *_there(out, [file for path in own for file in every[path]])]
            ),
        }
        write_part(out, "score", part, written | _said(told))
        return f"Part {part}: {summary}. {part.then}"
    if not done:
        raise DataError(none_left(len(paths), skipped))
    finish(out, told, parquet)
    return summary


def note_files(
    out: Path,
    names: Sequence[str],
    folders: dict[str, str],
    sets: Mapping[str, Sequence[str]],
    format: str,
    *,
    resume: bool = False,
) -> None:
    """Remove the files of an earlier run, and note those of this one; see `begin_in`.

    Args:
        out: folder of both.
        names: of the images.
        folders: of the scores' maps.
        sets: folders of label sets, by score.
        format: of the maps.
        resume: the earlier run goes on.
    """
    files = files_of(Path(), "*", folders, format, sets)
    forms = [*(file.as_posix() for file in files), *OF_ALL]
    begin_in(out, "score", names, forms, resume=resume)


OF_ALL = ("score.json", "images.csv", "images.parquet")
"""Files of all images together."""


def _there(out: Path, files: Iterable[Path]) -> list[str]:
    """Which of the files are there, or wait, by their names in the folder."""
    waiting = Waiting(out).path
    both = (each for file in files for each in (file, waiting(file)))
    return [each.relative_to(out).as_posix() for each in both if each.exists()]


@dataclass(frozen=True, eq=False)
class Told:
    """What is said of a run at its end.

    Args:
        rendering: how its images became RGB.
        scores: their names.
        folders: of the scores' maps.
        sets: folders of label sets, by score.
        format: of the maps.
        about: what `score.json` says; its `images` are the paths by the images' names, in order.
    """

    rendering: Rendering
    scores: Sequence[str]
    folders: dict[str, str]
    sets: dict[str, list[str]]
    format: str
    about: dict[str, Any]


def finish(out: Path, told: Told, parquet: bool) -> int:
    """Write what waits for all images, the table of images, and how all was made.

    Args:
        out: the run's folder, in which the files of all images are, or wait.
        told: what is said of the run.
        parquet: write the table as Parquet, too.

    Returns:
        How many images have files.

    Raises:
        DataError: for a file or an image that cannot be read or written.
    """
    images: dict[str, str] = told.about["images"]
    every = {n: files_of(out, n, told.folders, told.format, told.sets) for n in images}
    where = told.about["directory"], told.rendering
    pictures = [functools.partial(_picture, path, *where) for path in images.values()]
    scales = Waiting(out).finish([*every.values()], told.scores, pictures)
    rows = {images[n]: read_figures(files[0]) for n, files in every.items() if files[0].exists()}
    write_atomically(out / "images.csv", utf8(image_table(rows)))
    every_row = ({"image": name} | row for name, row in rows.items())
    write_parquet(out / "images.parquet", every_row, parquet)
    about = {
        **{key: told.about[key] for key in ("doubtmap", "command", "model", "class_names")},
        "folders": told.folders,
        "sets": told.sets,
        "scales": scales,
        "range": told.rendering.range,
        "notes": told.about["notes"],
        "directory": told.about["directory"],
        "images": images,
        "skipped": told.about["skipped"],
    }
    write_atomically(out / "score.json", json.dumps(about, indent=1).encode())
    return len(rows)


def _said(told: Told) -> dict[str, Any]:
    """What the merge must know beside the files."""
    how = {key: getattr(told, key) for key in ("scores", "folders", "sets", "format")}
    return {"rendering": asdict(told.rendering), **how, **told.about}


def _picture(path: str, directory: str, rendering: Rendering) -> NDArray[np.uint8]:
    return in_colour(read_image(again_in(directory, path), rendering))


@dataclass(frozen=True, eq=False)
class _Written:
    """What the files of one image hold: its classes, doubt maps and picture.

    The features, which are many times that, are gone.
    """

    path: Path
    classes: NDArray[np.uint8] | NDArray[np.uint16]
    class_names: tuple[str, ...]
    maps: dict[str, NDArray[np.float32]]
    scales: dict[str, tuple[float, float] | None]
    image: NDArray[np.uint8]
    sets: list[NDArray[np.bool_]]


def _written_of(scored: ScoredImage, scores: Mapping[str, Score]) -> _Written:
    prediction = scored.prediction
    classes = prediction.classes[0].cpu().numpy()  # eight bytes each, which workers would send
    few = prediction.native_logits.shape[1] <= 256
    return _Written(
        scored.path,
        classes.astype(np.uint8) if few else classes.astype(np.uint16),
        prediction.class_names,
        {score: values.cpu().numpy() for score, values in scored.maps.items()},
        {
            name: natural_scale(
                name, prediction.native_logits.shape[1], probability=is_probability(score)
            )
            for name, score in scores.items()
        },
        in_colour(scored.image),
        [sets.contains(prediction)[0].cpu().numpy() for sets in sets_among(scores).values()],
    )


def _write(what: _Written, files: list[Path], format: str, waiting: Waiting) -> None:
    classes, *rest, overlay = files
    maps, further = rest[: len(what.maps)], rest[len(what.maps) :]
    write_classes(classes, what.classes, what.class_names, _figures_of(what))
    for path, (score, values) in zip(maps, what.maps.items()):
        if format == "png" and what.scales[score] is None:
            path.unlink(missing_ok=True)
            waiting.keep(path, values)
        else:
            write_map(path, values, format, score, scale=what.scales[score])  # type: ignore[arg-type]
    for contains, bits, size in zip(what.sets, further[::2], further[1::2]):
        write_sets(bits, contains)
        write_sizes(size, contains.sum(0), len(contains))
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
