"""What a batch costs where negatives are pasted into it: the objective of NFlowJS.

On negative pixels the distance of the prediction from the uniform distribution is made small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doubtmap.datasets import VOID
from doubtmap.models.distilled import NEGATIVE, Head, attach, said_by
from doubtmap.training.dudes import HEAD_RATE, classifier_of
from doubtmap.training.flow import Flow
from doubtmap.training.flow_training import cut, patch_corners
from doubtmap.training.negatives import PatchSource
from doubtmap.training.networks import Start
from doubtmap.training.optimizing import ALONE, Processes
from doubtmap.training.recipe import CrossEntropy, cross_entropy
from doubtmap.training.trust import TrustRegion, frozen_copy


def jensen_shannon(logits: Tensor) -> Tensor:
    """`(KL(u || m) + KL(p || m)) / 2` with `m = (u + p) / 2`, in [0, log 2).

    Bounded: a pixel on which the network is sure pulls less than one that is in doubt, which
    is what makes it robust to negatives that look like something known.

    Args:
        logits: `(N, C)`, of `p`.

    Returns:
        `(N,)`, in nats.

    Reference:
        Dense Out-of-Distribution Detection by Robust Learning on Synthetic Negative Data
        (Grcić et al., 2021), https://arxiv.org/abs/2112.12833
    """
    p, u = logits.log_softmax(1), -math.log(logits.shape[1])
    m = torch.logaddexp(p, torch.full_like(p, u)) - math.log(2)
    return 0.5 * (math.exp(u) * (u - m) + p.exp() * (p - m)).sum(1)


def uniform_to_prediction(logits: Tensor) -> Tensor:
    """`KL(u || p) = - log C - mean log p_c`, unbounded: one sure pixel can outweigh all others.

    Args:
        logits: `(N, C)`, of `p`.

    Returns:
        `(N,)`, in nats.

    Reference:
        Deep Anomaly Detection with Outlier Exposure (Hendrycks, Mazeika, Dietterich, 2018),
        https://arxiv.org/abs/1812.04606, up to a constant.
    """
    return -math.log(logits.shape[1]) - logits.log_softmax(1).mean(1)


def prediction_to_uniform(logits: Tensor) -> Tensor:
    """`KL(p || u) = log C - entropy`, in [0, log C].

    Args:
        logits: `(N, C)`, of `p`.

    Returns:
        `(N,)`, in nats.
    """
    p = logits.log_softmax(1)
    return math.log(logits.shape[1]) + (p.exp() * p).sum(1)


DIVERGENCES: dict[str, Callable[[Tensor], Tensor]] = {
    "jsd": jensen_shannon,
    "kl": uniform_to_prediction,
    "reverse-kl": prediction_to_uniform,
}
"""By the name that the command line gives."""


FLOW = "flow."
"""How names of the flow's parameters begin."""


@dataclass(frozen=True, eq=False)
class FlowLearning:
    """How a flow learns beside a network.

    Args:
        weight: of the divergence where it pulls at the flow; None: as for the network, published.
        rate: its largest learning rate.
        frozen: leave the flow as it is.
        region: that the flow is held in, by the source that draws from it; None: it goes as far as
            it likes, as published.
        past: filled with the flow as it is at the end of each epoch, for a source that draws from
            it; None: not.
    """

    weight: float | None = None
    rate: float = 1e-4
    frozen: bool = False
    region: TrustRegion | None = None
    past: list[Flow] | None = None


class NegativeLearning(CrossEntropy):
    """Cross entropy of known pixels, uniform predictions on pasted ones, the flow's likelihood.

    In every image one patch is replaced by a negative, before normalisation and without blending.
    The terms are `cross_entropy` over pixels that are neither void nor pasted, `divergence`,
    `weight` times the mean divergence to uniform over pasted pixels, and for a flow that learns
    `bits`, the bits per dimension of the content that the patches replaced.

    Args:
        start, class_weights, processes: as `CrossEntropy`.
        source: of the negatives.
        sides: smallest and largest side of patches in pixels, both divisible by 8.
        divergence: one of `DIVERGENCES`.
        weight: of the divergence.
        flow: trained by likelihood, and by the divergence where its samples are negatives.
        learning: how it is.
        negative_class: teach a second head the logit of one more class, which pasted pixels have.
        notes: what the user should know.

    Reference:
        Dense Out-of-Distribution Detection by Robust Learning on Synthetic Negative Data
        (Grcić et al., 2021), https://arxiv.org/abs/2112.12833. Departures: of a few places the
        one with the least void is taken, and content with void is no likelihood's business, so
        that the flow never learns held-out classes; one optimiser with a rate of the flow's own.
    """

    def __init__(
        self,
        start: Start,
        source: PatchSource,
        sides: tuple[int, int],
        class_weights: Tensor | None = None,
        processes: Processes = ALONE,
        *,
        divergence: str = "jsd",
        weight: float = 1.0,
        flow: Flow | None = None,
        learning: FlowLearning | None = None,
        negative_class: bool = False,
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(start, class_weights, processes)
        learning = learning or FlowLearning()
        self.flow, self.source, self.sides, self.past = flow, source, sides, learning.past
        self.far, self.weight = DIVERGENCES[divergence], weight
        self.pull = 1.0 if learning.weight is None else learning.weight / weight
        self.flow_rate, self.frozen, self.notes = learning.rate, learning.frozen, notes
        self.negative_class, self.mine, self.align_corners = negative_class, "", False
        if negative_class:
            self.mine, self.align_corners = with_negative_class(start)
        self.region = learning.region
        if flow is not None:
            flow.requires_grad_(not self.frozen)

    def begin(self, epoch: int) -> None:
        """Keep what the flow has become, where the source draws from that, too."""
        if epoch and self.past is not None and self.held is not None:
            self.past.append(frozen_copy(self.held))

    @property
    def held(self) -> Flow | None:
        """The flow as it last was inside its region; without one, as it is."""
        return self.flow if self.region is None else self.region.last

    def stepped_by(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the region take moments back, too."""
        if self.region is not None:
            self.region.optimizer = optimizer

    def before_step(self) -> None:
        """Leave the flow's step out where its gradient is not finite and a region holds it."""
        if self.region is None or self.flow is None:
            return
        gradients = [part.grad for part in self.flow.parameters() if part.grad is not None]
        if not all(bool(gradient.isfinite().all()) for gradient in gradients):
            self.flow.zero_grad(set_to_none=True)
            self.region.steps_back += 1

    def get_extra_state(self) -> list[dict[str, Tensor]]:
        """What the flow was after each epoch."""
        return [flow.state_dict() for flow in self.past or ()]

    def set_extra_state(self, state: list[dict[str, Tensor]]) -> None:
        """Have the flow's past from a checkpoint."""
        if self.past is not None and self.flow is not None:
            self.past[:] = [frozen_copy(self.flow) for _ in state]
            for flow, weights in zip(self.past, state):
                flow.load_state_dict(weights)

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """`{"cross_entropy": ..., "divergence": ..., "bits": ...}`, the second weighted."""
        size = drawn_size(self.sides)
        corners, clean = patch_corners(labels, size)
        content = cut(images, corners, size).detach()
        with torch.autocast(images.device.type, enabled=False):
            patches, shapes = self.source(content.float(), clean)
            patches = pulled(patches, self.pull)
        mixed, pasted = paste_patches(images, patches, shapes, corners)
        outputs = resized(self._outputs(mixed), labels.shape[-2:])
        logits, weights = outputs[:, : len(self.class_names)], self.class_weights
        if self.negative_class and weights is not None:
            weights = torch.cat([weights, weights.new_ones(1)])
        known = labels.masked_fill(pasted, logits.shape[1] if self.negative_class else VOID)
        terms = {
            "cross_entropy": cross_entropy(outputs, known, weights, self.processes),
            "divergence": self.weight * self._divergence(logits, pasted),
        }
        if self.flow is not None and not self.frozen:
            terms["bits"] = self._bits(self.flow, content, clean)
        return terms

    def _outputs(self, images: Tensor) -> Tensor:
        """`(B, C, h, w)` logits of the classes, or `(B, C + 1, h, w)` with that of negatives."""
        if not self.negative_class:
            return self.logits(images)
        with said_by(self.network) as said:
            logits = self.logits(images)
        head = resized(said[-1], logits.shape[-2:], self.align_corners)
        return torch.cat([logits.float(), head], 1)

    def _divergence(self, logits: Tensor, pasted: Tensor) -> Tensor:
        """The mean over the pasted pixels of all processes."""
        far = self.far(logits.movedim(1, -1)[pasted])
        amount = self.processes.total(pasted.sum().float()) / self.processes.count
        return far.sum() / amount.clamp(min=1 / self.processes.count)

    def _bits(self, flow: Flow, content: Tensor, clean: Tensor) -> Tensor:
        """The mean over the patches of all processes that are without void; 0 without any."""
        with torch.autocast(content.device.type, enabled=False):
            bits = flow.bits(content.float())
        amount = self.processes.total(clean.sum().float()) / self.processes.count
        return bits.where(clean, 0 * bits).sum() / amount.clamp(min=1 / self.processes.count)

    def rate_of(self, name: str, rate: float) -> float:
        """The flow has a rate of its own, and a head that starts from nothing, too."""
        if self.negative_class and name.startswith(self.mine):
            return HEAD_RATE[False]
        return self.flow_rate if name.startswith(FLOW) else rate

    def decays(self, name: str) -> bool:
        """The flow's weights do not decay."""
        return not name.startswith(FLOW)

    def parts(self) -> list[list[nn.Parameter]]:
        """Network and flow, whose gradients have nothing to do with each other's length."""
        learning = self.flow is not None and not self.frozen
        both = [self.network, self.flow] if learning else [self.network]
        return [list(part.parameters()) for part in both if part is not None]


def with_negative_class(start: Start) -> tuple[str, bool]:
    """Put the head of one more class beside the classifier.

    Returns:
        How names of its parameters begin, and how it is resized: by corners or not.

    Raises:
        ModelError: for a network whose classifier cannot be found.
    """
    without = "leave --negative-class out"
    classifier, channels, align_corners = classifier_of(start, "nflowjs", without)
    head = Head(classifier, channels, says=NEGATIVE)
    attach(start.network, head)
    return f"network.{head.layer}.", align_corners


def resized(logits: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """`(B, C, h, w)` float32 at another height and width, bilinear."""
    logits = logits.float()
    if [*logits.shape[-2:]] == [*size]:
        return logits
    return F.interpolate(logits, [*size], mode="bilinear", align_corners=align_corners)


def pulled(patches: Tensor, factor: float) -> Tensor:
    """The same values, through which gradients pass times `factor`."""
    return patches.detach() + factor * (patches - patches.detach())


def drawn_size(sides: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a patch, each evenly among the multiples of 8 between two sides."""
    low, high = (side // 8 for side in sides)
    height, width = (8 * torch.randint(low, high + 1, (2,))).tolist()
    return height, width


def paste_patches(
    images: Tensor, patches: Tensor, shapes: Tensor, corners: Tensor
) -> tuple[Tensor, Tensor]:
    """Put a patch into every image, hard, differentiable by the patches.

    Args:
        images: `(B, 3, H, W)` in [0, 1].
        patches: `(B, 3, h, w)` in [0, 1].
        shapes: `(B, h, w)` bool, the patch's pixels that are pasted.
        corners: `(B, 2)`, top and left.

    Returns:
        `(B, 3, H, W)`, and `(B, H, W)` bool, the pasted pixels.
    """
    mixed, pasted = images.clone(), torch.zeros_like(images[:, 0], dtype=torch.bool)
    height, width = shapes.shape[-2:]
    for number, (top, left) in enumerate(corners.tolist()):
        window = (slice(top, top + height), slice(left, left + width))
        old, shape = images[(number, slice(None), *window)], shapes[number]
        mixed[(number, slice(None), *window)] = patches[number].to(images).where(shape, old)
        pasted[(number, *window)] = shape
    return mixed, pasted
