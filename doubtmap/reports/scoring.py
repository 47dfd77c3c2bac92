"""The files of `doubtmap score`: for each image its classes, doubt maps and an overlay.

OUT/classes/NAME.png    predicted classes, a palette picture
OUT/SCORE/NAME.png      a doubt map for each score
OUT/overlay/NAME.jpg    the first score laid over the image; written last
OUT/score.json          how all this was made
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from doubtmap.atomic import write_atomically
from doubtmap.engine.score import ScoredImage, score_images
from doubtmap.engine.settings import hold_to, model_settings, score_settings
from doubtmap.errors import DataError, UsageError
from doubtmap.prediction import Score, Segmenter
from doubtmap.reports.maps import MapFormat, write_classes, write_map
from doubtmap.reports.overlay import write_overlay
from doubtmap.version import __version__

WRITERS = 2


def write_scores(
    segmenter: Segmenter,
    paths: Sequence[Path],
    scores: dict[str, Score],
    out: Path,
    *,
    format: str = "png",
    resume: bool = False,
    skip_bad: bool = False,
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
    folders = {score: re.sub(r"[^\w.=-]+", "_", score).strip("_") for score in scores}
    for folder in ("classes", "overlay", *folders.values()):
        _make(out / folder)
    if not resume:
        (out / "settings.json").unlink(missing_ok=True)
    settings = model_settings(segmenter) | score_settings(scores) | {"format": format}
    hold_to(out / "settings.json", settings)
    todo = [
        path
        for path in paths
        if not (resume and all(f.exists() for f in files_of(out, names[path], folders, format)))
    ]
    skipped: dict[Path, str] | None = {} if skip_bad else None
    done = len(paths) - len(todo)
    with ThreadPoolExecutor(WRITERS, thread_name_prefix="doubtmap-write") as pool:
        writing: list[Future[None]] = []
        for scored in score_images(segmenter, todo, scores, skipped):
            files = files_of(out, names[scored.path], folders, format)
            writing.append(pool.submit(_write, _written_of(scored), files, format))
            del scored  # and with it the features, which are many times what is written
            while len(writing) > WRITERS:
                writing.pop(0).result()
            done += 1
            if progress:
                progress("score", done + len(skipped or ()), len(paths))
        for future in writing:
            future.result()
    if not done:
        raise DataError(f"none of the {len(paths)} images could be read, such as {paths[0]}.")
    about = {
        "doubtmap": __version__,
        "command": command,
        "model": segmenter.description,
        "class_names": list(segmenter.class_names),
        "folders": folders,
        "images": {names[path]: str(path) for path in paths},
        "skipped": {str(path): reason for path, reason in (skipped or {}).items()},
    }
    write_atomically(out / "score.json", json.dumps(about, indent=1).encode())
    lost = f", {len(skipped)} could not be read" if skipped else ""
    return f"{done} of {len(paths)} images scored{lost}: {out}"


def files_of(out: Path, name: str, folders: dict[str, str], format: str) -> list[Path]:
    """The files of one image: classes, a map for each score, the overlay."""
    maps = [out / folder / f"{name}.{format}" for folder in folders.values()]
    return [out / "classes" / f"{name}.png", *maps, out / "overlay" / f"{name}.jpg"]


def outside(paths: Sequence[Path], out: Path) -> list[Path]:
    """The images that do not lie in the output folder, where an earlier run wrote pictures.

    Raises:
        DataError: where there are none.
    """
    kept = [path for path in paths if out.resolve() not in path.resolve().parents]
    if not kept:
        raise DataError(f"{out}: expected images outside of the output folder, found none.")
    return kept


def unique_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A file name without suffix for each image; equal ones get folder and, if need be, number."""
    names = {path: path.stem for path in paths}
    count = Counter(name.casefold() for name in names.values())
    taken: set[str] = set()
    for path, stem in names.items():
        name = stem if count[stem.casefold()] == 1 else f"{path.parent.name}_{stem}"
        number = 2
        while name.casefold() in taken:
            name, number = f"{path.parent.name}_{stem}_{number}", number + 1
        taken.add(name.casefold())
        names[path] = name
    return names


@dataclass(frozen=True, eq=False)
class _Written:
    """What the files of one image hold: its classes, doubt maps and picture."""

    classes: NDArray[np.int64]
    class_names: tuple[str, ...]
    maps: dict[str, NDArray[np.float32]]
    limits: tuple[float, float] | None
    image: NDArray[np.uint8]


def _written_of(scored: ScoredImage) -> _Written:
    prediction = scored.prediction
    return _Written(
        prediction.classes[0].cpu().numpy(),
        prediction.class_names,
        {score: values.cpu().numpy() for score, values in scored.maps.items()},
        _limits(next(iter(scored.maps)), prediction.native_logits.shape[1]),
        scored.image.permute(1, 2, 0).numpy(),
    )


def _write(what: _Written, files: list[Path], format: str) -> None:
    classes, *maps, overlay = files
    write_classes(classes, what.classes, what.class_names)
    for path, (score, values) in zip(maps, what.maps.items()):
        write_map(path, values, format, score)  # type: ignore[arg-type]
    write_overlay(overlay, what.image, next(iter(what.maps.values())), what.limits)


def _limits(score: str, classes: int) -> tuple[float, float] | None:
    """The same scale for all images, where the score has a natural one."""
    return {
        "max_softmax": (0.0, 1 - 1 / classes),
        "margin": (0.0, 1.0),
        "entropy": (0.0, math.log(classes)),
        "divergence": (-math.log(2), 0.0),
    }.get(score)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror}.") from error
