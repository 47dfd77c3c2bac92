"""`doubtmap watch`: are new images still like those that a promise was made on?"""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from doubtmap.cli.commands import DATA, OUTPUT, SCORES, as_command, command_line, option
from doubtmap.cli.options import (
    Every,
    LimitOfFrames,
    Model,
    Network,
    Out,
    Seed,
    SkipBad,
    WorkerOptions,
    Workers,
    collected,
    opened,
    seeded,
    windowed,
)
from doubtmap.cli.telling import tell_notes
from doubtmap.errors import UsageError

if TYPE_CHECKING:
    from doubtmap.datasets.dataset import Dataset

ALARM = 3
"""The exit code of an alarm."""
WATCH = "Watch"


def watch(
    model: Model,
    network: Network,
    workers: Workers,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="New images, folders or patterns; or films, streams, or NIfTI volumes.",
            metavar="IMAGES...",
        ),
    ] = None,
    promise: Annotated[
        Path | None,
        option(
            SCORES,
            "What is watched: of threshold by risk, risks or sets, calibrate, or fit wrong.",
            metavar="FILE",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        option(
            DATA,
            "Images that the promise was made for, as DATA or a folder; needed once.",
            metavar="DATA",
        ),
    ] = None,
    labelled: Annotated[
        str | None,
        option(DATA, "A few labelled images, to bound the risk itself.", metavar="DATA"),
    ] = None,
    false_alarms: Annotated[
        float | None, option(WATCH, "Probability of ever raising a false one. Default: .05.")
    ] = None,
    block: Annotated[
        int | None,
        option(WATCH, "Consecutive images that count as one, as of films. Default: 1.", min=1),
    ] = None,
    json: Annotated[bool, option(OUTPUT, "Print what is said as JSON, on a line.", "--json")] = (
        False
    ),
    out: Out = Path("watch"),
    every: Every = None,
    limit: LimitOfFrames = None,
    skip_bad: SkipBad = False,
    seed: Seed = 0,
) -> None:
    """Are new images like those that a promise was made on? Exit code 3 on alarm."""
    if not (images or reference or labelled):
        raise UsageError(
            "watch: expected new images, --reference DATA or --labelled DATA, got none. Add one."
        )
    from doubtmap.progress import progress_bar
    from doubtmap.watching import write_watch
    from doubtmap.watching.page import summary

    seeded(seed)
    usual = None if reference is None else opened(reference, seed, unlabelled=True)
    truth = None if labelled is None else opened(labelled, seed)
    new = arrived(images, every, limit, workers) if images else None
    segmenter, notes = network.open(model, seed), list[str]()
    for each in (usual, new, truth):
        if each is not None:
            segmenter, said = windowed(segmenter, each)
            notes += said
    segmenter = workers.spread(network, model, seed, segmenter)
    with progress_bar() as progress:
        verdict, more = write_watch(
            segmenter,
            new,
            out,
            promise=promise,
            reference=usual,
            labelled=truth,
            rate=false_alarms,
            block=block,
            seed=seed,
            skip_bad=skip_bad,
            command=command_line(),
            progress=progress,
        )
    tell_notes([*notes, *more])
    if json:
        typer.echo(json_text.dumps(verdict.figures))
    else:
        typer.echo(f"{out}: {summary(verdict)}")
    if verdict.alarm:
        raise typer.Exit(ALARM)


def arrived(
    images: list[str], every: int | None, limit: int | None, workers: WorkerOptions
) -> Dataset:
    """New images, frames or slices as a data set, in their order.

    Raises:
        UsageError: for options that have no use.
    """
    from doubtmap.cli.score import kind_of
    from doubtmap.datasets.opening import Photographs
    from doubtmap.films.unlabelled import Frames
    from doubtmap.volumes.unlabelled import Slices

    kind = kind_of("watch", images)
    given = {
        "--every": every is not None and kind != "films",
        "--limit": limit is not None and kind == "volumes",
        "--workers": kind is not None and (workers.workers or workers.engine != "local"),
    }
    if useless := [name for name, there in given.items() if there]:
        raise UsageError(
            f"watch: expected no {', '.join(useless)} with {kind or 'images'}, which have no use "
            f"for it. Leave it out."
        )
    if kind == "films":
        return Frames(images, every or 1, limit)
    if kind == "volumes":
        return Slices(tuple(map(Path, images)))
    return Photographs("new images", tuple(collected(images, limit)))


EXAMPLE = """
doubtmap threshold demo synthetic:40 --scores entropy --of wrong --by risk --out t.json
doubtmap watch demo --promise t.json --reference synthetic:40 --out watch
doubtmap watch demo photographs/ --out watch --json
"""
command = as_command("watch", watch, EXAMPLE)
