"""NFlowJS: robust learning on synthetic negatives, and its predecessors, as one recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from doubtmap.errors import UsageError
from doubtmap.training.batches import Batches
from doubtmap.training.flow import Flow
from doubtmap.training.flow_file import read_flow, write_flow
from doubtmap.training.flow_fit import FlowTraining, pretrain
from doubtmap.training.negative_learning import NegativeLearning
from doubtmap.training.negatives import open_source, parse_negatives
from doubtmap.training.networks import Start
from doubtmap.training.objective import CrossEntropy, Objective
from doubtmap.training.processes import Processes
from doubtmap.training.settings import Settings
from doubtmap.training.uniformity import DIVERGENCES

SMALLEST, SHARE = 16, 0.28
"""Default sides of patches: from the first, in pixels, to that share of the crop's shorter side."""
SIDE = 64
"""Of the patches that a flow is pre-trained on, where negatives can be as large."""


@dataclass(frozen=True)
class NFlowJS:
    """A network that is taught to be uniform on pasted negatives; the flow learns with it.

    Args:
        negatives: `flow`, `real:FOLDER`, `noise`, `shuffled`, several separated by commas, or
            `none`, which is the recipe `plain`.
        divergence: what is made small on pasted pixels: `jsd`, as published, `kl` (uniform to
            prediction, as outlier exposure has it) or `reverse-kl`.
        weight: of the divergence; published: 0.03.
        flow: file of a trained flow; None: one is trained first, on the same images.
        freeze_flow: leave the flow as it is while the network learns.
        patch: smallest and largest side of patches, divisible by 8; None: 16 to 0.28 of the
            crop's shorter side.
        flow_steps: of the flow's own training.
        flow_rate: the flow's largest learning rate beside the network.

    Raises:
        UsageError: for values that make no sense.

    Reference:
        Dense Out-of-Distribution Detection by Robust Learning on Synthetic Negative Data
        (Grcić et al., 2021), https://arxiv.org/abs/2112.12833. Departure: a weight of 1,
        since in the few epochs that a CPU can train 0.03 moves nothing (docs/nflowjs.md).
    """

    negatives: str = "flow"
    divergence: str = "jsd"
    weight: float = 1.0
    flow: str | Path | None = None
    freeze_flow: bool = False
    patch: tuple[int, int] | None = None
    flow_steps: int = 2000
    flow_rate: float = 1e-4
    name: str = "nflowjs"

    def __post_init__(self) -> None:
        if self.divergence not in DIVERGENCES:
            raise UsageError(
                f"--divergence: expected one of {', '.join(DIVERGENCES)}, got {self.divergence}."
            )
        for option, value in (
            ("--divergence-weight", self.weight),
            ("--flow-rate", self.flow_rate),
        ):
            if not 0 < value < float("inf"):
                raise UsageError(f"{option}: expected a finite number above 0, got {value}.")
        if self.flow_steps < 1:
            raise UsageError(f"--flow-steps: expected at least 1, got {self.flow_steps}.")
        if not self.has_flow and (self.flow is not None or self.freeze_flow):
            raise UsageError(
                f"--flow, --freeze-flow: expected negatives of a flow, got {self.negatives}. Give "
                f"--negatives flow, or leave them out."
            )
        if self.patch is not None:
            check_patch(self.patch)

    @property
    def has_flow(self) -> bool:
        """Whether a flow's samples are among the negatives."""
        return "flow" in parse_negatives(self.negatives)

    def __call__(
        self, start: Start, class_weights: Tensor | None, processes: Processes
    ) -> Objective:
        """What is trained; `prepared` has seen to the flow and to the patches' sizes.

        Raises:
            DataError: for a flow or a folder that cannot be used.
        """
        kinds = parse_negatives(self.negatives)
        if not kinds:
            return CrossEntropy(start, class_weights, processes)
        flow = read_flow(self.flow)[0] if self.has_flow and self.flow is not None else None
        source, notes = open_source(kinds, flow, start.class_names)
        return NegativeLearning(
            start,
            source,
            self.patch or (SMALLEST, SMALLEST),
            class_weights,
            processes,
            divergence=self.divergence,
            weight=self.weight,
            flow=flow,
            flow_rate=self.flow_rate,
            frozen=self.freeze_flow,
            notes=(*self._about_flow(), *notes),
        )

    def prepared(
        self,
        batches: Batches,
        settings: Settings,
        folder: Path,
        device: torch.device,
        processes: Processes,
        told: Callable[[int, int, float], None] = lambda *_: None,
        *,
        resume: bool = False,
    ) -> NFlowJS:
        """The recipe with sizes that fit the crop, and with a flow, trained first if need be.

        Args:
            batches: of the training, whose views the flow learns from.
            settings: of the training.
            folder: where the flow's files are written.
            device: where to compute.
            processes: each trains the flow for itself; the first one's is taken.
            told: called with steps done, all steps and bits per dimension.
            resume: go on with what lies in the folder; otherwise it is of another run, and removed.

        Raises:
            UsageError: for patches larger than the crop, or an optimiser that does not suit.
            DataError, ModelError: as `pretrain`.
        """
        if self.has_flow and not self.freeze_flow and settings.optimizer != "adamw":
            raise UsageError(
                f"--optimizer: expected adamw, with which a flow learns, got {settings.optimizer}. "
                f"Give --freeze-flow, or --optimizer adamw."
            )
        recipe = replace(self, patch=fitted_patch(self.patch, batches.crop))
        if not self.has_flow or self.flow is not None:
            return recipe
        assert recipe.patch is not None
        path, side = folder / "flow.safetensors", min(SIDE, recipe.patch[1])
        how = FlowTraining(self.flow_steps, side=side, seed=settings.seed)
        if processes.first and not resume:
            for left in (path, path.with_suffix(".pt")):
                left.unlink(missing_ok=True)
        processes.wait()
        pretrain(batches, how, path, device=device, writes=processes.first, told=told)
        processes.wait()
        return replace(recipe, flow=path)

    def _about_flow(self) -> tuple[str, ...]:
        """What the flow's file says of its fit."""
        if not self.has_flow or self.flow is None:
            return ()
        bits = read_flow(self.flow)[1].get("bits")
        if bits is None:
            return ()
        return (f"The flow {self.flow} needs {bits:.3f} bits per dimension on held-out patches.",)


def check_patch(patch: tuple[int, int]) -> None:
    """Refuse sides that make no sense.

    Raises:
        UsageError: for others than two multiples of 8 of at least 8, the first not larger.
    """
    low, high = patch
    if low < 8 or low % 8 or high % 8 or high < low:
        raise UsageError(
            f"--patch: expected MIN-MAX, both multiples of 8 such as 16-80, got {low}-{high}."
        )


def fitted_patch(patch: tuple[int, int] | None, crop: tuple[int, int]) -> tuple[int, int]:
    """The sides of patches for a crop: those asked for, or the default.

    Raises:
        UsageError: for patches that the crop cannot hold.

    Example:
        >>> fitted_patch(None, (288, 384))
        (16, 80)
    """
    most = min(crop)
    low, high = patch or (SMALLEST, max(SMALLEST, int(SHARE * most) // 8 * 8))
    if high > most:
        raise UsageError(
            f"--patch: expected patches that fit into the crop of {crop[0]}x{crop[1]} pixels, got "
            f"sides of {low} to {high}. Give --patch MIN-MAX with at most {most // 8 * 8}, or a "
            f"larger --crop."
        )
    return low, high


def keep_flow(objective: Objective, folder: Path) -> None:
    """Write the flow that learnt beside a network, as it is now."""
    flow: Flow | None = getattr(objective, "flow", None)
    if isinstance(objective, NegativeLearning) and flow is not None and not objective.frozen:
        write_flow(folder / "flow-joint.safetensors", flow)
