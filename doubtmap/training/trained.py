"""`train`: from a data set and a recipe to a folder that `doubtmap.load` takes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from doubtmap.datasets import Dataset
from doubtmap.errors import DataError, UsageError
from doubtmap.models.loading import check_device
from doubtmap.training.batches import NONE, USUAL, Batches, count_labels
from doubtmap.training.fit import fit
from doubtmap.training.folder import Folder
from doubtmap.training.labels import Targets, Validation, trained_classes, weights_of
from doubtmap.training.networks import Start, set_dropout, starting_network
from doubtmap.training.optimizing import Processes, joined
from doubtmap.training.recipe import Job, Recipe, Reporter, Work
from doubtmap.training.recipes import Plain
from doubtmap.training.settings import Settings

PLAIN = Plain()

LARGEST_CROP = 512
"""Pixels of a default crop's side, at most."""


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Args:
        folders: of the networks, one but for ensembles.
        epochs: for each network, the epoch that was kept, from 1.
        miou: for each network, its validation mIoU, or None without validation.
        notes: what the user should know, in sentences.
        maker: `python:FILE.py:FUNCTION`, where a Python file makes the network.
    """

    folders: tuple[Path, ...]
    epochs: tuple[int, ...]
    miou: tuple[float | None, ...]
    notes: tuple[str, ...] = ()
    maker: str | None = None

    @property
    def model(self) -> str:
        """What `load` and the command line take; several networks are separated by commas."""
        start = f"{self.maker}@" if self.maker else ""
        return ",".join(f"{start}{folder}" for folder in self.folders)


def train(
    dataset: Dataset,
    out: str | Path,
    *,
    recipe: Recipe = PLAIN,
    model: str = "demo",
    validation: Dataset | None = None,
    hold_out: Sequence[str] = (),
    from_scratch: bool = False,
    settings: Settings | None = None,
    members: int = 1,
    device: torch.device | str | None = None,
    resume: bool = False,
    report: Reporter | None = None,
) -> Trained:
    """Train a network, or several, and write folders that `doubtmap.load` takes.

    Under `torchrun` the processes share every batch, and the first one writes.

    Args:
        dataset: labelled images.
        out: folder to write; of an ensemble, the folder of its members `1`, `2` ...
        recipe: what is trained, such as `Plain()` or `Spectral(coefficient=3)`.
        model: the network to start from: `demo`, a name of `CONFIGURATIONS`, a Hugging Face folder
            or name, a folder that was trained here, or `python:FILE.py:FUNCTION`.
        validation: labelled images by whose mIoU the best epoch is kept; without, the last is.
        hold_out: classes of the data set that are not learnt; their pixels become void.
        from_scratch: leave the network's weights and draw others.
        settings: how to train; default: `Settings()`.
        members: from 2 on, an ensemble; member `m` has the seed `settings.seed + m - 1`.
        device: where to compute; default: the GPU where there is one.
        resume: go on with the run in `out`, which must have been asked the same.
        report: who is told of progress.

    Raises:
        UsageError: for a request that makes no sense.
        DataError: for images or labels that cannot be used, or a folder that cannot be written.
        ModelError: for a network that cannot be trained, or training that diverged.
    """
    if members < 1:
        raise UsageError(f"train: expected at least 1 member, got {members}. Give --members 5.")
    if not len(dataset) or (validation is not None and not len(validation)):
        raise DataError("train: expected images, found none. Check the data set.")
    settings = settings or Settings()
    job = Job(dataset, validation, recipe, model, from_scratch, tuple(hold_out), settings)
    recipe.check(job)
    report = report or Reporter()
    with joined(usable(device)) as (processes, here):
        if members == 1:
            return train_one(job, Path(out), processes, here, resume, report)
        return train_members(job, Path(out), members, processes, here, resume, report)


def train_members(
    job: Job,
    out: Path,
    members: int,
    processes: Processes,
    device: torch.device,
    resume: bool,
    report: Reporter,
) -> Trained:
    """Train the members of an ensemble one after the other, each in a folder of its own."""
    parts = []
    for member in range(members):
        folder = out / str(member + 1)
        seeded = replace(job, settings=replace(job.settings, seed=job.settings.seed + member))
        begun = resume and (member == 0 or Folder(folder).begun)
        if processes.first:
            report.member(member + 1, members)
        parts.append(train_one(seeded, folder, processes, device, begun, report))
    return Trained(
        tuple(part.folders[0] for part in parts),
        tuple(part.epochs[0] for part in parts),
        tuple(part.miou[0] for part in parts),
        tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        parts[0].maker,
    )


def train_one(
    job: Job,
    out: Path,
    processes: Processes,
    device: torch.device,
    resume: bool,
    report: Reporter,
) -> Trained:
    """Train one network into a folder."""
    folder, settings = Folder(out), job.settings
    classes = trained_classes(job.dataset, job.hold_out)
    start = starting_network(job.model, classes, from_scratch=job.from_scratch, seed=settings.seed)
    targets = Targets.of(job.dataset, start.class_names)
    validate = job.validation and Validation(job.validation, start, processes, settings.workers)
    batches = batches_of(job, targets, start, processes)
    recipe = job.recipe.fitted(job, start, batches.crop)
    described = job.described(processes) if processes.first else {}
    holding = folder.held(described, resume=resume) if processes.first else nullcontext()
    cuda = [device] if device.type == "cuda" else []
    with holding, torch.random.fork_rng(devices=cuda):
        processes.wait()
        torch.manual_seed(settings.seed)
        weights, absent = class_weights(job, targets, start)
        if settings.dropout is not None:
            set_dropout(start, settings.dropout)
        told = report if processes.first else Reporter()
        work = Work(job, start, batches, folder.inner, processes, device, resume, told)
        recipe, batches, unsure = recipe.prepared(work)
        objective = recipe(start, weights, processes)
        notes = (*start.notes, *absent, *objective.notes, *unsure)
        for note in notes:
            told.note(note)

        def save(network: nn.Module) -> None:
            folder.save_network(network, start, job.recipe.name)
            recipe.keep(objective, folder.inner)

        done = fit(
            objective,
            batches,
            settings,
            folder,
            rate=settings.rate or recipe.rate(start),
            device=device,
            processes=processes,
            validate=validate or None,
            save=save,
            report=report,
        )
    maker = start.maker if start.maker.startswith("python:") else None
    return Trained((out,), (done.best_epoch,), (done.best,), notes, maker)


def batches_of(job: Job, targets: Targets, start: Start, processes: Processes) -> Batches:
    """The batches of a job."""
    settings = job.settings
    return Batches(
        job.dataset,
        targets,
        settings.batch,
        settings.crop or default_crop(job.dataset),
        settings.seed,
        USUAL if settings.augment else NONE,
        start.mean,
        settings.workers,
        processes,
    )


def default_crop(dataset: Dataset) -> tuple[int, int]:
    """The size of the first image, at most `LARGEST_CROP` on a side."""
    height, width = dataset[0].image.shape[-2:]
    return min(height, LARGEST_CROP), min(width, LARGEST_CROP)


def class_weights(
    job: Job, targets: Targets, start: Start
) -> tuple[Tensor | None, tuple[str, ...]]:
    """The weights of the classes in the loss, None for all alike, and what the user should know.

    Raises:
        DataError: for a class without any labelled pixel where the network cannot know it
            already, or no labelled pixel at all.
    """
    if not job.recipe.learns_labels:
        return None, ()
    names, settings = start.class_names, job.settings
    counts = count_labels(job.dataset, targets, len(names), settings.seed, settings.workers)
    absent = ", ".join(name for name, count in zip(names, counts.tolist()) if not count)
    hold_out = f"--hold-out {absent.replace(', ', ',')}"
    if absent and not (counts.any() and start.may_know_its_classes):
        raise DataError(
            f"{job.dataset.name}: expected labelled pixels of every class, found none of "
            f"{absent}. Leave them out with {hold_out}."
        )
    note = (
        f"{job.dataset.name} has no labelled pixel of {absent}, which the network can only "
        f"forget. A network without them learns with {hold_out}.",
    )
    weights = weights_of(counts, settings.class_weights) if settings.class_weights else None
    return weights, note if absent else ()


def usable(device: torch.device | str | None) -> torch.device:
    """The device asked for, or the GPU where there is one.

    Raises:
        UsageError: for a text that names no device.
        ModelError: for a device that is not there.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device, "train", "--device cpu")
    return torch.device(device)
