"""`doubtmap threshold`: from which score on to act, chosen on validation data."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, cast

import torch
import typer

from doubtmap.cli.app import app
from doubtmap.cli.options import (
    Data,
    Model,
    NetworkOptions,
    Seed,
    Unknown,
    command_line,
    expanded,
    names,
)
from doubtmap.datasets import Dataset, open_dataset
from doubtmap.decisions.file import By, Of, Threshold, load_threshold, save_threshold
from doubtmap.decisions.threshold import check_threshold, choose_threshold
from doubtmap.errors import UsageError
from doubtmap.files import Origin, check_place
from doubtmap.prediction import Segmenter
from doubtmap.progress import progress_bar


@app.command("threshold")
@expanded
def threshold_command(
    model: Model,
    data: Data,
    network: NetworkOptions,
    score: Annotated[str, typer.Option(help="One, such as entropy or wrong:FILE.")] = "",
    of: Annotated[str, typer.Option(help="What to flag: wrong or unknown.")] = "",
    by: Annotated[str, typer.Option(help="f1, tpr, fpr or risk (conformal risk control).")] = "",
    out: Annotated[Path | None, typer.Option(help="The file to write.")] = None,
    check: Annotated[
        Path | None, typer.Option(help="A file to hold to other images, instead of choosing.")
    ] = None,
    at: Annotated[
        float | None, typer.Option(help="Rate of tpr (default .95) or fpr (default .05).")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Of risk: tolerated share of missed pixels (default .1).")
    ] = None,
    count_empty: Annotated[
        bool,
        typer.Option("--count-empty", help="Of risk: images with nothing to flag missed nothing."),
    ] = False,
    unknown: Unknown = "",
    seed: Seed = 0,
) -> None:
    """Choose a threshold on labelled images, or --check one on others."""
    torch.manual_seed(seed)
    if check is not None:
        if score or of or by or out or unknown or count_empty or (at, alpha) != (None, None):
            raise UsageError(
                "threshold: expected --check FILE alone, which says all that it was chosen with. "
                "Leave the other options out."
            )
        _check(network.open(model, seed), open_dataset(data, seed=seed), load_threshold(check))
        return
    if not (score and of and by and out):
        raise UsageError(
            "threshold: expected --score, --of, --by and --out, or --check FILE. Add what is "
            "missing."
        )
    level = _level(by, at, alpha)
    check_place(out)
    with progress_bar() as progress:
        chosen = choose_threshold(
            network.open(model, seed),
            open_dataset(data, seed=seed),
            score,
            of=cast(Of, of),
            by=cast(By, by),
            level=level,
            unknown=names(unknown),
            empty=count_empty,
            command=command_line(),
            progress=progress,
        )
    save_threshold(chosen, out)
    for note in chosen.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"{out}: {_summary(chosen)}")


def _check(segmenter: Segmenter, dataset: Dataset, chosen: Threshold) -> None:
    """Print what a threshold comes to on other images."""
    with progress_bar() as progress:
        figures, notes = check_threshold(segmenter, dataset, chosen, progress=progress)
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    here = {name: x if math.isfinite(x) else None for name, x in figures.items()}
    typer.echo(_summary(replace(chosen, origin=Origin(dataset.name), figures=here)))
    if chosen.by == "risk":
        typer.echo(f"missed was to stay below {chosen.level:g}, as an expectation over images")


def _level(by: str, at: float | None, alpha: float | None) -> float | None:
    """The one of the two options that belongs to the way of choosing."""
    wrong, kinds = (at, "tpr or fpr") if by == "risk" else (alpha, "risk")
    if wrong is not None:
        option = "--at" if by == "risk" else "--alpha"
        raise UsageError(f"{option}: expected it with --by {kinds}, got --by {by}. Leave it out.")
    return alpha if by == "risk" else at


def _summary(chosen: Threshold) -> str:
    figures = {name: "-" if x is None else f"{x:.3f}" for name, x in chosen.figures.items()}
    return (
        f"{chosen.score} > {chosen.threshold:.6g} flags {figures['flagged']} of the pixels of "
        f"{chosen.origin.data}; of the {chosen.of} ones it finds {figures['tpr']}, and misses "
        f"{figures['missed']} in the mean over images"
    )
