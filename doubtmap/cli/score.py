"""`doubtmap score`: doubt maps, classes and overlays of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from doubtmap.cli.commands import DATA, OUTPUT, as_command, command_line, option
from doubtmap.cli.options import (
    Images,
    Limit,
    Model,
    Network,
    Out,
    Resume,
    Scores,
    Seed,
    SkipBad,
    collected,
    read_numbers,
    seeded,
)
from doubtmap.cli.telling import tell_notes
from doubtmap.errors import UsageError
from doubtmap.scores import DEFAULT

if TYPE_CHECKING:
    from doubtmap.prediction import Prediction


def score(
    model: Model,
    images: Images,
    network: Network,
    scores: Scores = DEFAULT,
    out: Out = Path("doubt"),
    format: Annotated[str, option(OUTPUT, "Of the maps: png, npy, tiff, safetensors.")] = "png",
    range: Annotated[
        str | None,
        option(
            DATA, "LOW,HIGH: black and white of images of more than 8 bits.", metavar="LOW,HIGH"
        ),
    ] = None,
    limit: Limit = None,
    resume: Resume = False,
    skip_bad: SkipBad = False,
    seed: Seed = 0,
) -> None:
    """Doubt maps, classes and overlays of images."""
    if range is not None and len(read_numbers("--range", range)) != 2:
        raise UsageError(f"--range: expected LOW,HIGH such as 0,4095, got {range}.")
    from doubtmap.progress import progress_bar
    from doubtmap.scores.parsing import parse_asked
    from doubtmap.scoring import score_images, write_scores

    seeded(seed)
    segmenter, paths = network.open(model, seed), collected(images, limit)

    def first() -> Prediction | None:
        found = next(score_images(segmenter, paths, {}, {} if skip_bad else None), None)
        return None if found is None else found.prediction

    asked, notes = parse_asked(scores, first)
    with progress_bar() as progress:
        summary = write_scores(
            segmenter,
            paths,
            asked,
            out,
            format=format,
            range=read_numbers("--range", range) if range is not None else None,  # type: ignore[arg-type]
            resume=resume,
            skip_bad=skip_bad,
            command=command_line(),
            progress=progress,
        )
    tell_notes(notes + json.loads((out / "score.json").read_text())["notes"])
    typer.echo(summary)


EXAMPLE = """
doubtmap score demo photographs/ --out doubt
doubtmap score demo 'frames/*.png' --scores entropy,gradient --format npy --limit 10
doubtmap score --config doubt/options.toml --out again
"""
command = as_command("score", score, EXAMPLE)
