"""`doubtmap threshold`: from which score on to act, chosen on validation data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

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
    opened,
    seeded,
    windowed,
)
from doubtmap.cli.telling import tell_notes
from doubtmap.cli.texts import names
from doubtmap.errors import UsageError

if TYPE_CHECKING:
    from doubtmap.datasets import Dataset
    from doubtmap.decisions.file import By, Of, Threshold
    from doubtmap.prediction import Segmenter
    from doubtmap.scores.sets import LabelSets

CHOICE = "Choice"
SETS = "Label sets"


def threshold_command(
    model: Model,
    data: Data,
    network: Network,
    workers: Workers,
    scores: Annotated[str, option(SCORES, "One, such as entropy or wrong:FILE.")] = "",
    of: Annotated[str, option(CHOICE, "What to flag: wrong or unknown.")] = "",
    by: Annotated[
        str,
        option(
            CHOICE,
            "f1, tpr, fpr, risk (conformal risk control), risks (several) or sets (of classes).",
        ),
    ] = "",
    at: Annotated[
        float | None, option(CHOICE, "Rate of tpr (default .95) or fpr (default .05).")
    ] = None,
    alpha: Annotated[
        float | None,
        option(CHOICE, "Of risk and sets: tolerated share of missed pixels (default .1)."),
    ] = None,
    keep: Annotated[
        str,
        option(CHOICE, "Of risks: missed, false, flagged, objects, as in missed=0.1,false=0.5."),
    ] = "",
    delta: Annotated[
        float | None, option(CHOICE, "Of risks: probability of not keeping one (default .1).")
    ] = None,
    count_empty: Annotated[
        bool,
        option(CHOICE, "Of risk: images with nothing to flag missed nothing.", "--count-empty"),
    ] = False,
    form: Annotated[str, option(SETS, "Of sets: lac (small), aps or raps (adaptive).")] = "",
    per: Annotated[
        str,
        option(SETS, "Of sets: whose share is kept: of each image, class or place."),
    ] = "",
    places: Annotated[
        str, option(SETS, "Of --per place: rows and columns of cells (default 4x4).")
    ] = "",
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
    both = partial(_opened, model, data, network, workers, limit, seed)
    if check is not None:
        others = (scores, of, by, out, unknown, count_empty, form, per, places, keep, delta)
        if any(others) or (at, alpha) != (None, None):
            raise UsageError(
                "threshold: expected --check FILE alone, which says all that it was chosen with. "
                "Leave the other options out."
            )
        segmenter, dataset, notes = both()
        tell_notes(notes)
        _check_file(segmenter, dataset, check)
        return
    if by == "sets":
        useless = {"--scores": scores, "--of": of, "--at": at is not None, "--keep": keep}
        useless |= {"--delta": delta is not None, "--unknown": unknown}
        useless |= {"--count-empty": count_empty}
        given = [name for name, there in useless.items() if there]
        if given or not out:
            raise UsageError(
                "threshold: expected --by sets with --out FILE, and of the others --alpha, --form, "
                f"--per and --places only, got {', '.join(given) or 'no --out'}. "
                f"{'Leave it out' if given else 'Add it'}."
            )
        _choose_sets(both, out, (alpha, form, per, places))
        return
    if form or per or places:
        raise UsageError("threshold: expected --form, --per and --places with --by sets only.")
    if not (scores and of and by and out):
        raise UsageError(
            "threshold: expected --scores, --of, --by and --out, or --check FILE. Add what is "
            "missing."
        )
    level = _level(by, at, alpha, delta)
    from doubtmap.decisions.file import save_threshold
    from doubtmap.decisions.several import parse_levels
    from doubtmap.decisions.threshold import choose_threshold
    from doubtmap.files import check_place
    from doubtmap.progress import progress_bar

    check_place(out)
    segmenter, dataset, notes = both()
    with progress_bar() as progress:
        chosen = choose_threshold(
            segmenter,
            dataset,
            scores,
            of=cast("Of", of),
            by=cast("By", by),
            level=level,
            unknown=names(unknown),
            empty=count_empty,
            keep=parse_levels(keep),
            command=command_line(),
            progress=progress,
        )
    save_threshold(chosen, out)
    tell_notes([*notes, *chosen.notes])
    typer.echo(f"{out}: {_summary(chosen)}")


def _opened(
    model: str, data: str, network: Network, workers: Workers, limit: int | None, seed: int
) -> tuple[Segmenter, Dataset, list[str]]:
    """The network, the images, and what to note of both."""
    seeded(seed)
    dataset = opened(data, seed, limit)
    segmenter, notes = windowed(network.open(model, seed), dataset)
    return workers.spread(network, model, seed, segmenter), dataset, notes


def _choose_sets(
    both: Callable[[], tuple[Segmenter, Dataset, list[str]]],
    out: Path,
    asked: tuple[float | None, str, str, str],
) -> None:
    """Choose the levels of label sets, and write them."""
    from doubtmap.decisions.sets import check_asked, fit_sets
    from doubtmap.files import check_place
    from doubtmap.progress import progress_bar

    alpha, form, per, places = asked
    if places and per != "place":
        raise UsageError("--places: expected it with --per place only. Leave it out.")
    given: dict[str, Any] = {
        "alpha": 0.1 if alpha is None else alpha,
        "form": form or "lac",
        "per": per or "image",
        "places": _cells(places or "4x4"),
    }
    check_asked(**given)
    check_place(out)
    segmenter, dataset, notes = both()
    with progress_bar() as progress:
        sets = fit_sets(segmenter, dataset, **given, command=command_line(), progress=progress)
    sets.save(out)
    tell_notes([*notes, *sets.notes])
    typer.echo(f"{out}: {_told(sets, sets.figures, dataset.name)}; use it with --scores sets:{out}")


def _cells(text: str) -> tuple[int, int]:
    rows, _, columns = text.partition("x")
    if not (rows.isdecimal() and columns.isdecimal() and len(text) < 12):
        raise UsageError(f"--places: expected rows and columns, such as 4x4, got {text!r}.")
    return int(rows), int(columns)


def _told(sets: LabelSets, figures: Mapping[str, float], data: str) -> str:
    where = {"image": "", "class": ", of the worst class", "place": ", of the worst place"}
    return (
        f"sets of {figures['classes']:.2f} classes hold the true one of {figures['covered']:.3f} "
        f"of the pixels of {data}, and miss {figures['missed']:.3f} in the mean over "
        f"images{where[sets.per]}"
    )


def _check_file(segmenter: Segmenter, dataset: Dataset, file: Path) -> None:
    """Print what a threshold or label sets come to on other images."""
    with suppress(OSError):
        with file.open("rb") as opened_file:
            plain = opened_file.read(1) in (b"{", b"")
        if not plain:
            from doubtmap.decisions.sets import check_sets
            from doubtmap.progress import progress_bar
            from doubtmap.scores.sets import LabelSets

            sets = LabelSets.load(file)
            with progress_bar() as progress:
                figures, notes = check_sets(segmenter, dataset, sets, progress=progress)
            tell_notes(notes)
            typer.echo(_told(sets, figures, dataset.name))
            typer.echo(f"missed was to stay below {sets.alpha:g}, as an expectation over images")
            return
    from doubtmap.decisions.file import load_threshold

    _check(segmenter, dataset, load_threshold(file))


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


def _level(by: str, at: float | None, alpha: float | None, delta: float | None) -> float | None:
    """The one of the three options that belongs to the way of choosing."""
    if by == "risks" or delta is not None:
        if by != "risks" or (at, alpha) != (None, None):
            raise UsageError("--delta: expected it with --by risks, and no other of --at, --alpha.")
        return delta
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
doubtmap threshold NETWORK DATA --scores energy --of unknown --by risk --alpha 0.05 --out r.json
doubtmap threshold NETWORK OTHER_DATA --check r.json
doubtmap threshold NETWORK DATA --by sets --alpha 0.05 --out sets.safetensors
"""
command = as_command("threshold", threshold_command, EXAMPLE)
