"""DUDES: one network learns, beside its task, what several teachers disagree about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.errors import ModelError, UsageError
from doubtmap.kernels import resize
from doubtmap.models import load
from doubtmap.models.distilled import Head, attach, said_by
from doubtmap.prediction import listening_to
from doubtmap.training.networks import Start
from doubtmap.training.optimizing import ALONE, Processes
from doubtmap.training.recipe import CrossEntropy, cross_entropy

PROBE = 128
"""Side, in pixels, of the image on which the classifier is looked for."""
HEAD_RATE = {False: 0.02, True: 0.006}
"""Largest learning rate of a head, without and with a hidden layer, beside any network's."""
KL_WEIGHT = 10.0
TINY = 1e-8

TeacherOutput = Callable[[Tensor], Tensor]
"""Images `(B, 3, H, W)` in [0, 1] to targets `(B, K, H, W)`."""


class Distilling(CrossEntropy):
    """Cross entropy, plus a term for what the teachers say.

    Images may carry the targets as further channels, NaN where there are none; where they carry
    none, the teachers are asked about the very crop.

    Args:
        start: the student, which is trained in place.
        teachers: asked on line; None where all images carry their targets.
        class_weights, processes: as `CrossEntropy`.
        mask_void: whether pixels without a label are left out of the teachers' term too.
    """

    def __init__(
        self,
        start: Start,
        teachers: TeacherOutput | None,
        class_weights: Tensor | None = None,
        processes: Processes = ALONE,
        *,
        mask_void: bool = False,
    ) -> None:
        super().__init__(start, class_weights, processes)
        self.teachers, self.mask_void = teachers, mask_void

    def target(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Targets `(B, K, H, W)`, and which pixels `(B, H, W)` have one that counts.

        Raises:
            UsageError: for images without targets where there is nobody to ask.
        """
        target = images[:, 3:]
        if not target.shape[1]:
            if self.teachers is None:
                raise UsageError(
                    "dudes: expected images that carry what the teachers said of them, got plain "
                    "ones. Train without a cache, or let the batches carry it."
                )
            target = self.teachers(images)
        counts = torch.isfinite(target).all(1)
        if self.mask_void:
            counts = counts & (labels >= 0)
        return target.masked_fill(~counts[:, None], 0.0), counts


class SecondHead(Distilling):
    """Cross entropy plus the root mean squared log error of a second head, trained jointly.

    Args:
        start, teachers, class_weights, processes, mask_void: as `Distilling`.
        hidden: channels of a hidden layer of the head; 0: none, as published.
        frozen: train the head alone; the network stays as it is, batch norm's statistics too.
        about: what a reader of the head's file should know.
        layers: inner layers that the hidden layer hears too; published: none.

    Raises:
        UsageError: for a layer that the network has not.
        ModelError: for a network whose classifier cannot be found, or a layer without maps.

    Reference:
        DUDES: Deep Uncertainty Distillation using Ensembles for Semantic Segmentation (Landgraf
        et al., 2024), https://arxiv.org/abs/2303.09843. Departures: the head starts at 0.05
        instead of one half; it has a learning rate of its own, 0.02 (0.006 with a hidden layer),
        not ten times that of the encoder, with which it is far from converged after a few epochs; a
        small number keeps the root differentiable at zero error.
    """

    def __init__(
        self,
        start: Start,
        teachers: TeacherOutput | None,
        class_weights: Tensor | None = None,
        processes: Processes = ALONE,
        *,
        mask_void: bool = False,
        hidden: int = 0,
        frozen: bool = False,
        about: dict[str, Any] | None = None,
        layers: Sequence[str] = (),
    ) -> None:
        super().__init__(start, teachers, class_weights, processes, mask_void=mask_void)
        classifier, channels, self.align_corners = classifier_of(start)
        self.frozen, self.rate = frozen, HEAD_RATE[hidden > 0]
        if frozen:
            self.network.requires_grad_(False)
        head = Head(classifier, channels, hidden, about, layer_channels(start, layers))
        self.mine = f"network.{head.layer}."
        attach(self.network, head)

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """`{"cross_entropy": ..., "log_error": ...}`; frozen, the second alone."""
        target, counts = self.target(images, labels)
        with said_by(self.network) as said:
            logits = self.logits(images[:, :3])
        size = (labels.shape[-2], labels.shape[-1])
        guess = resize(said[-1].float(), size, None, self.align_corners).sigmoid()
        error = log_error(guess[:, 0], target[:, 0], counts, self.processes)
        if self.frozen:
            return {"log_error": error}
        loss = cross_entropy(logits, labels, self.class_weights, self.processes)
        return {"cross_entropy": loss, "log_error": error}

    def train(self, mode: bool = True) -> SecondHead:
        """Switch to training; a frozen network stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        return self

    def rate_of(self, name: str, rate: float) -> float:
        """A head beside the network starts from nothing and learns faster; alone, at `rate`."""
        return self.rate if name.startswith(self.mine) and not self.frozen else rate


class MeanProbability(Distilling):
    """Cross entropy plus ten times the divergence to the teachers' mean; there is no second head.

    The student's softmax entropy is its uncertainty.

    Reference:
        Efficient Multi-task Uncertainties for Joint Semantic Segmentation and Monocular Depth
        Estimation (Landgraf, Hillemann, Kapler, Ulrich, 2024), https://arxiv.org/abs/2402.10580:
        the segmentation's terms. Departure: its direction could not be read; it is
        KL(teachers || student).
    """

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """`{"cross_entropy": ..., "divergence": ...}`, in nats, the second weighted."""
        target, counts = self.target(images, labels)
        logits = self.logits(images[:, :3])
        loss = cross_entropy(logits, labels, self.class_weights, self.processes)
        far = distillation_loss(logits, target, counts, self.processes)
        return {"cross_entropy": loss, "divergence": KL_WEIGHT * far}


def classifier_of(
    start: Start, asked: str = "dudes", instead: str = "--target mean"
) -> tuple[str, int, bool]:
    """Name of the classifier, the channels that it sees, and how its output is resized.

    Args:
        start: the network.
        asked: which recipe wants a head beside it.
        instead: what that recipe offers a network without.

    Raises:
        ModelError: where it cannot be found.
    """
    segmenter = load(start.network, classes=start.class_names, mean=start.mean, std=start.std)
    segmenter(_noise())
    about = segmenter.description
    layer: Any = start.network.get_submodule(str(about["classifier"] or ""))
    if about["classifier"] is None or set(getattr(layer, "kernel_size", (1,))) != {1}:
        raise ModelError(
            f"{asked}: expected a network with a 1x1 convolution as classifier, on whose features "
            f"a second head can stand, found none. Use another network, or {instead}."
        )
    return str(about["classifier"]), int(layer.in_channels), bool(about["align_corners"])


def layer_channels(start: Start, layers: Sequence[str]) -> dict[str, int]:
    """Channels of what inner layers say, by name.

    Raises:
        UsageError: for a layer that the network has not.
        ModelError: for one that gives no maps.
    """
    segmenter = load(start.network, classes=start.class_names, mean=start.mean, std=start.std)
    said = listening_to(segmenter, layers)(_noise()).layers if layers else {}
    return {name: said[name].shape[1] for name in layers}


def _noise() -> Tensor:
    return torch.rand(1, 3, PROBE, PROBE, generator=torch.Generator().manual_seed(0))


def log_error(
    guess: Tensor, target: Tensor, counts: Tensor, processes: Processes = ALONE
) -> Tensor:
    """`sqrt(mean (log(1 + s) - log(1 + t))^2 + 1e-8)` over the pixels that count.

    The mean is over the batch of all processes. The small number makes the gradient 0 at zero
    error, where the root alone has none; a batch without such pixels costs 1e-4, without gradient.

    Args:
        guess: `s`, `(B, H, W)` in [0, 1].
        target: `t`, likewise.
        counts: `(B, H, W)` bool.
        processes: those that share a batch; the mean of their losses is the loss of the batch.

    Returns:
        A scalar.
    """
    squares = ((torch.log1p(guess) - torch.log1p(target)) ** 2)[counts].sum()
    amount = processes.total(counts.sum()).clamp(min=1)
    everyone = processes.total(squares) + (squares - squares.detach())
    loss = (everyone / amount + TINY).sqrt()
    return loss.detach() + processes.count * (loss - loss.detach())


def distillation_loss(
    logits: Tensor, target: Tensor, counts: Tensor, processes: Processes = ALONE
) -> Tensor:
    """`mean sum_c t_c (log t_c - log q_c)` over the pixels that count, in nats.

    Args:
        logits: `(B, C, h, w)`, of `q`; resized to the target, bilinear.
        target: `t`, `(B, C, H, W)` of at least 0; divided by its sum over the classes.
        counts: `(B, H, W)` bool.
        processes: those that share a batch; the mean of their losses is the loss of the batch.

    Returns:
        A scalar of at least 0.
    """
    logits = logits.float()
    if logits.shape[-2:] != target.shape[-2:]:
        logits = F.interpolate(logits, target.shape[-2:], mode="bilinear")
    target = target / target.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    far = (torch.xlogy(target, target) - target * logits.log_softmax(1)).sum(1)
    amount = processes.total(counts.sum()).clamp(min=1) / processes.count
    return far[counts].sum() / amount
