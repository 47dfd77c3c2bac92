"""`doubtmap labels`: which labels of a data set are likely wrong."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated

import typer

from doubtmap.cli.commands import OUTPUT, SCORES, as_command, command_line, option
from doubtmap.cli.options import (
    TO,
    Data,
    Limit,
    Model,
    Network,
    Out,
    Seed,
    SkipBad,
    opened,
    seeded,
    windowed,
)
from doubtmap.cli.telling import tell_notes
from doubtmap.cli.texts import names

DENIED = "Denied labels"


def labels_command(
    model: Model,
    data: Data,
    network: Network,
    segments: Annotated[
        Path | None,
        option(
            SCORES,
            "A file of doubtmap fit segments: how probable it is that what is seen is right.",
            metavar="FILE",
        ),
    ] = None,
    smallest: Annotated[int, option(DENIED, "Pixels of the smallest place that is listed.")] = 50,
    thinnest: Annotated[int, option(DENIED, "Pixels across; thinner strips are left out.")] = 5,
    surest: Annotated[float, option(DENIED, "Least mean confidence of the network.")] = 0.5,
    most: Annotated[int, option(OUTPUT, "Places that are listed, the likeliest.", min=1)] = 1000,
    first: Annotated[
        int, option(OUTPUT, "Places that the page shows; images that --to is given.", min=0)
    ] = 60,
    to: Annotated[str, option(OUTPUT, TO)] = "",
    out: Out = Path("label-errors"),
    limit: Limit = None,
    skip_bad: SkipBad = False,
    seed: Seed = 0,
) -> None:
    """Labels that are likely wrong: where the network is sure of another class."""
    from doubtmap.labelling import DenialRule
    from doubtmap.labelling.writing import Output, write_label_errors
    from doubtmap.progress import progress_bar
    from doubtmap.segments import MetaModel

    rule = DenialRule(smallest, thinnest, surest)
    output = Output(first, tuple(names(to)), command_line())
    seeded(seed)
    notes: list[str] = []
    dataset = opened(data, seed, limit, notes)
    segmenter, of_windows = windowed(network.open(model, seed), dataset)
    with progress_bar() as progress:
        _, said = write_label_errors(
            segmenter,
            dataset,
            out,
            None if segments is None else MetaModel.load(segments),
            rule,
            output=output,
            most=most,
            skip_bad=skip_bad,
            notes=[*notes, *of_windows],
            progress=progress,
        )
    tell_notes(json_text.loads((out / "labels.json").read_text())["notes"])
    for sentence in said:
        typer.echo(sentence)


EXAMPLE = """
doubtmap labels demo synthetic:24 --out label-errors
doubtmap labels NETWORK camvid:PATH:test --segments segments.safetensors --to cvat
doubtmap view label-errors
"""
command = as_command("labels", labels_command, EXAMPLE)
