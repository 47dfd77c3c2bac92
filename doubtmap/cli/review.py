"""`doubtmap review`: which images and segments to look at first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from doubtmap.cli.commands import OUTPUT, SCORES, as_command, command_line, option
from doubtmap.cli.options import (
    Images,
    Limit,
    Model,
    Network,
    Out,
    Range,
    Seed,
    SkipBad,
    Workers,
    collected,
    read_range,
    seeded,
    windowed,
)
from doubtmap.cli.telling import tell_notes


def review_command(
    model: Model,
    images: Images,
    network: Network,
    workers: Workers,
    segments: Annotated[Path, option(SCORES, "A file of doubtmap fit segments.", metavar="FILE")],
    first: Annotated[int, option(OUTPUT, "Images that the page shows.", min=1)] = 20,
    by: Annotated[
        str, option(SCORES, "Rank by wrong (share of pixels) or miou, as expected.")
    ] = "wrong",
    out: Out = Path("review"),
    range: Range = None,
    limit: Limit = None,
    skip_bad: SkipBad = False,
    seed: Seed = 0,
) -> None:
    """Rank images by the mistakes expected in them, and show the segments to distrust."""
    span = read_range(range)
    from doubtmap.progress import progress_bar
    from doubtmap.segments import MetaModel
    from doubtmap.segments.page import write_review

    seeded(seed)
    paths = collected(images, limit)
    segmenter, notes = windowed(network.open(model, seed), paths)
    segmenter = workers.spread(network, model, seed, segmenter)
    with progress_bar() as progress:
        summary = write_review(
            segmenter,
            paths,
            MetaModel.load(segments),
            out,
            first=first,
            by=by,
            skip_bad=skip_bad,
            range=span,
            command=command_line(),
            progress=progress,
        )
    tell_notes(notes + json.loads((out / "review.json").read_text())["notes"])
    typer.echo(summary)


EXAMPLE = """
doubtmap fit segments demo synthetic:24 --out segments.safetensors
doubtmap review demo photographs/ --segments segments.safetensors
doubtmap review demo photographs/ --segments segments.safetensors --by miou --first 50
"""
command = as_command("review", review_command, EXAMPLE)
