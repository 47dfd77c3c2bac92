"""How far a flow may go beside a network: a trust region around what it was at the start."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from doubtmap.training.flow import Flow
from doubtmap.training.optimizing import ALONE, Processes


def frozen_copy(flow: Flow) -> Flow:
    """The flow as it is now, which learns no more."""
    return copy.deepcopy(flow).requires_grad_(False)


class TrustRegion(nn.Module):
    """How far a flow may go from what it was: what it draws for a step decides.

    A patch lies beyond where the flow of the start needs more bits per dimension for it, above
    those that it needs for its own of the same latent values, than the region is wide. A flow that
    draws such a patch, of whatever size, becomes what it last was inside, with the optimiser's
    moments of then; where that draws one for this step, too, it goes half of the way back to the
    start, and again. So no patch beyond is ever handed on.

    Args:
        flow: as it is at the start.
        width: of the region, in bits per dimension.
        processes: those that share a batch; what one of them draws decides for all.

    Reference:
        Trust Region Policy Optimization (Schulman et al., 2015), https://arxiv.org/abs/1502.05477,
        whose line search goes half of the way back where a step leaves a region of divergence, too.
        Departure: each patch counts, not their mean.
    """

    HALVINGS = 8
    """How often a flow goes half of the way before it becomes what it was at the start."""
    steps_back: Tensor
    optimizer: torch.optim.Optimizer | None = None

    def __init__(self, flow: Flow, width: float, processes: Processes = ALONE) -> None:
        super().__init__()
        self.start, self.last = frozen_copy(flow), frozen_copy(flow)
        self.width, self.processes = width, processes
        self.moments: list[dict[str, Tensor]] = []
        self.register_buffer("steps_back", torch.zeros((), dtype=torch.int64))

    def get_extra_state(self) -> list[dict[str, Tensor]]:
        """The optimiser's moments of the last flow inside."""
        return self.moments

    def set_extra_state(self, state: list[dict[str, Tensor]]) -> None:
        """Have them from a checkpoint."""
        self.moments = state

    def drawn(self, flow: Flow, latents: list[Tensor]) -> Tensor:
        """Patches of a flow, brought back first where these would lie beyond the region.

        Args:
            flow: the one that learns, or a frozen one that it was.
            latents: of the patches, as `Flow.noise` draws them; all processes come here together.

        Returns:
            `(B, 3, h, w)`, none of which lies beyond; gradients reach the flow's weights.
        """
        own, patches = self._bits(self.start.drawn(latents)), flow.drawn(latents)
        learning = next(flow.parameters()).requires_grad
        if not self._inside(patches, own):
            self.steps_back += 1
            if learning:
                self._take_back(flow)
            patches = self._halfway(flow, latents, own)
        if learning:
            self._remember(flow)
        return patches

    def distance(self, flow: Flow, side: int, count: int = 8) -> float:
        """The mean over some patches of a size, always the same latent values, in bits."""
        latents = flow.noise(count, (side, side), torch.Generator().manual_seed(0))
        own, far = (self._bits(one.drawn(latents)) for one in (self.start, flow))
        return (far - own).mean().item()

    @torch.no_grad()
    def _bits(self, patches: Tensor) -> Tensor:
        """`(B,)`, what the start needs for patches; the same noise on all."""
        if not len(patches):
            return patches.new_empty(0)
        return self.start.bits(patches, torch.Generator().manual_seed(1))

    def _inside(self, patches: Tensor, own: Tensor) -> bool:
        """Whether no process has drawn a patch beyond, or one that is not finite."""
        beyond = ~(self._bits(patches) - own <= self.width)
        return not bool(self.processes.total(beyond.sum()) > 0)

    def _halfway(self, flow: Flow, latents: list[Tensor], own: Tensor) -> Tensor:
        """Bring a flow towards the start until none of its patches lies beyond, and draw these."""
        for _ in range(self.HALVINGS):
            patches = flow.drawn(latents)
            if self._inside(patches, own):
                return patches
            with torch.no_grad():
                for part, start in zip(flow.parameters(), self.start.parameters()):
                    part.lerp_(start, 0.5)
        flow.load_state_dict(self.start.state_dict())
        return flow.drawn(latents)

    def _remember(self, flow: Flow) -> None:
        """Keep the flow and its moments as they are."""
        self.last.load_state_dict(flow.state_dict())
        state = {} if self.optimizer is None else self.optimizer.state
        self.moments = [
            {name: value.detach().clone() for name, value in state.get(part, {}).items()}
            for part in flow.parameters()
        ]

    def _take_back(self, flow: Flow) -> None:
        """Make flow and moments what they last were inside."""
        flow.load_state_dict(self.last.state_dict())
        if self.optimizer is not None:
            for part, moments in zip(flow.parameters(), self.moments):
                self.optimizer.state[part] = {name: kept.clone() for name, kept in moments.items()}
