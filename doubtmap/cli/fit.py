"""`doubtmap fit`: scores and meta models, that learn from data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
from doubtmap.fitting import fit_score
from doubtmap.prediction import Segmenter
from doubtmap.progress import progress_bar
from doubtmap.scores.density import Density
from doubtmap.scores.wrong import Wrong
from doubtmap.segments.estimators import Kind
from doubtmap.segments.fitting import SCORES, fit_segments, parse_segments
from doubtmap.segments.page import segments_table


@app.command()
@expanded
def fit(
    score: Annotated[
        str,
        typer.Argument(
            help="density, wrong or segments, options in brackets, as in "
            "density(certainty=0,covariance=tied) or segments(kind=linear)."
        ),
    ],
    model: Model,
    data: Data,
    network: NetworkOptions,
    out: Annotated[Path, typer.Option(help="File for the fitted score.")],
    scores: Annotated[
        str,
        typer.Option(help="Of wrong and segments: from what, as in entropy,margin,density:FILE."),
    ] = "",
    unknown: Unknown = "",
    seed: Seed = 0,
) -> None:
    """Fit to a network and labelled images; then --scores SCORE:FILE, or review --segments FILE."""
    torch.manual_seed(seed)
    kind = parse_segments(score)
    segmenter = network.open(model, seed)
    if kind is not None:
        _fit_segments(segmenter, open_dataset(data, seed=seed), scores, kind, unknown, out, seed)
        return
    with progress_bar() as progress:
        fitted = fit_score(
            score,
            segmenter,
            open_dataset(data, seed=seed),
            scores=scores,
            unknown=names(unknown),
            seed=seed,
            out=out,
            command=command_line(),
            progress=progress,
        )
    for note in fitted.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"{out}: {_summary(fitted)}; use it with --scores {fitted.name}:{out}")


def _fit_segments(
    segmenter: Segmenter,
    dataset: Dataset,
    scores: str,
    kind: Kind,
    unknown: str,
    out: Path,
    seed: int,
) -> None:
    with progress_bar() as progress:
        found = fit_segments(
            segmenter,
            dataset,
            scores or SCORES,
            kind,
            unknown=names(unknown),
            out=out,
            seed=seed,
            command=command_line(),
            progress=progress,
        )
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(segments_table(found))
    typer.echo(f"Wrote {out}. Use it with: doubtmap review MODEL IMAGES --segments {out}", err=True)


def _summary(fitted: Density | Wrong) -> str:
    if isinstance(fitted, Wrong):
        return f"from {len(fitted.used)} of {len(fitted.texts)} scores"
    return f"over {fitted.gaussians.mean.shape[1]} features of {fitted.layer}"
