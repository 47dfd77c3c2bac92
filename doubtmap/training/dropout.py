"""Dropout in training: the rate of the network's own layers, or a layer before its classifier."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doubtmap.errors import ModelError
from doubtmap.models import load
from doubtmap.training.networks import Start

DROPOUTS = (nn.Dropout, nn.Dropout2d)
PROBE = 128
"""Side, in pixels, of the image on which the classifier is looked for."""


def set_dropout(start: Start, rate: float) -> None:
    """Give the network's dropout layers a rate; where it has none, drop what its classifier sees.

    What is dropped before the classifier is single values, in training only; the network that is
    written has no more layers than before.

    Args:
        start: the network, changed in place.
        rate: share of values set to 0, in [0, 1).

    Raises:
        ModelError: for a network without dropout layers whose classifier cannot be found.
    """
    layers = [layer for layer in start.network.modules() if isinstance(layer, DROPOUTS)]
    for layer in layers:
        layer.p = rate
    if layers:
        return
    segmenter = load(start.network, classes=start.class_names)
    noise = torch.rand(1, 3, PROBE, PROBE, generator=torch.Generator().manual_seed(0))
    segmenter(noise)
    name = segmenter.description["classifier"]
    if name is None:
        raise ModelError(
            "train: expected a network with dropout layers or a 1x1 convolution as classifier, "
            "found neither. Leave --dropout-rate out."
        )

    def drop(layer: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return F.dropout(given[0], rate, layer.training), *given[1:]

    start.network.get_submodule(str(name)).register_forward_pre_hook(drop)
