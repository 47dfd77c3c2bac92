"""`doubtmap view`: what runs wrote, in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doubtmap.cli.commands import OUTPUT, RUNNING, as_command, option
from doubtmap.cli.telling import tell_notes
from doubtmap.errors import Stopped

Runs = Annotated[
    list[Path],
    typer.Argument(
        help="Folders of doubtmap score, evaluate --maps, review, labels or objects.",
        metavar="RUN...",
    ),
]


def view(
    runs: Runs,
    static: Annotated[
        Path | None,
        option(OUTPUT, "Write the page as files for any web server, and end.", metavar="FOLDER"),
    ] = None,
    port: Annotated[
        int, option(RUNNING, "Of 127.0.0.1 to listen on; 0: any.", min=0, max=65535)
    ] = 0,
    open: Annotated[
        bool, option(RUNNING, "Open the page in the browser.", "--open/--no-open")
    ] = True,
) -> None:
    """Runs in the browser: a grid, maps with a threshold, runs side by side, verdicts."""
    from doubtmap.viewer import gather, serve, write_static

    gathered = gather(runs)
    tell_notes([note for run in gathered.runs for note in run.notes])
    if static is not None:
        from doubtmap.progress import progress_bar

        with progress_bar() as progress:
            typer.echo(write_static(gathered, static, progress))
        return

    def ready(address: str) -> None:
        typer.echo(f"{address}\nThe address is secret: whoever has it sees the runs. Ctrl-C ends.")
        if open:
            import webbrowser

            webbrowser.open(address)

    try:
        serve(gathered, port, ready)
    except (Stopped, KeyboardInterrupt):
        typer.echo("The viewer has ended.", err=True)


EXAMPLE = """
doubtmap evaluate demo synthetic:24 --unknown rest --maps --out results
doubtmap view results
doubtmap view results other --static site
"""
command = as_command("view", view, EXAMPLE)
