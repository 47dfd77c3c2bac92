"""What a batch costs where negatives are pasted into it: the objective of NFlowJS."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doubtmap.datasets import VOID
from doubtmap.training.flow import Flow
from doubtmap.training.known_patches import cut, places
from doubtmap.training.negatives import Source
from doubtmap.training.networks import Start
from doubtmap.training.objective import CrossEntropy, cross_entropy
from doubtmap.training.processes import ALONE, Processes
from doubtmap.training.uniformity import DIVERGENCES

FLOW = "flow."
"""How names of the flow's parameters begin."""


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
        flow_weight: of the divergence where it pulls at the flow; the published weight for both.
        flow: trained by likelihood, and by the divergence where its samples are negatives.
        flow_rate: its largest learning rate.
        frozen: leave the flow as it is.
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
        source: Source,
        sides: tuple[int, int],
        class_weights: Tensor | None = None,
        processes: Processes = ALONE,
        *,
        divergence: str = "jsd",
        weight: float = 1.0,
        flow_weight: float = 1.0,
        flow: Flow | None = None,
        flow_rate: float = 1e-4,
        frozen: bool = False,
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(start, class_weights, processes)
        self.flow, self.source, self.sides = flow, source, sides
        self.far, self.weight, self.pull = DIVERGENCES[divergence], weight, flow_weight / weight
        self.flow_rate, self.frozen, self.notes = flow_rate, frozen, notes
        if flow is not None:
            flow.requires_grad_(not frozen)

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """`{"cross_entropy": ..., "divergence": ..., "bits": ...}`, the second weighted."""
        size = drawn_size(self.sides)
        corners, clean = places(labels, size)
        content = cut(images, corners, size).detach()
        with torch.autocast(images.device.type, enabled=False):
            patches, shapes = self.source(content.float(), clean)
            patches = pulled(patches, self.pull)
        mixed, pasted = paste(images, patches, shapes, corners)
        logits = self.logits(mixed).float()
        if logits.shape[-2:] != labels.shape[-2:]:
            logits = F.interpolate(logits, labels.shape[-2:], mode="bilinear")
        known = labels.masked_fill(pasted, VOID)
        terms = {
            "cross_entropy": cross_entropy(logits, known, self.class_weights, self.processes),
            "divergence": self.weight * self._divergence(logits, pasted),
        }
        if self.flow is not None and not self.frozen:
            terms["bits"] = self._bits(self.flow, content, clean)
        return terms

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
        """The flow has a rate of its own."""
        return self.flow_rate if name.startswith(FLOW) else rate

    def decays(self, name: str) -> bool:
        """The flow's weights do not decay."""
        return not name.startswith(FLOW)

    def parts(self) -> list[list[nn.Parameter]]:
        """Network and flow, whose gradients have nothing to do with each other's length."""
        learning = self.flow is not None and not self.frozen
        both = [self.network, self.flow] if learning else [self.network]
        return [list(part.parameters()) for part in both if part is not None]


def pulled(patches: Tensor, factor: float) -> Tensor:
    """The same values, through which gradients pass times `factor`."""
    return patches.detach() + factor * (patches - patches.detach())


def drawn_size(sides: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a patch, each evenly among the multiples of 8 between two sides."""
    low, high = (side // 8 for side in sides)
    height, width = (8 * torch.randint(low, high + 1, (2,))).tolist()
    return height, width


def paste(
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
