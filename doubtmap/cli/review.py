"""`doubtmap review`: which images and segments to look at first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from doubtmap.cli.app import app
from doubtmap.cli.options import Model, NetworkOptions, Out, Seed, SkipBad, command_line, expanded
from doubtmap.datasets import collect_images
from doubtmap.progress import progress_bar
from doubtmap.segments import MetaModel
from doubtmap.segments.page import write_review


@app.command("review")
@expanded
def review_command(
    model: Model,
    images: Annotated[list[str], typer.Argument(help="Images, folders or patterns.")],
    network: NetworkOptions,
    segments: Annotated[Path, typer.Option(help="A file of doubtmap fit segments.")],
    first: Annotated[int, typer.Option(min=1, help="Images that the page shows.")] = 20,
    by: Annotated[
        str, typer.Option(help="Rank by wrong (share of pixels) or miou, as expected.")
    ] = "wrong",
    out: Out = Path("review"),
    skip_bad: SkipBad = False,
    seed: Seed = 0,
) -> None:
    """Rank images by the mistakes expected in them, and show the segments to distrust."""
    torch.manual_seed(seed)
    with progress_bar() as progress:
        summary = write_review(
            network.open(model, seed),
            collect_images(images),
            MetaModel.load(segments),
            out,
            first=first,
            by=by,
            skip_bad=skip_bad,
            command=command_line(),
            progress=progress,
        )
    typer.echo(summary)
