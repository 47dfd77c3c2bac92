"""The network that a training starts from, by the name a user gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from doubtmap.datasets.matching import plain_name
from doubtmap.errors import ModelError, UsageError
from doubtmap.models.demo import DEMO_CLASSES, DEMO_MEAN, DEMO_STD, build_demo_network, demo_network
from doubtmap.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from doubtmap.models.python_file import open_python
from doubtmap.models.trained import (
    DESCRIPTION,
    open_trained,
    read_description,
    trained_network,
)
from doubtmap.training.transformers_networks import CONFIGURATIONS, open_folder, open_named

FORMS = (
    f"demo, {', '.join(CONFIGURATIONS)}, a Hugging Face folder or owner/name, a folder that "
    f"doubtmap train wrote, or python:FILE.py:FUNCTION"
)


@dataclass(frozen=True, eq=False)
class Start:
    """A network before its training.

    Args:
        network: takes normalised images.
        class_names: one per class.
        mean, std: of RGB in [0, 1].
        maker: how to make it again: `huggingface`, `demo` or `python:FILE.py:FUNCTION`.
        trained: whether it starts from trained weights.
        notes: what the user should know, in sentences.
    """

    network: nn.Module
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    maker: str
    trained: bool
    notes: tuple[str, ...] = ()


def starting_network(
    model: str, classes: Sequence[str], *, from_scratch: bool = False, seed: int = 0
) -> Start:
    """Make the network that a training starts from.

    Where a network with weights has the same classes, in any order, it keeps them and their order;
    otherwise its classifier is made anew.

    Args:
        model: see `FORMS`.
        classes: what it shall tell apart.
        from_scratch: whether to leave its weights and draw others.
        seed: of what is drawn.

    Raises:
        UsageError: for a name that is none.
        ModelError: for a network that cannot be made or trained.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _started(str(model), tuple(classes), from_scratch)


def _started(model: str, classes: tuple[str, ...], from_scratch: bool) -> Start:
    if model == "demo":
        return _demo(classes, from_scratch)
    if model.startswith("python:"):
        return _python(model, classes, from_scratch)
    if model in CONFIGURATIONS:
        network = open_named(model, classes)
        return Start(network, classes, IMAGENET_MEAN, IMAGENET_STD, "huggingface", trained=False)
    if Path(model, DESCRIPTION).is_file():
        return _trained(Path(model), classes, from_scratch)
    if Path(model).is_dir() or (model.count("/") == 1 and not Path(model).exists()):
        found = open_folder(model, classes, from_scratch)
        return Start(*found[:4], "huggingface", not from_scratch, found[4])
    raise UsageError(f"train: expected a network such as {FORMS}, got {model!r}.")


def _demo(classes: tuple[str, ...], from_scratch: bool) -> Start:
    network = build_demo_network() if from_scratch else demo_network()
    start = Start(network, DEMO_CLASSES, DEMO_MEAN, DEMO_STD, "demo", not from_scratch)
    return _with_classes(start, classes)


def _with_classes(start: Start, classes: tuple[str, ...]) -> Start:
    """The demo network for these classes: as it is, or with another classifier."""
    if start.trained and same_names(start.class_names, classes):
        return start
    network: Any = start.network
    network.classifier = nn.Conv2d(network.classifier.in_channels, len(classes), 1)
    notes = (anew(start.class_names),) if start.trained else ()
    return Start(network, classes, start.mean, start.std, "demo", start.trained, notes)


def _trained(folder: Path, classes: tuple[str, ...], from_scratch: bool) -> Start:
    about = read_description(folder)
    if about.network != "demo":
        raise UsageError(
            f"{folder}: expected a network that can be made without running foreign code, got "
            f"{about.network}. Name the model as {about.network}@{folder}."
        )
    if from_scratch:
        return _demo(classes, from_scratch)
    network = trained_network(folder, about)
    return _with_classes(
        Start(network, about.class_names, about.mean, about.std, "demo", trained=True), classes
    )


def _python(model: str, classes: tuple[str, ...], from_scratch: bool) -> Start:
    if from_scratch:
        raise UsageError(
            f"{model}: expected no --from-scratch, since the function decides on the weights. "
            f"Return a network without weights."
        )
    maker, _, folder = model.removeprefix("python:").rpartition("@")
    continued = ".py:" in maker
    reference = model.removeprefix("python:")
    source = open_trained(Path(folder), maker=maker) if continued else open_python(reference)
    backend: Any = source.backend
    names = source.class_names or classes
    if not same_names(names, classes):
        raise ModelError(
            f"{model}: expected the classes {', '.join(classes)}, got {', '.join(names)}. Train a "
            f"network for those."
        )
    how = source.preprocessing
    made = f"python:{maker if continued else reference}"
    return Start(backend.module, names, how.mean, how.std, made, trained=continued)


def same_names(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether both are the same classes, in any order."""
    return sorted(map(plain_name, first)) == sorted(map(plain_name, second))


def anew(before: Sequence[str]) -> str:
    """The note that the classifier was made anew."""
    return f"The network told {', '.join(before)} apart; its classifier was made anew."
