"""`doubtmap score`: doubt maps, classes and overlays of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from doubtmap.cli.app import app
from doubtmap.cli.options import (
    Model,
    NetworkOptions,
    Out,
    Resume,
    Scores,
    Seed,
    SkipBad,
    command_line,
    expanded,
)
from doubtmap.datasets import collect_images
from doubtmap.progress import progress_bar
from doubtmap.scores import DEFAULT
from doubtmap.scores.parsing import parse_scores
from doubtmap.scoring import write_scores


@app.command()
@expanded
def score(
    model: Model,
    images: Annotated[list[str], typer.Argument(help="Images, folders or patterns.")],
    network: NetworkOptions,
    scores: Scores = DEFAULT,
    out: Out = Path("doubt"),
    format: Annotated[str, typer.Option(help="Of the maps: png, npy, tiff, safetensors.")] = "png",
    resume: Resume = False,
    skip_bad: SkipBad = False,
    seed: Seed = 0,
) -> None:
    """Doubt maps, classes and overlays of images."""
    torch.manual_seed(seed)
    segmenter = network.open(model, seed)
    with progress_bar() as progress:
        summary = write_scores(
            segmenter,
            collect_images(images),
            parse_scores(scores),
            out,
            format=format,
            resume=resume,
            skip_bad=skip_bad,
            command=command_line(),
            progress=progress,
        )
    typer.echo(summary)
