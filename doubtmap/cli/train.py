"""`doubtmap train`: a network, or several, from labelled images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from doubtmap.cli.app import app
from doubtmap.cli.options import Data, Resume, Seed, names
from doubtmap.datasets import open_dataset
from doubtmap.errors import UsageError
from doubtmap.training import Dudes, Plain, Recipe, Reporter, Settings, Spectral, train
from doubtmap.training.fit import Row
from doubtmap.training.networks import FORMS
from doubtmap.training.processes import is_first
from doubtmap.training.settings import CLASS_WEIGHTS, OPTIMIZERS, PRECISIONS, SCHEDULES
from doubtmap.training.teachers import TARGETS

DEFAULT = Settings()
RECIPES = ("plain", "spectral", "ensemble", "dudes")
"""One network, one with bounded convolutions, several plain ones, a student of several."""


@app.command("train")
def train_command(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the network, or of the members.")],
    recipe: Annotated[str, typer.Option(help=f"One of {', '.join(RECIPES)}.")] = "plain",
    validation: Annotated[
        str | None, typer.Option(help="Data by whose mIoU the best epoch is kept.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "--student", help=f"To start from: {FORMS}.")
    ] = "demo",
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Leave the weights and draw others.")
    ] = False,
    hold_out: Annotated[str, typer.Option(help="Classes that are not learnt, but void.")] = "",
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = DEFAULT.epochs,
    batch: Annotated[int, typer.Option(help="Images in a step, over all processes.")] = (
        DEFAULT.batch
    ),
    crop: Annotated[
        str | None, typer.Option(help="HxW of what a step sees. Default: the image, at most 512.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Learning rate. Default: 1e-4, from scratch 1e-3.")
    ] = None,
    optimizer: Annotated[str, typer.Option(help=f"{' or '.join(OPTIMIZERS)}.")] = DEFAULT.optimizer,
    weight_decay: Annotated[float, typer.Option(help="Of weights, not biases.")] = (
        DEFAULT.weight_decay
    ),
    schedule: Annotated[str, typer.Option(help=f"Of the rate: {', '.join(SCHEDULES)}.")] = (
        DEFAULT.schedule
    ),
    warmup: Annotated[float, typer.Option(help="Share of steps in which the rate rises.")] = (
        DEFAULT.warmup
    ),
    clip: Annotated[float, typer.Option(help="Largest norm of the gradient; 0: any.")] = (
        DEFAULT.clip
    ),
    class_weights: Annotated[
        str, typer.Option(help=f"{', '.join(CLASS_WEIGHTS)}, or an exponent in [0, 1].")
    ] = "none",
    precision: Annotated[str, typer.Option(help=f"{', '.join(PRECISIONS)}.")] = DEFAULT.precision,
    augment: Annotated[
        bool, typer.Option("--augment/--no-augment", help="Scale, flip and recolour.")
    ] = DEFAULT.augment,
    dropout_rate: Annotated[
        float | None, typer.Option(help="Of dropout layers, or of one before the classifier.")
    ] = None,
    members: Annotated[int, typer.Option(help="Of an ensemble.")] = 5,
    coefficient: Annotated[float, typer.Option(help="Of spectral: the largest norm.")] = 3.0,
    normalize_batch_norm: Annotated[
        bool, typer.Option("--normalize-batch-norm", help="Of spectral: bound batch norms too.")
    ] = False,
    teachers: Annotated[
        str, typer.Option(help="Of dudes: networks, separated by commas, of the same classes.")
    ] = "",
    target: Annotated[
        str, typer.Option(help=f"Of dudes: what is learnt of them: {', '.join(TARGETS)}.")
    ] = "spread",
    cache: Annotated[
        Path | None,
        typer.Option(help="Of dudes: folder for what they say of whole images, asked once."),
    ] = None,
    freeze: Annotated[
        bool, typer.Option("--freeze", help="Of dudes: train the second head alone.")
    ] = False,
    mask_void: Annotated[
        bool, typer.Option("--mask-void", help="Of dudes: do not learn on pixels without label.")
    ] = False,
    hidden: Annotated[
        int, typer.Option(help="Of dudes: channels of a hidden layer of the second head.")
    ] = 0,
    validate_every: Annotated[int, typer.Option(help="Epochs between validations.")] = 1,
    workers: Annotated[int, typer.Option(help="Threads that read images.")] = DEFAULT.workers,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:0.")] = None,
    resume: Resume = False,
    seed: Seed = 0,
) -> None:
    """Train a network, or several, into folders that every other command takes."""
    settings = Settings(
        epochs=epochs,
        batch=batch,
        crop=_crop(crop),
        rate=rate,
        optimizer=optimizer,
        weight_decay=weight_decay,
        schedule=schedule,
        warmup=warmup,
        clip=clip,
        class_weights=_exponent(class_weights),
        precision=precision,
        augment=augment,
        dropout=dropout_rate,
        seed=seed,
        workers=workers,
        validate_every=validate_every,
    )
    with _reporter() as report:
        trained = train(
            open_dataset(data, seed=seed),
            out,
            recipe=_recipe(
                recipe,
                Spectral(coefficient, normalize_batch_norm),
                lambda: Dudes(tuple(names(teachers)), target, cache, freeze, mask_void, hidden),
            ),
            model=model,
            validation=open_dataset(validation, seed=seed + 1) if validation else None,
            hold_out=names(hold_out),
            from_scratch=from_scratch,
            settings=settings,
            members=_members(members) if recipe == "ensemble" else 1,
            device=device,
            resume=resume,
            report=report,
        )
    if not is_first():
        return
    for note in trained.notes:
        typer.echo(f"note: {note}", err=True)
    for folder, epoch, miou in zip(trained.folders, trained.epochs, trained.miou):
        figure = "the last" if miou is None else f"the best, with a validation mIoU of {miou:.4f}"
        typer.echo(f"{folder}: the network of epoch {epoch}, {figure}.", err=True)
    typer.echo(trained.model)


@contextmanager
def _reporter() -> Iterator[Reporter]:
    """A bar for the epoch on stderr, and a line for each epoch that is done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True, soft_wrap=True)
    with Progress(*columns, console=console, transient=True, disable=not is_first()) as bar:
        task = bar.add_task("train", total=None, loss=float("nan"))

        def step(epoch: int, epochs: int, done: int, steps: int, loss: float) -> None:
            bar.update(
                task,
                description=f"epoch {epoch}/{epochs}",
                completed=done,
                total=steps,
                loss=loss,
            )

        yield Reporter(
            step,
            lambda row: console.print(_line(row), highlight=False),
            lambda member, members: console.print(f"member {member} of {members}"),
            lambda done, of: bar.update(task, description="teachers", completed=done, total=of),
        )


def _recipe(name: str, spectral: Spectral, dudes: Callable[[], Dudes]) -> Recipe:
    if name not in RECIPES:
        raise UsageError(f"--recipe: expected one of {', '.join(RECIPES)}, got {name}.")
    if name == "dudes":
        return dudes()
    return spectral if name == "spectral" else Plain()


def _members(count: int) -> int:
    if count < 2:
        raise UsageError(f"--members: expected at least 2 for an ensemble, got {count}.")
    return count


def _line(row: Row) -> str:
    """One epoch as a sentence."""
    terms = [
        (k, v) for k, v in row.items() if k not in ("epoch", "step", "rate", "miou", "seconds")
    ]
    shown = terms if len(terms) > 2 else terms[:1]
    figures = [f"{name} {value:.4f}" for name, value in shown]
    if row["miou"] is not None:
        figures.append(f"val mIoU {row['miou']:.4f}")
    return f"epoch {row['epoch']}: {', '.join(figures)}, {row['seconds']:.0f} s"


def _crop(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise UsageError(f"--crop: expected HxW such as 360x480, got {text}.")
    return int(height), int(width)


def _exponent(text: str) -> float:
    if text in CLASS_WEIGHTS:
        return CLASS_WEIGHTS[text]
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"--class-weights: expected {', '.join(CLASS_WEIGHTS)} or an exponent in [0, 1], got "
            f"{text}."
        ) from None
