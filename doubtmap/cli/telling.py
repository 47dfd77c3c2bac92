"""What a command says on stderr beside its bar: notes and, with --verbose, what it is doing.

All of it goes through the logger `doubtmap` of the standard library's `logging`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import typer

log = logging.getLogger("doubtmap")


class _ToStderr(logging.Handler):
    """Notes for warnings, plain lines for the rest, on what stderr is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        start = "note: " if record.levelno == logging.WARNING else ""
        typer.echo(f"{start}{record.getMessage()}", err=True)


@contextmanager
def listening(*, verbose: bool, quiet: bool) -> Iterator[None]:
    """While a command runs, print what is logged: all of it, notes, or errors only."""
    handler, before = _ToStderr(), log.level
    log.addHandler(handler)
    log.setLevel(logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def tell_notes(notes: Iterable[str]) -> None:
    """What the user should know, a line each; silent with --quiet."""
    for note in notes:
        log.warning("%s", note)


def tell(sentence: str) -> None:
    """What was done, and what to do with it; silent with --quiet."""
    if log.isEnabledFor(logging.WARNING):
        typer.echo(sentence, err=True)
