"""The application, its version, and what becomes of errors."""

from __future__ import annotations

import signal
import sys
from typing import Annotated, NoReturn

import typer

from doubtmap.errors import DoubtmapError, UsageError
from doubtmap.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="For every pixel, how far to trust the label of a semantic-segmentation model.",
)


@app.callback(invoke_without_command=True)
def version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Say the version, where it is asked for."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; errors that doubtmap raises on purpose are one sentence on stderr."""
    handlers = {
        number: signal.signal(number, _stopped) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        app()
    except DoubtmapError as error:
        typer.echo(f"doubtmap: {error}", err=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _stopped(number: int, _: object) -> NoReturn:
    raise DoubtmapError(
        f"stopped by {signal.Signals(number).name}; score, evaluate and train keep what was done, "
        f"and the same command with --resume goes on."
    )
