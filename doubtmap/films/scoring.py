"""Films and streams: an overlay film, and a table with a row for each frame.

OUT/NAME.mp4     the first score laid over each frame, on one scale
OUT/NAME.csv     frame, seconds, mean and largest of each score, expected share wrong, objects
OUT/score.json   how all this was made
"""

from __future__ import annotations

import csv
import itertools
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from doubtmap.errors import DataError, UsageError
from doubtmap.files import alone, sweep, write_atomically
from doubtmap.films.frames import FRAMES, Film, FilmWriter, FolderOfFrames, Frame, opened, written
from doubtmap.prediction import Score, Segmenter, showing
from doubtmap.reports.colours import robust_limits
from doubtmap.reports.overlay import colour_bar, overlay
from doubtmap.reports.scales import natural_scale
from doubtmap.scoring import is_probability, prepared, score_maps
from doubtmap.version import __version__

FIRST = 10
"""Frames by which the scale of a score is chosen that has none of its own."""
Told = Callable[[str, int, int], None]
Counted = Callable[[Tensor, Tensor], int]
"""Objects in a doubt map and predicted classes, both `(H, W)`."""


@dataclass(frozen=True, eq=False)
class ScoredFrame:
    """What a network said about one frame.

    Args:
        frame: the picture.
        classes: that the network tells apart.
        maps: `(H, W)` float32 by score.
        wrong: the share of its labels that are expected to be wrong, by its confidence.
        objects: how many things the first score shows; None where nobody counts them.
    """

    frame: Frame
    classes: int
    maps: dict[str, NDArray[np.float32]]
    wrong: float
    objects: int | None = None

    @property
    def row(self) -> dict[str, object]:
        """Of the table."""
        found: dict[str, object] = {
            "frame": self.frame.index,
            "seconds": round(self.frame.seconds, 4),
            "expected_share_wrong": f"{self.wrong:.6g}",
        }
        found |= {} if self.objects is None else {"objects": self.objects}
        for name, values in self.maps.items():
            found[f"mean {name}"] = f"{values.mean():.6g}"
            found[f"largest {name}"] = f"{values.max():.6g}"
        return found


def score_film(
    segmenter: Segmenter,
    film: Film | FolderOfFrames,
    scores: dict[str, Score],
    every: int = 1,
    limit: int | None = None,
    counted: Counted | None = None,
) -> Iterator[ScoredFrame]:
    """Score a film frame by frame, in constant memory; the decoder runs beside the network.

    Args:
        segmenter: the network.
        film: opened.
        scores: by name.
        every: how many frames to go on, from one to the next.
        limit: how many frames to look at, at most.
        counted: the objects of a frame by its first score.
    """
    segmenter = prepared(segmenter, scores)
    with closing(film.frames(every)) as frames:
        for frame in itertools.islice(frames, limit):
            with showing(f"{Path(film.name).name}, frame {frame.index}"):
                image = torch.from_numpy(frame.pixels).permute(2, 0, 1)[None]
                prediction = segmenter(image)
            found = score_maps(prediction, scores)
            maps = {name: values.cpu().numpy() for name, values in found.items()}
            objects = counted and counted(next(iter(found.values())), prediction.classes[0])
            wrong = float(prediction.statistics.max_softmax.mean())
            yield ScoredFrame(frame, prediction.native_logits.shape[1], maps, wrong, objects)
            del prediction, image, found


@alone
def write_films(
    segmenter: Segmenter,
    names: Iterable[str],
    scores: dict[str, Score],
    out: Path,
    *,
    every: int = 1,
    limit: int | None = None,
    counted: Counted | None = None,
    command: str = "",
    progress: Told | None = None,
) -> str:
    """Score films and streams, and write what came out.

    What is stopped, by the end of a stream or by hand, keeps all frames up to there.

    Args:
        segmenter: the network.
        names: of films, or addresses of streams.
        scores: by name; the first is laid over the frames.
        out: folder, made if it is not there.
        every: how many frames to go on, from one to the next.
        limit: how many frames of each film to look at, at most.
        counted: the objects of a frame by its first score, for the table.
        command: what to write as the origin.
        progress: told after each frame.

    Returns:
        One sentence about what was written.

    Raises:
        UsageError: without PyAV.
        DataError: for what cannot be read, or a folder that cannot be written.
    """
    about: dict[str, Any] = {}
    total = 0
    sweep(out)
    for name in names:
        film = opened(name)
        try:
            stem = _stem(name, about)
            _spare(name, out / f"{stem}.mp4")
            looked = score_film(segmenter, film, scores, every, limit, counted)
            scale, count = _write(looked, film, scores, out / f"{stem}.mp4", every, limit, progress)
        finally:
            film.close()
        about[stem] = {"film": name, "frames": count, "scale": scale, "every": every}
        total += count
    facts = {
        "doubtmap": __version__,
        "command": command,
        "directory": str(Path.cwd()),
        "model": segmenter.description,
        "class_names": list(segmenter.class_names),
        "films": about,
        "notes": [],
    }
    write_atomically(out / "score.json", json.dumps(facts, indent=1).encode())
    films = "1 film" if len(about) == 1 else f"{len(about)} films"
    return f"{total} frames of {films} scored: {out}"


def _spare(name: str, path: Path) -> None:
    if path.exists() and path.resolve() == Path(name).resolve():
        raise UsageError(
            f"{name}: expected another folder for what is written than that of the film, which "
            f"would be replaced. Choose another --out."
        )


def _stem(name: str, taken: Mapping[str, object]) -> str:
    named = name.removeprefix(FRAMES).partition("@")[0] if name.startswith(FRAMES) else name
    stem = Path(named.partition("://")[2] or named).stem or "stream"
    numbers = itertools.count(2)
    found = stem
    while found in taken:
        found = f"{stem}_{next(numbers)}"
    return found


def _write(
    looked: Iterator[ScoredFrame],
    film: Film | FolderOfFrames,
    scores: dict[str, Score],
    path: Path,
    every: int,
    limit: int | None,
    progress: Told | None,
) -> tuple[tuple[float, float], int]:
    """Write one film and its table; its scale, and how many frames it has."""
    first = list(itertools.islice(looked, FIRST))
    if not first:
        raise DataError(f"{film.name}: expected frames, got none. Leave it out.")
    scale = _scale(scores, first)
    total = -(-film.count // every) if film.count else 0
    total = min(total, limit or total)
    count = 0
    with written(path, film.rate / every) as writer, _table(path.with_suffix(".csv")) as add:
        for scored in itertools.chain(first, looked):
            _lay(writer, scored, scale)
            add(scored.row)
            count += 1
            if progress:
                progress(f"frames of {path.stem}", count, max(total, count))
    return scale, count


def _scale(scores: Mapping[str, Score], first: list[ScoredFrame]) -> tuple[float, float]:
    """On which the first score is shown, the same in all frames."""
    name, score = next(iter(scores.items()))
    own = natural_scale(name, first[0].classes, probability=is_probability(score))
    return own or robust_limits(np.stack([scored.maps[name] for scored in first]))


def _lay(writer: FilmWriter, scored: ScoredFrame, scale: tuple[float, float]) -> None:
    doubt = next(iter(scored.maps.values()))
    laid = overlay(scored.frame.pixels, doubt, scale)
    writer.add(np.concatenate([laid, colour_bar(laid.shape[1], scale)]))


@contextmanager
def _table(path: Path) -> Iterator[Callable[[dict[str, object]], None]]:
    """Takes the rows of a table, which is there in the end, or as far as a stopped run came."""
    beside = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")

            def add(row: dict[str, object]) -> None:
                if file.tell() == 0:
                    writer.writerow(row)
                writer.writerow(row.values())

            yield add
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}). Choose another --out."
        ) from error
    finally:
        if beside.exists():
            beside.replace(path)
