"""A graph as files: ONNX, OpenVINO, a folder of Triton, or a program of `torch.export`."""

from __future__ import annotations

import inspect
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from doubtmap.deploy import repository, tensorrt
from doubtmap.deploy.graph import CLASSES, Graph
from doubtmap.deploy.operators import Pooled
from doubtmap.deploy.parity import Run
from doubtmap.errors import ModelError, first_line
from doubtmap.models import openvino as openvino_models
from doubtmap.models.exported import ABOUT, LOGITS
from doubtmap.models.onnx import INSTALL
from doubtmap.runtime import load
from doubtmap.version import __version__

OPSET = 18
"""Of ONNX; ONNX Runtime 1.14, OpenVINO 2023 and TensorRT 10 read it."""
OPSETS = range(12, 21)
"""Those that a graph can be written in: before 12 whole numbers could not be clipped, and PyTorch's
older exporter writes up to 20."""
IMAGES = "images"
"""Name of the input."""


Files = Mapping[str, Path]
"""What was written: where it goes, from the place that the user named (empty: there), and it."""


def write_onnx(
    graph: Graph, images: Tensor, free: bool, path: Path, about: Mapping[str, Any]
) -> tuple[Run, Files]:
    """Write an ONNX file, and open it.

    Args:
        graph: to write.
        images: `(B, 3, H, W)`, to follow it with.
        free: whether height and width are free; how many images is always.
        path: of the file, without its end.
        about: what the file shall say about itself.

    Returns:
        What runs it, and the file.

    Raises:
        ModelError: without onnx or onnxruntime, and for networks that cannot be written down.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"export: expected onnx and onnxruntime, found no {error.name}. Install with {INSTALL}."
        ) from error
    path = path.with_suffix(".onnx")
    names = list(about["outputs"])
    # The older exporter, which takes a tenth of the time, and sizes that code computes with.
    known = inspect.signature(torch.onnx.export).parameters
    older: dict[str, Any] = {"dynamo": False} if "dynamo" in known else {}
    with _written_down("ONNX"), Pooled():
        torch.onnx.export(
            _Tuple(graph),
            (images,),
            str(path),
            input_names=[IMAGES],
            output_names=names,
            dynamic_axes=_axes(names, free),
            opset_version=about["opset"],
            **older,
        )
    model = onnx.load(str(path))
    model.producer_name, model.producer_version = "doubtmap", __version__
    refused = tensorrt.refused(onnx.shape_inference.infer_shapes(model))
    entries = {"doubtmap": json.dumps({**about, "tensorrt": refused})}
    if about["classes"]:
        entries["names"] = repr(dict(enumerate(about["classes"])))
    onnx.helper.set_model_props(model, entries)
    onnx.save(model, str(path))
    with _written_down("ONNX Runtime"):
        return _by_runtime(path), {"": path}


def _by_runtime(path: Path) -> Run:
    """Run an ONNX file as users do, without PyTorch."""
    network = load(path, threads=torch.get_num_threads())

    def run(images: Tensor) -> dict[str, Tensor]:
        found = {name: torch.from_numpy(each) for name, each in network(images.numpy()).items()}
        wide = found.get(CLASSES)
        if wide is not None and wide.dtype == torch.uint16:  # as small as holds them, in NumPy
            found[CLASSES] = wide.int()
        return found

    return run


def write_triton(
    graph: Graph, images: Tensor, free: bool, path: Path, about: Mapping[str, Any]
) -> tuple[Run, Files]:
    """Write a folder of Triton Inference Server; arguments as of `write_onnx`."""
    run, files = write_onnx(graph, images, free, path, about)
    sides = [-1, -1] if free else list(images.shape[-2:])
    given = {"name": IMAGES, "type": "uint8" if images.dtype == torch.uint8 else "float32"}
    with torch.no_grad():
        said = graph(images)
    kinds = {name: str(each.dtype).removeprefix("torch.") for name, each in said.items()}
    shapes = {
        name: [each.shape[1], *([-1, -1] if free else each.shape[2:])] if name == LOGITS else sides
        for name, each in said.items()
    }
    outputs = {name: (kinds[name], shapes[name]) for name in said}
    made = repository.config(about["name"], given | {"dims": [3, *sides]}, outputs)
    text = repository.text_of(made)
    assert repository.read(text) == made
    path.with_suffix(".pbtxt").write_text(text)
    return run, {"1/model.onnx": files[""], "config.pbtxt": path.with_suffix(".pbtxt")}


def write_openvino(
    graph: Graph, images: Tensor, free: bool, path: Path, about: Mapping[str, Any]
) -> tuple[Run, Files]:
    """Write an `.xml` and its `.bin`, and open them; arguments as of `write_onnx`."""
    try:
        import openvino
    except ImportError as error:
        raise ModelError(
            f"export: expected openvino, found none. Install with {openvino_models.INSTALL}."
        ) from error
    _, files = write_onnx(graph, images, free, path, about)
    names, xml = list(about["outputs"]), path.with_suffix(".xml")
    with _written_down("OpenVINO"):
        model = openvino.convert_model(files[""])
        model.set_rt_info(json.dumps(about), ["doubtmap"])
        openvino.save_model(model, xml, compress_to_fp16=False)
        core = openvino.Core()
        compiled = core.compile_model(xml, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images: Tensor) -> dict[str, Tensor]:
        arrays = compiled([images.numpy()])
        return {name: torch.from_numpy(arrays[name].copy()) for name in names}

    return run, {".bin": path.with_suffix(".bin"), ".xml": xml}


def write_pt2(
    graph: Graph, images: Tensor, free: bool, path: Path, about: Mapping[str, Any]
) -> tuple[Run, Files]:
    """Write a program of `torch.export`, and open it; arguments as of `write_onnx`."""
    dynamic, path = torch.export.Dim.AUTO, path.with_suffix(".pt2")
    shape = {0: dynamic, **({2: dynamic, 3: dynamic} if free else {})}
    with _written_down("a program of torch.export"), torch.no_grad():
        program = torch.export.export(graph, (images,), dynamic_shapes=(shape,), strict=False)
        torch.export.save(program, path, extra_files={ABOUT: json.dumps(about)})
        module: Run = torch.export.load(path).module()
    return module, {"": path}


ENDS = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2", "triton": ""}
"""Of the names of files; a folder has none."""
WRITERS = {
    "onnx": write_onnx,
    "openvino": write_openvino,
    "pt2": write_pt2,
    "triton": write_triton,
}


class _Tuple(nn.Module):
    """A graph whose outputs have no names of their own."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs in order."""
        return tuple(self.graph(images).values())


def _axes(names: list[str], free: bool) -> dict[str, dict[int, str]]:
    """Names of the axes whose lengths are free."""
    axes: dict[str, dict[int, str]] = {}
    for name in (IMAGES, *names):
        sides = {2: "rows", 3: "columns"} if name == LOGITS else {1: "height", 2: "width"}
        sides = {2: "height", 3: "width"} if name == IMAGES else sides
        axes[name] = {0: "batch", **(sides if free else {})}
    return axes


@contextmanager
def _written_down(what: str) -> Iterator[None]:
    """Keep the exporters quiet, and let what they raise be one sentence.

    Raises:
        ModelError: for a network that cannot be written down.
    """
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        raise ModelError(
            f"export: expected a network and scores that {what} can hold, but PyTorch said "
            f"{first_line(error)}. Give --size HxW, for a file of one size, try the other "
            f"--format or a newer --opset, or leave scores out."
        ) from error
    finally:
        logger.setLevel(level)
