"""Hugging Face folders and names through transformers; the only file that imports it."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from doubtmap.errors import ModelError, first_line
from doubtmap.files.resuming import hash_of_files, sha256_of
from doubtmap.files.tables import FLAG, Entry, optional, whole, within
from doubtmap.models.backend import Source
from doubtmap.models.module import ModuleBackend
from doubtmap.models.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    EdgeSize,
    FixedSize,
    ImageSize,
    Preprocessing,
    Resample,
)
from doubtmap.names import made_distinct

INSTALL = 'pip install "doubtmap[hf]"'

PARALLEL = "module."
"""What DataParallel puts before the names of weights."""
QUERY_MODELS = ("mask2former", "maskformer", "eomt", "eomt_dinov3")
SQUARE_ONLY = ("beit", "data2vec-vision", "dpt", "eomt", "eomt_dinov3")
"""Networks whose position embeddings fit one size, `config.image_size`."""
WINDOWED = ("eomt", "eomt_dinov3")
"""Networks whose processors split images into squares, or pad them to one."""
SHORTEST_EDGE = ("mask2former", "maskformer", "mobilenet_v2", "mobilevit", "mobilevitv2", *WINDOWED)
"""Networks in whose processors a plain number is the shorter side, not both sides."""
DEFAULTS = (
    "do_resize", "size", "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean",
    "image_std", "do_flip_channel_order", "size_divisor", "do_split_image", "do_pad",
)  # fmt: skip
"""Settings for which a processor's class has values of its own, where a folder leaves them out."""
SAID = ("do_normalize", "do_rescale", "do_resize", "image_mean", "image_std", "resample")
"""Settings without which a processor's class must be asked."""
RESAMPLES: dict[int, Resample] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers."""
SIDE = whole(1, 1 << 16)
FACTORS = within(1e-9, 1e9)


def _one_or_more(entry: Entry) -> Entry:
    """Numbers of a kind, one for all bands or one for each."""
    return Entry(
        f"{entry.expected}, for all bands or for each",
        lambda value: (
            all(map(entry.holds, value))
            if isinstance(value, list | tuple) and value
            else entry.holds(value)
        ),
    )


SIZE = Entry(
    f"{SIDE.expected}, two, or a table of such",
    lambda value: (
        all(map(optional(SIDE).holds, value.values()))
        if isinstance(value, Mapping)
        else len(value) == 2 and all(map(SIDE.holds, value))
        if isinstance(value, list | tuple)
        else SIDE.holds(value)
    ),
)
SETTINGS = {
    "do_resize": FLAG,
    "do_rescale": FLAG,
    "do_normalize": FLAG,
    "do_flip_channel_order": FLAG,
    "size": SIZE,
    "max_size": SIDE,
    "resample": whole(0, 5),
    "rescale_factor": FACTORS,
    "image_mean": _one_or_more(within(-1e9, 1e9)),
    "image_std": _one_or_more(FACTORS),
    "size_divisor": whole(0, 1 << 16),
    "size_divisibility": whole(0, 1 << 16),
}
"""What a processor's settings must be, where they are given."""
LEFT_OUT = {
    "do_center_crop": "The processor's centre crop is left out, so that no pixel is lost.",
    "keep_aspect_ratio": "The processor's keeping of the aspect ratio is left out.",
    "pad_size": "The processor's padding to one size is left out.",
}
"""Settings that are not followed, and what results should say then."""


def open_huggingface(name: str, device: torch.device | str | None = None) -> Source:
    """Open a folder, or a name on the hub, with its own classes and preprocessing.

    Weights are read from safetensors, or with `weights_only`; code that comes with them is never
    run.

    Args:
        name: a folder, or `owner/name`.
        device: where to move the network.

    Returns:
        The network, in float32.

    Raises:
        ModelError: where transformers is missing, or the folder cannot be loaded.
    """
    try:
        import transformers
    except ImportError as error:
        raise ModelError(
            f"{name}: expected transformers for Hugging Face networks, found none. Install with "
            f"{INSTALL}."
        ) from error
    with _quiet(transformers):
        config = _config(transformers, name)
        network, notes = _network(transformers, name, config)
        settings = _settings(transformers, name)
        if settings is not None:
            settings = _completed(transformers, settings, config.model_type)
            _hold_settings(name, settings)
    preprocessing, more = _preprocessing(settings, config)
    names = class_names(config.id2label)
    if names and sorted(map(int, config.id2label)) != [*range(len(names))]:
        more += ("config.json leaves out names of some classes; they are called by their numbers.",)
    distinct = made_distinct(names)
    if distinct != names:
        more += ("Class names that come twice in the folder carry a number, as in name (2).",)
    return Source(
        ModuleBackend(network.float(), device),
        name,
        "huggingface",
        preprocessing,
        distinct,
        (*notes, *more),
        _sha256(transformers, name),
        code=hash_of_files(sorted(Path(name).glob("*.json"))) if Path(name).is_dir() else None,
    )


def _config(transformers: Any, name: str) -> Any:
    try:
        return transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as error:
        raise ModelError(
            f"{name}: expected a Hugging Face folder or name with a config.json, but it cannot "
            f"be read ({first_line(error)}). Check the name, or save with save_pretrained."
        ) from error


def _network(transformers: Any, name: str, config: Any) -> tuple[nn.Module, tuple[str, ...]]:
    """The network with its weights, none of which may be missing."""
    if type(config) in transformers.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING:
        auto = transformers.AutoModelForSemanticSegmentation
    elif config.model_type in QUERY_MODELS:
        auto = transformers.AutoModelForUniversalSegmentation
    else:
        raise ModelError(
            f"{name}: expected a network for semantic segmentation, got {config.model_type}, "
            f"which is none or needs more than the image. Wrap it in a module that returns logits."
        )
    network, loading = _loaded(auto, name, config)
    notes: tuple[str, ...] = ()
    others = sorted(loading["unexpected_keys"])
    if others and all(key.startswith(PARALLEL) for key in others):
        network, loading = _loaded(auto, name, config, key_mapping={rf"^{PARALLEL}": ""})
        notes = (f"The weights' names start with {PARALLEL}, which is left out.",)
    _check_shapes(name, config, loading["mismatched_keys"])
    missing = sorted(loading["missing_keys"])
    needed = [key for key in missing if not key.startswith("auxiliary_head")]
    if needed:
        there = f"; it holds others, such as {others[0]}" if others else ""
        raise ModelError(
            f"{name}: expected all weights of {type(network).__name__}, found {len(needed)} "
            f"missing, such as {needed[0]}{there}. Load a network trained for segmentation, or "
            f"save its weights under these names."
        )
    if missing:
        notes += ("The auxiliary head has no weights and is not used.",)
    return network, notes


def _loaded(auto: Any, name: str, config: Any, **more: Any) -> tuple[nn.Module, dict[str, Any]]:
    try:
        network, loading = auto.from_pretrained(
            name,
            config=config,
            trust_remote_code=False,
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **more,
        )
    except Exception as error:
        raise ModelError(
            f"{name}: expected the weights of a {config.model_type} network, but they cannot be "
            f"loaded ({first_line(error)}). Save the folder again with save_pretrained."
        ) from error
    return network, loading


def _check_shapes(name: str, config: Any, mismatched: Any) -> None:
    """Refuse weights of other shapes than config.json says, as for another number of classes."""
    if not mismatched:
        return
    key, found, wanted = min(mismatched)
    more = wanted[0] - len(config.id2label or ())  # a class for no object
    if more in (0, 1) and found[0] != wanted[0]:
        raise ModelError(
            f"{name}: expected weights of {wanted[0] - more} classes, as many as config.json names "
            f"in id2label, got those of {found[0] - more} ({key}). Name each of the "
            f"{found[0] - more} there."
        )
    raise ModelError(
        f"{name}: expected weights of the shapes that config.json says, got {key} of "
        f"{tuple(found)}, not {tuple(wanted)}. Take the config.json that the weights were saved "
        f"with."
    )


def _settings(transformers: Any, name: str) -> dict[str, Any] | None:
    """The processor's settings as plain JSON; None where the folder has none."""
    reader = transformers.image_processing_utils.BaseImageProcessor
    try:
        return dict(reader.get_image_processor_dict(name)[0])
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        if Path(name, "preprocessor_config.json").exists():
            raise ModelError(
                f"{name}: expected preprocessing settings, but preprocessor_config.json cannot "
                f"be read ({first_line(error)}). Save the processor again."
            ) from error
        return None


def _hold_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Refuse values that no processor has.

    Raises:
        ModelError: for them.
    """
    for key, entry in SETTINGS.items():
        if not optional(entry).holds(settings.get(key)):
            raise ModelError(
                f"{name}: expected {entry.expected} for {key} in preprocessor_config.json, got "
                f"{str(settings[key])[:60]!r}. Correct it, or save the processor again."
            )


def _completed(transformers: Any, settings: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Settings with the values of the processor's class where the folder has none."""
    kind = settings.get("image_processor_type") or settings.get("feature_extractor_type")
    if kind is None:
        mapping = transformers.models.auto.image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES
        kind = mapping.get(model_type, "")
        known = kind.values() if isinstance(kind, Mapping) else [kind]
        kind = next((k[0] if isinstance(k, tuple) else k for k in known if k), "")
    plain = str(kind).replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast")
    plain = plain.removesuffix("Pil")
    found = (getattr(transformers, name, None) for name in (f"{plain}Pil", plain) if plain)
    processor = next((c for c in found if isinstance(c, type)), None)
    if processor is None:
        return settings
    given = inspect.signature(processor).parameters  # older versions have their values here
    for key in DEFAULTS:
        if settings.get(key) is None:
            default = getattr(given.get(key), "default", inspect.Parameter.empty)
            own = getattr(processor, key, default)
            if own is not inspect.Parameter.empty:
                settings = settings | {key: dict(own) if isinstance(own, Mapping) else own}
    return settings


def of_json(settings: dict[str, Any], config: Mapping[str, Any]) -> Preprocessing | None:
    """What a processor's JSON says of images for a network that was exported.

    Args:
        settings: of `preprocessor_config.json`.
        config: of `config.json`.

    Returns:
        None where the JSON leaves the normalisation to a class that is not here to be asked.
    """
    model_type = str(config.get("model_type", ""))
    if any(key not in settings for key in SAID):  # transformers is asked, which takes seconds
        try:
            import transformers
        except ImportError:
            if settings.get("do_normalize") is not False and settings.get("image_mean") is None:
                return None
        else:
            with _quiet(transformers):
                settings = _completed(transformers, settings, model_type)
    known = SimpleNamespace(model_type=model_type, image_size=config.get("image_size"))
    return _preprocessing(settings, known)[0]


def _preprocessing(
    settings: dict[str, Any] | None, config: Any
) -> tuple[Preprocessing, tuple[str, ...]]:
    """Translate a processor's settings to RGB in [0, 1], and say what is not translated."""
    notes = []
    if settings is None:
        notes.append("The folder has no preprocessor_config.json; ImageNet's values are assumed.")
    settings = settings or {}
    size = _size(settings, config.model_type)
    edge: Any = getattr(config, "image_size", None)
    one_size = config.model_type in SQUARE_ONLY and edge is not None
    window = _window(settings, size) if config.model_type in WINDOWED else None
    if window is not None:
        notes.append(f"The network sees images in squares of {window} pixels, as its processor.")
    elif one_size and (isinstance(size, ImageSize) or config.model_type in QUERY_MODELS):
        if not SIZE.holds(edge) or isinstance(edge, Mapping):
            raise ModelError(
                f"config.json: expected {SIDE.expected}, or two, for image_size, got "
                f"{str(edge)[:60]!r}. Save the folder again with save_pretrained."
            )
        height, width = edge if isinstance(edge, (list, tuple)) else (edge, edge)
        size = FixedSize(int(height), int(width))
        notes.append("The network takes one size; images are resized to it as a whole.")
    notes += [note for setting, note in LEFT_OUT.items() if settings.get(setting)]
    mean, std = _normalisation(settings)
    divisor = settings.get("size_divisor") or settings.get("size_divisibility")
    divisor = int(divisor) if divisor else None
    bgr = bool(settings.get("do_flip_channel_order"))
    resample = RESAMPLES.get(int(settings.get("resample") or 2))
    if resample is None:
        notes.append("The processor's way of resizing is replaced by the bicubic one.")
    origin = "preprocessor_config.json" if settings else "assumed"
    how = Preprocessing(mean, std, size, divisor, bgr, origin, resample=resample or "bicubic")
    return replace(how, levels=True, window=window), tuple(notes)


def _window(settings: Mapping[str, Any], size: FixedSize | EdgeSize | ImageSize) -> int | None:
    """Side of the squares into which a processor splits, or to which it pads."""
    if not isinstance(size, EdgeSize) or size.shortest is None:
        return None
    return size.shortest if settings.get("do_split_image") or settings.get("do_pad") else None


def _size(settings: Mapping[str, Any], model_type: str) -> FixedSize | EdgeSize | ImageSize:
    size = settings.get("size")
    if size is None or not settings.get("do_resize", True):
        return ImageSize()
    if isinstance(size, int | float):
        if model_type in SHORTEST_EDGE:
            return EdgeSize(int(size), settings.get("max_size"))
        return FixedSize(int(size), int(size))
    if isinstance(size, list | tuple):
        return FixedSize(int(size[0]), int(size[1]))
    if isinstance(size, Mapping) and size.get("height") and size.get("width"):
        return FixedSize(int(size["height"]), int(size["width"]))
    if isinstance(size, Mapping) and (size.get("shortest_edge") or size.get("longest_edge")):
        return EdgeSize(size.get("shortest_edge"), size.get("longest_edge"))
    return ImageSize()


def _normalisation(settings: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation for RGB in [0, 1], the processor's rescaling folded in."""
    factor = float(settings.get("rescale_factor") or 1 / 255)
    if not settings.get("do_rescale", True):
        factor = 1.0
    mean, std = [0.0] * 3, [1.0] * 3
    if settings.get("do_normalize", True):
        mean = _for_bands(settings.get("image_mean"), IMAGENET_MEAN)
        std = _for_bands(settings.get("image_std"), IMAGENET_STD)
    scale = 255 * factor  # the processor maps a pixel of value 1 to this before normalising
    scale = 1.0 if abs(scale - 1) < 1e-6 else scale
    return tuple(value / scale for value in mean), tuple(value / scale for value in std)


def _for_bands(values: Any, default: tuple[float, ...]) -> list[float]:
    if values is None:
        return list(default)
    return [float(v) for v in values] if isinstance(values, (list, tuple)) else [float(values)] * 3


def class_names(id2label: Mapping[Any, Any] | None) -> tuple[str, ...]:
    """Names in the order of the classes; empty where they are transformers' placeholders.

    As many as there are labels, which is how many channels the network has; where numbers are left
    out, those classes are called by them.
    """
    names = {int(index): str(label) for index, label in (id2label or {}).items()}
    if all(label == f"LABEL_{index}" for index, label in names.items()):
        return ()
    return tuple(names.get(index, f"class {index}") for index in range(len(names)))


def _sha256(transformers: Any, name: str) -> str | None:
    """Of the weights, where they are one safetensors file."""
    if Path(name).is_dir():
        path = Path(name, "model.safetensors")
        return sha256_of(path) if path.is_file() else None
    try:
        cached = transformers.utils.cached_file(name, "model.safetensors", local_files_only=True)
    except OSError:
        return None
    return sha256_of(Path(cached)) if cached else None


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No progress bars, reports or warnings of transformers and the hub while the block lasts."""
    logger, hub = transformers.utils.logging, logging.getLogger("huggingface_hub")
    verbosity, bars, level = logger.get_verbosity(), logger.is_progress_bar_enabled(), hub.level
    logger.set_verbosity(logging.CRITICAL)
    logger.disable_progress_bar()
    hub.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.set_verbosity(verbosity)
        hub.setLevel(level)
        if bars:
            logger.enable_progress_bar()
