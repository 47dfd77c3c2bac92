"""`doubtmap objects`: unknown objects of images as boxes, outlines and masks."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated

import torch
import typer

from doubtmap.cli.app import app
from doubtmap.cli.options import (
    Model,
    NetworkOptions,
    Out,
    Seed,
    SkipBad,
    command_line,
    expanded,
    names,
)
from doubtmap.datasets import collect_images
from doubtmap.decisions.file import Threshold, load_threshold
from doubtmap.errors import UsageError
from doubtmap.objects import ObjectRule
from doubtmap.objects.find import class_indices
from doubtmap.objects.writing import write_objects
from doubtmap.prediction import Score, Segmenter
from doubtmap.progress import progress_bar
from doubtmap.scores.parsing import parse_scores


@app.command("objects")
@expanded
def objects_command(
    model: Model,
    images: Annotated[list[str], typer.Argument(help="Images, folders or patterns.")],
    network: NetworkOptions,
    threshold: Annotated[
        str, typer.Option(help="Of the score: a number, or a file of doubtmap threshold.")
    ],
    score: Annotated[
        str | None, typer.Option(help="One. Default: the threshold file's, else entropy.")
    ] = None,
    smallest: Annotated[int, typer.Option(help="Pixels of the smallest object.")] = 50,
    smallest_share: Annotated[
        float, typer.Option(help="Of the image's pixels, of the smallest object.")
    ] = 0.0,
    fill_holes: Annotated[
        bool, typer.Option("--fill-holes", help="Objects have no holes.")
    ] = False,
    on: Annotated[
        str, typer.Option(help="Keep objects that lie on these classes, such as road,pavement.")
    ] = "",
    on_share: Annotated[
        float, typer.Option(help="Of the ring around an object that must be of these classes.")
    ] = 0.2,
    simplify: Annotated[
        float, typer.Option(help="How far outlines may be off, in pixels; 0: exact.")
    ] = 0.0,
    encoding: Annotated[
        str, typer.Option(help="Of masks: polygon (run lengths where there are holes) or rle.")
    ] = "polygon",
    crs: Annotated[
        str | None, typer.Option(help="Of georeferences that name none, such as EPSG:4326.")
    ] = None,
    out: Out = Path("objects"),
    json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
    skip_bad: SkipBad = False,
    seed: Seed = 0,
) -> None:
    """Unknown objects as things: COCO and GeoJSON files, a table, and pictures."""
    torch.manual_seed(seed)
    segmenter = network.open(model, seed)
    scored, limit, chosen = _score_and_threshold(segmenter, score, threshold)
    places = class_indices(names(on), segmenter.class_names)
    with progress_bar() as progress:
        found = write_objects(
            segmenter,
            collect_images(images),
            scored,
            ObjectRule(limit, smallest, smallest_share, fill_holes, places, on_share),
            out,
            simplify=simplify,
            encoding=encoding,
            crs=crs,
            skip_bad=skip_bad,
            about={"threshold": chosen, "seed": seed, "command": command_line()},
            progress=progress,
        )
    for note in found["notes"]:
        typer.echo(f"note: {note}", err=True)
    skipped = f", {len(found['skipped'])} could not be read" if found["skipped"] else ""
    sentence = f"{found['objects']} objects in {found['images']} images{skipped}: {out}"
    typer.echo(json_text.dumps(found, indent=1) if json else sentence)


def _score_and_threshold(
    segmenter: Segmenter, score: str | None, threshold: str
) -> tuple[tuple[str, Score], float, dict[str, object]]:
    """The score by its name, the threshold, and where that comes from."""
    try:
        limit = float(threshold)
    except ValueError:
        return _of_file(segmenter, score, threshold)
    return _one(score or "entropy"), limit, {"given": threshold}


def _of_file(
    segmenter: Segmenter, score: str | None, file: str
) -> tuple[tuple[str, Score], float, dict[str, object]]:
    if not Path(file).exists():
        raise UsageError(f"--threshold: expected a number or a file of one, got {file}.")
    chosen = load_threshold(file)
    if chosen.of != "unknown":
        raise UsageError(
            f"--threshold: expected one of unknown objects, got one of {chosen.of} pixels. Choose "
            f"one with: doubtmap threshold MODEL DATA --of unknown."
        )
    scored = chosen.opened() if score is None else _same(_one(score), chosen)
    chosen.check_network(segmenter)
    about = {key: getattr(chosen, key) for key in ("by", "level")}
    about |= {"data": chosen.origin.data, "images": len(chosen.origin.images)}
    about["command"] = chosen.origin.command
    return scored, chosen.threshold, {"file": file, **about}


def _one(score: str) -> tuple[str, Score]:
    named = parse_scores(score)
    if len(named) != 1:
        raise UsageError(f"--score: expected one score, got {', '.join(named)}. Choose one.")
    return next(iter(named.items()))


def _same(scored: tuple[str, Score], chosen: Threshold) -> tuple[str, Score]:
    if not chosen.belongs_to(*scored):
        raise UsageError(
            f"--threshold: expected a threshold of {scored[0]}, got one of {chosen.score}. Leave "
            f"--score out, or choose one for it with: doubtmap threshold MODEL DATA."
        )
    return scored
