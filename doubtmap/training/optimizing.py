"""What a step of training needs: optimiser, precision, and foreseeable failures in our words.

One process steps alone, or several that `torchrun` started step together.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from doubtmap.errors import ModelError, first_line
from doubtmap.training.settings import Settings, rate_factor

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def optimizer_of(model: nn.Module, settings: Settings, rate: float) -> torch.optim.Optimizer:
    """The optimiser, with weight decay on weights of two and more axes only.

    A model with a method `rate_of(name, rate)` says which parameters learn faster than others, one
    with `decays(name)` which ones have weight decay.
    """
    rate_of: Callable[[str, float], float] = getattr(model, "rate_of", lambda _, rate: rate)
    decays: Callable[[str], bool] = getattr(model, "decays", lambda _: True)
    parts: dict[tuple[float, bool], list[Tensor]] = {}
    for name, part in model.named_parameters():
        if part.requires_grad:
            decaying = part.ndim > 1 and decays(name)
            parts.setdefault((rate_of(name, rate) / rate, decaying), []).append(part)
    groups: list[dict[str, Any]] = [
        {"params": some, "weight_decay": settings.weight_decay * decaying, "factor": factor}
        for (factor, decaying), some in parts.items()
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, rate, momentum=0.9)
    return torch.optim.AdamW(groups, rate)


def clip(parts: Sequence[Iterable[nn.Parameter]], longest: float) -> Tensor:
    """Shorten the gradient of each part to at most `longest`, 0 for any, apart from the others.

    Returns:
        `()`, the largest length before; not finite where one is not.
    """
    lengths = [nn.utils.clip_grad_norm_(part, longest or math.inf) for part in parts]
    return torch.stack([length.to(lengths[0].device) for length in lengths]).max()


def set_rate(
    optimizer: torch.optim.Optimizer, settings: Settings, rate: float, step: int, steps: int
) -> float:
    """Give the optimiser the learning rate of a step, and return it."""
    current = rate * rate_factor(step, steps, settings.schedule, settings.warmup)
    for group in optimizer.param_groups:
        group["lr"] = current * group.get("factor", 1.0)
    return current


def precision_of(name: str, device: torch.device) -> torch.dtype:
    """The type that most layers compute in.

    Raises:
        ModelError: for float16 on a device that lacks it.
    """
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if name == "float16" and device.type == "cpu":
        raise ModelError(
            "train: expected a GPU for float16, got the CPU. Use --precision float32 or bfloat16."
        )
    return TYPES[name]


@contextmanager
def in_our_words(images: Tensor) -> Iterator[None]:
    """Translate what may be foreseen to go wrong with a batch while the block lasts.

    Raises:
        ModelError: for a network that refuses the batch.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise ModelError(
            f"train: expected a batch of {_size(images)} to fit the device's memory, but it does "
            f"not. Lower --batch or --crop."
        ) from error
    except (RuntimeError, ValueError) as error:
        raise ModelError(_refused(images, error)) from error


def _refused(images: Tensor, error: Exception) -> str:
    if "more than 1 value per channel" in str(error):
        return (
            "train: expected batches that batch norm can take statistics of, but a layer saw one "
            "value per channel. Give --batch at least 2 images per process."
        )
    if "finished reduction" in str(error):
        return (
            "train: expected every parameter of the network to take part in the loss, as several "
            "processes need it, but some do not. Freeze those with requires_grad_(False), or train "
            "in one process."
        )
    return (
        f"train: expected the network to take {_size(images)}, but it raised "
        f"{type(error).__name__}: {first_line(error)}. Try another --crop, such as a multiple of "
        f"32."
    )


def _size(images: Tensor) -> str:
    return f"{len(images)} images of {images.shape[-2]}x{images.shape[-1]} pixels"


def check_finite(value: float, epoch: int, what: str) -> None:
    """Stop where training has diverged.

    Args:
        value: what must be finite.
        epoch: epochs that are done.
        what: its name.

    Raises:
        ModelError: where it is not.
    """
    if math.isfinite(value):
        return
    kept = f"the checkpoint of epoch {epoch} is kept" if epoch else "there is no checkpoint yet"
    raise ModelError(
        f"train: expected a finite {what}, got {value} in epoch {epoch + 1}; {kept}. Lower --rate, "
        f"beside a flow --flow-rate too, and train anew in another --out."
    )


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
