"""A graph as a file: ONNX, or a program of `torch.export`."""

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

from doubtmap.deploy.graph import Graph
from doubtmap.deploy.operators import Pooled
from doubtmap.deploy.parity import Run
from doubtmap.errors import ModelError
from doubtmap.models.backend import first_line
from doubtmap.models.exported import ABOUT, LOGITS
from doubtmap.models.onnx import INSTALL
from doubtmap.version import __version__

OPSET = 18
"""Of ONNX; ONNX Runtime 1.14, OpenVINO 2023 and TensorRT 10 read it."""
IMAGES = "images"
"""Name of the input."""


def write_onnx(
    graph: Graph, images: Tensor, free: bool, path: Path, about: Mapping[str, Any]
) -> Run:
    """Write an ONNX file, and open it.

    Args:
        graph: to write.
        images: `(B, 3, H, W)`, to follow it with.
        free: whether height and width are free; how many images is always.
        path: of the file.
        about: what the file shall say about itself.

    Returns:
        What runs it.

    Raises:
        ModelError: without onnx or onnxruntime, and for networks that cannot be written down.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            f"export: expected onnx and onnxruntime, found no {error.name}. Install with {INSTALL}."
        ) from error
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
            opset_version=OPSET,
            **older,
        )
    model = onnx.load(str(path))
    model.producer_name, model.producer_version = "doubtmap", __version__
    entries = {"doubtmap": json.dumps(about)}
    if about["classes"]:
        entries["names"] = repr(dict(enumerate(about["classes"])))
    onnx.helper.set_model_props(model, entries)
    onnx.save(model, str(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 4
    with _written_down("ONNX Runtime"):
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def run(images: Tensor) -> dict[str, Tensor]:
        arrays = session.run(names, {IMAGES: images.numpy()})
        return {name: torch.from_numpy(array) for name, array in zip(names, arrays)}

    return run


def write_pt2(
    graph: Graph, images: Tensor, free: bool, path: Path, about: Mapping[str, Any]
) -> Run:
    """Write a program of `torch.export`, and open it; arguments as of `write_onnx`."""
    dynamic = torch.export.Dim.AUTO
    shape = {0: dynamic, **({2: dynamic, 3: dynamic} if free else {})}
    with _written_down("a program of torch.export"), torch.no_grad():
        program = torch.export.export(graph, (images,), dynamic_shapes=(shape,), strict=False)
        torch.export.save(program, path, extra_files={ABOUT: json.dumps(about)})
        module: Run = torch.export.load(path).module()
    return module


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
            f"--format, or leave scores out."
        ) from error
    finally:
        logger.setLevel(level)
