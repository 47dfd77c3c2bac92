"""One process or several that train together, started by `torchrun`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Args:
        rank: number of this one.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def total(self, x: Tensor) -> Tensor:
        """The sum of `x` over the processes, without gradient."""
        if self.count == 1:
            return x.detach()
        summed = x.detach().clone()
        dist.all_reduce(summed)
        return summed

    def agree(self, model: nn.Module) -> None:
        """Give all processes the first one's buffers, such as running statistics."""
        for part in model.buffers() if self.count > 1 else ():
            dist.broadcast(part, 0)

    def wait(self) -> None:
        """Go on once all are here."""
        if self.count > 1:
            dist.barrier()

    def together(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model with gradients averaged over the processes."""
        if self.count == 1:
            return model
        ids = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, ids)


ALONE = Processes()
"""A process that trains by itself."""


def is_first() -> bool:
    """Whether this is the process that speaks to the user, as `torchrun` numbers them."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Processes, torch.device]]:
    """Join the processes that `torchrun` started, if it did; yields them and this one's device."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or not dist.is_available():
        yield ALONE, device
        return
    if str(device) == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()
