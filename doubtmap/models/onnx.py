"""ONNX files through onnxruntime; the only file that imports onnx and onnxruntime."""

from __future__ import annotations

import ast
import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from doubtmap.errors import ModelError, UsageError, first_line
from doubtmap.files.resuming import hash_of_files, sha256_of
from doubtmap.models.backend import LastLayer, Source, Tap, fixed_notes
from doubtmap.models.exported import of_doubtmap
from doubtmap.models.foreign import SEMANTIC, beside, names_of
from doubtmap.models.module import window_of
from doubtmap.models.preprocessing import FixedSize, Preprocessing
from doubtmap.prediction import Window

PASSING = ("Cast", "Transpose", "Identity", "Unsqueeze", "Squeeze")
"""Operators between the input and the normalisation."""
NORMALISING = ("Sub", "Div", "Mul", "Add", "BatchNormalization")
INSTALL = 'pip install "doubtmap[onnx]"'

BYTES = 2
"""ONNX's number for uint8."""
BANDS = (1, 3, 4)
"""Sizes of an axis that holds an image's bands, not its rows or columns."""
_FLOATS = {1: torch.float32, 10: torch.float16, 11: torch.float64}
"""ONNX's numbers for element types."""


def open_onnx(path: Path, device: torch.device | str | None = None) -> Source:
    """Open an ONNX file.

    Args:
        path: of the file; weights kept outside it lie next to it.
        device: `cpu` (default) or a CUDA device, which needs onnxruntime-gpu.

    Returns:
        The network, with ImageNet's mean and standard deviation.

    Raises:
        ModelError: where the file cannot be read or has no image input.
        UsageError: for a device that onnxruntime cannot use here.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            f"{path}: expected onnx and onnxruntime for ONNX files, found no {error.name}. "
            f"Install with {INSTALL}."
        ) from error
    if not path.is_file():
        raise ModelError(f"{path}: expected an ONNX file, found none. Check the path.")
    try:
        model = onnx.load(str(path), load_external_data=False)
        external = _external(model, path.parent)
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        raise ModelError(
            f"{path}: expected an ONNX file, but it cannot be read ({first_line(error)}). "
            f"Export it again."
        ) from error
    backend = OnnxBackend(model, path, onnxruntime, device)
    refuse_task(model, path)
    fixed = backend.fixed_size
    told, names = beside(path)
    how = _inside(model.graph, backend) or told or _of_ultralytics(model) or Preprocessing()
    if about := next((p.value for p in model.metadata_props if p.key == "doubtmap"), ""):
        how, names = of_doubtmap(about, path, backend.bands or 3)
    if fixed:
        how = replace(how, size=FixedSize(*fixed), window=None)
    notes = fixed_notes(fixed, backend.fixed_batch)
    if backend.last:
        notes += ("The file takes images with their colours on the last axis.",)
    return Source(
        backend,
        str(path),
        "onnx",
        how,
        _metadata_names(model) or names,
        notes=notes,
        sha256=None if external else sha256_of(path),
        code=hash_of_files([path, *external]) if external else None,
    )


def _inside(graph: Any, backend: OnnxBackend) -> Preprocessing | None:
    """How images are given to a graph that normalises them itself, or takes bytes."""
    bands = backend.bands or 3
    none = Preprocessing((0.0,) * bands, (1.0,) * bands, origin="the graph normalises inside")
    if backend.takes_bytes:
        return none
    name, constants = backend.input_name, constant_values(graph)
    for _ in range(8):
        users = [node for node in graph.node if name in node.input]
        if len(users) != 1 or users[0].op_type not in (*PASSING, *NORMALISING):
            return None
        node = users[0]
        if node.op_type in PASSING:
            name = node.output[0]
            continue
        values = [constants[other] for other in node.input if other in constants]
        if node.op_type != "BatchNormalization" and len(values) != 1:
            return None
        largest = max((abs(value) for each in values for value in each), default=0.0)
        smallest = min((abs(value) for each in values for value in each), default=1.0)
        of_bytes = largest > 1.5 if node.op_type in ("Sub", "Add", "Div") else smallest < 0.02
        if node.op_type == "Div" and largest < 50:
            of_bytes = False
        return replace(none, std=(1 / 255,) * bands) if of_bytes else none
    return None


def constant_values(graph: Any) -> dict[str, list[float]]:
    """Small constants of a graph, by name."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            tensors[node.output[0]] = node.attribute[0].t
    small = {n: t for n, t in tensors.items() if math.prod(t.dims) <= 16 and t.data_type in _FLOATS}
    return {name: numpy_helper.to_array(t).ravel().tolist() for name, t in small.items()}


def _of_ultralytics(model: Any) -> Preprocessing | None:
    """What a file that Ultralytics exported takes."""
    said = {prop.key: prop.value for prop in model.metadata_props}
    if "ultralytics" not in said.get("author", "").lower():
        return None
    return Preprocessing((0.0,) * 3, (1.0,) * 3, origin="Ultralytics takes [0, 1]")


def refuse_task(model: Any, path: Path) -> None:
    """Refuse what Ultralytics exported for another task than semantic segmentation.

    Raises:
        UsageError: with the task.
    """
    said = {prop.key: prop.value for prop in model.metadata_props}
    task = said.get("task", "")
    if _of_ultralytics(model) and task not in ("", *SEMANTIC):
        raise UsageError(
            f"{path}: expected a network for semantic segmentation, got one of Ultralytics for the "
            f"task {task}, which gives boxes or instances. Load a network of the task semantic."
        )


def _metadata_names(model: Any) -> tuple[str, ...]:
    """Class names that Ultralytics and others write into the file: a list, or numbers to names."""
    said = {prop.key: prop.value for prop in model.metadata_props}
    try:
        found = ast.literal_eval(said.get("names", "") or said.get("classes", "") or "()")
    except (ValueError, SyntaxError):
        return ()  # written in some other way
    return names_of(found)


def _type_name(kind: int) -> str:
    from onnx import TensorProto

    return str(TensorProto.DataType.Name(kind)).lower()


class OnnxBackend:
    """A graph run by onnxruntime; taps are extra outputs of the graph.

    Args:
        model: the `onnx.ModelProto`, weights included.
        path: named in errors.
        onnxruntime: the module.
        device: see `open_onnx`.
    """

    def __init__(
        self, model: Any, path: Path, onnxruntime: Any, device: torch.device | str | None
    ) -> None:
        self.device = torch.device(device or "cpu")
        self._model, self._path, self._runtime = model, path, onnxruntime
        weights = {tensor.name: tensor for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in weights]
        shapes = [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in inputs]
        if len(inputs) != 1 or len(shapes[0]) != 4:
            raise ModelError(
                f"{path}: expected one input (B, 3, H, W), got "
                f"{', '.join(f'{v.name} {s}' for v, s in zip(inputs, shapes)) or 'none'}. "
                f"Export the network with the image as its only input."
            )
        kind = inputs[0].type.tensor_type.elem_type
        if kind not in (*_FLOATS, BYTES):
            raise ModelError(
                f"{path}: expected an input of float16, float32, float64 or uint8, got element "
                f"type {_type_name(kind)}. Export it again in float32."
            )
        self.dtype, self._bytes = _FLOATS.get(kind, torch.float32), kind == BYTES
        self._input = inputs[0].name
        self.last = shapes[0][3] in BANDS and shapes[0][1] not in BANDS
        batch, *sides = shapes[0]
        bands = sides.pop(2 if self.last else 0)
        height, width = sides
        self.bands: int | None = bands or None
        self.fixed_batch = batch or None
        self.fixed_size = (height, width) if height and width else None
        self._layers = _convolutions(model.graph)
        self._outputs = [value.name for value in model.graph.output]
        self._session, self._tapped = self._started(()), frozenset[str]()

    @property
    def input_name(self) -> str:
        """Of the graph's only input."""
        return str(self._input)

    @property
    def takes_bytes(self) -> bool:
        """Whether the input is uint8."""
        return bool(self._bytes)

    @property
    def last_layers(self) -> Mapping[str, LastLayer]:
        """Convolutions and linear layers that could be the classifier, by node name."""
        return {name: layer for name, (_, _, layer) in self._layers.items()}

    def run(self, x: Tensor, taps: Collection[str] = ()) -> tuple[object, list[Tap]]:
        """Run the graph; a change of taps starts a new session."""
        if frozenset(taps) != self._tapped:
            self._session, self._tapped = self._started(taps), frozenset(taps)
        names = [value.name for value in self._session.get_outputs()]
        given = x.movedim(1, -1).contiguous() if self.last else x
        if self._bytes:
            given = (given * 255).round().clamp(0, 255).byte()
        try:
            arrays = self._session.run(names, {self._input: given.cpu().numpy()})
        except Exception as error:  # onnxruntime's own errors share no base class
            raise RuntimeError(str(error)) from error
        values = {n: torch.from_numpy(a).to(self.device) for n, a in zip(names, arrays)}
        values[self._input] = x
        calls = [
            Tap(name, values[seen], values[said])
            for name, (seen, said, _) in self._layers.items()
            if name in taps
        ]
        return {name: values[name] for name in self._outputs}, calls

    def _started(self, taps: Collection[str]) -> Any:
        """A session whose graph also returns what the tapped layers see and say."""
        model = type(self._model)()
        model.CopyFrom(self._model)
        for name in dict.fromkeys(n for tap in taps for n in self._layers[tap][:2]):
            if name != self._input and name not in self._outputs:
                model.graph.output.add().name = name
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        try:
            return self._runtime.InferenceSession(
                model.SerializeToString(), options, providers=self._providers()
            )
        except Exception as error:
            way = "in float32" if self.dtype == torch.float64 else "with another opset"
            raise ModelError(
                f"{self._path}: expected a graph that onnxruntime can run, but it said "
                f"{first_line(error)}. Export it again, {way}."
            ) from error

    def _providers(self) -> list[str]:
        if self.device.type == "cpu":
            return ["CPUExecutionProvider"]
        if self.device.type == "cuda" and (
            "CUDAExecutionProvider" in self._runtime.get_available_providers()
        ):
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]
        raise UsageError(
            f"{self._path}: expected a device that onnxruntime can use here, got {self.device}. "
            f"Pass device='cpu', or install onnxruntime-gpu."
        )


def _convolutions(graph: Any) -> dict[str, tuple[str, str, LastLayer]]:
    """Layers that could be the classifier, in the graph's order: input, output and layer."""
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            weights[node.output[0]] = list(node.attribute[0].t.dims)
    layers = {}
    for node in graph.node:
        if (linear := _linear(node, weights, graph)) is not None:
            layers[node.name or node.output[0]] = linear
        shape = weights.get(node.input[1], []) if node.op_type == "Conv" else []
        told = {a.name: list(a.ints) or a.i for a in node.attribute}
        if (apart := _transposed(node, weights, told)) is not None:
            layers[node.name or node.output[0]] = (node.input[0], node.output[0], apart)
        if len(shape) != 4 or told.get("group", 1) != 1:
            continue
        window = Window() if math.prod(shape[2:]) == 1 else _window(shape[2:], told)
        if window is not None:
            layer = LastLayer(shape[0], window=window)
            layers[node.name or node.output[0]] = (node.input[0], node.output[0], layer)
    return layers


def _linear(
    node: Any, weights: Mapping[str, list[int]], graph: Any
) -> tuple[str, str, LastLayer] | None:
    """A linear layer on tokens: a product with a matrix, and the bias that is added to it."""
    shape = weights.get(node.input[1], []) if node.op_type == "MatMul" else []
    if len(shape) != 2:
        return None
    said = node.output[0]
    users = [other for other in graph.node if said in other.input]
    if len(users) == 1 and users[0].op_type == "Add":
        others = [weights.get(name) for name in users[0].input if name != said]
        if others == [[shape[1]]]:
            said = users[0].output[0]
    return node.input[0], said, LastLayer(shape[1], "linear")


def _transposed(
    node: Any, weights: Mapping[str, list[int]], told: Mapping[str, Any]
) -> LastLayer | None:
    """A transposed convolution whose kernel is its stride: each pixel sees one of its input."""
    shape = weights.get(node.input[1], []) if node.op_type == "ConvTranspose" else []
    plain = not any(told.get("pads", [])) and not any(told.get("output_padding", []))
    apart = told.get("strides") == shape[2:] and told.get("group", 1) == 1
    even = all(each == 1 for each in told.get("dilations", []))
    whole = len(shape) == 4 and apart and plain and even
    return LastLayer(shape[1], "transposed") if whole else None


def _window(kernel: list[int], told: Mapping[str, Any]) -> Window | None:
    pads = told.get("pads", [0, 0, 0, 0])
    if pads[:2] != pads[2:]:
        return None
    return window_of(kernel, told.get("strides", [1, 1]), pads[:2], told.get("dilations", [1, 1]))


def _external(model: Any, folder: Path) -> list[Path]:
    """The files beside the ONNX file in which its weights lie."""
    said = (entry for part in model.graph.initializer for entry in part.external_data)
    return [folder / name for name in sorted({e.value for e in said if e.key == "location"})]
