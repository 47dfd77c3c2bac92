"""`load`: from whatever a user has (a module, a folder, a file, a name) to a segmenter."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from doubtmap.errors import ModelError, UsageError, first_line
from doubtmap.files.afar import address_of, is_afar
from doubtmap.files.resuming import sha256_of
from doubtmap.files.stores import near
from doubtmap.models.backend import Source
from doubtmap.models.distilled import head_layers, with_head
from doubtmap.models.ensemble import Ensemble
from doubtmap.models.exported import exported_source, open_exported
from doubtmap.models.folders import DESCRIPTION, open_python, open_trained
from doubtmap.models.foreign import (
    exported_inside,
    is_smp,
    is_torchscript,
    module_names,
    module_preprocessing,
    open_smp,
    open_torchscript,
    refuse_file,
    refuse_folder,
    refuse_pointer,
    unwrapped,
)
from doubtmap.models.forms import Activation
from doubtmap.models.huggingface import open_huggingface
from doubtmap.models.module import ModuleBackend
from doubtmap.models.network import NetworkSegmenter
from doubtmap.models.onnx import open_onnx
from doubtmap.models.openvino import open_openvino
from doubtmap.models.preprocessing import FixedSize, ImageSize, Preprocessing
from doubtmap.models.saved import SavedPredictions
from doubtmap.models.studying import Asked
from doubtmap.names import made_distinct, twins
from doubtmap.prediction import Segmenter

log = logging.getLogger("doubtmap")
FORMS = (
    "an nn.Module, a Hugging Face folder or owner/name, FILE.onnx, FILE.pt2, FILE.xml of "
    "OpenVINO, a TorchScript file, saved:FOLDER, python:FILE.py:FUNCTION, or demo"
)


def load(
    model: nn.Module | torch.export.ExportedProgram | str | Path,
    *,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_size: tuple[int, int] | Literal["image"] | None = None,
    classifier: str | None = None,
    divisor: int | None = None,
    device: torch.device | str | None = None,
    output: str | int | None = None,
    activation: Activation | None = None,
    channels: Literal["rgb", "bgr"] | None = None,
    bands: Sequence[int] | None = None,
    trust: bool = False,
) -> Segmenter:
    """Put a network behind one call that takes RGB images.

    Args:
        model: an `nn.Module`, a Hugging Face folder or `owner/name`, `FILE.onnx`, `FILE.pt2`
            (`torch.export`), `FILE.xml` (OpenVINO), a TorchScript file, `saved:FOLDER`,
            `python:FILE.py:FUNCTION`, or `demo`; several of the names, separated by commas, are an
            ensemble, and all other arguments are for each member.
        classes: one name per class; default: the network's own.
        mean: one value a band, for RGB in [0, 1]; default: the network's own, else ImageNet's.
        std: likewise.
        input_size: `(height, width)` in pixels to which images are resized for the network, or
            `"image"` for each image's own; default: the folder's or file's rule, else the
            image's own.
        classifier: dotted name of the last layer, in place of the search; it is checked all the
            same.
        divisor: pad sides up to multiples of it; default: only where the network refuses a size.
        device: where to run; default: where the module is, the CPU for files.
        output: name or place (from 0) of the output that holds the scores, where there are several.
        activation: what the network's last step is, where its numbers do not tell: `none` (it
            returns logits), `softmax` or `sigmoid`.
        channels: `bgr` for a network that wants blue first.
        bands: which of the images' bands the network gets, from 1, in its order; `mean` and `std`
            have one value for each.
        trust: open a `.pt2` file though it may run code, as of people you know.

    Returns:
        A segmenter.

    Raises:
        UsageError: for options that make no sense.
        ModelError: where the network cannot be loaded or the device is not there.

    Example:
        >>> network = nn.Conv2d(3, 4, kernel_size=1)
        >>> segmenter = load(network, classes=["sky", "road", "car", "tree"])
        >>> prediction = segmenter(torch.rand(1, 3, 8, 8))
        >>> tuple(prediction.logits.shape)
        (1, 4, 8, 8)
    """
    mean, std = _in_unit_range(mean, std)
    _check_options(classes, mean, std, input_size, divisor)
    _check_reading(activation, channels, bands, mean)
    check_device(device)
    parts = re.split(r",(?![^(]*\))", model) if isinstance(model, str) else []
    if len(parts) > 1 and not _exists(str(model).removeprefix("saved:")):
        options: dict[str, Any] = {"classes": classes, "mean": mean, "std": std}
        options |= {"input_size": input_size, "classifier": classifier}
        options |= {"divisor": divisor, "device": device, "output": output, "bands": bands}
        options |= {"activation": activation, "channels": channels, "trust": trust}
        names = [name.strip() for name in parts if name.strip()]
        return Ensemble([load(name, **options) for name in names])
    if isinstance(model, str) and model.startswith("saved:"):
        useless: dict[str, object] = {
            "mean": mean,
            "std": std,
            "input_size": input_size,
            "classifier": classifier,
        }
        useless |= {"divisor": divisor, "output": output, "channels": channels, "bands": bands}
        _check_saved(model, useless)
        folder = model.removeprefix("saved:")
        return SavedPredictions(near(folder), classes, activation, folder)
    here = near(model) if isinstance(model, str | Path) and is_afar(model) else model
    source = with_head(_opened(here, device, trust), _folder(here))
    if here is not model:
        source = replace(source, name=address_of(str(model)))
    preprocessing = source.preprocessing
    if input_size is not None:
        size = ImageSize() if input_size == "image" else FixedSize(*map(int, input_size))
        _check_fixed(source, size)
        preprocessing = replace(preprocessing, size=size, window=None)
    if divisor is not None:
        preprocessing = replace(preprocessing, divisor=divisor)
    preprocessing = _normalising(preprocessing, mean, std)
    preprocessing = replace(
        preprocessing,
        bgr=preprocessing.bgr if channels is None else channels == "bgr",
        bands=tuple(map(int, bands or ())),
    )
    source = replace(
        source,
        preprocessing=preprocessing,
        class_names=_named(source.class_names if classes is None else tuple(classes)),
        names_given=classes is not None,
        notes=(*source.notes, *_assumed(preprocessing)),
    )
    asked = Asked(output=None if output is None else str(output), activation=activation)
    return NetworkSegmenter(source, classifier, head_layers(source.backend), asked)


def _normalising(
    preprocessing: Preprocessing, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Preprocessing:
    if mean is not None:
        preprocessing = replace(preprocessing, mean=tuple(map(float, mean)), origin="given")
    if std is not None:
        preprocessing = replace(preprocessing, std=tuple(map(float, std)))
    if len(preprocessing.mean) != len(preprocessing.std):
        raise UsageError(
            f"load: expected as many values for std as for mean, got {len(preprocessing.std)} and "
            f"{len(preprocessing.mean)}. Give one of each for every band."
        )
    return preprocessing


def _named(names: tuple[str, ...]) -> tuple[str, ...]:
    """The name of a single class is that of what the background is not."""
    return ("background", *names) if len(names) == 1 else names


def _assumed(preprocessing: Preprocessing) -> tuple[str, ...]:
    """A note, logged too, where nobody said how images are normalised."""
    if preprocessing.origin != "assumed":
        return ()
    note = (
        "ImageNet's mean and standard deviation are assumed; pass --mean and --std (mean= and "
        "std=) if the network was trained with others, such as --mean 0,0,0 --std 1,1,1 for none."
    )
    log.warning("%s", note)
    return (note,)


def _in_unit_range(
    mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[Sequence[float] | None, Sequence[float] | None]:
    """Refuse values for images of 0 to 255, with the line to type."""
    said = [value for value in (*(mean or ()), *(std or ())) if isinstance(value, (int, float))]
    if not said or max(said) <= 1 or not all(map(math.isfinite, said)):
        return mean, std
    line = " ".join(
        f"--{name} {','.join(f'{value / 255:.4g}' for value in values)}"
        for name, values in (("mean", mean), ("std", std))
        if values is not None
    )
    raise UsageError(
        f"load: expected mean and std of images in [0, 1], got {max(said):g}, which is of images "
        f"in 0 to 255. Divide by 255: {line}"
    )


def _check_reading(
    activation: str | None,
    channels: str | None,
    bands: Sequence[int] | None,
    mean: Sequence[float] | None,
) -> None:
    if activation not in (None, *get_args(Activation)):
        raise UsageError(
            f"load: expected activation as one of {', '.join(get_args(Activation))}, got "
            f"{activation!r}."
        )
    if channels not in (None, "rgb", "bgr"):
        raise UsageError(f"load: expected channels as rgb or bgr, got {channels!r}.")
    if bands is None:
        return
    count = 3 if mean is None else len(mean)
    if min(bands, default=0) < 1 or len(bands) != count:
        raise UsageError(
            f"load: expected bands as {count} numbers from 1, one for each value of mean, got "
            f"{list(bands)}. Pass for example bands=(1, 2, 3), with mean= and std= alike."
        )


def _check_saved(model: str, useless: Mapping[str, object]) -> None:
    """Refuse what only a network could follow."""
    given = [name for name, value in useless.items() if value is not None]
    if given:
        raise UsageError(
            f"{model}: expected no {', '.join(given)}, since no network is run on images, got "
            f"{', '.join(f'{name}={useless[name]!r}' for name in given)}. Leave them out, or use "
            f"the network itself."
        )


def _opened(model: object, device: torch.device | str | None, trust: bool) -> Source:
    network = unwrapped(model)
    if network is not None:
        return described(Source(ModuleBackend(network, device), type(network).__name__, "module"))
    if isinstance(model, torch.export.ExportedProgram):
        return exported_source(model, device)
    if not isinstance(model, (str, Path)):
        raise UsageError(f"load: expected {FORMS}, got {type(model).__name__}.")
    name = str(model)
    if name == "demo":
        return _demo(device)
    if name.startswith("python:"):
        maker, _, folder = name.removeprefix("python:").rpartition("@")
        if ".py:" in maker:
            return open_trained(Path(folder), device, maker)
        return described(open_python(name.removeprefix("python:"), device))
    path = Path(name)
    if Path(name, DESCRIPTION).is_file():
        return open_trained(path, device)
    if _exists(name):
        refuse_pointer(path)
    if path.is_dir():
        if is_smp(path):
            return open_smp(path, device)
        if len(inside := exported_inside(path)) == 1:
            return _opened(str(inside[0]), device, trust)
        refuse_folder(path)
        return open_huggingface(name, device)
    if name.endswith(".xml") and path.is_file():
        return open_openvino(path, device)
    if name.endswith(".onnx"):
        return open_onnx(Path(name), device)
    if name.endswith(".pt2"):
        return open_exported(Path(name), device, trust=trust)
    if is_torchscript(path):
        return open_torchscript(path, device)
    refuse_file(path, FORMS)
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) and not Path(name).exists():
        return open_huggingface(name, device)
    raise UsageError(f"load: expected {FORMS}, got {name!r}. Check the path.")


def described(source: Source) -> Source:
    """A network with the names and the normalisation that it carries itself."""
    assert isinstance(source.backend, ModuleBackend)
    module = source.backend.module
    how = module_preprocessing(module) if source.preprocessing.origin == "assumed" else None
    names = source.class_names or made_distinct(module_names(module))
    return replace(source, preprocessing=how or source.preprocessing, class_names=names)


def _folder(model: object) -> Path | None:
    """Where the second head of a student would lie."""
    if not isinstance(model, (str, Path)):
        return None
    name = str(model)
    return Path(name.rpartition("@")[2] if name.startswith("python:") else name)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # as for a name too long to be one
        return False


def _demo(device: torch.device | str | None) -> Source:
    from doubtmap.models.demo import DEMO_CLASSES, DEMO_MEAN, DEMO_STD, DEMO_WEIGHTS, demo_network

    backend = ModuleBackend(demo_network(), device)
    preprocessing = Preprocessing(tuple(DEMO_MEAN), tuple(DEMO_STD), origin="demo")
    return Source(
        backend,
        "demo",
        "demo",
        preprocessing,
        tuple(DEMO_CLASSES),
        sha256=sha256_of(DEMO_WEIGHTS),
    )


def _check_options(
    classes: Sequence[str] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    input_size: tuple[int, int] | Literal["image"] | None,
    divisor: int | None,
) -> None:
    if isinstance(classes, str):
        raise UsageError(
            f"load: expected classes as a sequence of names, got one string. Pass {[classes]}."
        )
    if pair := twins(classes or ()):
        raise UsageError(
            f"load: expected classes with names of their own, got {pair[0]!r} and {pair[1]!r}, "
            f"which are one name: case, _, - and space make no difference. Rename one."
        )
    for option, values in (("mean", mean), ("std", std)):
        if values is not None and not len(values):
            raise UsageError(
                f"load: expected values for {option}, got none. Give one for each of red, green "
                f"and blue, or for each band."
            )
        if values is not None and not all(map(math.isfinite, values)):
            raise UsageError(
                f"load: expected finite values for {option}, got {list(values)}. Leave it out, or "
                f"pass those that the network was trained with."
            )
    if std is not None and min(std) <= 0:
        raise UsageError(
            f"load: expected std above 0, got {list(std)}. Leave it out, or pass ones."
        )
    if divisor is not None and divisor < 1:
        raise UsageError(f"load: expected divisor of at least 1, got {divisor}. Leave it out.")
    if input_size is None or input_size == "image":
        return
    if isinstance(input_size, str) or len(input_size) != 2 or min(input_size) < 1:
        raise UsageError(
            f"load: expected input_size as (height, width) in pixels or 'image', got "
            f"{input_size!r}. Pass for example (512, 1024)."
        )


def check_device(
    device: torch.device | str | None, whose: str = "load", instead: str = "device='cpu'"
) -> None:
    """Refuse a device that is none, or is not there.

    Args:
        device: None is any.
        whose: who asks, for errors.
        instead: what to pass.

    Raises:
        UsageError: for what names no device, or one that does not compute.
        ModelError: for a device that is not there.
    """
    if device is None:
        return
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise UsageError(
            f"{whose}: expected a device such as 'cpu' or 'cuda:0', got {device!r}. Correct it, or "
            f"leave it out."
        ) from error
    if wanted.type == "meta":
        raise UsageError(f"{whose}: expected a device that computes, got 'meta'. Pass {instead}.")
    try:
        torch.zeros(1, device=wanted).item()
    except Exception as error:
        raise ModelError(
            f"{whose}: expected the device {wanted} to be there, but PyTorch cannot use it "
            f"({first_line(error)}). Pass {instead}, or another that this machine has."
        ) from error


def _check_fixed(source: Source, size: FixedSize | ImageSize) -> None:
    only = source.backend.fixed_size
    if only is not None and size != FixedSize(*only):
        raise UsageError(
            f"load: expected input_size {only}, the only one that {source.name} was exported "
            f"for, got {size.describe()}. Leave it out, or export with dynamic sizes."
        )
