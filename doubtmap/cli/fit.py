"""`doubtmap fit`: scores that learn from data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from doubtmap.cli.app import app
from doubtmap.cli.options import Data, Model, NetworkOptions, Seed, command_line, expanded
from doubtmap.datasets import open_dataset
from doubtmap.engine import fit_score
from doubtmap.progress import progress_bar


@app.command()
@expanded
def fit(
    score: Annotated[
        str, typer.Argument(help="Such as density, or density(certainty=0,covariance=tied).")
    ],
    model: Model,
    data: Data,
    network: NetworkOptions,
    out: Annotated[Path, typer.Option(help="File for the fitted score.")],
    seed: Seed = 0,
) -> None:
    """Fit a score to a network and a labelled data set; then --scores SCORE:FILE."""
    torch.manual_seed(seed)
    segmenter = network.open(model, seed)
    with progress_bar() as progress:
        fitted = fit_score(
            score,
            segmenter,
            open_dataset(data, seed=seed),
            out=out,
            command=command_line(),
            progress=progress,
        )
    for note in fitted.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(
        f"{out}: over {fitted.gaussians.mean.shape[1]} features of {fitted.layer}; use it with "
        f"--scores {fitted.name}:{out}"
    )
