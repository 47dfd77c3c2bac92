"""`doubtmap train`: a network, or several, from labelled images."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doubtmap.cli.commands import DATA, MODEL, OUTPUT, as_command, flags_of, option
from doubtmap.cli.options import (
    Data,
    Device,
    Limit,
    Resume,
    Seed,
    opened,
)
from doubtmap.cli.telling import log, tell
from doubtmap.cli.texts import names
from doubtmap.errors import UsageError
from doubtmap.training.settings import DudesOptions, NFlowJSOptions, Settings, SpectralOptions

if TYPE_CHECKING:
    from doubtmap.training import Recipe, Reporter
    from doubtmap.training.recipe import LogRow

MEMBERS = 5
FINE_TUNING = 10
"""Epochs of a recipe whose network knows its task already."""
RECIPES = ("plain", "spectral", "ensemble", "dudes", "nflowjs")
"""One network, one with bounded convolutions, several plain ones, a student of several, one that
learns what it does not know from negatives."""
TRAINING = "Training"


def train_command(
    data: Data,
    *,
    recipe: Annotated[str, option(TRAINING, f"One of {', '.join(RECIPES)}.")] = "plain",
    epochs: Annotated[
        int | None,
        option(
            TRAINING,
            f"Passes over the images. Default: {Settings.epochs}, of nflowjs {FINE_TUNING}.",
        ),
    ] = None,
    settings: Annotated[Settings, TRAINING],
    members: Annotated[int, option("Recipe: ensemble", "Networks that are trained.")] = MEMBERS,
    spectral: Annotated[SpectralOptions, "Recipe: spectral"],
    dudes: Annotated[DudesOptions, "Recipe: dudes"],
    nflowjs: Annotated[NFlowJSOptions, "Recipe: nflowjs"],
    out: Annotated[
        Path, option(OUTPUT, "Folder of the network, or of the members.", metavar="DIR")
    ],
    validation: Annotated[
        str | None, option(DATA, "Data by whose mIoU the best epoch is kept.")
    ] = None,
    model: Annotated[
        str,
        option(
            MODEL,
            "To start from: demo, segformer-b0, segformer-b1, segformer-b2, upernet-resnet18, "
            "upernet-resnet34, upernet-resnet50, upernet-convnext-tiny, a Hugging Face folder or "
            "owner/name, a folder that doubtmap train wrote, or python:FILE.py:FUNCTION.",
            "--model",
            "--student",
        ),
    ] = "demo",
    from_scratch: Annotated[
        bool, option(MODEL, "Leave the weights and draw others.", "--from-scratch")
    ] = False,
    hold_out: Annotated[str, option(DATA, "Classes that are not learnt, but void.")] = "",
    without_fold: Annotated[
        str | None,
        option(DATA, "K/N: leave out the K-th of N equal parts of the images."),
    ] = None,
    device: Device = None,
    limit: Limit = None,
    resume: Resume = False,
    seed: Seed = 0,
) -> None:
    """Train a network, or several, into folders that every other command takes."""
    given = {"spectral": spectral, "dudes": dudes, "nflowjs": nflowjs}
    _check(recipe, given, members)
    usual = FINE_TUNING if recipe == "nflowjs" else settings.epochs
    settings = replace(settings, epochs=usual if epochs is None else epochs, seed=seed)
    from doubtmap.training import train
    from doubtmap.training.folds import fold_and_folds
    from doubtmap.training.folds import without_fold as leave_out
    from doubtmap.training.optimizing import is_first

    dataset = opened(data, seed, limit)
    with _reporter(out) as report:
        trained = train(
            leave_out(dataset, *fold_and_folds(without_fold)) if without_fold else dataset,
            out,
            recipe=_recipe(recipe, given),
            model=model,
            validation=opened(validation, seed + 1) if validation else None,
            hold_out=names(hold_out),
            from_scratch=from_scratch,
            settings=settings,
            members=members if recipe == "ensemble" else 1,
            device=device,
            resume=resume,
            report=report,
        )
    if not is_first():
        return
    from doubtmap.training.pictures import draw_log, draw_samples

    for folder in trained.folders:
        draw_log(folder / "training" / "log.csv")
        draw_log(folder / "training" / "flow.csv")
        for flow_file in ("flow.safetensors", "flow-joint.safetensors"):
            draw_samples(folder / "training" / flow_file)
    for folder, epoch, miou in zip(trained.folders, trained.epochs, trained.miou):
        figure = "the last" if miou is None else f"the best, with a validation mIoU of {miou:.4f}"
        tell(f"{folder}: the network of epoch {epoch}, {figure}.")
    typer.echo(trained.model)


@contextmanager
def _reporter(out: Path) -> Iterator[Reporter]:
    """A bar for the epoch on stderr, a line for each epoch that is done, and the curves so far."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from doubtmap.progress import shows_bars
    from doubtmap.training import Reporter
    from doubtmap.training.flow_training import logged_after
    from doubtmap.training.optimizing import is_first
    from doubtmap.training.pictures import draw_log

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    told = log.isEnabledFor(logging.WARNING)
    console = Console(stderr=True, soft_wrap=True, emoji=False, quiet=not told)
    hidden = not (is_first() and shows_bars(console))
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("train", total=None, loss="")
        inner = out / "training"

        def step(epoch: int, epochs: int, done: int, steps: int, loss: float) -> None:
            bar.update(
                task,
                description=f"epoch {epoch}/{epochs}",
                completed=done,
                total=steps,
                loss=f"loss {loss:.4f}",
            )

        def epoch(row: LogRow) -> None:
            console.print(_line(row), highlight=False)
            draw_log(inner / "log.csv")

        def member(number: int, members: int) -> None:
            nonlocal inner
            inner = out / str(number) / "training"
            console.print(f"member {number} of {members}")

        def teachers(done: int, of: int) -> None:
            bar.update(task, description="teachers", completed=done, total=of)

        def flow(done: int, of: int, bits: float) -> None:
            bar.update(task, description="flow", completed=done, total=of, loss=f"{bits:.3f} bits")
            if logged_after(done, of):
                draw_log(inner / "flow.csv")

        noted: set[str] = set()

        def note(text: str) -> None:
            if text in noted:
                return
            noted.add(text)
            console.print(f"note: {text}", highlight=False, markup=False)

        yield Reporter(step, epoch, member, teachers, flow, note)


def _check(recipe: str, given: dict[str, Any], members: int) -> None:
    """Refuse a recipe that is none, and what only another one takes."""
    if recipe not in RECIPES:
        raise UsageError(f"--recipe: expected one of {', '.join(RECIPES)}, got {recipe}.")
    for other, options in given.items():
        if other != recipe and options != type(options)():
            raise _of_another(other, recipe)
    if recipe != "ensemble" and members != MEMBERS:
        raise _of_another("ensemble", recipe)
    if members < 2:
        raise UsageError(f"--members: expected at least 2 for an ensemble, got {members}.")


def _of_another(recipe: str, chosen: str) -> UsageError:
    kinds = {"spectral": SpectralOptions, "dudes": DudesOptions, "nflowjs": NFlowJSOptions}
    flags = flags_of(kinds[recipe]) if recipe in kinds else ["--members"]
    listed = " and ".join(filter(None, (", ".join(flags[:-1]), flags[-1])))
    return UsageError(
        f"--recipe: expected {recipe}, the only one with {listed}, got {chosen}. Give "
        f"--recipe {recipe}, or none of these."
    )


def _recipe(name: str, given: dict[str, Any]) -> Recipe:
    from doubtmap.training import Dudes, NFlowJS, Plain, Spectral

    kinds = {"spectral": Spectral, "dudes": Dudes, "nflowjs": NFlowJS}
    return kinds[name](**vars(given[name])) if name in kinds else Plain()


def _line(row: LogRow) -> str:
    """One epoch as a sentence."""
    terms = [
        (k, v) for k, v in row.items() if k not in ("epoch", "step", "rate", "miou", "seconds")
    ]
    shown = terms if len(terms) > 2 else terms[:1]
    figures = [f"{name} {value:.4f}" for name, value in shown]
    if row["miou"] is not None:
        figures.append(f"val mIoU {row['miou']:.4f}")
    return f"epoch {row['epoch']}: {', '.join(figures)}, {row['seconds']:.0f} s"


EXAMPLE = """
doubtmap train camvid:PATH:train --validation camvid:PATH:val --out network
doubtmap train camvid:PATH:train --recipe ensemble --members 5 --out members
doubtmap train camvid:PATH:train --recipe nflowjs --model network --out careful
"""
command = as_command("train", train_command, EXAMPLE)
