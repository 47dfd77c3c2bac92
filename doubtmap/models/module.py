"""Running an `nn.Module`, with hooks on the convolutions that are listened to."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from doubtmap.models.backend import Tap


class ModuleBackend:
    """A network as PyTorch has it.

    Hooks live only while a run lasts, so that the user's module stays as it was, but for being in
    evaluation mode.

    Args:
        module: any network that takes one tensor `(B, 3, H, W)`.
        device: where to move it; default: where its weights are.
    """

    fixed_size: tuple[int, int] | None = None
    fixed_batch: int | None = None

    def __init__(self, module: nn.Module, device: torch.device | str | None = None) -> None:
        self.module = module if device is None else module.to(device)
        self.module.eval()
        tensors = chain(module.parameters(), module.buffers())
        weight = next((t for t in tensors if t.is_floating_point()), torch.zeros(()))
        self.device = weight.device if device is None else torch.device(device)
        self.dtype = weight.dtype

    @property
    def convolutions(self) -> Mapping[str, int]:
        """Number of output channels of each ungrouped 1x1 convolution, by name."""
        return {
            name: layer.out_channels
            for name, layer in self.module.named_modules()
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1
        }

    def run(self, x: Tensor, taps: Collection[str] = ()) -> tuple[object, list[Tap]]:
        """Run the module once in evaluation mode, without gradients."""
        if self.module.training:
            self.module.eval()
        with torch.no_grad(), _listening(self.module, taps) as calls:
            return self.module(x), calls


@contextmanager
def _listening(module: nn.Module, names: Collection[str]) -> Iterator[list[Tap]]:
    """Collect the calls of the named layers while the block lasts."""
    calls: list[Tap] = []

    def listen(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(
            _: nn.Module, given: tuple[Tensor, ...], kw: dict[str, Tensor], out: Tensor
        ) -> None:
            calls.append(Tap(name, given[0] if given else kw["input"], out))

        return module.get_submodule(name).register_forward_hook(hook, with_kwargs=True)

    handles = [listen(name) for name in names]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
