"""The loop: epochs of batches, a validation, a checkpoint, the best network. Read from the top."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from doubtmap.training.batches import Batches, mixed
from doubtmap.training.folder import Folder
from doubtmap.training.optimizing import (
    Processes,
    check_finite,
    clip,
    in_our_words,
    optimizer_of,
    precision_of,
    set_rate,
)
from doubtmap.training.recipe import LogRow, Objective, Reporter
from doubtmap.training.settings import Settings


@dataclass
class Standing:
    """How far a training has come; what a checkpoint keeps beside the weights.

    Args:
        epoch: epochs that are done.
        rows: of the log.
        best: highest validation mIoU so far, or None.
        best_epoch: the epoch whose network is in the folder, from 1; 0: none yet.
    """

    epoch: int = 0
    rows: list[LogRow] = field(default_factory=list)
    best: float | None = None
    best_epoch: int = 0

    def better(self, miou: float | None) -> bool:
        """Whether a network is to be kept: the best validated, or without validation the last."""
        return miou is None or self.best is None or miou > self.best


def fit(
    objective: Objective,
    batches: Batches,
    settings: Settings,
    folder: Folder,
    *,
    rate: float,
    device: torch.device,
    processes: Processes,
    validate: Callable[[nn.Module], float] | None,
    save: Callable[[nn.Module], None],
    report: Reporter,
) -> Standing:
    """Train to the end, from the folder's checkpoint where there is one.

    Args:
        objective: what is trained; it is moved to `device` and changed in place.
        batches: of each epoch.
        settings: how to train.
        folder: for checkpoint and log.
        rate: the largest learning rate.
        device: where to compute.
        processes: those that train together; the first one writes.
        validate: mIoU of a deployed network; None: there is nothing to choose by.
        save: keeps a deployed network; called by the first process.
        report: who is told, by the first process.

    Returns:
        The log, and which epoch's network was kept: the best validated, or the last.

    Raises:
        ModelError: for a loss that is not finite, or a network that cannot be run.
    """
    objective.to(device)
    together = processes.together(objective, device)
    optimizer = optimizer_of(objective, settings, rate)
    objective.stepped_by(optimizer)
    kind = precision_of(settings.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=kind is torch.float16)
    done = restored(folder.checkpoint(device), objective, optimizer, scaler)
    for epoch in range(done.epoch, settings.epochs):
        began = time.perf_counter()
        sums: dict[str, float] = {}
        torch.manual_seed(mixed(settings.seed, epoch, processes.rank))
        objective.train()
        objective.begin(epoch)
        for step, (images, labels) in enumerate(batches.epoch(epoch), epoch * len(batches)):
            now = set_rate(optimizer, settings, rate, step, settings.epochs * len(batches))
            with in_our_words(images):
                with torch.autocast(device.type, kind, enabled=kind is not torch.float32):
                    terms = together(images.to(device), labels.to(device))
                loss = torch.stack(list(terms.values())).sum()
                check_finite(loss.item(), epoch, "loss")
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.unscale_(optimizer)
            objective.before_step()
            length = clip(objective.parts(), settings.clip)
            if kind is not torch.float16:  # whose scaler leaves such steps out
                check_finite(length.item(), epoch, "gradient")
            scaler.step(optimizer)
            scaler.update()
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term.item()
            if processes.first:
                here = step - epoch * len(batches) + 1
                report.step(epoch + 1, settings.epochs, here, len(batches), loss.item())
        means = average(sums, len(batches), processes, device)
        done.epoch, miou = epoch + 1, None
        if done.epoch == settings.epochs or done.epoch % settings.validate_every == 0:
            processes.agree(objective)
            network = objective.deployed()
            miou = validate(network) if validate else None
            if done.better(miou):
                done.best, done.best_epoch = miou, done.epoch
                if processes.first:
                    save(network)
        row = {"epoch": done.epoch, "step": step + 1, "rate": now, "loss": sum(means.values())}
        done.rows.append(row | means | {"miou": miou, "seconds": time.perf_counter() - began})
        if processes.first:
            folder.save_log(done.rows)
            folder.save_checkpoint(kept(done, objective, optimizer, scaler))
            report.epoch(done.rows[-1])
        processes.wait()
    return done


def average(
    sums: dict[str, float], steps: int, processes: Processes, device: torch.device
) -> dict[str, float]:
    """The terms' means over steps and processes."""
    total = processes.total(torch.tensor(list(sums.values())).to(device))
    return dict(zip(sums, (total / (steps * processes.count)).tolist()))


def kept(
    done: Standing,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> dict[str, Any]:
    """The state of a checkpoint.

    Random numbers need no place in it: they are drawn from seed and epoch.
    """
    return {
        "progress": vars(done),
        "objective": objective.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
    }


def restored(
    state: dict[str, Any] | None,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> Standing:
    """Bring all to the state of a checkpoint; without one, to the start."""
    if state is None:
        return Standing()
    objective.load_state_dict(state["objective"])
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    return Standing(**state["progress"])
