"""Pre-training of a flow: the likelihood of patches of known content, cut from training views."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
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
NOISE = 2
"""Of random numbers: of dequantization."""
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
    classes: Sequence[str] = (),
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
        classes: that are not void, and so are what the flow learns; the file names them.
        writes: whether this process writes.
        told: called with the steps done, all steps, and the bits per dimension of the last, when
            log and checkpoint of that step, if any, are written.

    Raises:
        DataError: where no patch is without void, or the folder cannot be written.
        ModelError: where the training diverges; weights that are not finite are never written.
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

    latest = rows[-1]["bits"] if rows else math.nan

    def log(step: int, bits: float) -> None:
        held_out = judge(flow, test)
        _check(held_out, "likelihood of held-out patches", step, rows)
        rows.append({"step": step + 1, "bits": bits, "held_out_bits": held_out})
        if writes:
            _keep(path, flow, optimizer, training, rows)

    for step, batch in patches(learnt, *how, done, training.steps):
        for group in optimizer.param_groups:
            group["lr"] = training.rate * factor(step, training.steps)
        bits = flow.bits(batch.to(device), generator(training.seed, step, 0, NOISE)).mean()
        _check(bits.item(), "likelihood", step, rows)
        optimizer.zero_grad(set_to_none=True)
        bits.backward()  # type: ignore[no-untyped-call]
        _check(nn.utils.clip_grad_norm_(flow.parameters(), CLIP).item(), "gradient", step, rows)
        optimizer.step()
        if logged_after(step + 1, training.steps):
            log(step, bits.item())
        latest = bits.item()
        told(step + 1, training.steps, latest)
    if not rows or rows[-1]["step"] < training.steps:  # whose last step had no patch
        log(training.steps - 1, latest)
    if writes:
        alone = len(batches.dataset) < 2
        about = {"bits": judge(flow, test), "patches": len(test), "judged_on_its_own": alone}
        write_flow(path, flow, **about, data=batches.dataset.name, classes=list(classes))
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


def logged_after(done: int, steps: int) -> bool:
    """Whether log and checkpoint are written after so many steps."""
    return done % TOLD_EVERY == 0 or done == steps


@torch.no_grad()
def judge(flow: Flow, images: Tensor) -> float:
    """Mean bits per dimension of held-out patches, the same noise each time."""
    return flow.bits(images, generator(0)).mean().item()


def _check(value: float, what: str, step: int, rows: list[dict[str, Any]]) -> None:
    """Stop where training has diverged; `rows` of the log say which checkpoint there is."""
    if math.isfinite(value):
        return
    last = f"the checkpoint of step {rows[-1]['step']}" if rows else "no checkpoint"
    raise ModelError(
        f"flow: expected a finite {what}, got {value} in step {step + 1} of its own training; "
        f"{last} is kept. Train anew with another --seed, or give --flow FILE; --resume would come "
        f"to the same step again."
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
