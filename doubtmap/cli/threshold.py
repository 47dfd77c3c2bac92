"""`doubtmap threshold`: from which score on to act, chosen on validation data."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from doubtmap.cli.commands import OUTPUT, SCORES, as_command, command_line, option
from doubtmap.cli.options import (
    Data,
    Limit,
    Model,
    Network,
    Seed,
    Unknown,
    Workers,
    names,
    opened,
    seeded,
    windowed,
)
from doubtmap.cli.telling import tell_notes
from doubtmap.errors import UsageError

if TYPE_CHECKING:
    from doubtmap.datasets import Dataset
    from doubtmap.decisions.file import By, Of, Threshold
    from doubtmap.prediction import Segmenter

CHOICE = "Choice"


def threshold_command(
    model: Model,
    data: Data,
    network: Network,
    workers: Workers,
    score: Annotated[str, option(SCORES, "One, such as entropy or wrong:FILE.")] = "",
    of: Annotated[str, option(CHOICE, "What to flag: wrong or unknown.")] = "",
    by: Annotated[str, option(CHOICE, "f1, tpr, fpr or risk (conformal risk control).")] = "",
    at: Annotated[
        float | None, option(CHOICE, "Rate of tpr (default .95) or fpr (default .05).")
    ] = None,
    alpha: Annotated[
        float | None, option(CHOICE, "Of risk: tolerated share of missed pixels (default .1).")
    ] = None,
    count_empty: Annotated[
        bool,
        option(CHOICE, "Of risk: images with nothing to flag missed nothing.", "--count-empty"),
    ] = False,
    check: Annotated[
        Path | None,
        option(CHOICE, "A file to hold to other images, instead of choosing.", metavar="FILE"),
    ] = None,
    out: Annotated[Path | None, option(OUTPUT, "The file to write.", metavar="FILE")] = None,
    unknown: Unknown = "",
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """Choose a threshold on labelled images, or --check one on others."""
    if check is not None:
        if score or of or by or out or unknown or count_empty or (at, alpha) != (None, None):
            raise UsageError(
                "threshold: expected --check FILE alone, which says all that it was chosen with. "
                "Leave the other options out."
            )
        from doubtmap.decisions.file import load_threshold

        seeded(seed)
        dataset = opened(data, seed, limit)
        segmenter, notes = windowed(network.open(model, seed), dataset)
        segmenter = workers.spread(network, model, seed, segmenter)
        tell_notes(notes)
        _check(segmenter, dataset, load_threshold(check))
        return
    if not (score and of and by and out):
        raise UsageError(
            "threshold: expected --score, --of, --by and --out, or --check FILE. Add what is "
            "missing."
        )
    level = _level(by, at, alpha)
    from doubtmap.decisions.file import save_threshold
    from doubtmap.decisions.threshold import choose_threshold
    from doubtmap.files import check_place
    from doubtmap.progress import progress_bar

    seeded(seed)
    check_place(out)
    dataset = opened(data, seed, limit)
    segmenter, notes = windowed(network.open(model, seed), dataset)
    segmenter = workers.spread(network, model, seed, segmenter)
    with progress_bar() as progress:
        chosen = choose_threshold(
            segmenter,
            dataset,
            score,
            of=cast("Of", of),
            by=cast("By", by),
            level=level,
            unknown=names(unknown),
            empty=count_empty,
            command=command_line(),
            progress=progress,
        )
    save_threshold(chosen, out)
    tell_notes([*notes, *chosen.notes])
    typer.echo(f"{out}: {_summary(chosen)}")


def _check(segmenter: Segmenter, dataset: Dataset, chosen: Threshold) -> None:
    """Print what a threshold comes to on other images."""
    from doubtmap.decisions.threshold import check_threshold
    from doubtmap.files import Origin
    from doubtmap.progress import progress_bar

    with progress_bar() as progress:
        figures, notes = check_threshold(segmenter, dataset, chosen, progress=progress)
    tell_notes(notes)
    here = {name: x if math.isfinite(x) else None for name, x in figures.items()}
    typer.echo(_summary(replace(chosen, origin=Origin(dataset.name), figures=here)))
    if chosen.by == "risk":
        typer.echo(f"missed was to stay below {chosen.level:g}, as an expectation over images")


def _level(by: str, at: float | None, alpha: float | None) -> float | None:
    """The one of the two options that belongs to the way of choosing."""
    wrong, kinds = (at, "tpr or fpr") if by == "risk" else (alpha, "risk")
    if wrong is not None:
        option = "--at" if by == "risk" else "--alpha"
        raise UsageError(f"{option}: expected it with --by {kinds}, got --by {by}. Leave it out.")
    return alpha if by == "risk" else at


def _summary(chosen: Threshold) -> str:
    figures = {name: "-" if x is None else f"{x:.3f}" for name, x in chosen.figures.items()}
    return (
        f"{chosen.score} > {chosen.threshold:.6g} flags {figures['flagged']} of the pixels of "
        f"{chosen.origin.data}; of the {chosen.of} ones it finds {figures['tpr']}, and misses "
        f"{figures['missed']} in the mean over images"
    )


EXAMPLE = """
doubtmap threshold demo synthetic:24 --score entropy --of wrong --by f1 --out t.json
doubtmap threshold NETWORK DATA --score energy --of unknown --by risk --alpha 0.05 --out r.json
doubtmap threshold NETWORK OTHER_DATA --check r.json
"""
command = as_command("threshold", threshold_command, EXAMPLE)
