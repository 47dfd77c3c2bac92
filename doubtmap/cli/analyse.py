"""`doubtmap analyse`: what a network's calibration depends on."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated

import torch
import typer

from doubtmap.cli.app import app
from doubtmap.cli.options import Data, Model, NetworkOptions, Seed, Unknown, expanded, names
from doubtmap.datasets import open_dataset
from doubtmap.engine.analyses import ANALYSES, Multiscale, Windowed, analyse
from doubtmap.errors import UsageError
from doubtmap.prediction import Segmenter
from doubtmap.progress import progress_bar
from doubtmap.reports.analysis import analysis_table, write_analysis


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
    segmenters = _variants(kind, model, network, against or [], sizes, scales)
    dataset = open_dataset(data, seed=seed)
    with progress_bar() as progress:
        rows = analyse(segmenters, dataset, unknown=names(unknown), progress=progress)
    if out is not None:
        write_analysis(kind, rows, out)
    typer.echo(json_text.dumps(rows, indent=1) if json else analysis_table(rows))


def _variants(
    kind: str, model: str, network: NetworkOptions, against: list[str], sizes: str, scales: str
) -> dict[str, Segmenter]:
    """What the analysis compares, by name."""
    if kind not in ANALYSES:
        raise UsageError(f"analyse: expected one of {', '.join(ANALYSES)}, got {kind!r}.")
    if kind == "capacity" and not against:
        raise UsageError("analyse: capacity compares networks; name others with --against MODEL.")
    whole = network.open(model)
    found: dict[str, Segmenter] = {model: whole}
    if kind == "capacity":
        found |= {other: network.open(other) for other in against}
    elif kind == "crop":
        found = {f"window {side:g}": Windowed(whole, int(side)) for side in _numbers(sizes)}
        found["whole image"] = whole
    elif kind == "multiscale":
        found = {"one scale": whole, f"scales {scales}": Multiscale(whole, _numbers(scales))}
    return found


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"analyse: expected numbers such as 128,256, got {text!r}.") from None
