"""`doubtmap analyse`: what a network's calibration depends on."""

from __future__ import annotations

import json as json_text
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import torch
import typer

from doubtmap.cli.app import app
from doubtmap.cli.options import Data, Model, NetworkOptions, Seed, Unknown, expanded, names
from doubtmap.datasets import open_dataset
from doubtmap.errors import UsageError
from doubtmap.prediction import Segmenter
from doubtmap.progress import progress_bar
from doubtmap.studies.analyses import (
    ANALYSES,
    Multiscale,
    Windowed,
    analyse,
    analysis_table,
    write_analysis,
)

Number = TypeVar("Number", int, float)


@app.command("analyse")
@expanded
def analyse_command(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(ANALYSES)}.")],
    model: Model,
    data: Data,
    network: NetworkOptions,
    against: Annotated[
        list[str] | None, typer.Option(help="For capacity: another model; repeat for more.")
    ] = None,
    sizes: Annotated[str, typer.Option(help="For crop: sides of windows, in pixels.")] = "128,256",
    scales: Annotated[
        str, typer.Option(help="For multiscale: factors of the image's sides.")
    ] = "0.75,1,1.25",
    out: Annotated[Path | None, typer.Option(help="HTML page with charts to write.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    unknown: Unknown = "",
    seed: Seed = 0,
) -> None:
    """Calibration against capacity, view, scales, or whether a pixel is right."""
    torch.manual_seed(seed)
    segmenters = _variants(
        kind, partial(network.open, seed=seed), model, against or [], sizes, scales
    )
    dataset = open_dataset(data, seed=seed)
    with progress_bar() as progress:
        rows = analyse(segmenters, dataset, unknown=names(unknown), progress=progress)
    if out is not None:
        write_analysis(kind, rows, out)
    typer.echo(json_text.dumps(rows, indent=1) if json else analysis_table(rows))


def _variants(
    kind: str,
    opened: Callable[[str], Segmenter],
    model: str,
    against: list[str],
    sizes: str,
    scales: str,
) -> dict[str, Segmenter]:
    """What the analysis compares, by name."""
    if kind not in ANALYSES:
        raise UsageError(f"analyse: expected one of {', '.join(ANALYSES)}, got {kind!r}.")
    if kind == "capacity" and not against:
        raise UsageError("analyse: capacity compares networks; name others with --against MODEL.")
    sides, factors = _numbers(sizes, int), _numbers(scales, float)
    whole = opened(model)
    found: dict[str, Segmenter] = {model: whole}
    if kind == "capacity":
        found |= {other: opened(other) for other in against}
    elif kind == "crop":
        found = {f"window {side}": Windowed(whole, side) for side in sides}
        found["whole image"] = whole
    elif kind == "multiscale":
        found = {"one scale": whole, f"scales {scales}": Multiscale(whole, factors)}
    return found


def _numbers(text: str, kind: Callable[[str], Number]) -> list[Number]:
    example = "whole numbers such as 128,256" if kind is int else "numbers such as 0.75,1,1.25"
    try:
        found = [kind(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(map(math.isfinite, found)):
        raise UsageError(f"analyse: expected {example}, got {text!r}.")
    return found
