"""Running an `nn.Module`, with hooks on the layers that are listened to.

Inner layers of a network by name: whether it has them, and what they said in a run.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doubtmap.errors import DoubtmapError, ModelError, UsageError, first_line
from doubtmap.models.backend import Backend, LastLayer, Source, Tap
from doubtmap.prediction import Prediction, Window


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
        compiled = getattr(module, "_orig_mod", None)  # of torch.compile, which hides the layers
        module = compiled if isinstance(compiled, nn.Module) else module
        self.module = module if device is None else module.to(device)
        _evaluating(self.module)
        tensors = chain(module.parameters(), module.buffers())
        weight = next((t for t in tensors if t.is_floating_point()), torch.zeros(()))
        self.device = weight.device if device is None else torch.device(device)
        self.dtype = weight.dtype
        self._copies = False

    @property
    def last_layers(self) -> Mapping[str, LastLayer]:
        """Layers that could be the classifier, by name."""
        layers = ((name, _last_layer(layer)) for name, layer in self.module.named_modules())
        return {name: layer for name, layer in layers if layer is not None}

    def run(self, x: Tensor, taps: Collection[str] = ()) -> tuple[object, list[Tap]]:
        """Run the module once in evaluation mode, without gradients.

        Raises:
            RuntimeError, ValueError or AssertionError: as the module raised it, as for a size.
            ModelError: where it raised anything else.
        """
        if self.module.training:
            _evaluating(self.module)
        listening = _listening(self.module, taps, self._copies)
        with torch.no_grad(), listening as calls, prints_to_stderr(), explained(x):
            output = self.module(x.clone())  # since it may write into its images
        if not self._copies and any(_written(call) for call in calls):
            self._copies = True
            return self.run(x, taps)
        return output, [call.tap for call in calls]


@contextmanager
def explained(x: Tensor) -> Iterator[None]:
    """While a network runs on images, let what it raises be one sentence.

    Raises:
        RuntimeError, ValueError or AssertionError: as the network raised it: perhaps the size,
            which the segmenter pads; out of memory is among them.
        ModelError: where it raised anything else.
    """
    try:
        yield
    except (DoubtmapError, RuntimeError, ValueError, AssertionError, MemoryError):
        raise
    except Exception as error:
        raise ModelError(
            f"network: expected it to run on images {tuple(x.shape)}, but it raised "
            f"{type(error).__name__}: {first_line(error)}. Run it by itself to see where."
        ) from error


def _evaluating(module: nn.Module) -> None:
    """Put a network into evaluation mode."""
    try:
        module.eval()
    except NotImplementedError:
        module.training = False  # made from an exported program, which has one mode only


def _last_layer(layer: nn.Module) -> LastLayer | None:
    if isinstance(layer, nn.Linear):
        return LastLayer(layer.out_features, "linear")
    if isinstance(layer, nn.ConvTranspose2d):
        apart = tuple(layer.kernel_size) == tuple(layer.stride) and layer.groups == 1
        plain = layer.dilation == (1, 1) and layer.padding in (0, (0, 0))
        return LastLayer(layer.out_channels, "transposed") if apart and plain else None
    if not isinstance(layer, nn.Conv2d) or layer.groups != 1:
        return None
    if tuple(layer.kernel_size) == (1, 1):
        return LastLayer(layer.out_channels)
    steps = (layer.stride, layer.padding, layer.dilation)
    window = window_of(layer.kernel_size, *steps, padding_mode=layer.padding_mode)
    return LastLayer(layer.out_channels, window=window) if window else None


def window_of(
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
    padding_mode: str = "zeros",
) -> Window | None:
    """What a convolution sees for one pixel, where its output lies on its input's grid.

    Returns:
        None for a kernel with even sides, a stride, or a padding that does not keep the grid.
    """
    reach = [d * (k - 1) // 2 for k, d in zip(kernel, dilation)]
    kept = padding == "same" or (not isinstance(padding, str) and list(padding) == reach)
    if len(kernel) != 2 or set(stride) != {1} or not all(k % 2 for k in kernel) or not kept:
        return None
    return Window(kernel[0], kernel[1], (dilation[0], dilation[1]), padding_mode)


def prints_to_stderr() -> AbstractContextManager[object]:
    """What users' code prints goes to stderr, since stdout may carry our JSON."""
    return redirect_stdout(sys.stderr)


@dataclass(frozen=True, eq=False)
class _Call:
    """A tap, and how often its input had been written when the layer saw it."""

    tap: Tap
    version: int


def _version(x: object) -> int:
    return x._version if isinstance(x, Tensor) and not x.is_inference() else 0


def _written(call: _Call) -> bool:
    """Whether the network wrote into what the layer saw after it saw it."""
    return _version(call.tap.input) != call.version


@contextmanager
def _listening(module: nn.Module, names: Collection[str], copies: bool) -> Iterator[list[_Call]]:
    """Collect the calls of the named layers while the block lasts, and copy inputs if asked."""
    calls: list[_Call] = []

    def listen(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(
            _: nn.Module, given: tuple[Tensor, ...], kw: dict[str, Tensor], out: Tensor
        ) -> None:
            if isinstance(out, Tensor):
                out = out.clone()  # what follows may work in place, as many activations do
            seen = given[0] if given else next(iter(kw.values()), out)
            seen = seen.clone() if copies and isinstance(seen, Tensor) else seen
            calls.append(_Call(Tap(name, seen, out), _version(seen)))

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
        known = list(backend.last_layers)
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


class Listened(Protocol):
    """A segmenter whose network's layers can be listened to."""

    @property
    def source(self) -> Source:
        """The opened network."""
        ...

    def __call__(self, images: Tensor) -> Prediction:
        """Predict a batch."""
        ...

    def calls(self, images: Tensor, names: Collection[str]) -> list[Tap]:
        """The calls of the named layers."""
        ...


ACTIVATIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    F.relu,
    F.gelu,
    F.silu,
    F.leaky_relu,
    F.relu6,
    F.hardswish,
    F.elu,
    F.mish,
)
"""Tried where the activation is a function, not a module of the network."""


def before_activation(segmenter: Listened, image: Tensor) -> str | None:
    """The layer whose output an activation turns into the classifier's features.

    Nothing is believed that was not checked on an image: the activation of the layer's output must
    be the features.

    Args:
        segmenter: a PyTorch network whose classifier is found.
        image: `(1, 3, H, W)` in [0, 1].

    Returns:
        The last such layer's name; None where there is none.
    """
    backend = segmenter.source.backend
    features = segmenter(image).features
    if features is None or not isinstance(backend, ModuleBackend):
        return None
    leaves = [
        name for name, layer in backend.module.named_modules() if name and not [*layer.children()]
    ]
    calls = [
        call
        for call in segmenter.calls(image, leaves)
        if isinstance(call.output, Tensor) and call.output.shape == features.shape
    ]
    last = [backend.module.get_submodule(c.name) for c in calls if torch.equal(c.output, features)]
    own: list[Callable[[Tensor], Tensor]] = [
        layer for layer in last if isinstance(layer, nn.PReLU) or not layer.state_dict()
    ]
    for call in reversed(calls):
        if torch.equal(call.output, features):
            continue
        for activation in (*own, *ACTIVATIONS):
            with torch.no_grad():
                if torch.allclose(activation(call.output.clone()), features, atol=1e-5):
                    return call.name
    return None
