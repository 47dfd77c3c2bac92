"""`doubtmap merge`: the parts of an evaluation, or of scored images, as one process would."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doubtmap.cli.commands import OUTPUT, as_command, command_line, option
from doubtmap.cli.options import Parquet
from doubtmap.cli.telling import tell_notes
from doubtmap.errors import UsageError


def merge_command(
    out: Annotated[Path, typer.Argument(help="Folder for the results.", metavar="OUT")],
    parts: Annotated[
        list[Path], typer.Argument(help="Folders of all parts, in any order.", metavar="PART...")
    ],
    json: Annotated[bool, option(OUTPUT, "Print results.json to stdout.", "--json")] = False,
    csv: Annotated[bool, option(OUTPUT, "Print the table as CSV.", "--csv")] = False,
    parquet: Parquet = False,
) -> None:
    """Parts of evaluate or score, made with --part on several machines, as one."""
    from doubtmap.evaluation.asking import Options
    from doubtmap.evaluation.parts import merge_parts
    from doubtmap.evaluation.report import write_evaluation
    from doubtmap.evaluation.table import print_figures
    from doubtmap.files.parquet import check_parquet
    from doubtmap.files.stores import near
    from doubtmap.images.parts import is_of_scores, merge_scores

    if parquet:
        check_parquet()
    here = [near(part) for part in parts]
    if is_of_scores(here):
        if json or csv:
            raise UsageError("--json, --csv: expected parts of an evaluation. Leave them out.")
        typer.echo(merge_scores(out, here, parquet=parquet, command=command_line()))
        return
    options = Options(
        command=command_line(), save=lambda results: write_evaluation(results, out, parquet)
    )
    results = merge_parts(out, here, options)
    tell_notes(results.figures["notes"])
    print_figures(results.figures, style="json" if json else "csv" if csv else "table")


EXAMPLE = """
doubtmap evaluate demo synthetic:24 --unknown rest --part 1/2 --out part1
doubtmap evaluate demo synthetic:24 --unknown rest --part 2/2 --out part2
doubtmap merge results part1 part2
"""
command = as_command("merge", merge_command, EXAMPLE)
