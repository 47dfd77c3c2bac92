"""Networks as other libraries have them: what they say of themselves, and what cannot be opened.

TorchScript files, folders of segmentation-models-pytorch, Ultralytics' objects; and for files of
other run times a sentence that says what they are and the way out.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from doubtmap.errors import ModelError, UsageError
from doubtmap.models.backend import Source, first_line, hash_of_files, sha256_of
from doubtmap.models.module import ModuleBackend
from doubtmap.models.preprocessing import Preprocessing

SMP = "_model_class"
"""Key of `config.json` by which segmentation-models-pytorch's folders are known."""
INSTALL_SMP = "pip install segmentation-models-pytorch"
LFS = b"version https://git-lfs"
TO_ONNX = "Export the network it was made from to ONNX, with logits as its output"
WRAP = "Write a function that builds the network and loads it, and pass python:FILE.py:FUNCTION"
KINDS = {
    ".engine": ("a TensorRT engine", TO_ONNX),
    ".plan": ("a TensorRT engine", TO_ONNX),
    ".trt": ("a TensorRT engine", TO_ONNX),
    ".tflite": ("a TensorFlow Lite file", TO_ONNX + " (tf2onnx reads .tflite)"),
    ".mlmodel": ("a Core ML file", TO_ONNX),
    ".mlpackage": ("a Core ML package", TO_ONNX),
    ".keras": ("a Keras file", "Export it with model.export(FILE, format='onnx'), or tf2onnx"),
    ".h5": ("a Keras or HDF5 file", "Export it with model.export(FILE, format='onnx'), or tf2onnx"),
    ".pb": ("a TensorFlow graph", "Convert it with tf2onnx, with logits as its output"),
    ".xml": ("an OpenVINO network", TO_ONNX),
    ".ort": ("an onnxruntime-only file", "Pass the .onnx file it was made from"),
    ".pte": ("an ExecuTorch program", "Pass the .pt2 file, or the network, it was made from"),
    ".gguf": ("a file of weights in GGUF", WRAP),
    ".pdmodel": ("a PaddlePaddle network", "Convert it with paddle2onnx"),
    ".safetensors": (
        "a file of weights, which does not say what network it belongs to",
        "Pass the Hugging Face folder around it, or python:FILE.py:FUNCTION(weights=FILE)",
    ),
    ".pkl": (
        "a pickle, which runs any code when it is opened",
        "Save the network's state_dict, and pass python:FILE.py:FUNCTION(weights=FILE)",
    ),
}
"""Files that are not opened: what they are, and the way out."""
CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".torchscript", ".ts", ".jit")


def names_of(found: object) -> tuple[str, ...]:
    """Class names out of a list, or a mapping from numbers to names; empty for anything else."""
    if isinstance(found, Mapping):
        try:
            numbered = sorted((int(key), str(value)) for key, value in found.items())
        except (TypeError, ValueError):
            return ()
        return tuple(name for _, name in numbered)
    if isinstance(found, (list, tuple)) and all(isinstance(name, str) for name in found):
        return tuple(found)
    return ()


def module_names(module: nn.Module) -> tuple[str, ...]:
    """Class names that a network carries: `class_names`, `names`, `dataset_meta` or `id2label`."""
    from doubtmap.models.huggingface import class_names

    meta = getattr(module, "dataset_meta", None)
    classes = meta.get("classes") if isinstance(meta, Mapping) else None
    for found in (getattr(module, "class_names", None), getattr(module, "names", None), classes):
        if names := names_of(found):
            return names
    labels = getattr(getattr(module, "config", None), "id2label", None)
    return class_names(labels) if isinstance(labels, Mapping) else ()


def module_preprocessing(module: nn.Module) -> Preprocessing | None:
    """Normalisation that a network carries, from RGB in [0, 1]; None where it says none.

    mmseg's `data_preprocessor`, timm's `pretrained_cfg`, segmentation-models-pytorch's encoders,
    and Ultralytics' networks, which take [0, 1].
    """
    if type(module).__module__.startswith("ultralytics"):
        return Preprocessing((0.0,) * 3, (1.0,) * 3, origin="Ultralytics takes [0, 1]")
    processor = getattr(module, "data_preprocessor", None)
    mean, std = (getattr(processor, name, None) for name in ("mean", "std"))
    if isinstance(mean, Tensor) and isinstance(std, Tensor):
        bgr = not getattr(processor, "channel_conversion", False)
        scaled = [tuple((x.flatten().float() / 255).tolist()) for x in (mean, std)]
        return Preprocessing(scaled[0], scaled[1], bgr=bgr, origin="data_preprocessor")
    for part in (module, *(getattr(module, n, None) for n in ("encoder", "backbone", "model"))):
        told = getattr(part, "pretrained_cfg", None) or getattr(part, "default_cfg", None)
        if isinstance(told, Mapping) and told.get("mean") and told.get("std"):
            values = [tuple(map(float, told[key])) for key in ("mean", "std")]
            return Preprocessing(values[0], values[1], origin="pretrained_cfg")
    return _of_encoder(module)


def _of_encoder(module: nn.Module) -> Preprocessing | None:
    """What segmentation-models-pytorch says of a network's encoder."""
    config = getattr(module, "config", None)
    name = config.get("encoder_name") if isinstance(config, Mapping) else None
    if not isinstance(name, str) or not type(module).__module__.startswith("segmentation_models"):
        return None
    try:
        from segmentation_models_pytorch.encoders import get_preprocessing_params

        said = get_preprocessing_params(name)
    except (ImportError, KeyError, ValueError, AttributeError):
        return None  # an encoder without pretrained weights says nothing
    if said.get("mean") is None or said.get("std") is None or said.get("input_range") == [0, 255]:
        return None
    bgr = said.get("input_space") == "BGR"
    return Preprocessing(tuple(said["mean"]), tuple(said["std"]), bgr=bgr, origin="its encoder")


def beside(path: Path) -> tuple[Preprocessing | None, tuple[str, ...]]:
    """Normalisation and class names that configurations beside a file, or one folder up, say."""
    from doubtmap.models.huggingface import class_names

    how: Preprocessing | None = None
    names: tuple[str, ...] = ()
    for folder in (path.resolve().parent, path.resolve().parent.parent):
        said = _json(folder / "preprocessor_config.json")
        mean, std = said.get("image_mean"), said.get("image_std")
        if how is None and said.get("do_normalize") is False:
            how = Preprocessing((0.0,) * 3, (1.0,) * 3, origin="preprocessor_config.json")
        if how is None and isinstance(mean, list) and isinstance(std, list):
            values = [tuple(map(float, each)) for each in (mean, std)]
            how = Preprocessing(values[0], values[1], origin="preprocessor_config.json")
        labels = _json(folder / "config.json").get("id2label")
        names = names or (class_names(labels) if isinstance(labels, Mapping) else ())
    return how, names


def _json(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}  # there is none, or it is something else's
    return said if isinstance(said, dict) else {}


def unwrapped(model: object) -> nn.Module | None:
    """The network inside an object of another library that holds one, such as Ultralytics' YOLO.

    Raises:
        UsageError: for one that is made for another task.
    """
    inner = getattr(model, "model", None)
    if not type(model).__module__.startswith("ultralytics") or not isinstance(inner, nn.Module):
        return model if isinstance(model, nn.Module) else None
    task = str(getattr(model, "task", "semantic"))
    if task not in ("semantic", "semseg"):
        raise UsageError(
            f"load: expected a network for semantic segmentation, got one of Ultralytics for the "
            f"task {task}, which gives boxes or instances. Load a network of the task semantic."
        )
    return inner


def open_torchscript(path: Path, device: torch.device | str | None = None) -> Source:
    """Open a TorchScript file, which says what network it holds and runs no Python code.

    Raises:
        ModelError: where it cannot be read.
    """
    try:
        opened: Any = torch.jit
        module: nn.Module = opened.load(str(path), map_location=device or "cpu")
    except Exception as error:
        raise ModelError(
            f"{path}: expected a TorchScript file, but it cannot be read ({first_line(error)}). "
            f"Save it again with torch.jit.save."
        ) from error
    how, names = beside(path)
    return Source(
        ModuleBackend(module, device),
        str(path),
        "torchscript",
        how or Preprocessing(),
        names,
        sha256=sha256_of(path),
    )


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive of `torch.jit.save`."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]
    return any(name.startswith("code/") for name in names) and "constants.pkl" in names


def is_smp(folder: Path) -> bool:
    """Whether a folder is one of segmentation-models-pytorch's `save_pretrained`."""
    return SMP in _json(folder / "config.json")


def open_smp(folder: Path, device: torch.device | str | None = None) -> Source:
    """Open a folder of segmentation-models-pytorch.

    Raises:
        ModelError: where the library is missing, or the folder cannot be loaded.
    """
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        raise ModelError(
            f"{folder}: expected segmentation-models-pytorch for its folder, found none. Install "
            f"with {INSTALL_SMP}."
        ) from error
    try:
        network = smp.from_pretrained(str(folder))
    except Exception as error:
        raise ModelError(
            f"{folder}: expected a folder of segmentation-models-pytorch, but it cannot be loaded "
            f"({first_line(error)}). Save it again with save_pretrained."
        ) from error
    how = module_preprocessing(network)
    weights = folder / "model.safetensors"
    return Source(
        ModuleBackend(network, device),
        str(folder),
        "smp",
        how or Preprocessing(),
        sha256=sha256_of(weights) if weights.is_file() else None,
        code=hash_of_files([folder / "config.json"]),
    )


def refuse_pointer(path: Path) -> None:
    """Refuse a file of Git LFS that was not fetched.

    Raises:
        ModelError: with the command that fetches it.
    """
    for file in [path] if path.is_file() else _weights(path):
        with file.open("rb") as opened:
            if opened.read(len(LFS)) == LFS:
                raise ModelError(
                    f"{file}: expected weights, got a Git LFS pointer. Fetch it with: git lfs pull"
                )


def _weights(folder: Path) -> Iterator[Path]:
    for name in ("model.safetensors", "pytorch_model.bin", "config.json"):
        if (folder / name).is_file():
            yield folder / name


def refuse_folder(folder: Path) -> None:
    """Refuse a folder that holds something known that is not opened.

    Raises:
        UsageError: with what it is and the way out.
    """
    below = sorted(path.name for path in folder.iterdir())
    checkpoints = [name for name in below if (folder / name / "config.json").is_file()]
    what: tuple[str, str] | None = None
    if "saved_model.pb" in below:
        what = "a TensorFlow SavedModel", "Convert it with tf2onnx, with logits as its output"
    elif "plans.json" in below or "nnUNetPlans.json" in below:
        what = (
            "a folder of nnU-Net",
            "Save its probabilities (--save_probabilities), pass saved:FOLDER",
        )
    elif "adapter_config.json" in below:
        what = "an adapter without its network", "Merge it (merge_and_unload) and save the whole"
    elif "auto_map" in _json(folder / "config.json"):
        what = "a network with code of its own, which is never run", WRAP
    elif "config.json" not in below and checkpoints:
        what = (
            f"one with networks inside ({', '.join(checkpoints)})",
            (f"Pass {folder / checkpoints[-1]}"),
        )
    elif "config.json" not in below and (xml := [n for n in below if n.endswith(".xml")]):
        what = f"OpenVINO's {xml[0]}", TO_ONNX
    elif "config.json" not in below and (inside := _onnx(folder)):
        what = "one with ONNX files", f"Pass {inside[0]}"
    if what is not None:
        raise UsageError(f"load: expected a folder with a network, got {what[0]}. {what[1]}.")


def _onnx(folder: Path) -> Sequence[Path]:
    return [*sorted(folder.glob("*.onnx")), *sorted(folder.glob("onnx/*.onnx"))]


def refuse_file(path: Path, forms: str) -> None:
    """Refuse a file of another run time.

    Raises:
        UsageError: with what it is and the way out.
    """
    what, way = KINDS.get(path.suffix.lower(), ("", ""))
    if path.suffix.lower() in CHECKPOINTS:
        what, way = "the checkpoint, which does not say what network it belongs to", WRAP
        if path.with_suffix(".xml").is_file():
            what, way = KINDS[".xml"]
    if what:
        raise UsageError(f"load: expected {forms}, got {str(path)!r}, {what}. {way}.")
