"""`doubtmap locations`: whether a class's features depend on the place in the image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from doubtmap.cli.app import app
from doubtmap.cli.options import Data, Model, NetworkOptions, Out, Seed, command_line, expanded
from doubtmap.datasets import open_dataset
from doubtmap.progress import progress_bar
from doubtmap.studies.locations import locate, write_locations


@app.command()
@expanded
def locations(
    model: Model,
    data: Data,
    network: NetworkOptions,
    layer: Annotated[str, typer.Option(help="Whose output the features are.")] = "auto",
    grid: Annotated[int, typer.Option(min=2, help="Cells along each side of the image.")] = 8,
    out: Out = Path("locations"),
    seed: Seed = 0,
) -> None:
    """Distances between class means at distant places: is one Gaussian for each class sound?"""
    torch.manual_seed(seed)
    segmenter = network.open(model, seed)
    with progress_bar() as progress:
        figures = locate(
            segmenter, open_dataset(data, seed=seed), layer=layer, grid=grid, progress=progress
        )
    typer.echo(write_locations(figures, segmenter.class_names, out, command_line()))
