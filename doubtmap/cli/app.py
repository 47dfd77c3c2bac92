"""The application, its version, and what becomes of errors.

`doubtmap info`: versions, devices and what is installed.
"""

from __future__ import annotations

import signal
import sys
from typing import Annotated, NoReturn

import torch
import typer

from doubtmap.errors import DoubtmapError, UsageError
from doubtmap.kernels import available
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


@app.command()
def info() -> None:
    """Versions, devices and what is installed."""
    typer.echo(
        f"doubtmap {__version__}\ntorch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    typer.echo(f"devices: {', '.join(['cpu', *devices])}")
    for device in ("cpu", "cuda"):
        known = ", ".join(f"{key}: {value}" for key, value in available(device).items())
        typer.echo(f"on {device}, {known}")
