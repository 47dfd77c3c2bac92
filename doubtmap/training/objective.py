"""What a batch costs and what is deployed: the module that the loop trains.

The loop (`fit.py`) knows no more than `Objective`, so that another recipe is another file.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doubtmap.errors import ModelError
from doubtmap.models.outputs import form_of, unwrap
from doubtmap.training.networks import Start
from doubtmap.training.processes import ALONE, Processes


class Objective(nn.Module):
    """What is trained: all parameters and buffers of this module.

    `objective(images, labels)` gives the terms of a batch's loss, `objective.deployed()` the
    network that is validated and written. `notes` are what the user should know of it.
    """

    notes: tuple[str, ...] = ()

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms of the loss by name, scalars, which are added up.

        Args:
            images: `(B, 3, H, W)` RGB in [0, 1], not yet normalised; further channels are what
                the recipe made them carry.
            labels: `(B, H, W)` int64, a class, or below 0 where void.
        """
        raise NotImplementedError

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
        output = unwrap(self.network((images - self.mean) / self.std))
        if not self._checked:
            scores, classes = output.scores, len(self.class_names)
            if scores.shape[1] != classes:
                raise ModelError(
                    f"train: expected a network with {classes} outputs, one for each of "
                    f"{', '.join(self.class_names)}, got {scores.shape[1]}. Change the network, or "
                    f"hold classes out."
                )
            if (form := form_of(output)) != "logits":
                raise ModelError(
                    f"train: expected a network that returns logits, got {form}. Return its scores "
                    f"before softmax."
                )
            self._checked = True
        return output.scores

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
