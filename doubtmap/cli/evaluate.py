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
from doubtmap.datasets import ComponentSizes, Dataset, open_dataset, pasted_passes
from doubtmap.decisions.file import load_threshold
from doubtmap.errors import UsageError
from doubtmap.evaluation.evaluate import Options
from doubtmap.evaluation.repeats import evaluate_passes
from doubtmap.evaluation.report import write_evaluation
from doubtmap.evaluation.table import print_figures
from doubtmap.prediction import Segmenter
from doubtmap.progress import progress_bar
from doubtmap.segments import MetaModel


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
    paste: Annotated[
        str | None,
        typer.Option(
            help="Objects to paste as unknown, one an image: PATH, PATH:train, PATH:test."
        ),
    ] = None,
    paste_only: Annotated[
        str, typer.Option(help="Classes of objects. Default: those that the model lacks.")
    ] = "",
    repeats: Annotated[int, typer.Option(help="Passes, each pasting other objects.")] = 1,
    open_set: Annotated[
        str | None,
        typer.Option(
            help="Other data whose unknown objects set the thresholds of the open-set mIoU, or a "
            "field of the images' paths, such as town: each part has those of the others."
        ),
    ] = None,
    threshold: Annotated[
        list[Path] | None,
        typer.Option(help="A file of doubtmap threshold, for the components of its score."),
    ] = None,
    segments: Annotated[
        Path | None,
        typer.Option(help="A file of doubtmap fit segments: what to look at first, with crops."),
    ] = None,
    resume: Resume = False,
    skip_bad: SkipBad = False,
    seed: Seed = 0,
) -> None:
    """Figures of scores on a labelled data set: results.json and report.html."""
    torch.manual_seed(seed)
    segmenter = network.open(model, seed)
    dataset = open_dataset(data, seed=seed)
    other = open_dataset(open_set, seed=seed + 1) if open_set and ":" in open_set else open_set
    passes, notes = _passes(
        segmenter, dataset, names(unknown), paste, names(paste_only), seed, repeats
    )
    with progress_bar() as progress:
        results = evaluate_passes(
            segmenter,
            passes,
            scores,
            unknown=names(unknown),
            open_set=other or None,
            out=out,
            resume=resume,
            skip_bad=skip_bad,
            seed=seed,
            replicates=replicates,
            options=Options(
                bins=bins,
                component_sizes=_sizes(component_sizes),
                thresholds=[load_threshold(file) for file in threshold or ()],
                segments=MetaModel.load(segments) if segments else None,
                notes=notes,
                command=command_line(),
                save=lambda results: write_evaluation(results, out),
            ),
            progress=progress,
        )
    for note in results.figures["notes"]:
        typer.echo(f"note: {note}", err=True)
    print_figures(results.figures, style="json" if json else "csv" if csv else "table")


def _passes(
    segmenter: Segmenter,
    dataset: Dataset,
    unknown: list[str],
    paste: str | None,
    only: list[str],
    seed: int,
    repeats: int,
) -> tuple[list[Dataset], list[str]]:
    """The data set as it is, or with objects pasted, once or several times."""
    if paste is None:
        if only or repeats != 1:
            raise UsageError("--paste-only, --repeats: expected --paste with them. Add it.")
        return [dataset], []
    taught = segmenter.class_names or [c for c in dataset.class_names if c not in unknown]
    passes, notes = pasted_passes(dataset, paste, taught, only=only, seed=seed, passes=repeats)
    return [*passes], notes


def _sizes(text: str | None) -> ComponentSizes | None:
    if text is None:
        return None
    predicted, _, labelled = text.partition(",")
    if not (predicted.isdecimal() and labelled.isdecimal()):
        raise UsageError(f"--component-sizes: expected two numbers such as 500,100, got {text}.")
    return ComponentSizes(int(predicted), int(labelled))
