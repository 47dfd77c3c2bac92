"""A second head: 1x1 convolutions beside the classifier, and its file.

`doubtmap train --recipe dudes` writes `distilled.safetensors` into the network's folder, and
`--recipe nflowjs --negative-class` writes `negative.safetensors`; the network's own files stay as
they would be without it, so that other tools read them as ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doubtmap.errors import ModelError, first_line
from doubtmap.files import Content, FileKind, Origin, Part, encoded, read
from doubtmap.files.resuming import sha256_of
from doubtmap.files.tables import TABLE, TEXT, whole
from doubtmap.models.backend import Backend, Source
from doubtmap.models.module import ModuleBackend

HEAD, NEGATIVE = HEADS = ("distilled", "negative")
"""Names of the layer, below the classifier's, and so of what predictions carry of it: what teachers
disagree about, and the logit of a class beside the others."""
FILES = {name: f"{name}.safetensors" for name in HEADS}
FILE = FILES[HEAD]
WEIGHTS = "model.safetensors"
START = 0.05
"""What a new head says everywhere: about the mean spread of trained ensembles."""

KIND = FileKind(
    "second head",
    "the second head of a student",
    "Train the student again.",
    {
        "classifier": TEXT,
        "channels": whole(1, 1 << 20),
        "hidden": whole(0, 1 << 16),
        "layers": TABLE,
        "network": TEXT,
        "about": TABLE,
    },
    {"*": Part()},
    error=ModelError,
)


class Hidden(nn.Conv2d):
    """`W z + c + sum_l resize(W_l y_l)`: a 1x1 convolution that also hears inner layers.

    Args:
        channels: of `z`.
        hidden: of what comes out.
        others: channels of each `y_l`; their maps are put into `heard` before each call.
    """

    def __init__(self, channels: int, hidden: int, others: Sequence[int]) -> None:
        super().__init__(channels, hidden, 1)
        self.others = nn.ModuleList(nn.Conv2d(other, hidden, 1, bias=False) for other in others)
        self.heard: list[Tensor] = []

    def forward(self, z: Tensor) -> Tensor:
        """`(B, channels, h, w)` to `(B, hidden, h, w)`; maps of other grids are resized to it."""
        said, heard, self.heard = super().forward(z), self.heard, []
        for layer, y in zip(self.others, heard, strict=True):
            said = said + F.interpolate(layer(y), said.shape[-2:], mode="bilinear")
        return said


class Head(nn.Sequential):
    """What a student says of its teachers' doubt: `w . z + b` of the features the classifier sees.

    It starts at `START` after the sigmoid, with `w = 0`; published: at one half, with random
    weights. With a hidden layer, which the paper has not, `z` is `relu(W features + c)`, and may
    hear inner layers of the network too.

    Args:
        classifier: name of the layer whose input it hears.
        channels: features that this layer sees.
        hidden: channels of the hidden layer; 0: none, as published.
        about: what a reader of its file should know.
        layers: inner layers that the hidden layer hears too, with their channels.
        says: what it is for, one of `HEADS`.

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
        layers: Mapping[str, int] | None = None,
        says: str = HEAD,
    ) -> None:
        last = nn.Conv2d(hidden or channels, 1, 1)
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, torch.logit(torch.tensor(START)).item())
        heard = {str(name): int(count) for name, count in (layers or {}).items()}
        first = Hidden(channels, hidden, [*heard.values()]) if hidden else None
        super().__init__(*((first, nn.ReLU()) if first else ()), last)
        self.classifier, self.channels, self.hidden = classifier, channels, hidden
        self.about, self.layers, self.says = dict(about or {}), heard, says
        self.kept: dict[str, Tensor] = {}

    @property
    def layer(self) -> str:
        """Its name in the network."""
        return f"{self.classifier}.{self.says}"

    def hear(self, _: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        """Speak whenever the classifier does; who listens takes it from the call.

        A method, so that a copy of the network has hooks to its own copy of the head.
        """
        self.say(given[0] if given else next(iter(named.values())), self.kept)
        self.kept = {}

    def keep(self, name: str, _: nn.Module, __: object, said: Tensor) -> None:
        """Remember what an inner layer said until the classifier is called.

        A copy, since a layer after it may write into the same memory, as `ReLU(inplace=True)`.
        """
        self.kept[name] = said.clone()

    def say(self, z: Tensor, layers: Mapping[str, Tensor]) -> Tensor:
        """`(B, 1, h, w)` of the classifier's features and the inner layers' outputs.

        Raises:
            ModelError: where one of its layers was not called before the classifier.
        """
        if missing := [name for name in self.layers if name not in layers]:
            raise ModelError(
                f"distilled: expected the network to call {missing[0]} before its classifier, but "
                f"it did not. Train a head that does not hear this layer."
            )
        if isinstance(self[0], Hidden):
            self[0].heard = [layers[name] for name in self.layers]
        said: Tensor = self(z)
        return said


def attach(network: nn.Module, head: Head) -> None:
    """Put a head beside the classifier of a network, as the layer `CLASSIFIER.NAME`.

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
        inner = [(name, network.get_submodule(name)) for name in head.layers]
    except AttributeError as error:
        raise ModelError(
            f"distilled: expected a network with the layers of the second head, but "
            f"{first_line(error)}. Train the student again."
        ) from error
    classifier.add_module(head.says, head)
    classifier.register_forward_pre_hook(head.hear, with_kwargs=True)
    for name, layer in inner:
        layer.register_forward_hook(partial(head.keep, name))


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
        delattr(network.get_submodule(head.classifier), head.says)
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
    """The content of a head's file beside these weights.

    Args:
        head: trained.
        weights: content of the network's own file, to which the head is bound.
    """
    entries = {
        "classifier": head.classifier,
        "channels": head.channels,
        "hidden": head.hidden,
        "layers": head.layers,
        "network": hashlib.sha256(weights).hexdigest(),
        "about": head.about,
    }
    return encoded(KIND, Content(entries, head.state_dict(), Origin()))


def with_head(source: Source, folder: Path | None) -> Source:
    """A network with the head that lies in its folder; without one, as it is.

    Raises:
        ModelError: for a head that cannot be read, or belongs to other weights.
    """
    network = source.backend.module if isinstance(source.backend, ModuleBackend) else None
    if folder is None or network is None or source.kind == "demo":
        return source  # a folder that happens to be called demo is not the embedded network's
    path = next((folder / file for file in FILES.values() if (folder / file).is_file()), None)
    if path is None:
        return source
    head, weights = _read(path)
    if not (folder / WEIGHTS).is_file() or sha256_of(folder / WEIGHTS) != weights:
        raise ModelError(
            f"{path}: expected the second head of the network beside it, got one of other weights. "
            f"Remove it, or train the student again."
        )
    attach(network, head.to(source.backend.device, source.backend.dtype).eval())
    both = f"{source.sha256}{sha256_of(path)}".encode()
    note = (
        "A second head tells how much a pixel looks like a negative."
        if head.says == NEGATIVE
        else f"A second head tells what its teachers disagree about: {head.about.get('target')}."
    )
    return replace(source, sha256=hashlib.sha256(both).hexdigest(), notes=(*source.notes, note))


def _read(path: Path) -> tuple[Head, str]:
    """The head of a file, and the hash of the weights that it belongs to."""

    def built(content: Content) -> tuple[Head, str]:
        known, heard = content.entries, content.entries["layers"]
        shape = (known["classifier"], known["channels"], known["hidden"])
        head = Head(*shape, known["about"], heard, says=path.stem)
        head.load_state_dict(content.tensors)
        return head, known["network"]

    return read(path, KIND, built)
