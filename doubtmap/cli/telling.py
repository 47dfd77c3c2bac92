"""What a command says on stderr beside its bar: notes and, with --verbose, what it is doing.

All of it goes through the logger `doubtmap` of the standard library's `logging`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from doubtmap.names import as_addressed

log = logging.getLogger("doubtmap")


class _ToStderr(logging.Handler):
    """Notes for warnings, plain lines for the rest, on what stderr is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        start = "note: " if record.levelno == logging.WARNING else ""
        typer.echo(as_addressed(f"{start}{record.getMessage()}"), err=True)


@contextmanager
def listening(*, verbose: bool, quiet: bool) -> Iterator[None]:
    """While a command runs, print what is logged: all of it, notes, or errors only."""
    handler, before = _ToStderr(), log.level
    log.addHandler(handler)
    log.setLevel(logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING)
    try:
        with _decoders_heard():
            yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


@contextmanager
def _decoders_heard() -> Iterator[None]:
    """Let what Pillow warns of be notes that name the image, each once."""
    others, told = warnings.showwarning, set[tuple[object, str]]()

    def show(message: Any, category: Any, filename: str, *rest: Any, **more: Any) -> None:
        from doubtmap.datasets.rasters import opening

        if Path(filename).parent.name != "PIL":
            others(message, category, filename, *rest, **more)
        elif (once := (opening.get(), category.__name__)) not in told:
            told.add(once)
            log.warning("%s: %s", opening.get(), _of_decoder(str(message), category.__name__))

    with warnings.catch_warnings():
        warnings.filterwarnings("always", module=r"PIL\.")
        warnings.showwarning = show
        yield


def _of_decoder(message: str, kind: str) -> str:
    if kind == "DecompressionBombWarning":
        return "the image is very large, and takes much memory."
    said = next(iter(message.splitlines()), "").strip().rstrip(".")
    return f"the image is read, but its file is not quite as it should be ({said})."


def tell_notes(notes: Iterable[str]) -> None:
    """What the user should know, a line each; silent with --quiet."""
    for note in notes:
        log.warning("%s", note)


def tell(sentence: str) -> None:
    """What was done, and what to do with it; silent with --quiet."""
    if log.isEnabledFor(logging.WARNING):
        typer.echo(as_addressed(sentence), err=True)
