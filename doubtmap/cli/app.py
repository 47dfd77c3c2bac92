"""The application, its version, and what becomes of errors."""

from __future__ import annotations

import io
import signal
import sys
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from doubtmap.errors import DoubtmapError, Stopped, UsageError, is_out_of_memory
from doubtmap.version import __version__

USE, LEARN, STUDY = "Look at doubt", "Learn from images", "Look closer"
VERBS = {
    "demo": (USE, "The whole job on the embedded network and scenes, in about a minute."),
    "score": (USE, "Doubt maps, classes and overlays of images; of films and volumes, too."),
    "evaluate": (USE, "Figures of scores on a labelled data set: results.json and report.html."),
    "merge": (
        USE,
        "Parts of evaluate, score, objects or review, made with --part on several machines, "
        "as one.",
    ),
    "review": (
        USE,
        "Rank images by the mistakes expected in them, and show the segments to distrust.",
    ),
    "labels": (
        USE,
        "Labels that are likely wrong: where the network is sure of another class.",
    ),
    "objects": (
        USE,
        "Unknown objects as things: COCO and GeoJSON files, a table, and pictures.",
    ),
    "view": (
        USE,
        "Runs in the browser: a grid, maps with a threshold, runs side by side, verdicts.",
    ),
    "table": (USE, "The scores of several runs in one table, with intervals, the best in bold."),
    "export": (
        USE,
        "A network with its doubts in one file, ONNX or torch.export, held to the library.",
    ),
    "serve": (
        USE,
        "A network behind an address: images in, classes and doubts out; with a page to look at.",
    ),
    "watch": (
        USE,
        "Are new images like those that a promise was made on? Exit code 3 on alarm.",
    ),
    "fit": (
        LEARN,
        "Fit to a network and images; then --scores NAME:FILE, review --segments FILE, or objects.",
    ),
    "calibrate": (
        LEARN,
        "Fit a calibrator on held-out images; then --calibrator FILE on score and evaluate.",
    ),
    "threshold": (LEARN, "Choose a threshold on labelled images, or --check one on others."),
    "train": (
        LEARN,
        "Train a network, or several, into folders that every other command takes.",
    ),
    "analyse": (
        STUDY,
        "Calibration against capacity, view, scales, or whether a pixel is right.",
    ),
    "locations": (
        STUDY,
        "Distances between class means at distant places: is one Gaussian for each class sound?",
    ),
    "check": (
        STUDY,
        "What a data set holds, what is suspicious in it, and what a model's classes match.",
    ),
    "info": (
        STUDY,
        "Versions and devices; of a network, what was understood of it.",
    ),
}
"""All commands in the order of `doubtmap --help`: group and sentence. The rest is in the file
`doubtmap/cli/NAME.py`, which is imported when the command is asked for."""


class Commands(TyperGroup):
    """Knows its commands by name, and imports the one that is run or asked for its help."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        for name, (group, sentence) in VERBS.items():
            self.commands[name] = TyperCommand(name, help=sentence, rich_help_panel=group)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read what stands before the command; what nobody gave is not looked at, nor slow."""
        for parameter in self.params:
            if parameter.name in ("install_completion", "show_completion"):
                parameter.default = False
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, in the order in which `--help` shows them."""
        return list(self.commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is meant, whole, and what it is given."""
        if args and args[0] in VERBS:
            self.commands[args[0]] = import_module(f"doubtmap.cli.{args[0]}").command
        return super().resolve_command(ctx, args)


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
    """What stands before a command; names that are not UTF-8 must not end one when printed."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main() -> None:
    """Run the command line; errors that doubtmap raises on purpose are one sentence on stderr."""
    handlers = {
        number: signal.signal(number, _stopped) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        app(prog_name="doubtmap")
    except (DoubtmapError, Stopped) as error:
        typer.echo(f"doubtmap: {' '.join(str(error).splitlines())}", err=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except (OSError, MemoryError, RuntimeError, ImportError) as error:
        said = machines(error)
        if said is None:
            raise
        typer.echo(f"doubtmap: {said}", err=True)
        sys.exit(1)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


KEPT = (
    "What score, evaluate and train have written stays, and the same command with --resume goes on."
)


def machines(error: Exception) -> str | None:
    """What to say of trouble that the machine makes: too little memory, a disk; None of a defect.

    Example:
        >>> machines(OSError(28, "No space left on device", "maps/a.png"))[:48]
        'maps/a.png: cannot be used (No space left on dev'
    """
    if is_out_of_memory(error):
        return (
            f"out of memory. {KEPT} Free some, or give smaller images, fewer at once, or with "
            f"--input-size or --tile."
        )
    if isinstance(error, OSError):
        place = error.filename or "a file"
        return f"{place}: cannot be used ({error.strerror or error}). {KEPT}"
    return None


def _stopped(number: int, _: object) -> NoReturn:
    raise Stopped(
        f"stopped by {signal.Signals(number).name}; score, evaluate and train keep what was done, "
        f"and the same command with --resume goes on; watch goes on without it."
    )
