"""`doubtmap review`: which images and segments to look at first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from doubtmap.cli.commands import OUTPUT, SCORES, as_command, command_line, option
from doubtmap.cli.options import (
    TO,
    Images,
    Limit,
    Model,
    Network,
    Out,
    Places,
    Range,
    Seed,
    SkipBad,
    collected,
    seeded,
    windowed,
)
from doubtmap.cli.telling import tell_notes
from doubtmap.cli.texts import names, read_range
from doubtmap.errors import UsageError


def review_command(
    model: Model,
    images: Images,
    network: Network,
    places: Places,
    segments: Annotated[Path, option(SCORES, "A file of doubtmap fit segments.", metavar="FILE")],
    first: Annotated[int, option(OUTPUT, "Images that the page shows.", min=1)] = 20,
    budget: Annotated[
        int | None,
        option(
            OUTPUT, "Images that somebody will label: these are shown, and given to --to.", min=1
        ),
    ] = None,
    diverse: Annotated[
        bool, option(SCORES, "Of --budget: images that are unlike each other.", "--diverse")
    ] = False,
    by: Annotated[
        str,
        option(
            SCORES,
            "Rank by wrong (share of pixels) or miou, as expected; or by the doubt's quantile, "
            "patch or mass.",
        ),
    ] = "wrong",
    to: Annotated[str, option(OUTPUT, TO)] = "",
    out: Out = Path("review"),
    range: Range = None,
    limit: Limit = None,
    skip_bad: SkipBad = False,
    seed: Seed = 0,
) -> None:
    """Rank images by the mistakes expected in them, and show the segments to distrust."""
    span = read_range(range)
    if diverse and budget is None:
        raise UsageError("--diverse: expected --budget with it, which says how many. Add it.")
    from doubtmap.engine.places import read_part
    from doubtmap.labelling.handing import check_forms
    from doubtmap.labelling.reviewed import Reviewed
    from doubtmap.progress import progress_bar
    from doubtmap.segments import MetaModel
    from doubtmap.segments.page import Choice, write_review

    forms, handed = check_forms(names(to)), Reviewed(out)
    choice = Choice(budget or first, by, diverse, tuple(forms))
    part = read_part(places.part) if places.part else None
    seeded(seed)
    paths = collected(images, limit)
    segmenter, notes = windowed(network.open(model, seed), paths)
    segmenter = places.spread(network, model, seed, segmenter)
    with progress_bar() as progress:
        summary = write_review(
            segmenter,
            paths,
            MetaModel.load(segments),
            out,
            choice=choice,
            part=part,
            skip_bad=skip_bad,
            range=span,
            command=command_line(),
            chosen=handed.take,
            progress=progress,
        )
    written = out / ("part.json" if part else "review.json")
    tell_notes(notes + json.loads(written.read_text())["notes"])
    for sentence in (summary, *handed.said):
        typer.echo(sentence)


EXAMPLE = """
doubtmap fit segments demo synthetic:24 --out segments.safetensors
doubtmap review demo photographs/ --segments segments.safetensors
doubtmap review demo photographs/ --segments segments.safetensors --budget 50 --diverse --to cvat
"""
command = as_command("review", review_command, EXAMPLE)
