"""Inner layers of a network by name: whether it has them, and what they said in a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doubtmap.models.module import ModuleBackend

if TYPE_CHECKING:
    from doubtmap.models.network import NetworkSegmenter

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
