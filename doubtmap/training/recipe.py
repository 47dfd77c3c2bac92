"""What a recipe is: it makes of a network what the loop trains, and says what that needs.

What a batch costs and what is deployed: the module that the loop trains.

The loop (`fit.py`) knows no more than `Objective`, so that another recipe is another file.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doubtmap.datasets import Dataset
from doubtmap.datasets.fingerprints import beneath, labels_meant, sample_marks
from doubtmap.errors import ModelError
from doubtmap.models.folders import photographs_learnt, start_marks
from doubtmap.models.forms import form_of
from doubtmap.models.outputs import candidates, too_many
from doubtmap.training.batches import Batches
from doubtmap.training.folds import identity
from doubtmap.training.networks import Start
from doubtmap.training.optimizing import ALONE, Processes
from doubtmap.training.settings import Settings
from doubtmap.version import __version__


class Objective(nn.Module):
    """What is trained: all parameters and buffers of this module.

    `objective(images, labels)` gives the terms of a batch's loss, `objective.deployed()` the
    network that is validated and written. `notes` are what the user should know of it.
    """

    notes: tuple[str, ...] = ()

    def begin(self, epoch: int) -> None:
        """Do what comes before an epoch, from 0."""

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms of the loss by name, scalars, which are added up.

        Args:
            images: `(B, 3, H, W)` RGB in [0, 1], not yet normalised; further channels are what
                the recipe made them carry.
            labels: `(B, H, W)` int64, a class, or below 0 where void.
        """
        raise NotImplementedError

    def stepped_by(self, optimizer: torch.optim.Optimizer) -> None:
        """Know the optimiser that steps, before the first step."""

    def before_step(self) -> None:
        """Do what comes between the gradient and the step."""

    def rate_of(self, name: str, rate: float) -> float:
        """The largest learning rate of a parameter, by its name, where `rate` is the training's."""
        return rate

    def decays(self, name: str) -> bool:
        """Whether weight decay is for a parameter, by its name."""
        return True

    def parts(self) -> list[list[nn.Parameter]]:
        """The parameters, in groups whose gradients are clipped apart."""
        return [list(self.parameters())]

    def deployed(self) -> nn.Module:
        """The network to be used, a copy in evaluation mode that takes normalised images."""
        raise NotImplementedError


class CrossEntropy(Objective):
    """Cross entropy of every pixel that is not void.

    Args:
        start: the network, which is trained in place; it returns logits in any form that `load`
            reads.
        class_weights: `(C,)`, or None for all classes alike.
        processes: those that share a batch.
    """

    mean: Tensor
    std: Tensor
    class_weights: Tensor | None

    def __init__(
        self, start: Start, class_weights: Tensor | None = None, processes: Processes = ALONE
    ) -> None:
        super().__init__()
        self.network, self.class_names, self.processes = start.network, start.class_names, processes
        self._checked = False
        for name, values in (("mean", start.mean), ("std", start.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """`{"cross_entropy": ...}`, in nats."""
        logits = self.logits(images)
        return {"cross_entropy": cross_entropy(logits, labels, self.class_weights, self.processes)}

    def logits(self, images: Tensor) -> Tensor:
        """`(B, C, h, w)` at the network's own resolution.

        Raises:
            ModelError: for an output that is not one logit per class and pixel.
        """
        output = self.network((images - self.mean) / self.std)
        classes = len(self.class_names)
        found = candidates(output, classes=classes)
        if len(found) > 1:
            raise ModelError(too_many(found))
        scores = found[0].tensor
        if not self._checked:
            if scores.shape[1] != classes:
                raise ModelError(
                    f"train: expected a network with {classes} outputs, one for each of "
                    f"{', '.join(self.class_names)}, got {scores.shape[1]}. Change the network, or "
                    f"hold classes out."
                )
            if (form := form_of(scores).kind) in ("softmax", "log_softmax"):
                raise ModelError(
                    f"train: expected a network that returns logits, got {form}. Return its scores "
                    f"before softmax."
                )
            self._checked = True
        return scores

    def deployed(self) -> nn.Module:
        """The network as it is now, a copy in evaluation mode."""
        return copy.deepcopy(self.network).eval()


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    processes: Processes = ALONE,
) -> Tensor:
    """`sum w_y (-log p_y) / sum w_y` over the pixels of all processes that are not void.

    Logits are resized to the labels, bilinear. Without any such pixel the loss is 0.

    Args:
        logits: `(B, C, h, w)`.
        labels: `(B, H, W)` int64 in [0, C), or below 0 for void.
        weights: `(C,)`, or None for ones.
        processes: those that share a batch; the mean of their losses is the loss of the batch.

    Returns:
        A scalar, in nats.
    """
    logits = logits.float()
    if logits.shape[-2:] != labels.shape[-2:]:
        logits = F.interpolate(logits, labels.shape[-2:], mode="bilinear")
    ignored = labels.clamp(min=-1)
    total = F.cross_entropy(logits, ignored, weights, ignore_index=-1, reduction="sum")
    known = labels[labels >= 0]
    amount = weights[known].sum() if weights is not None else total.new_tensor(known.numel())
    amount = processes.total(amount) / processes.count
    return total / amount.clamp(min=torch.finfo(torch.float32).tiny)


@dataclass(frozen=True)
class Job:
    """All that one network's training is asked; see `train`."""

    dataset: Dataset
    validation: Dataset | None
    recipe: Recipe
    model: str
    from_scratch: bool
    hold_out: tuple[str, ...]
    settings: Settings

    def described(self, processes: Processes) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        asked = asdict(self.settings)
        del asked["workers"]
        return asked | {
            "doubtmap": __version__,
            "data": _content(self.dataset),
            "validation": _content(self.validation) if self.validation else None,
            "recipe": {"name": self.recipe.name} | vars(self.recipe),
            "model": self.model,
            "start": start_marks(self.model),
            "from_scratch": self.from_scratch,
            "hold_out": list(self.hold_out),
            "processes": processes.count,
            **self._materials(),
        }

    def _materials(self) -> dict[str, Any]:
        """The recipe's, with the photographs that its network learnt as unknown before."""
        found = self.recipe.materials(self)
        if before := photographs_learnt(self.model):
            now = found.get("negatives", {})
            found["negatives"] = now | {"images": sorted({*before, *now.get("images", ())})}
        return found


def _content(dataset: Dataset) -> dict[str, Any]:
    """Which images a data set has, and hashes of what they and their labels are."""
    marks = {"label values": labels_meant(dataset), "content": sample_marks(dataset)}
    return identity(dataset) | {"drawn": getattr(beneath(dataset), "settings", None)} | marks


@dataclass(frozen=True)
class Work:
    """A training that is about to begin.

    Args:
        job: what was asked.
        start: the network, which is changed in place.
        batches: of the training.
        folder: for files of the training.
        processes: those that share it.
        device: where to compute.
        resume: go on with what lies in the folder; otherwise that is of another run.
        report: who is told, in the first process.
    """

    job: Job
    start: Start
    batches: Batches
    folder: Path
    processes: Processes
    device: torch.device
    resume: bool
    report: Reporter


class Recipe:
    """`objective = recipe(start, class_weights, processes)`.

    Recipes are frozen dataclasses: their fields are what a resumed run must have in common. All but
    the call itself has a default.
    """

    name: str
    """How the command line and `doubtmap.json` call it."""

    def __call__(
        self, start: Start, class_weights: Tensor | None, processes: Processes
    ) -> Objective:
        """What is trained, on a network that is changed in place."""
        raise NotImplementedError

    @property
    def learns_labels(self) -> bool:
        """Whether classes are learnt, and so may have weights."""
        return True

    def rate(self, start: Start) -> float:
        """The largest learning rate where none is asked for."""
        return 1e-4 if start.trained else 1e-3

    def check(self, job: Job) -> None:
        """Refuse what makes no sense together, before anything is opened.

        Raises:
            UsageError: for settings that do not suit.
        """

    def materials(self, job: Job) -> dict[str, Any]:
        """What else must be the same for a run to go on: hashes of what is learnt from.

        Raises:
            UsageError, DataError, ModelError: for what cannot be used.
        """
        return {}

    def fitted(self, job: Job, start: Start, crop: tuple[int, int]) -> Recipe:
        """The recipe for this network and what a step sees; refuses before any work.

        Raises:
            UsageError, DataError: for what does not suit.
        """
        return self

    def prepared(self, work: Work) -> tuple[Recipe, Batches, tuple[str, ...]]:
        """Do what comes before the training.

        Returns:
            The recipe to be called, the batches, and what the user should know.

        Raises:
            UsageError, DataError, ModelError: where that cannot be done.
        """
        return self, work.batches, ()

    def keep(self, objective: Objective, folder: Path) -> None:
        """Write what belongs beside the network that has just been written."""


LogRow = dict[str, Any]
"""A line of the log: epoch, step, rate, loss, its terms, miou, seconds."""


@dataclass
class Reporter:
    """Who is told how it goes; by default nobody.

    Args:
        step: called with epoch, epochs, batches done, batches in all and the loss.
        epoch: called with the row of the log.
        member: called with the number of an ensemble's member, from 1, and of all, before it.
        teachers: called with the images that teachers have seen, and of all.
        flow: called with the steps of a flow's own training, of all, and bits per dimension.
        note: called before the training with what the user should know, sentence by sentence.
    """

    step: Callable[[int, int, int, int, float], None] = lambda *_: None
    epoch: Callable[[LogRow], None] = lambda _: None
    member: Callable[[int, int], None] = lambda *_: None
    teachers: Callable[[int, int], None] = lambda *_: None
    flow: Callable[[int, int, float], None] = lambda *_: None
    note: Callable[[str], None] = lambda _: None
