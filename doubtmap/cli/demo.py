"""`doubtmap demo`: the whole job on the embedded network and scenes."""

from __future__ import annotations

from pathlib import Path

import torch
import typer

from doubtmap.cli.app import app
from doubtmap.cli.options import Out, Seed, command_line
from doubtmap.datasets import open_dataset
from doubtmap.evaluation.evaluate import Options, evaluate
from doubtmap.evaluation.report import write_evaluation
from doubtmap.evaluation.table import print_figures
from doubtmap.models import load
from doubtmap.progress import progress_bar
from doubtmap.scores import STATELESS


@app.command()
def demo(out: Out = Path("demo"), seed: Seed = 0) -> None:
    """The whole job on the embedded network and scenes, in about a minute."""
    torch.manual_seed(seed)
    scores = f"{','.join(STATELESS)},gradient(p=0.5,label=uniform)"
    with progress_bar() as progress:
        results = evaluate(
            load("demo"),
            open_dataset("synthetic:24", seed=seed),
            scores,
            seed=seed,
            options=Options(command=command_line()),
            progress=progress,
        )
    write_evaluation(results, out)
    print_figures(results.figures)
    typer.echo(f"Open {out / 'report.html'} to see where the network is wrong.", err=True)
