"""`doubtmap analyse`: what a network's calibration depends on."""

from __future__ import annotations

import json as json_text
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from doubtmap.cli.commands import OUTPUT, as_command, option
from doubtmap.cli.options import (
    Data,
    Json,
    Limit,
    Model,
    Network,
    Seed,
    Unknown,
    opened,
    seeded,
)
from doubtmap.cli.texts import names
from doubtmap.errors import UsageError

if TYPE_CHECKING:
    from doubtmap.prediction import Segmenter

Number = TypeVar("Number", int, float)
ANALYSES = ("capacity", "crop", "multiscale", "correctness")
ANALYSIS = "Analysis"


def analyse_command(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(ANALYSES)}.", metavar="KIND")],
    model: Model,
    data: Data,
    network: Network,
    against: Annotated[
        list[str] | None, option(ANALYSIS, "For capacity: another model; repeat for more.")
    ] = None,
    sizes: Annotated[str, option(ANALYSIS, "For crop: sides of windows, in pixels.")] = "128,256",
    scales: Annotated[
        str, option(ANALYSIS, "For multiscale: factors of the image's sides.")
    ] = "0.75,1,1.25",
    out: Annotated[
        Path | None, option(OUTPUT, "HTML page with charts to write.", metavar="FILE")
    ] = None,
    json: Json = False,
    unknown: Unknown = "",
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """Calibration against capacity, view, scales, or whether a pixel is right."""
    _check(kind, against or [])
    sides, factors = _numbers(sizes, int), _numbers(scales, float)
    from doubtmap.progress import progress_bar
    from doubtmap.studies.analyses import analyse, analysis_table, write_analysis

    seeded(seed)
    open_model = partial(network.open, seed=seed)
    segmenters = _variants(
        kind, open_model, model, against or [], sides, {f"scales {scales}": factors}
    )
    dataset = opened(data, seed, limit)
    with progress_bar() as progress:
        rows = analyse(segmenters, dataset, unknown=names(unknown), progress=progress)
    if out is not None:
        write_analysis(kind, rows, out)
    typer.echo(json_text.dumps(rows, indent=1) if json else analysis_table(rows))


def _check(kind: str, against: list[str]) -> None:
    if kind not in ANALYSES:
        raise UsageError(f"analyse: expected one of {', '.join(ANALYSES)}, got {kind!r}.")
    if kind == "capacity" and not against:
        raise UsageError("analyse: capacity compares networks; name others with --against MODEL.")


def _variants(
    kind: str,
    opened: Callable[[str], Segmenter],
    model: str,
    against: list[str],
    sides: list[int],
    scaled: dict[str, list[float]],
) -> dict[str, Segmenter]:
    """What the analysis compares, by name."""
    from doubtmap.models import Views
    from doubtmap.studies.analyses import Windowed

    whole = opened(model)
    found: dict[str, Segmenter] = {model: whole}
    if kind == "capacity":
        found |= {other: opened(other) for other in against}
    elif kind == "crop":
        found = {f"window {side}": Windowed(whole, side) for side in sides}
        found["whole image"] = whole
    elif kind == "multiscale":
        found = {"one scale": whole}
        found |= {name: Views(whole, factors) for name, factors in scaled.items()}
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


EXAMPLE = """
doubtmap analyse correctness demo synthetic:24
doubtmap analyse crop demo synthetic:24 --sizes 64,128 --out crop.html
doubtmap analyse capacity small/ camvid:PATH:test --against large/ --json
"""
command = as_command("analyse", analyse_command, EXAMPLE)
