"""`doubtmap calibrate`: fit a calibrator, and see whether it does any good."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated, cast

import torch
import typer

from doubtmap.calibration import METHODS, save_calibrator
from doubtmap.calibration.calibrate import CANDIDATES, Criterion, calibrate
from doubtmap.calibration.methods import split_methods
from doubtmap.calibration.page import comparison_table, write_calibration_report
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
from doubtmap.datasets import open_dataset
from doubtmap.errors import UsageError
from doubtmap.files import check_place
from doubtmap.progress import progress_bar


@app.command("calibrate")
@expanded
def calibrate_command(
    model: Model,
    data: Data,
    network: NetworkOptions,
    method: Annotated[
        str, typer.Option(help=f"auto, or one of {', '.join(METHODS)}, with options in brackets.")
    ] = "auto",
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("calibrator.safetensors"),
    candidates: Annotated[str, typer.Option(help="What auto compares, simplest first.")] = ",".join(
        CANDIDATES
    ),
    by: Annotated[str, typer.Option(help="What auto goes by: ece, brier or nll.")] = "ece",
    report: Annotated[
        Path | None, typer.Option(help="HTML page with reliability diagrams to write.")
    ] = None,
    unknown: Unknown = "",
    replicates: Annotated[int, typer.Option(min=20, help="Of the bootstrap.")] = 300,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    seed: Seed = 0,
) -> None:
    """Fit a calibrator on held-out images; then --calibrator FILE on score and evaluate."""
    torch.manual_seed(seed)
    if network.calibrator is not None:
        raise UsageError(
            "calibrate: expected a raw network, got --calibrator. Leave it out: the new calibrator "
            "takes its place."
        )
    for place in filter(None, (out, report)):
        check_place(place)
    with progress_bar() as progress:
        found = calibrate(
            network.open(model, seed),
            open_dataset(data, seed=seed),
            method,
            candidates=split_methods(candidates),
            unknown=names(unknown),
            by=cast(Criterion, by),
            seed=seed,
            replicates=replicates,
            command=command_line(),
            progress=progress,
        )
    save_calibrator(found.calibrator, out)
    if report is not None:
        write_calibration_report(found, report)
    figures = {name: found.comparison.figures(name) for name in found.comparison.names}
    typer.echo(json_text.dumps(figures, indent=1) if json else comparison_table(figures))
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"Wrote {out}. Use it with --calibrator {out}.", err=True)
