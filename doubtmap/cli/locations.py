"""`doubtmap locations`: whether a class's features depend on the place in the image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doubtmap.cli.commands import as_command, command_line, option
from doubtmap.cli.options import Data, Limit, Model, Network, Out, Seed, opened, seeded

FEATURES = "Features"


def locations(
    model: Model,
    data: Data,
    network: Network,
    layer: Annotated[str, option(FEATURES, "Whose output the features are.")] = "auto",
    grid: Annotated[int, option(FEATURES, "Cells along each side of the image.", min=2)] = 8,
    out: Out = Path("locations"),
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """Distances between class means at distant places: is one Gaussian for each class sound?"""
    from doubtmap.progress import progress_bar
    from doubtmap.studies.locations import locate, write_locations

    seeded(seed)
    segmenter = network.open(model, seed)
    with progress_bar() as progress:
        figures = locate(
            segmenter, opened(data, seed, limit), layer=layer, grid=grid, progress=progress
        )
    typer.echo(write_locations(figures, segmenter.class_names, out, command_line()))


EXAMPLE = """
doubtmap locations demo synthetic:24
doubtmap locations demo synthetic:24 --grid 4 --out places
doubtmap locations NETWORK camvid:PATH:train --layer encoder.stage4 --limit 50
"""
command = as_command("locations", locations, EXAMPLE)
