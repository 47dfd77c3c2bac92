"""Networks as other libraries have them: what they say of themselves, and what cannot be opened.

TorchScript files, folders of segmentation-models-pytorch, Ultralytics' objects; and for files of
other run times a sentence that says what they are and the way out.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from doubtmap.errors import ModelError, UsageError, first_line
from doubtmap.files.resuming import hash_of_files, sha256_of
from doubtmap.models.backend import Source
from doubtmap.models.module import ModuleBackend
from doubtmap.models.preprocessing import Preprocessing

SEMANTIC = ("semantic", "semseg")
"""Ultralytics' names of the task."""
SMP = "_model_class"
"""Key of `config.json` by which segmentation-models-pytorch's folders are known."""
INSTALL_SMP = "pip install segmentation-models-pytorch"
LFS = b"version https://git-lfs"
TO_ONNX = "Export the network it was made from to ONNX, with logits as its output"
WRAP = "Write a function that builds the network and loads it, and pass python:FILE.py:FUNCTION"
KERAS = "Export it with model.export(FILE, format='onnx'), or tf2onnx"
LOAD = "Write a function that loads and returns it, if you trust it: python:FILE.py:FUNCTION"
PICKLE = "a pickle, which runs any code when it is opened"
KINDS = {
    ".py": ("Python code", "Name its function that returns the network: python:FILE.py:FUNCTION"),
    ".engine": ("a TensorRT engine", TO_ONNX),
    ".plan": ("a TensorRT engine", TO_ONNX),
    ".trt": ("a TensorRT engine", TO_ONNX),
    ".tflite": ("a TensorFlow Lite file", TO_ONNX + " (tf2onnx reads .tflite)"),
    ".mlmodel": ("a Core ML file", TO_ONNX),
    ".mlpackage": ("a Core ML package", TO_ONNX),
    ".ptl": ("a network of PyTorch Mobile", "Pass the TorchScript file it was made from"),
    ".mar": ("an archive of TorchServe", "Unpack it, and pass the TorchScript file inside"),
    ".mnn": ("a network of MNN", TO_ONNX),
    ".param": ("a network of ncnn", TO_ONNX),
    ".npz": ("arrays", "Predictions by image name are given as saved:FOLDER"),
    ".npy": ("an array", "Predictions by image name are given as saved:FOLDER"),
    ".msgpack": ("a file of weights of Flax", WRAP),
    ".pdparams": ("a file of weights of PaddlePaddle", "Convert the network with paddle2onnx"),
    ".keras": ("a Keras file", KERAS),
    **dict.fromkeys((".rknn", ".om", ".hef", ".dlc", ".blob"), ("compiled for a device", TO_ONNX)),
    **dict.fromkeys((".h5", ".hdf5"), ("a Keras or HDF5 file", KERAS)),
    ".pb": ("a TensorFlow graph", "Convert it with tf2onnx, with logits as its output"),
    ".ort": ("an onnxruntime-only file", "Pass the .onnx file it was made from"),
    ".pte": ("an ExecuTorch program", "Pass the .pt2 file, or the network, it was made from"),
    ".gguf": ("a file of weights in GGUF", WRAP),
    ".pdmodel": ("a PaddlePaddle network", "Convert it with paddle2onnx"),
    ".safetensors": (
        "a file of weights, which does not say what network it belongs to",
        "Pass the Hugging Face folder around it, or python:FILE.py:FUNCTION(weights=FILE)",
    ),
    **dict.fromkeys(
        (".pkl", ".pickle", ".joblib"),
        (PICKLE, "Save the network's state_dict, and pass python:FILE.py:FUNCTION(weights=FILE)"),
    ),
}
"""Files that are not opened: what they are, and the way out."""
OTHER_WEIGHTS = ("tf_model.h5", "flax_model.msgpack")
RESAVE = "Save it with PyTorch's: in transformers 4 from_pretrained(FOLDER, from_tf=True) reads it"
SAVE_NNUNET = "Save its probabilities (--save_probabilities), and pass saved:FOLDER of them"
TORCH_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
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
        said = _encoder_settings(name)
    except (ImportError, KeyError, ValueError, AttributeError):
        return None  # an encoder without pretrained weights says nothing
    if said.get("mean") is None or said.get("std") is None or said.get("input_range") == [0, 255]:
        return None
    bgr = said.get("input_space") == "BGR"
    return Preprocessing(tuple(said["mean"]), tuple(said["std"]), bgr=bgr, origin="its encoder")


def _encoder_settings(name: str) -> Mapping[str, Any]:
    """What an encoder's weights say, where they lie on this machine: nothing is fetched."""
    from segmentation_models_pytorch import encoders

    if name.startswith("tu-"):
        return dict(encoders.get_preprocessing_params(name))  # of timm, which has them itself
    settings: Mapping[str, Any] = encoders.encoders[name]["pretrained_settings"]["imagenet"]
    if "repo_id" not in settings:
        return settings
    from huggingface_hub import try_to_load_from_cache

    where = {"repo_id": settings["repo_id"], "revision": settings["revision"]}
    found = try_to_load_from_cache(filename="config.json", **where)
    return _json(Path(found)) if isinstance(found, str) else {}


def beside(path: Path) -> tuple[Preprocessing | None, tuple[str, ...]]:
    """Images and class names as configurations beside a file, or one folder up, say them."""
    from doubtmap.models.huggingface import class_names, of_json

    how: Preprocessing | None = None
    names: tuple[str, ...] = ()
    for folder in (path.resolve().parent, path.resolve().parent.parent):
        said = _json(folder / "preprocessor_config.json")
        config = _json(folder / "config.json")
        if how is None and said:
            how = of_json(said, config)
        labels = config.get("id2label")
        names = names or (class_names(labels) if isinstance(labels, Mapping) else ())
    return how, names


def _json(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
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
    if task not in SEMANTIC:
        raise UsageError(
            f"load: expected a network for semantic segmentation, got one of Ultralytics for the "
            f"task {task}, which gives boxes or instances. Load a network of the task semantic."
        )
    own = isinstance(inner, nn.Sequential)  # the layers of a network that is no wrapper
    return model if own and isinstance(model, nn.Module) else inner


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
    kinds = ("config.json", "doubtmap.json")
    checkpoints = [name for name in below if any((folder / name / k).is_file() for k in kinds)]
    what: tuple[str, str] | None = None
    if folder.suffix == ".mlpackage":
        what = KINDS[".mlpackage"]
    elif "saved_model.pb" in below:
        what = "a TensorFlow SavedModel", "Convert it with tf2onnx, with logits as its output"
    elif "plans.json" in below or "nnUNetPlans.json" in below:
        what = "a folder of nnU-Net", SAVE_NNUNET
    elif "adapter_config.json" in below:
        what = "an adapter without its network", "Merge it (merge_and_unload) and save the whole"
    elif "auto_map" in _json(folder / "config.json"):
        what = "a network with code of its own, which is never run", WRAP
    elif "config.json" not in below and checkpoints:
        what = (
            f"one with networks inside ({', '.join(checkpoints)})",
            (f"Pass {folder / checkpoints[-1]}"),
        )
    elif "config.json" not in below and (folder / "training" / "settings.json").is_file():
        what = (
            "a training that has not finished its first epoch",
            "Go on with it: doubtmap train ... --resume",
        )
    elif len(inside := exported_inside(folder)) > 1:
        what = (
            f"one with {len(inside)} exported networks",
            f"Pass one of them: {', '.join(map(str, inside))}",
        )
    elif "dataset.json" in below and any(name.startswith("fold_") for name in below):
        what = "a folder of nnU-Net", SAVE_NNUNET
    elif "config.json" not in below and (made := _of_mmseg(folder)):
        what = (
            f"a work folder of mmsegmentation ({made})",
            "Build it with mmseg's init_model in a Python file, and pass python:FILE.py:FUNCTION",
        )
    elif "config.json" not in below and (weights := _checkpoints(folder)):
        what = f"one with the checkpoint {weights[0].name} only", WRAP
    elif "model.weights.h5" in below:
        what = KINDS[".keras"]
    elif foreign := [name for name in OTHER_WEIGHTS if name in below]:
        what = f"one with the weights {foreign[0]}, not PyTorch's", RESAVE
    elif "config.json" not in below:
        shown = ", ".join(below[:4]) or "nothing"
        what = f"one without config.json, with {shown} in it", "Check the path"
    if what is not None:
        raise UsageError(f"load: expected a folder with a network, got {what[0]}. {what[1]}.")


def exported_inside(folder: Path) -> list[Path]:
    """ONNX and OpenVINO files of a folder that holds no weights of PyTorch, as optimum's.

    Of several, the one that is called `model`, where there is one alone.
    """
    if any((folder / name).is_file() for name in TORCH_WEIGHTS):
        return []
    patterns = ("*.onnx", "onnx/*.onnx", "*.xml", "openvino/*.xml")
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    main = [path for path in found if path.stem in ("model", "openvino_model")]
    return main if len(main) == 1 else found


def _of_mmseg(folder: Path) -> str:
    """The configuration of mmsegmentation that a folder holds."""
    files = sorted(folder.glob("*.py"))
    return next((file.name for file in files if "model = dict(" in file.read_text("utf8")), "")


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.suffix.lower() in CHECKPOINTS]


def _there(path: Path) -> bool:
    """Whether a path that ends as files do is one."""
    known = path.suffix.lower() in (*KINDS, *CHECKPOINTS)
    return path.exists() if known else True


def _holds(path: Path, word: bytes) -> bool:
    """Whether a file, or the pickle in its archive, holds a word; nothing is unpickled."""
    if not path.is_file():
        return False
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return word in file.read(1 << 20)
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
        return any(word in archive.read(name) for name in pickles)


def refuse_file(path: Path, forms: str) -> None:
    """Refuse a file of another run time.

    Raises:
        UsageError: with what it is and the way out.
    """
    what, way = KINDS.get(path.suffix.lower(), ("", ""))
    if path.suffix.lower() in CHECKPOINTS:
        what, way = "a checkpoint, which does not say what network it belongs to", WRAP
        if path.with_suffix(".xml").is_file():
            what, way = "the weights of an OpenVINO network", f"Pass {path.with_suffix('.xml')}"
        elif _holds(path, b"ultralytics"):
            what = f"a checkpoint of Ultralytics, {PICKLE}"
            way = "Load it in Python, doubtmap.load(YOLO(FILE)), or: yolo export format=onnx"
        elif _holds(path, b"torch.nn.modules"):
            what, way = f"a whole network, {PICKLE}", LOAD
    elif path.is_file() and not what:
        what, way = "a file of a kind that is not known", TO_ONNX
    if not _there(path):
        what, way = "where there is no file", "Check the path"
    if what:
        raise UsageError(f"load: expected {forms}, got {str(path)!r}, {what}. {way}.")
