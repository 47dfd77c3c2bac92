"""`doubtmap objects`: unknown objects of images as boxes, outlines and masks."""

from __future__ import annotations

import json as json_text
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doubtmap.cli.commands import OUTPUT, SCORES, as_command, command_line, option
from doubtmap.cli.options import (
    Images,
    Limit,
    Model,
    Network,
    Out,
    Parquet,
    Places,
    Range,
    Seed,
    SkipBad,
    collected,
    score_or_usual,
    seeded,
    windowed,
)
from doubtmap.cli.telling import tell_notes
from doubtmap.cli.texts import names, read_range
from doubtmap.errors import UsageError

if TYPE_CHECKING:
    from doubtmap.decisions.file import Threshold
    from doubtmap.engine.places import PartNumber
    from doubtmap.objects import ObjectProbability
    from doubtmap.prediction import Score, Segmenter

OBJECTS = "Objects"


def objects_command(
    model: Model,
    images: Images,
    network: Network,
    places: Places,
    threshold: Annotated[
        str | None, option(SCORES, "Of the score: a number, or a file of doubtmap threshold.")
    ] = None,
    scores: Annotated[
        str | None, option(SCORES, "One. Default: the file's, else doubt, or rejected of queries.")
    ] = None,
    probability: Annotated[
        Path | None,
        option(
            SCORES,
            "Of doubtmap fit objects: P(unknown) of each; brings score, threshold and rule.",
            metavar="FILE",
        ),
    ] = None,
    smallest: Annotated[
        int | None, option(OBJECTS, "Pixels of the smallest object. Default: 50.")
    ] = None,
    smallest_share: Annotated[
        float | None,
        option(OBJECTS, "Of the image's pixels, of the smallest object. Default: 0."),
    ] = None,
    fill_holes: Annotated[bool, option(OBJECTS, "Objects have no holes.", "--fill-holes")] = False,
    on: Annotated[
        str, option(OBJECTS, "Keep objects that lie on these classes, such as road,pavement.")
    ] = "",
    on_share: Annotated[
        float | None,
        option(OBJECTS, "Of the ring around an object that must be of these. Default: 0.2."),
    ] = None,
    simplify: Annotated[
        float, option(OUTPUT, "How far outlines may be off, in pixels; 0: exact.")
    ] = 0.0,
    encoding: Annotated[
        str, option(OUTPUT, "Of masks: polygon (run lengths where there are holes) or rle.")
    ] = "polygon",
    crs: Annotated[
        str | None, option(OUTPUT, "Of georeferences that name none, such as EPSG:4326.")
    ] = None,
    to: Annotated[
        str, option(OUTPUT, "Of the map: geojson, gpkg, or both as geojson,gpkg.")
    ] = "geojson",
    parquet: Parquet = False,
    range: Range = None,
    out: Out = Path("objects"),
    json: Annotated[bool, option(OUTPUT, "Print what was found as JSON.", "--json")] = False,
    limit: Limit = None,
    skip_bad: SkipBad = False,
    seed: Seed = 0,
) -> None:
    """Unknown objects as things: COCO and GeoJSON files, a table, and pictures."""
    if threshold is None and probability is None:
        raise UsageError(
            "objects: expected --threshold, a number or a file of doubtmap threshold, or "
            "--probability FILE, which brings one. Add it."
        )
    if threshold is not None:
        check_threshold(threshold)
    if on_share is not None and not on:
        raise UsageError("--on-share: expected --on with it, which says of which classes. Add it.")
    from doubtmap.engine.places import read_part
    from doubtmap.objects import ObjectProbability, ObjectRule
    from doubtmap.objects.find import class_indices
    from doubtmap.objects.writing import Form, write_objects
    from doubtmap.progress import progress_bar

    part = read_part(places.part) if places.part else None
    if parquet and part:
        raise UsageError("--parquet: expected without --part. Give it to doubtmap merge.")
    form = Form(simplify, encoding, crs, tuple(names(to)), parquet)
    seeded(seed)
    segmenter = network.open(model, seed)
    likely = None if probability is None else ObjectProbability.load(probability)
    scored, above, chosen = _found_in(segmenter, scores, threshold, likely)
    usual = ObjectRule(above) if likely is None else replace(likely.rule, threshold=above)
    asked: dict[str, Any] = {
        "smallest": smallest,
        "smallest_share": smallest_share,
        "fill_holes": fill_holes or None,
        "on": class_indices(names(on), segmenter.class_names) or None,
        "on_share": on_share,
    }
    rule = replace(usual, **{name: value for name, value in asked.items() if value is not None})
    paths = collected(images, limit)
    segmenter, notes = windowed(segmenter, paths)
    segmenter = places.spread(network, model, seed, segmenter)
    with progress_bar() as progress:
        found = write_objects(
            segmenter,
            paths,
            scored,
            rule,
            out,
            probability=likely,
            form=form,
            part=part,
            skip_bad=skip_bad,
            range=read_range(range),
            about={"threshold": chosen, "seed": seed, "command": command_line()},
            progress=progress,
        )
    tell_notes(notes + found["notes"])
    tell_objects(found, out, json=json, part=part)


def tell_objects(
    found: dict[str, Any], out: Path, *, json: bool, part: PartNumber | None = None
) -> None:
    """Print what was found."""
    from doubtmap.datasets.reading import left_out

    skipped = left_out(found["skipped"])
    sentence = f"{found['objects']} objects in {found['images']} images{skipped}: {out}"
    if part:
        sentence = f"Part {part}: {sentence}. {part.then}"
    typer.echo(json_text.dumps(found, indent=1) if json else sentence)


def _found_in(
    segmenter: Segmenter, score: str | None, threshold: str | None, likely: ObjectProbability | None
) -> tuple[tuple[str, Score], float, dict[str, object]]:
    """As `score_and_threshold`; what is not given comes with the probability."""
    if likely is None:
        return score_and_threshold(segmenter, score, threshold or "")
    scored = likely.opened() if score is None else _same(one(score), likely)
    if threshold is None:
        return scored, likely.rule.threshold, {"of": "the probability", "score": likely.score}
    _, above, chosen = score_and_threshold(segmenter, score or likely.score, threshold)
    return scored, above, chosen


def check_threshold(threshold: str) -> None:
    """Refuse what is neither a number nor a file."""
    try:
        float(threshold)
    except ValueError:
        if not Path(threshold).exists() and "://" not in threshold:
            raise UsageError(
                f"--threshold: expected a number or a file of one, got {threshold}."
            ) from None


def score_and_threshold(
    segmenter: Segmenter, score: str | None, threshold: str
) -> tuple[tuple[str, Score], float, dict[str, object]]:
    """The score by its name, the threshold, and where that comes from."""
    try:
        limit = float(threshold)
    except ValueError:
        return _of_file(segmenter, score, threshold)
    text = score_or_usual(score, segmenter)
    return one(text), limit, {"given": threshold, "score": text}


def _of_file(
    segmenter: Segmenter, score: str | None, file: str
) -> tuple[tuple[str, Score], float, dict[str, object]]:
    from doubtmap.decisions.file import load_threshold

    chosen = load_threshold(file)
    if chosen.of != "unknown":
        raise UsageError(
            f"--threshold: expected one of unknown objects, got one of {chosen.of} pixels. Choose "
            f"one with: doubtmap threshold MODEL DATA --of unknown."
        )
    scored = chosen.opened() if score is None else _same(one(score), chosen)
    chosen.check_network(segmenter)
    about = {key: getattr(chosen, key) for key in ("score", "by", "level")}
    about |= {"data": chosen.origin.data, "images": len(chosen.origin.images)}
    about["command"] = chosen.origin.command
    return scored, chosen.threshold, {"file": file, **about}


def one(score: str) -> tuple[str, Score]:
    """The one score of a text."""
    from doubtmap.scores.parsing import parse_scores

    named = parse_scores(score)
    if len(named) != 1:
        raise UsageError(f"--scores: expected one score, got {', '.join(named)}. Choose one.")
    return next(iter(named.items()))


def _same(scored: tuple[str, Score], chosen: Threshold | ObjectProbability) -> tuple[str, Score]:
    """The score, where a file is of it."""
    if not chosen.belongs_to(*scored):
        of = "threshold" if hasattr(chosen, "threshold") else "probability"
        again = "fit objects" if of == "probability" else "threshold"
        raise UsageError(
            f"--{of}: expected a {of} of {scored[0]}, got one of {chosen.score}. Leave "
            f"--scores out, or make one for it with: doubtmap {again} MODEL DATA."
        )
    return scored


EXAMPLE = """
doubtmap threshold demo synthetic:24 --scores energy --of unknown --by f1 --out t.json
doubtmap objects demo photographs/ --threshold t.json --on road,pavement --simplify 1
doubtmap objects demo photographs/ --probability objects.json
"""
command = as_command("objects", objects_command, EXAMPLE)
