"""Inner layers of a network by name: whether it has them, and what they said in a run."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doubtmap.errors import ModelError, UsageError
from doubtmap.models.backend import Backend, Tap
from doubtmap.models.module import ModuleBackend

if TYPE_CHECKING:
    from doubtmap.models.network import NetworkSegmenter


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


def before_activation(segmenter: NetworkSegmenter, image: Tensor) -> str | None:
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
