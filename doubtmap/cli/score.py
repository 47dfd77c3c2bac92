"""`doubtmap score`: doubt maps, classes and overlays of images, films and volumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doubtmap.cli.commands import DATA, OUTPUT, as_command, command_line, option
from doubtmap.cli.options import (
    Every,
    Images,
    LimitOfFrames,
    Model,
    Network,
    Out,
    Parquet,
    PlaceOptions,
    Places,
    Range,
    Resume,
    Scores,
    Seed,
    SkipBad,
    collected,
    score_or_usual,
    seeded,
    windowed,
)
from doubtmap.cli.telling import tell_notes
from doubtmap.cli.texts import read_range
from doubtmap.errors import DoubtmapError, UsageError

RASTERS = ("geotiff", "cog")
FORMATS = ("png", "npy", "tiff", "safetensors", *RASTERS)

if TYPE_CHECKING:
    from doubtmap.prediction import Prediction, Segmenter


def score(
    model: Model,
    images: Images,
    network: Network,
    places: Places,
    scores: Scores = None,
    out: Out = Path("doubt"),
    format: Annotated[
        str | None,
        option(
            OUTPUT,
            "Of the maps: png, npy, tiff, safetensors; geotiff or cog, window by window. Default: "
            "png, and geotiff for images that say where on earth they lie.",
        ),
    ] = None,
    parquet: Parquet = False,
    range: Range = None,
    every: Every = None,
    axis: Annotated[
        int | None, option(DATA, "Across which volumes are cut: 0, 1 or 2. Default: 2.")
    ] = None,
    threshold: Annotated[
        str | None,
        option(
            DATA,
            "Count the objects of each frame of films above it: a number, or a file of doubtmap "
            "threshold.",
        ),
    ] = None,
    limit: LimitOfFrames = None,
    resume: Resume = False,
    skip_bad: SkipBad = False,
    seed: Seed = 0,
) -> None:
    """Doubt maps, classes and overlays of images; of films and volumes, too."""
    span = read_range(range)
    if format is not None and format not in FORMATS:
        raise UsageError(f"--format: expected one of {', '.join(FORMATS)}, got {format}.")
    from doubtmap.engine.places import read_part
    from doubtmap.engine.settings import bands_needed
    from doubtmap.files.parquet import check_parquet
    from doubtmap.films import write_films
    from doubtmap.images import write_scores
    from doubtmap.models.layers import probe_image
    from doubtmap.progress import progress_bar
    from doubtmap.scenes import write_scenes
    from doubtmap.scores.parsing import parse_asked
    from doubtmap.volumes import write_volumes

    kind = kind_of("score", images)
    of_images: dict[str, Any] = {"--format": format, "--resume": resume, "--skip-bad": skip_bad}
    of_images["--parquet"] = parquet
    useless: dict[str, Any] = {
        None: {"--every": every, "--axis": axis, "--threshold": threshold},
        "films": {**of_images, "--range": range, "--axis": axis},
        "volumes": {**of_images, "--limit": limit, "--every": every, "--threshold": threshold},
    }[kind]
    if given := [name for name, value in useless.items() if value not in (None, False)]:
        raise UsageError(
            f"score: expected no {', '.join(given)} with {kind or 'images'}, which have no use for "
            f"it. Leave it out."
        )
    if kind:
        _check_here(places, kind)
    part = read_part(places.part) if places.part else None
    if parquet and part:
        raise UsageError("--parquet: expected without --part. Give it to doubtmap merge.")
    if parquet:
        check_parquet()
    seeded(seed)
    segmenter = network.open(model, seed)
    wanted = score_or_usual(scores, segmenter)
    about: dict[str, Any] = {"command": command_line()}
    paths = collected(images, limit) if kind is None else []

    def first() -> Prediction | None:
        with suppress(DoubtmapError):  # a network that takes no such image tells when it is run
            return segmenter(probe_image(bands_needed(segmenter)))
        return None

    asked, notes = parse_asked(wanted, first)
    with progress_bar() as progress:
        about["progress"] = progress
        if kind == "films":
            counted = threshold and _counting(segmenter, next(iter(asked)), threshold)
            about |= {"every": every or 1, "limit": limit, "counted": counted or None}
            summary = write_films(segmenter, images, asked, out, **about)
        elif kind == "volumes":
            files = [Path(name) for name in images]
            about["axis"] = 2 if axis is None else axis
            summary = write_volumes(segmenter, files, asked, out, range=span, **about)
        else:
            segmenter, format, said = _windowed(segmenter, paths, format, out if resume else None)
            notes += said
            about |= {"resume": resume, "skip_bad": skip_bad, "range": span}
            if format in RASTERS:
                if places.workers or places.engine != "local" or places.batch > 1:
                    raise UsageError(
                        "score: expected no --workers, --engine and --batch with rasters, which "
                        "one process looks at window by window. Leave them out; --part shares the "
                        "rows of all rasters out among several runs."
                    )
                if parquet:
                    raise UsageError(
                        "--parquet: expected images that are no rasters, of which there is a "
                        "table. Leave it out."
                    )
                cloud = format == "cog"
                about |= {"part": part, "cloud": cloud}
                summary = write_scenes(segmenter, paths, asked, out, **about)
            else:
                segmenter = places.spread(network, model, seed, segmenter)
                summary = write_scores(
                    *(segmenter, paths, asked, out),
                    format=format,
                    parquet=parquet,
                    part=part,
                    **about,
                )
    written = out / ("part.json" if part else "score.json")
    tell_notes(notes + json.loads(written.read_text())["notes"])
    typer.echo(summary)


def _counting(segmenter: Segmenter, score: str, threshold: str) -> Callable[..., int]:
    """What counts the objects of a frame, as `doubtmap objects` finds them."""
    from doubtmap.cli.objects import check_threshold, score_and_threshold
    from doubtmap.objects import ObjectRule, find_objects

    check_threshold(threshold)
    rule = ObjectRule(score_and_threshold(segmenter, score, threshold)[1])
    return lambda doubt, classes: len(find_objects(doubt, classes, rule))


def _check_here(places: PlaceOptions, what: str) -> None:
    """Refuse workers and parts for what one process does alone."""
    if places.workers or places.engine != "local" or places.part or places.batch > 1:
        raise UsageError(
            f"score: expected no --workers, --engine, --part and --batch with {what}, which one "
            f"process looks at, one after the other. Leave them out, or "
            f"run it once for each of them."
        )


def kind_of(command: str, names: list[str]) -> str | None:
    """Whether films, volumes, or, with None, images are meant.

    Args:
        command: for messages.
        names: of files, folders and streams.

    Raises:
        UsageError: for several of these.
    """
    from doubtmap.films import is_film
    from doubtmap.volumes import is_volume

    for kind, belongs in (("films", is_film), ("volumes", is_volume)):
        found = [name for name in names if belongs(name)]
        if found and len(found) < len(names):
            raise UsageError(
                f"{command}: expected {kind} or other images, got both, such as {found[0]}. Run it "
                f"once for each."
            )
        if found:
            return kind
    return None


def _windowed(
    segmenter: Segmenter, paths: list[Path], format: str | None, run: Path | None
) -> tuple[Segmenter, str, list[str]]:
    """The network, through windows where images are too large, the format of the maps, and notes.

    Windows are those of a `run` that goes on.
    """
    from doubtmap.objects.georeference import read_georeference
    from doubtmap.scenes import is_georeferenced, rasters_are_read

    notes: list[str] = []
    tiffs = [path for path in paths if path.suffix.lower() in (".tif", ".tiff")]
    if format is None and not rasters_are_read() and any(map(read_georeference, tiffs)):
        notes = ["maps lose their place on earth: pip install 'doubtmap[geo]' keeps it."]
    placed = format is None and any(map(is_georeferenced, paths))
    earlier = [run / "settings.json"] if run is not None else []
    segmenter, said = windowed(segmenter, paths, *earlier)
    large = format is None and bool(said) and rasters_are_read()
    return segmenter, format or ("geotiff" if placed or large else "png"), notes + said


EXAMPLE = """
doubtmap score demo photographs/ --out doubt
doubtmap score demo 'frames/*.png' --scores entropy,gradient --format npy --limit 10
doubtmap score MODEL mosaic.tif --tile 1024 --out doubt
"""
command = as_command("score", score, EXAMPLE)
