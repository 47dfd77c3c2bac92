"""Pre-training of a flow: the likelihood of patches of known content, cut from training views."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from doubtmap.atomic import write_atomically
from doubtmap.errors import DataError, ModelError
from doubtmap.training.batches import Batches
from doubtmap.training.drawing import generator, mixed
from doubtmap.training.flow import Flow, FlowShape
from doubtmap.training.flow_file import write_flow
from doubtmap.training.flow_patches import parts_of, patches

JUDGED = 64
"""Patches that judge it."""
CLIP = 5.0
TOLD_EVERY = 100
"""Steps between two lines of the log, each with a checkpoint."""


@dataclass(frozen=True)
class FlowTraining:
    """How a flow is pre-trained.

    Args:
        steps: of the optimiser, Adamax.
        batch: patches in a step.
        side: of the patches, in pixels, divisible by 8.
        rate: largest learning rate; it rises over the first 2 % of the steps and falls as a cosine.
        seed: of weights, views and places.
        shape: of the flow.

    Reference:
        Dense Out-of-Distribution Detection by Robust Learning on Synthetic Negative Data
        (Grcić et al., 2021), https://arxiv.org/abs/2112.12833: a flow trained on crops of known
        images before the joint training. Departures: a flow 100 times smaller, and crops with a
        void pixel are left out, so that it never sees a held-out class.
    """

    steps: int = 2000
    batch: int = 16
    side: int = 64
    rate: float = 2e-3
    seed: int = 0
    shape: FlowShape = field(default_factory=FlowShape)


def pretrain(
    batches: Batches,
    training: FlowTraining,
    path: Path,
    *,
    device: torch.device,
    writes: bool = True,
    told: Callable[[int, int, float], None] = lambda *_: None,
) -> None:
    """Train a flow from nothing, or from its checkpoint, and write its file.

    Beside `FILE.safetensors` lie `FILE.csv`, the log with the bits per dimension on held-out
    patches, and until the end `FILE.pt`, the checkpoint. A file that is there is left alone.

    Args:
        batches: whose views are cut into patches.
        training: how.
        path: of the flow's file.
        device: where to compute.
        writes: whether this process writes.
        told: called with the steps done, all steps, and the bits per dimension of the last.

    Raises:
        DataError: where no patch is without void, or the folder cannot be written.
        ModelError: where the training diverges.
    """
    if path.exists():
        return
    judged, learnt = parts_of(batches)
    flow = begun(learnt, training).to(device)
    _, test = next(patches(judged, training.side, JUDGED, training.seed))
    test = test.to(device)
    optimizer = torch.optim.Adamax(flow.parameters(), training.rate)
    done, rows = _restored(path.with_suffix(".pt"), flow, optimizer, training, device)
    how = (training.side, training.batch, training.seed)
    for step, batch in patches(learnt, *how, done, training.steps):
        for group in optimizer.param_groups:
            group["lr"] = training.rate * factor(step, training.steps)
        bits = flow.bits(batch.to(device), generator(training.seed, step)).mean()
        _check(bits, step, path)
        optimizer.zero_grad(set_to_none=True)
        bits.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(flow.parameters(), CLIP)
        optimizer.step()
        told(step + 1, training.steps, bits.item())
        if (step + 1) % TOLD_EVERY == 0 or step + 1 == training.steps:
            now = {"step": step + 1, "bits": bits.item(), "held_out_bits": judge(flow, test)}
            rows.append(now)
            if writes:
                _keep(path, flow, optimizer, training, rows)
    if writes:
        write_flow(path, flow, bits=judge(flow, test), data=batches.dataset.name)
        path.with_suffix(".pt").unlink(missing_ok=True)


def begun(batches: Batches, training: FlowTraining) -> Flow:
    """A flow with random weights that starts from the first patches."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mixed(training.seed, 0))
        flow = Flow(training.shape)
    flow.start(next(patches(batches, training.side, training.batch, training.seed))[1])
    return flow


def factor(step: int, steps: int) -> float:
    """What the learning rate is multiplied with, in [0, 1]."""
    rise = min(1.0, (step + 1) / max(1.0, 0.02 * steps))
    return rise * (1 + math.cos(math.pi * step / steps)) / 2


@torch.no_grad()
def judge(flow: Flow, images: Tensor) -> float:
    """Mean bits per dimension of held-out patches, the same noise each time."""
    return flow.bits(images, generator(0)).mean().item()


def _check(bits: Tensor, step: int, path: Path) -> None:
    if not bool(torch.isfinite(bits)):
        raise ModelError(
            f"flow: expected a finite likelihood, got {bits.item()} bits per dimension in step "
            f"{step + 1}; the last good checkpoint is {path.with_suffix('.pt')}. Go on with "
            f"--resume, or give --flow FILE."
        )


def _keep(
    path: Path,
    flow: Flow,
    optimizer: torch.optim.Optimizer,
    training: FlowTraining,
    rows: list[dict[str, Any]],
) -> None:
    """Write checkpoint and log."""
    buffer = io.BytesIO()
    state = {"flow": flow.state_dict(), "optimizer": optimizer.state_dict(), "rows": rows}
    torch.save(state | {"training": repr(training)}, buffer)
    write_atomically(path.with_suffix(".pt"), buffer.getvalue(), durable=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path.with_suffix(".csv"), text.getvalue().encode(), durable=True)


def _restored(
    path: Path,
    flow: Flow,
    optimizer: torch.optim.Optimizer,
    training: FlowTraining,
    device: torch.device,
) -> tuple[int, list[dict[str, Any]]]:
    """Bring all to the state of a checkpoint of the same training; steps done and the log."""
    if not path.exists():
        return 0, []
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        if state["training"] != repr(training):
            return 0, []
        flow.load_state_dict(state["flow"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["rows"][-1]["step"]), list(state["rows"])
    except Exception as error:
        raise DataError(
            f"{path}: expected the checkpoint of a flow, but it cannot be read ({error}). Remove "
            f"it to train the flow anew."
        ) from error
