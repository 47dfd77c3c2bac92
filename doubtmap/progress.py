"""The progress bar on stderr: images done, images per second, time left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

log = logging.getLogger("doubtmap")


def shows_bars(console: Console) -> bool:
    """Whether a bar makes sense: on a terminal, where more than errors is asked for."""
    return console.is_terminal and log.isEnabledFor(logging.WARNING)


class _Rate(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        """The rate, once it is known."""
        return Text(f"{task.speed:.1f} images/s" if task.speed else "")


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar per stage; what it yields takes the stage's name, images done, and images in all.

    There is no bar where stderr is no terminal, or the package's logger tells errors only.
    """
    console = Console(stderr=True, emoji=False)
    columns = (
        TextColumn("{task.description:<11}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    shown = shows_bars(console)
    bar = Progress(*columns, console=console, disable=not shown)
    with bar if shown else nullcontext():  # Rich 13.8 ends bars that it does not show, too
        stages: dict[str, TaskID] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages[stage] = bar.add_task(stage, total=total, completed=done)
            bar.update(stages[stage], completed=done, total=total)
            if done == total:
                log.info("%s: %d of %d", stage, done, total)

        yield tell
