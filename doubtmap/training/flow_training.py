"""Pre-training of a flow: the likelihood of patches of known content, cut from training views.

Patches of known content: cut from views where no pixel is void, so that a flow learns no other.

Void is what labels leave open, held-out classes, and the rim that a crop adds beyond the image.

The patches that a flow learns from, in an order that depends on seed and step alone.

The file of a flow: its weights in safetensors, its shape and version in the header.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import count as counted
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from doubtmap.datasets.reading import read_ahead
from doubtmap.errors import DataError, ModelError
from doubtmap.files import Content, FileKind, Origin, Part, read, write, write_atomically
from doubtmap.files.tables import TABLE, hold_entries, whole
from doubtmap.training.batches import Batches, generator, mixed, order
from doubtmap.training.flow import Flow, FlowShape
from doubtmap.training.folds import fold_of, without_fold
from doubtmap.training.optimizing import ALONE

TRIES = 8
"""Places that are drawn for each patch; the one with the least void is taken."""


def patch_corners(
    labels: Tensor, size: tuple[int, int], generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw a place for a patch in every image, of some places the one with the least void.

    Args:
        labels: `(B, H, W)`, below 0 where void.
        size: height and width of the patch, at most those of the labels.
        generator: of the places, on the CPU.

    Returns:
        `(B, 2)` int64, top and left, and `(B,)` bool: whether the place is without void.
    """
    height, width = size
    most = torch.tensor([labels.shape[1] - height + 1, labels.shape[2] - width + 1])
    drawn = torch.rand(len(labels), TRIES, 2, generator=generator)
    tried = (drawn * most).long().to(labels.device)
    sums = summed((labels < 0).to(torch.int32))
    image = torch.arange(len(labels), device=labels.device)[:, None]
    top, left = tried.unbind(-1)
    void = sums[image, top + height, left + width] - sums[image, top, left + width]
    void += sums[image, top, left] - sums[image, top + height, left]
    least, best = void.min(1)
    return tried[image[:, 0], best], least == 0


def summed(counts: Tensor) -> Tensor:
    """`(B, H + 1, W + 1)`, sums of `(B, H, W)` over all above and left of a corner."""
    return torch.nn.functional.pad(counts, (1, 0, 1, 0)).cumsum(1).cumsum(2)


def cut(images: Tensor, corners: Tensor, size: tuple[int, int]) -> Tensor:
    """`(B, 3, h, w)`, the patch of `size` at each image's corner `(B, 2)`."""
    parts = [
        image[:, top : top + size[0], left : left + size[1]]
        for image, (top, left) in zip(images, corners.tolist())
    ]
    return torch.stack(parts)


PARTS = 10
"""The last of so many equal parts of the images is kept out of the flow's training: it judges."""


PLACES = 1
"""Of random numbers: of where patches lie."""


OF_VIEW = 4
"""Patches of one view of an image."""


PATIENCE = 100
"""Steps in a row that may lack a patch."""


def parts_of(batches: Batches) -> tuple[Batches, Batches]:
    """The batches of the images that judge a flow, and of those that it learns from.

    The last tenth judges, since neighbouring frames of a drive look alike; one image does both.
    """
    count = min(PARTS, len(batches.dataset))
    judged, learnt = (
        (fold_of(batches.dataset, count, count), without_fold(batches.dataset, count, count))
        if count > 1
        else (batches.dataset, batches.dataset)
    )
    alone = replace(batches, size=1, processes=ALONE)
    return replace(alone, dataset=judged), replace(alone, dataset=learnt)


def patches(
    batches: Batches, side: int, count: int, seed: int, first: int = 0, last: int | None = None
) -> Iterator[tuple[int, Tensor]]:
    """The patches of each step, of several views at once; steps without any are left out.

    Args:
        batches: whose views are cut into patches.
        side: of the patches, in pixels.
        count: patches of a step, at most, four of a view.
        seed: of views and places.
        first: step to begin with.
        last: step to end before; None: never.

    Yields:
        The step, and `(N, 3, side, side)` in [0, 1].

    Raises:
        DataError: where, in `PATIENCE` steps or in all, no patch is without void.
    """
    size, of_step, empty = (side, side), max(1, count // OF_VIEW), 0
    views = _views(batches, seed, first * of_step)
    for step in counted(first) if last is None else range(first, last):
        found: list[Tensor] = []
        for number in range(of_step):
            image, label = next(views)
            drawn = generator(seed, step, number, PLACES)
            corners, clean = patch_corners(label[None].expand(OF_VIEW, -1, -1), size, drawn)
            found += [cut(image[None], corner[None], size) for corner in corners[clean]]
        empty = 0 if found else empty + 1
        if found:
            yield step, torch.cat(found)
        elif empty == PATIENCE or (first == 0 and empty == last):
            raise DataError(
                f"{batches.dataset.name}: expected patches of {size[0]}x{size[1]} pixels without "
                f"void, found none in {empty * of_step} views. Give --flow FILE, or --negatives "
                f"without flow."
            )


def _views(batches: Batches, seed: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Views of all images, again and again, each time in another order."""
    count = len(batches.dataset)
    shuffled = lru_cache(4)(lambda epoch: order(count, seed, epoch))

    def view(number: int) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(number, count)
        return batches.view(epoch, shuffled(epoch)[place])

    return read_ahead(view, counted(first), batches.workers)


FILE = FileKind(
    "flow",
    "a flow that doubtmap train wrote",
    "Leave --flow out to train one.",
    {"shape": TABLE, "about": TABLE},
    {"*": Part()},
)
SHAPE = {"levels": whole(1, 8), "steps": whole(1, 256), "hidden": whole(1, 1 << 14)}


def write_flow(path: str | Path, flow: Flow, **about: Any) -> None:
    """Write a flow; the file is whole or not there.

    Args:
        path: where.
        flow: what.
        about: what a reader of the file should know, such as `bits`.

    Raises:
        DataError: where it cannot be written.
    """
    entries = {"shape": flow.described(), "about": about}
    write(path, FILE, Content(entries, flow.state_dict(), Origin()), durable=True)


def read_flow(path: str | Path) -> tuple[Flow, dict[str, Any]]:
    """Read what `write_flow` wrote.

    Returns:
        The flow on the CPU, and what its file says about it.

    Raises:
        DataError: for a file that is not there, is something else, of another version, or whose
            weights are not finite or cannot be inverted.
    """
    return read(path, FILE, _flow)


def _flow(content: Content) -> tuple[Flow, dict[str, Any]]:
    """The flow of a file that is whole, and what the file says about it.

    Raises:
        ValueError: for one that no negatives can be drawn from.
    """
    hold_entries(content.entries["shape"], SHAPE, "its shape")
    flow = Flow(FlowShape(**content.entries["shape"]))
    if flow.divisor > 8:
        raise ValueError(f"it takes sides that are multiples of {flow.divisor}, not of 8")
    flow.load_state_dict(content.tensors)
    with torch.no_grad():
        if not bool(torch.isfinite(flow.log_density(torch.full((1, 3, 16, 16), 0.5))).all()):
            raise ValueError("its weights cannot be inverted")
    return flow, content.entries["about"]


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
        held_out = judge_flow(flow, test)
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
        about = {"bits": judge_flow(flow, test), "patches": len(test), "judged_on_its_own": alone}
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
def judge_flow(flow: Flow, images: Tensor) -> float:
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
