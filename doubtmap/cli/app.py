"""The application, its version, and what becomes of errors."""

from __future__ import annotations

import signal
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from doubtmap.errors import DoubtmapError, Stopped, UsageError
from doubtmap.version import __version__

USE, LEARN, STUDY = "Look at doubt", "Learn from labelled images", "Look closer"
"""The groups of commands, in the order of `doubtmap --help`."""


class Commands(TyperGroup):
    """Lists commands by their groups."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, in the order in which `--help` shows them."""
        groups = (USE, LEARN, STUDY)
        place = {
            name: groups.index(getattr(command, "rich_help_panel", None) or USE)
            for name, command in self.commands.items()
        }
        return sorted(self.commands, key=lambda name: place[name])


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="For every pixel, how far to trust the label of a semantic-segmentation model.",
    epilog=(
        "Example:\n"
        "  doubtmap demo --out demo\n"
        "  doubtmap score demo photographs/ --scores entropy,gradient --out doubt\n"
        "  doubtmap evaluate demo synthetic:24 --unknown rest --out results"
    ),
)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """What stands before a command."""


def main() -> None:
    """Run the command line; errors that doubtmap raises on purpose are one sentence on stderr."""
    handlers = {
        number: signal.signal(number, _stopped) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        app(prog_name="doubtmap")
    except DoubtmapError as error:
        typer.echo(f"doubtmap: {error}", err=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _stopped(number: int, _: object) -> NoReturn:
    raise Stopped(
        f"stopped by {signal.Signals(number).name}; score, evaluate and train keep what was done, "
        f"and the same command with --resume goes on."
    )
