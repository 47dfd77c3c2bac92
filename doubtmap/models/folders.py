"""Folders that `doubtmap train` wrote for networks other than Hugging Face's: `doubtmap.json`.

Networks from a Python file, `python:FILE.py:FUNCTION`: a function that returns a module.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load
from torch import nn

from doubtmap.errors import ModelError, UsageError, first_line
from doubtmap.files.python import Named, code_of
from doubtmap.files.resuming import hash_of_files, sha256_of
from doubtmap.models.backend import Source
from doubtmap.models.demo import build_demo_network
from doubtmap.models.module import ModuleBackend
from doubtmap.models.preprocessing import Preprocessing


def open_python(reference: str, device: torch.device | str | None = None) -> Source:
    """Call a function of a Python file and take the network that it returns.

    The file is run, as `python FILE.py` would: open only what you trust.

    Args:
        reference: `FILE.py:FUNCTION`, or `FILE.py:FUNCTION(weights=FILE,...)` to call it with
            arguments: numbers, true, false, or text.
        device: where to move the network.

    Returns:
        The network, with ImageNet's mean and standard deviation.

    Raises:
        UsageError: where file or function is missing, or something else comes back.
        ModelError: where the file or the function raises.
    """
    named = Named(reference, "a network")
    network = named.called()
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"{named}: expected the function to return a torch.nn.Module, got "
            f"{type(network).__name__}. Return the network."
        )
    found = Source(ModuleBackend(network, device), str(named), "python", code=named.code)
    return _beside(found, named.file)


def _beside(source: Source, path: Path) -> Source:
    """With what `doubtmap.toml` beside the Python file says: classes, mean, std, channels.

    Of a file that describes a data set, only a table `[model]` is meant for networks.

    Raises:
        ModelError: for a file that says something else.
    """
    file = path.resolve().parent / SETTINGS
    if not file.is_file():
        return source
    try:
        said = tomllib.loads(file.read_text())
        if "model" not in said and "images" in said:
            return source  # the description of a data set, which says nothing of networks
        said = said.get("model", said)
        values = {key: tuple(map(float, said[key])) for key in ("mean", "std") if key in said}
        names = tuple(str(name) for name in said.get("classes", ()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{file}: expected classes, mean and std of the network, but it cannot be used "
            f"({first_line(error)}). Correct it, or remove it."
        ) from error
    how = replace(
        source.preprocessing,
        mean=values.get("mean", source.preprocessing.mean),
        std=values.get("std", source.preprocessing.std),
        bgr=said.get("channels") == "bgr",
        origin=SETTINGS if "mean" in values else source.preprocessing.origin,
    )
    return replace(source, preprocessing=how, class_names=names)


DESCRIPTION = "doubtmap.json"
SETTINGS = "doubtmap.toml"
"""What may lie beside a Python file and say its network's classes and normalisation."""


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
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
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
    file = maker.partition("(")[0].rpartition(":")[0] if maker else None
    name = f"python:{maker}@{folder}" if maker else str(folder)
    return Source(
        ModuleBackend(network, device),
        name,
        "trained",
        Preprocessing(about.mean, about.std, origin=DESCRIPTION),
        about.class_names,
        sha256=sha256_of(folder / WEIGHTS),
        code=code_of(Path(file)) if file else None,
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
        network.load_state_dict(load((folder / WEIGHTS).read_bytes()))
    except Exception as error:
        raise ModelError(
            f"{folder / WEIGHTS}: expected the weights of {maker or about.network}, but they "
            f"cannot be loaded ({first_line(error)}). Train it again."
        ) from error
    return network.eval()


def start_marks(model: str) -> dict[str, str]:
    """Hashes of the files that a model's name says: the code that makes it, and its folder's.

    Weights that a Python function loads or draws are not among them: once a training has begun,
    its checkpoint holds them.

    Args:
        model: what `doubtmap train --model` takes.
    """
    marks, reference = {}, model.removeprefix("python:")
    maker, _, folder = reference.rpartition("@")
    if model.startswith("python:"):
        called = (maker if ".py:" in maker else reference).partition("(")[0]
        marks["code"] = code_of(Path(called.rpartition(":")[0]))
        reference = folder if ".py:" in maker else ""
    place = Path(reference)
    if reference not in ("", "demo") and place.is_dir():
        kinds = ("*.json", "*.safetensors", "*.bin")
        marks["folder"] = hash_of_files(sorted(file for kind in kinds for file in place.glob(kind)))
    return marks


def images_trained_on(model: str) -> list[str]:
    """Fingerprints of the labelled images that a network was trained on, where its folder says.

    Args:
        model: a folder, or `python:FILE.py:FUNCTION@FOLDER`.
    """
    path = Path(model.rpartition("@")[2]) / "training" / "settings.json"
    try:
        content = json.loads(path.read_text())["data"]["content"]
        return [mark.partition(" ")[0] for mark in content.values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []  # trained elsewhere


def photographs_learnt(model: str) -> list[str]:
    """Fingerprints of the photographs that a network learnt as unknown, where its folder says.

    Args:
        model: a folder, or `python:FILE.py:FUNCTION@FOLDER`.
    """
    path = Path(model.rpartition("@")[2]) / "training" / "settings.json"
    try:
        found = json.loads(path.read_text())["negatives"]["images"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []  # trained elsewhere, or without negatives
    return found if isinstance(found, list) else []
