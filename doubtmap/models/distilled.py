"""The second head of a student: 1x1 convolutions beside the classifier, and its file.

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
from doubtmap.models.backend import Backend, first_line
from doubtmap.models.module import ModuleBackend
from doubtmap.models.source import Source, sha256_of

HEAD = "distilled"
"""Name of the layer, below the classifier's, and so of what predictions carry of it."""
FILE = "distilled.safetensors"
WEIGHTS = "model.safetensors"
FORMAT = 1
START = 0.05
"""What a new head says everywhere: about the mean spread of trained ensembles."""


class Head(nn.Sequential):
    """What a student says of its teachers' doubt: `w . z + b` of the features the classifier sees.

    It starts at `START` after the sigmoid, with `w = 0`; published: at one half, with random
    weights. With a hidden layer, which the paper has not, `z` is `relu(W features + c)`.

    Args:
        classifier: name of the layer whose input it hears.
        channels: features that this layer sees.
        hidden: channels of the hidden layer; 0: none, as published.
        about: what a reader of its file should know.

    Reference:
        DUDES: Deep Uncertainty Distillation using Ensembles for Semantic Segmentation (Landgraf
        et al., 2024), https://arxiv.org/abs/2303.09843
    """

    def __init__(
        self,
        classifier: str,
        channels: int,
        hidden: int = 0,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        last = nn.Conv2d(hidden or channels, 1, 1)
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, torch.logit(torch.tensor(START)).item())
        before = (nn.Conv2d(channels, hidden, 1), nn.ReLU()) if hidden else ()
        super().__init__(*before, last)
        self.classifier, self.channels, self.hidden = classifier, channels, hidden
        self.about = dict(about or {})

    @property
    def layer(self) -> str:
        """Its name in the network."""
        return f"{self.classifier}.{HEAD}"

    def hear(self, _: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        """Speak whenever the classifier does; who listens takes it from the call.

        A method, so that a copy of the network has hooks to its own copy of the head.
        """
        self(given[0] if given else next(iter(named.values())))


def attach(network: nn.Module, head: Head) -> None:
    """Put a head beside the classifier of a network, as the layer `CLASSIFIER.distilled`.

    There, below a convolution, no container such as `nn.Sequential` calls it a second time.

    Raises:
        ModelError: for a network that has a second head, or not this classifier.
    """
    if head_of(network) is not None:
        raise ModelError(
            "distilled: expected a network without a second head, found one. Start from another."
        )
    try:
        classifier = network.get_submodule(head.classifier)
    except AttributeError as error:
        raise ModelError(
            f"distilled: expected a network with the layer {head.classifier!r}, found none. Train "
            f"the student again."
        ) from error
    classifier.add_module(HEAD, head)
    classifier.register_forward_pre_hook(head.hear, with_kwargs=True)


def head_of(network: nn.Module) -> Head | None:
    """The head that `attach` put on a network, or None."""
    return next((layer for layer in network.modules() if isinstance(layer, Head)), None)


def head_layers(backend: Backend) -> tuple[str, ...]:
    """Names of the layers, one or none, that say what a second head says."""
    head = head_of(backend.module) if isinstance(backend, ModuleBackend) else None
    return () if head is None else (head.layer,)


def take_off(network: nn.Module) -> Head | None:
    """Part a network from its head, so that its weights are those of a plain one."""
    head = head_of(network)
    if head is not None:
        delattr(network.get_submodule(head.classifier), HEAD)
    return head


@contextmanager
def said_by(network: nn.Module) -> Iterator[list[Tensor]]:
    """Collect `(B, 1, h, w)` of every call of its head, with gradients, while the block lasts."""
    calls: list[Tensor] = []
    head = head_of(network)
    assert head is not None
    handle = head.register_forward_hook(lambda *call: calls.append(call[-1]))
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
        "channels": head.channels,
        "hidden": head.hidden,
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
    head, weights = _read(path)
    if sha256_of(folder / WEIGHTS) != weights:
        raise ModelError(
            f"{path}: expected the second head of the network beside it, got one of other weights. "
            f"Remove it, or train the student again."
        )
    network = source.backend.module
    attach(network, head.to(source.backend.device, source.backend.dtype).eval())
    both = f"{source.sha256}{sha256_of(path)}".encode()
    note = f"A second head tells what its teachers disagree about: {head.about.get('target')}."
    return replace(source, sha256=hashlib.sha256(both).hexdigest(), notes=(*source.notes, note))


def _read(path: Path) -> tuple[Head, str]:
    """The head of a file, and the hash of the weights that it belongs to."""
    try:
        with safe_open(str(path), framework="pt") as file:
            meta = json.loads((file.metadata() or {})["doubtmap"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if meta["format"] > FORMAT:
            raise ValueError(f"format {meta['format']}")
        if not all(bool(torch.isfinite(part).all()) for part in tensors.values()):
            raise ValueError("weights that are not finite")
        head = Head(str(meta["classifier"]), meta["channels"], meta["hidden"], meta["about"])
        head.load_state_dict(tensors)
        return head, str(meta["network"])
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise ModelError(
            f"{path}: expected the second head of a student, but it cannot be read "
            f"({first_line(error)}). Train the student again."
        ) from error
