"""`doubtmap merge`: the parts of a run as one process would have made them."""

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
    json: Annotated[
        bool,
        option(OUTPUT, "Print results.json, or what was found of objects, to stdout.", "--json"),
    ] = False,
    csv: Annotated[bool, option(OUTPUT, "Print the table as CSV.", "--csv")] = False,
    parquet: Parquet = False,
) -> None:
    """Parts of evaluate, score, objects or review, made with --part on several machines, as one."""
    from doubtmap.engine.parts import command_of
    from doubtmap.files.parquet import check_parquet
    from doubtmap.files.stores import near

    if parquet:
        check_parquet()
    here = [near(part) for part in parts]
    command = command_of(here)
    asked = {"--json": json, "--csv": csv, "--parquet": parquet}
    if useless := [name for name in USELESS.get(command, ()) if asked[name]]:
        raise UsageError(
            f"merge: expected no {', '.join(useless)} with parts of {command}, which have no use "
            f"for it. Leave it out."
        )
    if command == "score":
        from doubtmap.images import merge_scores

        typer.echo(merge_scores(out, here, parquet=parquet, command=command_line()))
    elif command == "score of rasters":
        from doubtmap.scenes import merge_scenes

        typer.echo(merge_scenes(out, here, command=command_line()))
    elif command == "objects":
        _merge_objects(out, here, json=json, parquet=parquet)
    elif command == "review":
        _merge_reviews(out, here)
    else:
        _merge_evaluations(out, here, "json" if json else "csv" if csv else "table", parquet)


USELESS = {
    "score": ("--json", "--csv"),
    "score of rasters": ("--json", "--csv", "--parquet"),
    "objects": ("--csv",),
    "review": ("--json", "--csv", "--parquet"),
}
"""Options that the parts of a command have no use for."""


def _merge_objects(out: Path, parts: list[Path], *, json: bool, parquet: bool) -> None:
    from doubtmap.cli.objects import tell_objects
    from doubtmap.objects.parts import merge_objects

    found = merge_objects(out, parts, parquet=parquet, command=command_line())
    tell_objects(found, out, json=json)


def _merge_reviews(out: Path, parts: list[Path]) -> None:
    from doubtmap.labelling.reviewed import Reviewed
    from doubtmap.segments.parts import merge_reviews

    handed = Reviewed(out)
    summary = merge_reviews(out, parts, command=command_line(), chosen=handed.take)
    for sentence in (summary, *handed.said):
        typer.echo(sentence)


def _merge_evaluations(out: Path, parts: list[Path], style: str, parquet: bool) -> None:
    from doubtmap.evaluation.asking import Options
    from doubtmap.evaluation.parts import merge_parts
    from doubtmap.evaluation.report import write_evaluation
    from doubtmap.evaluation.table import print_figures

    options = Options(
        command=command_line(), save=lambda results: write_evaluation(results, out, parquet)
    )
    results = merge_parts(out, parts, options)
    tell_notes(results.figures["notes"])
    print_figures(results.figures, style=style)


EXAMPLE = """
doubtmap evaluate demo synthetic:24 --unknown rest --part 1/2 --out part1
doubtmap evaluate demo synthetic:24 --unknown rest --part 2/2 --out part2
doubtmap merge results part1 part2
"""
command = as_command("merge", merge_command, EXAMPLE)
