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
from doubtmap.datasets import Dataset, open_dataset
from doubtmap.errors import UsageError
from doubtmap.training import Dudes, NFlowJS, Plain, Recipe, Reporter, Settings, Spectral, train
from doubtmap.training.flow_training import logged_after
from doubtmap.training.folds import fold_and_folds, without_fold
from doubtmap.training.negative_learning import DIVERGENCES
from doubtmap.training.negatives import KINDS
from doubtmap.training.networks import FORMS
from doubtmap.training.optimizing import is_first
from doubtmap.training.pictures import draw_log, draw_samples
from doubtmap.training.recipe import LogRow
from doubtmap.training.settings import CLASS_WEIGHTS, OPTIMIZERS, PRECISIONS, SCHEDULES
from doubtmap.training.teachers import TARGETS

DEFAULT, NEGATIVES = Settings(), NFlowJS()
MEMBERS = 5
FINE_TUNING = 10
"""Epochs of a recipe whose network knows its task already."""
RECIPES = ("plain", "spectral", "ensemble", "dudes", "nflowjs")
"""One network, one with bounded convolutions, several plain ones, a student of several, one that
learns what it does not know from negatives."""

OPTIONS = {
    "spectral": "--coefficient and --normalize-batch-norm",
    "ensemble": "--members",
    "dudes": "--teachers, --target, --cache, --freeze, --mask-void, --hidden, --layers and --folds",
    "nflowjs": "--negatives, --divergence, --divergence-weight, --flow, --freeze-flow, "
    "--flow-steps, --flow-rate, --flow-weight and --patch",
}
"""What only one recipe takes."""


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
    epochs: Annotated[
        int | None,
        typer.Option(
            help=f"Passes over the images. Default: {DEFAULT.epochs}, of nflowjs {FINE_TUNING}."
        ),
    ] = None,
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
    members: Annotated[int, typer.Option(help="Of an ensemble.")] = MEMBERS,
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
    layers: Annotated[
        str, typer.Option(help="Of dudes: inner layers that the hidden layer hears too.")
    ] = "",
    folds: Annotated[
        int, typer.Option(help="Of dudes: groups of teachers, each trained --without-fold of it.")
    ] = 1,
    without_fold: Annotated[
        str | None, typer.Option(help="K/N: leave out the K-th of N equal parts of the images.")
    ] = None,
    negatives: Annotated[
        str, typer.Option(help=f"Of nflowjs: {', '.join(KINDS)}; several are mixed.")
    ] = NEGATIVES.negatives,
    divergence: Annotated[
        str, typer.Option(help=f"Of nflowjs, from uniform: {', '.join(DIVERGENCES)}.")
    ] = NEGATIVES.divergence,
    divergence_weight: Annotated[
        float, typer.Option(help="Of nflowjs: what the divergence weighs.")
    ] = NEGATIVES.weight,
    flow: Annotated[
        Path | None, typer.Option(help="Of nflowjs: file of a trained flow. Default: train one.")
    ] = None,
    freeze_flow: Annotated[
        bool, typer.Option("--freeze-flow", help="Of nflowjs: leave the flow as it is.")
    ] = False,
    flow_steps: Annotated[
        int, typer.Option(help="Of nflowjs: steps of the flow's own training.")
    ] = NEGATIVES.flow_steps,
    flow_rate: Annotated[
        float, typer.Option(help="Of nflowjs: the flow's learning rate beside the network.")
    ] = NEGATIVES.flow_rate,
    flow_weight: Annotated[
        float | None,
        typer.Option(
            help="Of nflowjs: what the divergence weighs for the flow. Default: the same."
        ),
    ] = NEGATIVES.flow_weight,
    patch: Annotated[
        str | None, typer.Option(help="Of nflowjs: MIN-MAX sides of patches, such as 16-80.")
    ] = None,
    validate_every: Annotated[int, typer.Option(help="Epochs between validations.")] = 1,
    workers: Annotated[int, typer.Option(help="Threads that read images.")] = DEFAULT.workers,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:0.")] = None,
    resume: Resume = False,
    seed: Seed = 0,
) -> None:
    """Train a network, or several, into folders that every other command takes."""
    settings = Settings(
        epochs=(
            (FINE_TUNING if recipe == "nflowjs" else DEFAULT.epochs) if epochs is None else epochs
        ),
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
    with _reporter(out) as report:
        trained = train(
            _part(open_dataset(data, seed=seed), without_fold),
            out,
            recipe=_recipe(
                recipe,
                lambda: Spectral(coefficient, normalize_batch_norm),
                lambda: Dudes(
                    tuple(names(teachers)),
                    target,
                    cache,
                    freeze,
                    mask_void,
                    hidden,
                    tuple(names(layers)),
                    folds,
                ),
                lambda: NFlowJS(
                    negatives,
                    divergence,
                    divergence_weight,
                    flow,
                    freeze_flow,
                    _sides(patch),
                    flow_steps,
                    flow_rate,
                    flow_weight,
                ),
            ),
            model=model,
            validation=open_dataset(validation, seed=seed + 1) if validation else None,
            hold_out=names(hold_out),
            from_scratch=from_scratch,
            settings=settings,
            members=_members(members, recipe),
            device=device,
            resume=resume,
            report=report,
        )
    if not is_first():
        return
    for folder in trained.folders:
        draw_log(folder / "training" / "log.csv")
        draw_log(folder / "training" / "flow.csv")
        for flow_file in ("flow.safetensors", "flow-joint.safetensors"):
            draw_samples(folder / "training" / flow_file)
    for folder, epoch, miou in zip(trained.folders, trained.epochs, trained.miou):
        figure = "the last" if miou is None else f"the best, with a validation mIoU of {miou:.4f}"
        typer.echo(f"{folder}: the network of epoch {epoch}, {figure}.", err=True)
    typer.echo(trained.model)


@contextmanager
def _reporter(out: Path) -> Iterator[Reporter]:
    """A bar for the epoch on stderr, a line for each epoch that is done, and the curves so far."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True, soft_wrap=True, emoji=False)
    with Progress(*columns, console=console, transient=True, disable=not is_first()) as bar:
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

        told: set[str] = set()

        def note(text: str) -> None:
            if text in told:
                return
            told.add(text)
            console.print(f"note: {text}", highlight=False, markup=False)

        yield Reporter(step, epoch, member, teachers, flow, note)


def _recipe(
    name: str,
    spectral: Callable[[], Spectral],
    dudes: Callable[[], Dudes],
    nflowjs: Callable[[], NFlowJS],
) -> Recipe:
    if name not in RECIPES:
        raise UsageError(f"--recipe: expected one of {', '.join(RECIPES)}, got {name}.")
    recipes: dict[str, tuple[Callable[[], Recipe], Recipe]] = {
        "spectral": (spectral, Spectral()),
        "dudes": (dudes, Dudes(())),
        "nflowjs": (nflowjs, NFlowJS()),
    }
    for other, (given, default) in recipes.items():
        if other != name and _differs(given, default):
            raise _of_another(other, name)
    return recipes[name][0]() if name in recipes else Plain()


def _differs(given: Callable[[], Recipe], default: Recipe) -> bool:
    """Whether a recipe is asked for more than its defaults, if only for what makes no sense."""
    try:
        return given() != default
    except UsageError:
        return True


def _of_another(recipe: str, chosen: str) -> UsageError:
    return UsageError(
        f"--recipe: expected {recipe}, the only one with {OPTIONS[recipe]}, got {chosen}. Give "
        f"--recipe {recipe}, or none of these."
    )


def _part(dataset: Dataset, without: str | None) -> Dataset:
    return dataset if without is None else without_fold(dataset, *fold_and_folds(without))


def _members(count: int, recipe: str) -> int:
    if recipe != "ensemble":
        if count != MEMBERS:
            raise _of_another("ensemble", recipe)
        return 1
    if count < 2:
        raise UsageError(f"--members: expected at least 2 for an ensemble, got {count}.")
    return count


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


def _crop(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise UsageError(f"--crop: expected HxW such as 360x480, got {text}.")
    return int(height), int(width)


def _sides(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    low, _, high = text.partition("-")
    if not (low.isdecimal() and high.isdecimal()):
        raise UsageError(f"--patch: expected MIN-MAX such as 16-80, got {text}.")
    return int(low), int(high)


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
