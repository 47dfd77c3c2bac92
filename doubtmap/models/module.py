"""Running an `nn.Module`, with hooks on the convolutions that are listened to."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from doubtmap.errors import DoubtmapError, ModelError, UsageError
from doubtmap.models.backend import Backend, Tap, first_line

if TYPE_CHECKING:
    pass


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
        """Run the module once in evaluation mode, without gradients.

        Raises:
            RuntimeError, ValueError or AssertionError: as the module raised it, as for a size.
            ModelError: where it raised anything else.
        """
        if self.module.training:
            self.module.eval()
        with torch.no_grad(), _listening(self.module, taps) as calls, prints_to_stderr():
            return self._called(x), calls

    def _called(self, x: Tensor) -> object:
        try:
            return self.module(x)
        except (DoubtmapError, RuntimeError, ValueError, AssertionError):
            raise  # perhaps the size, which the segmenter pads; out of memory is among them
        except Exception as error:
            raise ModelError(
                f"network: expected it to run on images {tuple(x.shape)}, but it raised "
                f"{type(error).__name__}: {first_line(error)}. Run it by itself to see where."
            ) from error


def prints_to_stderr() -> AbstractContextManager[object]:
    """What users' code prints goes to stderr, since stdout may carry our JSON."""
    return redirect_stdout(sys.stderr)


@contextmanager
def _listening(module: nn.Module, names: Collection[str]) -> Iterator[list[Tap]]:
    """Collect the calls of the named layers while the block lasts."""
    calls: list[Tap] = []

    def listen(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(
            _: nn.Module, given: tuple[Tensor, ...], kw: dict[str, Tensor], out: Tensor
        ) -> None:
            if isinstance(out, Tensor):
                out = out.clone()  # what follows may work in place, as many activations do
            calls.append(Tap(name, given[0] if given else next(iter(kw.values()), out), out))

        return module.get_submodule(name).register_forward_hook(hook, with_kwargs=True)

    handles = [listen(name) for name in names]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def check_layer(backend: Backend, name: str) -> None:
    """Refuse a layer that cannot be listened to.

    Raises:
        UsageError: for a name that the network has not.
    """
    if isinstance(backend, ModuleBackend):
        known = [layer for layer, _ in backend.module.named_modules() if layer]
    else:
        known = list(backend.convolutions)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[-3:]
        raise UsageError(
            f"layer: expected the name of a layer of this network, got {name!r}. Near names: "
            f"{', '.join(near) or 'none can be listened to'}."
        )


def output_of(name: str, taps: Sequence[Tap], batch: int) -> Tensor:
    """What a layer said last in a run.

    Returns:
        `(B, D, h, w)`.

    Raises:
        ModelError: for a layer that was not called, or whose output is not a batch of maps.
    """
    calls = [tap.output for tap in taps if tap.name == name]
    if not calls:
        raise ModelError(f"layer: {name} was not called by the network. Name another layer.")
    output: object = calls[-1]
    if not isinstance(output, Tensor) or output.ndim != 4 or len(output) != batch:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ModelError(
            f"layer: expected {name} to give maps (B, D, h, w), got {shape}. Name a convolution, "
            f"a normalisation or an activation."
        )
    return output
