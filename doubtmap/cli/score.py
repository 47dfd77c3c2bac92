"""`doubtmap score`: doubt maps, classes and overlays of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from doubtmap.cli.commands import OUTPUT, as_command, command_line, option
from doubtmap.cli.options import (
    Images,
    Limit,
    Model,
    Network,
    Out,
    Range,
    Resume,
    Scores,
    Seed,
    SkipBad,
    collected,
    read_range,
    seeded,
)
from doubtmap.cli.telling import tell_notes
from doubtmap.scores import DEFAULT


def score(
    model: Model,
    images: Images,
    network: Network,
    scores: Scores = DEFAULT,
    out: Out = Path("doubt"),
    format: Annotated[str, option(OUTPUT, "Of the maps: png, npy, tiff, safetensors.")] = "png",
    range: Range = None,
    limit: Limit = None,
    resume: Resume = False,
    skip_bad: SkipBad = False,
    seed: Seed = 0,
) -> None:
    """Doubt maps, classes and overlays of images."""
    span = read_range(range)
    from doubtmap.progress import progress_bar
    from doubtmap.scores.parsing import parse_scores
    from doubtmap.scoring import write_scores

    seeded(seed)
    segmenter = network.open(model, seed)
    with progress_bar() as progress:
        summary = write_scores(
            segmenter,
            collected(images, limit),
            parse_scores(scores),
            out,
            format=format,
            range=span,
            resume=resume,
            skip_bad=skip_bad,
            command=command_line(),
            progress=progress,
        )
    tell_notes(json.loads((out / "score.json").read_text())["notes"])
    typer.echo(summary)


EXAMPLE = """
doubtmap score demo photographs/ --out doubt
doubtmap score demo 'frames/*.png' --scores entropy,gradient --format npy --limit 10
doubtmap score --config doubt/options.toml --out again
"""
command = as_command("score", score, EXAMPLE)
