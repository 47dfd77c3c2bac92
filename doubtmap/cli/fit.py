"""`doubtmap fit`: scores and meta models, that learn from data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from doubtmap.cli.app import app
from doubtmap.cli.options import (
    Model,
    NetworkOptions,
    Seed,
    Unknown,
    command_line,
    expanded,
    names,
)
from doubtmap.datasets import Dataset, open_dataset, open_images
from doubtmap.fitting import fit_score
from doubtmap.prediction import Segmenter
from doubtmap.progress import progress_bar
from doubtmap.scores.default import Doubt
from doubtmap.scores.density import Density
from doubtmap.scores.parsing import split_call
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
            help="doubt, density, wrong or segments, options in brackets, as in "
            "density(certainty=0,covariance=tied) or segments(kind=linear)."
        ),
    ],
    model: Model,
    data: Annotated[
        str,
        typer.Argument(
            help="LAYOUT:PATH[:SPLIT], or synthetic:N; for doubt also a folder of photographs."
        ),
    ],
    network: NetworkOptions,
    out: Annotated[Path, typer.Option(help="File for the fitted score.")],
    scores: Annotated[
        str,
        typer.Option(help="Of wrong and segments: from what, as in entropy,margin,density:FILE."),
    ] = "",
    unknown: Unknown = "",
    seed: Seed = 0,
) -> None:
    """Fit to a network and images; then --scores SCORE:FILE, or review --segments FILE."""
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
            _opened(score, data, seed),
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


def _opened(score: str, data: str, seed: int) -> Dataset:
    """The data set; for what needs no labels a folder of photographs will do."""
    opened = open_images if split_call(score)[0] == Doubt.name else open_dataset
    return opened(data, seed=seed)


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


def _summary(fitted: Density | Doubt | Wrong) -> str:
    if isinstance(fitted, Wrong):
        return f"from {len(fitted.used)} of {len(fitted.texts)} scores"
    if isinstance(fitted, Doubt):
        features = fitted.familiar.mean.shape[1]
        return f"from {fitted.about['images']} images, over {features} features of {fitted.layer}"
    return f"over {fitted.gaussians.mean.shape[1]} features of {fitted.layer}"
