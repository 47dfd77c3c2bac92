"""`doubtmap evaluate`: figures of scores on a labelled data set."""

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
    Out,
    Resume,
    Scores,
    Seed,
    SkipBad,
    Unknown,
    command_line,
    expanded,
    names,
)
from doubtmap.datasets import ComponentSizes, open_dataset
from doubtmap.engine import evaluate
from doubtmap.errors import UsageError
from doubtmap.progress import progress_bar
from doubtmap.reports import print_figures, write_evaluation


@app.command("evaluate")
@expanded
def evaluate_command(
    model: Model,
    data: Data,
    network: NetworkOptions,
    scores: Scores = "all",
    unknown: Unknown = "",
    out: Out = Path("results"),
    json: Annotated[bool, typer.Option("--json", help="Print results.json to stdout.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV.")] = False,
    component_sizes: Annotated[
        str | None, typer.Option(help="Smallest predicted and labelled component, as in 500,100.")
    ] = None,
    bins: Annotated[int, typer.Option(min=2, help="Of the reliability diagram.")] = 15,
    replicates: Annotated[int, typer.Option(min=20, help="Of the bootstrap over images.")] = 300,
    resume: Resume = False,
    skip_bad: SkipBad = False,
    seed: Seed = 0,
) -> None:
    """Figures of scores on a labelled data set: results.json and report.html."""
    torch.manual_seed(seed)
    segmenter = network.open(model, seed)
    dataset = open_dataset(data, seed=seed)
    with progress_bar() as progress:
        results = evaluate(
            segmenter,
            dataset,
            scores,
            unknown=names(unknown),
            out=out,
            resume=resume,
            skip_bad=skip_bad,
            seed=seed,
            replicates=replicates,
            bins=bins,
            component_sizes=_sizes(component_sizes),
            command=command_line(),
            save=lambda results: write_evaluation(results, out),
            progress=progress,
        )
    for note in results.figures["notes"]:
        typer.echo(f"note: {note}", err=True)
    print_figures(results.figures, style="json" if json else "csv" if csv else "table")


def _sizes(text: str | None) -> ComponentSizes | None:
    if text is None:
        return None
    predicted, _, labelled = text.partition(",")
    if not (predicted.isdecimal() and labelled.isdecimal()):
        raise UsageError(f"--component-sizes: expected two numbers such as 500,100, got {text}.")
    return ComponentSizes(int(predicted), int(labelled))
