"""The second head of a student: a 1x1 convolution beside the classifier, and its file.

`doubtmap train --recipe dudes` writes `distilled.safetensors` into the network's folder; the
network's own files stay as they would be without it, so that other tools read them as ever.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from doubtmap.errors import ModelError
from doubtmap.models.backend import Backend
from doubtmap.models.module import ModuleBackend
from doubtmap.models.source import Source, sha256_of

HEAD = "distilled"
"""Name of the layer, and of what predictions carry of it."""
FILE = "distilled.safetensors"
WEIGHTS = "model.safetensors"
FORMAT = 1
START = 0.05
"""What a new head says everywhere: about the mean spread of trained ensembles."""


class Head(nn.Conv2d):
    """What a student says of its teachers' doubt: `w . z + b` of the features the classifier sees.

    It starts at `START` after the sigmoid, with `w = 0`; published: at one half, with random
    weights.

    Args:
        classifier: name of the layer whose input it hears.
        channels: features that this layer sees.
        about: what a reader of its file should know.

    Reference:
        DUDES: Deep Uncertainty Distillation using Ensembles for Semantic Segmentation (Landgraf
        et al., 2024), https://arxiv.org/abs/2303.09843
    """

    def __init__(
        self, classifier: str, channels: int, about: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(channels, 1, 1)
        self.classifier, self.about = classifier, dict(about or {})
        assert self.bias is not None
        nn.init.zeros_(self.weight)
        nn.init.constant_(self.bias, torch.logit(torch.tensor(START)).item())

    def hear(self, _: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        """Speak whenever the classifier does; who listens takes it from the call.

        A method, so that a copy of the network has hooks to its own copy of the head.
        """
        self(given[0] if given else next(iter(named.values())))


def attach(network: nn.Module, head: Head) -> None:
    """Put a head beside the classifier of a network, as its layer `distilled`.

    Raises:
        ModelError: for a network that has a layer of this name, or none of the classifier's.
    """
    if hasattr(network, HEAD):
        raise ModelError(
            f"distilled: expected a network without a layer {HEAD!r}, found one. Start from a "
            f"network without a second head, or rename its layer."
        )
    try:
        classifier = network.get_submodule(head.classifier)
    except AttributeError as error:
        raise ModelError(
            f"distilled: expected a network with the layer {head.classifier!r}, found none. Train "
            f"the student again."
        ) from error
    network.add_module(HEAD, head)
    classifier.register_forward_pre_hook(head.hear, with_kwargs=True)


def head_of(network: nn.Module) -> Head | None:
    """The head that `attach` put on a network, or None."""
    head = getattr(network, HEAD, None)
    return head if isinstance(head, Head) else None


def has_head(backend: Backend) -> bool:
    """Whether predictions of this network can carry what a second head says."""
    return isinstance(backend, ModuleBackend) and head_of(backend.module) is not None


def take_off(network: nn.Module) -> Head | None:
    """Part a network from its head, so that its weights are those of a plain one."""
    head = head_of(network)
    if head is not None:
        delattr(network, HEAD)
    return head


@contextmanager
def said_by(network: nn.Module) -> Iterator[list[Tensor]]:
    """Collect `(B, 1, h, w)` of every call of its head, with gradients, while the block lasts."""
    calls: list[Tensor] = []
    handle = network.get_submodule(HEAD).register_forward_hook(lambda *call: calls.append(call[-1]))
    try:
        yield calls
    finally:
        handle.remove()


def head_file(head: Head, weights: bytes) -> bytes:
    """The content of `distilled.safetensors` beside these weights.

    Args:
        head: trained.
        weights: content of the network's own file, to which the head is bound.
    """
    meta = {
        "format": FORMAT,
        "classifier": head.classifier,
        "network": hashlib.sha256(weights).hexdigest(),
        "about": head.about,
    }
    tensors = {name: part.detach().cpu().contiguous() for name, part in head.state_dict().items()}
    content: bytes = save(tensors, {"doubtmap": json.dumps(meta, default=list)})
    return content


def with_head(source: Source, folder: Path | None) -> Source:
    """A network with the head that lies in its folder; without one, as it is.

    Raises:
        ModelError: for a head that cannot be read, or belongs to other weights.
    """
    path = folder / FILE if folder else None
    if (
        folder is None
        or path is None
        or not path.is_file()
        or not isinstance(source.backend, ModuleBackend)
    ):
        return source
    tensors, meta = _read(path)
    if sha256_of(folder / WEIGHTS) != meta["network"]:
        raise ModelError(
            f"{path}: expected the second head of the network beside it, got one of other weights. "
            f"Remove it, or train the student again."
        )
    network = source.backend.module
    head = Head(meta["classifier"], tensors["weight"].shape[1], meta["about"])
    head.load_state_dict(tensors)
    attach(network, head.to(source.backend.device, source.backend.dtype).eval())
    both = f"{source.sha256}{sha256_of(path)}".encode()
    note = f"A second head tells what its teachers disagree about: {head.about.get('target')}."
    return replace(source, sha256=hashlib.sha256(both).hexdigest(), notes=(*source.notes, note))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            meta = json.loads((file.metadata() or {})["doubtmap"])
            tensors = {name: file.get_tensor(name) for name in ("weight", "bias")}
        if meta["format"] > FORMAT or not isinstance(meta["about"], dict):
            raise ValueError(f"format {meta['format']}")
        if tensors["weight"].shape[0] != 1 or not all(
            bool(torch.isfinite(part).all()) for part in tensors.values()
        ):
            raise ValueError("weights that cannot be meant")
        return tensors, {key: meta[key] for key in ("classifier", "network", "about")}
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ModelError(
            f"{path}: expected the second head of a student, but it cannot be read "
            f"({error or type(error).__name__}). Train the student again."
        ) from error
