"""Folders that `doubtmap train` wrote for networks other than Hugging Face's: `doubtmap.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from doubtmap.errors import ModelError, UsageError
from doubtmap.models.backend import first_line
from doubtmap.models.demo import build_demo_network
from doubtmap.models.module import ModuleBackend
from doubtmap.models.preprocessing import Preprocessing
from doubtmap.models.python_file import open_python
from doubtmap.models.source import Source, sha256_of

DESCRIPTION = "doubtmap.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Description:
    """What `doubtmap.json` says.

    Args:
        network: what makes it: `demo`, or `python:FILE.py:FUNCTION`.
        class_names: one per class.
        mean, std: of RGB in [0, 1].
        recipe: how it was trained.
        doubtmap: the version that trained it.
    """

    network: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    recipe: str
    doubtmap: str

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(asdict(self), indent=2)


def read_description(folder: Path) -> Description:
    """Read `doubtmap.json` of a folder.

    Raises:
        ModelError: for a file that says something else.
    """
    path = folder / DESCRIPTION
    try:
        said = json.loads(path.read_text())
        names = tuple(str(name) for name in said["class_names"])
        mean, std = (tuple(float(v) for v in said[key]) for key in ("mean", "std"))
        network, recipe, version = (str(said[key]) for key in ("network", "recipe", "doubtmap"))
        if len(names) < 2 or len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError("classes, mean or std cannot be meant")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path}: expected the description of a network that doubtmap train wrote, but it "
            f"cannot be used ({first_line(error)}). Train it again."
        ) from error
    return Description(network, names, mean, std, recipe, version)


def open_trained(
    folder: Path, device: torch.device | str | None = None, maker: str | None = None
) -> Source:
    """Open a folder that holds `doubtmap.json`.

    Code is run only where the user names it: a network made by a Python file is opened as
    `python:FILE.py:FUNCTION@FOLDER`.

    Args:
        folder: with `doubtmap.json` and `model.safetensors`.
        device: where to move the network.
        maker: `FILE.py:FUNCTION`, where the user named it.

    Raises:
        UsageError: where the network needs code that the user did not name.
        ModelError: for a folder that cannot be used.
    """
    about = read_description(folder)
    if maker is None and about.network != "demo":
        raise UsageError(
            f"{folder}: its network is made by a Python file, which is run only where you name it. "
            f"Pass {about.network}@{folder} if you trust that file."
        )
    network = trained_network(folder, about, maker)
    name = f"python:{maker}@{folder}" if maker else str(folder)
    return Source(
        ModuleBackend(network, device),
        name,
        "trained",
        Preprocessing(about.mean, about.std),
        about.class_names,
        sha256=sha256_of(folder / WEIGHTS),
    )


def trained_network(folder: Path, about: Description, maker: str | None = None) -> nn.Module:
    """The network of a folder with its weights.

    Raises:
        ModelError: for weights that are missing, damaged or another network's.
    """
    network: nn.Module
    if maker is not None:
        backend = open_python(maker).backend
        assert isinstance(backend, ModuleBackend)
        network = backend.module
    else:
        built = build_demo_network()
        built.classifier = nn.Conv2d(built.classifier.in_channels, len(about.class_names), 1)
        network = built
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except Exception as error:
        raise ModelError(
            f"{folder / WEIGHTS}: expected the weights of {maker or about.network}, but they "
            f"cannot be loaded ({first_line(error)}). Train it again."
        ) from error
    return network.eval()
