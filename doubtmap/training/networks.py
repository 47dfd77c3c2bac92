"""The network that a training starts from, by the name a user gives it.

Hugging Face networks come from a configuration, or from a folder with weights. Dropout in training
sets the rate of the network's own layers, or adds a layer before its classifier.
"""

from __future__ import annotations

import errno
import json
import math
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from doubtmap.errors import ModelError, UsageError, first_line
from doubtmap.files import writing_to
from doubtmap.models import load
from doubtmap.models.demo import DEMO_CLASSES, DEMO_MEAN, DEMO_STD, build_demo_network, demo_network
from doubtmap.models.folders import (
    DESCRIPTION,
    open_python,
    open_trained,
    read_description,
    trained_network,
)
from doubtmap.models.foreign import refuse_folder
from doubtmap.models.huggingface import INSTALL, open_huggingface
from doubtmap.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from doubtmap.names import plain_name


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ModelError(
            f"train: expected transformers for this network, found none. Install with {INSTALL}."
        ) from error
    return transformers


def _segformer(widths: list[int], depths: list[int], decoder: int) -> Callable[[Any], Any]:
    return lambda hf: hf.SegformerConfig(
        hidden_sizes=widths, depths=depths, decoder_hidden_size=decoder
    )


def _upernet(width: int, backbone: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda hf: hf.UperNetConfig(
        backbone_config=backbone(hf), hidden_size=width, use_auxiliary_head=False
    )


def _resnet(kind: str, depths: list[int], widths: list[int]) -> Callable[[Any], Any]:
    return lambda hf: hf.ResNetConfig(
        layer_type=kind, depths=depths, hidden_sizes=widths, out_features=STAGES
    )


def _convnext(hf: Any) -> Any:
    return hf.ConvNextConfig(
        depths=[3, 3, 9, 3], hidden_sizes=[96, 192, 384, 768], out_features=STAGES
    )


STAGES = ["stage1", "stage2", "stage3", "stage4"]


NARROW, WIDE = [64, 128, 256, 512], [256, 512, 1024, 2048]


CONFIGURATIONS: dict[str, Callable[[Any], Any]] = {
    "segformer-b0": _segformer([32, 64, 160, 256], [2, 2, 2, 2], 256),
    "segformer-b1": _segformer([64, 128, 320, 512], [2, 2, 2, 2], 256),
    "segformer-b2": _segformer([64, 128, 320, 512], [3, 4, 6, 3], 768),
    "upernet-resnet18": _upernet(256, _resnet("basic", [2, 2, 2, 2], NARROW)),
    "upernet-resnet34": _upernet(256, _resnet("basic", [3, 4, 6, 3], NARROW)),
    "upernet-resnet50": _upernet(512, _resnet("bottleneck", [3, 4, 6, 3], WIDE)),
    "upernet-convnext-tiny": _upernet(512, _convnext),
}
"""Networks that need no download, with random weights, by name."""


def open_named(name: str, classes: tuple[str, ...]) -> nn.Module:
    """A network of `CONFIGURATIONS` with random weights."""
    transformers = _transformers()
    config = CONFIGURATIONS[name](transformers)
    return _from_config(transformers, _labelled(config, classes))


Opened = tuple[nn.Module, tuple[str, ...], tuple[float, ...], tuple[float, ...], tuple[str, ...]]
"""Network, class names, mean, standard deviation and notes."""


def open_weights(name: str, classes: tuple[str, ...], from_scratch: bool) -> Opened:
    """A network of a folder or name: its weights, or only its configuration.

    Raises:
        ModelError: where it cannot be read, or does not predict one logit per class and pixel.
    """
    transformers = _transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as error:
        raise ModelError(
            f"{name}: expected a Hugging Face folder or name with a config.json, but it cannot be "
            f"read ({first_line(error)}). Check the name."
        ) from error
    if type(config) not in transformers.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING:
        raise ModelError(
            f"{name}: expected a network with a logit for each class and pixel, got "
            f"{config.model_type}, which cannot be trained here. Use one such as segformer-b0."
        )
    if hasattr(config, "use_auxiliary_head"):
        config.use_auxiliary_head = False
    if from_scratch:
        network = _from_config(transformers, _labelled(config, classes))
        return network, classes, *_normalisation(name), ()
    source = open_huggingface(name)
    backend: Any = source.backend
    how = source.preprocessing
    if how.bgr:
        raise ModelError(
            f"{name}: expected a network that takes red first, got one that takes blue first, "
            f"which cannot be trained here. Use another, or --from-scratch."
        )
    if getattr(backend.module, "auxiliary_head", None) is not None:
        backend.module.auxiliary_head = None  # only for another loss than ours
        backend.module.config.use_auxiliary_head = False
    if sorted(map(plain_name, source.class_names)) == sorted(map(plain_name, classes)):
        return backend.module, source.class_names, how.mean, how.std, ()
    network = _reclassified(transformers, backend.module, config, classes)
    had = ", ".join(source.class_names) or f"{backend.module.config.num_labels} unnamed classes"
    note = f"{name} told {had} apart; its classifier was made anew."
    return network, classes, how.mean, how.std, (note,)


def _labelled(config: Any, classes: tuple[str, ...]) -> Any:
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: index for index, name in enumerate(classes)}
    return config


def _from_config(transformers: Any, config: Any) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = transformers.AutoModelForSemanticSegmentation.from_config(config)
    return network.float()  # type: ignore[no-any-return]


def _reclassified(
    transformers: Any, trained: nn.Module, config: Any, classes: tuple[str, ...]
) -> nn.Module:
    """A network for other classes with the trained weights that do not depend on the classes.

    Those that do are found by their shapes, which change with the number of classes.
    """
    shapes = []
    for count in (2, 3):
        with torch.device("meta"):
            sized = _from_config(transformers, _labelled(config, tuple(map(str, range(count)))))
        shapes.append({name: part.shape for name, part in sized.state_dict().items()})
    network = _from_config(transformers, _labelled(config, classes))
    kept = {
        name: part
        for name, part in trained.state_dict().items()
        if name in shapes[0] and shapes[0][name] == shapes[1][name]
    }
    network.load_state_dict(kept, strict=False)
    return network


def _normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation that a folder's processor says, for RGB in [0, 1]; else ImageNet's."""
    path = Path(name, "preprocessor_config.json")
    try:
        said = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        mean, std = said.get("image_mean"), said.get("image_std")
        if not (isinstance(mean, list) and isinstance(std, list) and len(mean) == len(std) == 3):
            return IMAGENET_MEAN, IMAGENET_STD
        found = tuple(map(float, mean)), tuple(map(float, std))
        if not all(map(math.isfinite, (*found[0], *found[1]))) or min(found[1]) <= 0:
            raise ValueError("no finite numbers, or no positive ones for image_std")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{path}: expected image_mean and image_std of RGB, but they cannot be used ({error}). "
            f"Correct them, or save the processor again."
        ) from error
    return found


def huggingface_files(
    network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]
) -> dict[str, bytes]:
    """The files that `from_pretrained` takes, by name: transformers' own, and a processor's.

    Args:
        network: of transformers.
        mean: of RGB in [0, 1].
        std: of RGB in [0, 1].
    """
    bars = _transformers().utils.logging
    was_on = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    saved: Any = network
    with writing_to(Path(tempfile.gettempdir()), "temporary folder with TMPDIR"):
        files = _saved_files(saved)
    if was_on:
        bars.enable_progress_bar()
    processor = {
        "image_processor_type": "SegformerImageProcessor",
        "do_resize": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
        "do_reduce_labels": False,
    }
    return files | {"preprocessor_config.json": json.dumps(processor, indent=2).encode()}


def _saved_files(network: Any) -> dict[str, bytes]:
    """What `save_pretrained` writes, by way of a temporary folder.

    Raises:
        OSError: where that cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            network.save_pretrained(folder, max_shard_size="1TB")
        except SafetensorError as error:
            raise OSError(errno.EIO, str(error)) from error
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


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
        notes: what of trained weights was made anew, in sentences.
    """

    network: nn.Module
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    maker: str
    trained: bool
    notes: tuple[str, ...] = ()

    @property
    def may_know_its_classes(self) -> bool:
        """Whether its classifier is a trained one, or a function's that decides on the weights."""
        return self.maker.startswith("python:") or (self.trained and not self.notes)


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
    if Path(model).is_dir():
        refuse_folder(Path(model))
    if Path(model).is_dir() or (model.count("/") == 1 and not Path(model).exists()):
        found = open_weights(model, classes, from_scratch)
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
