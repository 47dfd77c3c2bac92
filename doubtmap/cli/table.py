"""`doubtmap table`: the scores of several runs in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doubtmap.cli.commands import OUTPUT, as_command, option
from doubtmap.cli.texts import names


def table(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders of doubtmap evaluate, or results.json.", metavar="RUN..."),
    ],
    style: Annotated[
        str, option(OUTPUT, "Of markdown, latex (with booktabs), html or csv.")
    ] = "markdown",
    figures: Annotated[
        str,
        option(OUTPUT, "Such as unknown.auprc,segmentation.miou. Default: the headline figures."),
    ] = "",
) -> None:
    """The scores of several runs in one table, with intervals, the best in bold."""
    from doubtmap.evaluation.results import read_results
    from doubtmap.evaluation.table import runs_table

    files = [run if run.suffix == ".json" else run / "results.json" for run in runs]
    found = {_called(file, files): read_results(file) for file in files}
    typer.echo(runs_table(found, style, names(figures)), nl=False)


def _called(file: Path, files: list[Path]) -> str:
    """The name of a run: of its folder, or its path where others are called the same."""
    name = file.resolve().parent.name
    same = [other for other in files if other.resolve().parent.name == name]
    return name if len(same) == 1 else str(file)


EXAMPLE = """
doubtmap evaluate demo synthetic:24 --unknown rest --out results
doubtmap table results --style latex
doubtmap table results other --figures wrong.auprc,segmentation.miou --style csv
"""
command = as_command("table", table, EXAMPLE)
