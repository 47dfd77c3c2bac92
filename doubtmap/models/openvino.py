"""OpenVINO networks (`FILE.xml` with `FILE.bin`); the only file that imports openvino."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from doubtmap.errors import ModelError, UsageError, first_line
from doubtmap.files.resuming import sha256_of
from doubtmap.models.backend import LastLayer, Source, Tap, fixed_notes
from doubtmap.models.exported import of_doubtmap
from doubtmap.models.foreign import beside
from doubtmap.models.module import window_of
from doubtmap.models.preprocessing import FixedSize, Preprocessing
from doubtmap.prediction import Window

INSTALL = 'pip install "doubtmap[openvino]"'
TYPES = {"f32": torch.float32, "f16": torch.float16, "u8": torch.float32}
"""OpenVINO's names of the element types that an image input may have."""
PASSING = ("Convert", "Transpose")
"""Operators between the input and the normalisation."""
NORMALISING = ("Subtract", "Divide", "Multiply", "Add")
BANDS = (1, 3, 4)
"""Sizes of an axis that holds an image's bands, not its rows or columns."""


def open_openvino(path: Path, device: torch.device | str | None = None) -> Source:
    """Open an OpenVINO network.

    Args:
        path: of the `.xml` file; its weights lie in the `.bin` beside it.
        device: `cpu`; OpenVINO's other devices are not used.

    Returns:
        The network, with the mean and deviation that lie beside it, else ImageNet's.

    Raises:
        ModelError: where openvino is missing, or the file cannot be read or has no image input.
        UsageError: for another device.
    """
    try:
        import openvino
    except ImportError as error:
        raise ModelError(
            f"{path}: expected openvino for OpenVINO networks, found none. Install with {INSTALL}."
        ) from error
    if device is not None and torch.device(device).type != "cpu":
        raise UsageError(f"{path}: expected device='cpu' for OpenVINO, got {device}. Leave it out.")
    if not path.with_suffix(".bin").is_file():
        raise ModelError(
            f"{path}: expected weights beside it, in {path.with_suffix('.bin').name}, found none. "
            f"Copy both files."
        )
    core = openvino.Core()
    try:
        model = core.read_model(str(path))
    except Exception as error:
        raise ModelError(
            f"{path}: expected an OpenVINO network, but it cannot be read ({_said(error)}). "
            f"Convert it again."
        ) from error
    backend = OpenVinoBackend(model, path, core)
    how, names = beside(path)
    how = _inside(backend) or how or Preprocessing()
    if model.has_rt_info(["doubtmap"]):
        said = model.get_rt_info(["doubtmap"]).astype(str)
        how, names = of_doubtmap(said, path, backend.bands or 3)
    if backend.fixed_size:
        how = replace(how, size=FixedSize(*backend.fixed_size), window=None)
    notes = fixed_notes(backend.fixed_size, backend.fixed_batch)
    if backend.last:
        notes += ("The file takes images with their colours on the last axis.",)
    sha256 = sha256_of(path.with_suffix(".bin"))
    return Source(backend, str(path), "openvino", how, names, notes=notes, sha256=sha256)


class OpenVinoBackend:
    """A graph run by OpenVINO; taps are extra outputs of the graph.

    Args:
        model: the `openvino.Model`.
        path: named in errors.
        core: the `openvino.Core` that compiles it.
    """

    def __init__(self, model: Any, path: Path, core: Any) -> None:
        self.device = torch.device("cpu")
        self.model, self._path, self._core = model, path, core
        shapes = [
            [side.get_length() if side.is_static else 0 for side in each.get_partial_shape()]
            for each in model.inputs
            if each.get_partial_shape().rank.is_static
        ]
        if len(model.inputs) != 1 or len(shapes) != 1 or len(shapes[0]) != 4:
            raise ModelError(
                f"{path}: expected one input (B, 3, H, W), got {shapes or len(model.inputs)}. "
                f"Convert the network with the image as its only input."
            )
        kind = model.inputs[0].get_element_type().get_type_name()
        if kind not in TYPES:
            raise ModelError(
                f"{path}: expected an input of f32, f16 or u8, got {kind}. Convert it again."
            )
        self.dtype, self.takes_bytes = TYPES[kind], kind == "u8"
        self.last = shapes[0][3] in BANDS and shapes[0][1] not in BANDS
        batch, *sides = shapes[0]
        self.bands: int | None = sides.pop(2 if self.last else 0) or None
        self.fixed_batch = batch or None
        self.fixed_size = (sides[0], sides[1]) if sides[0] and sides[1] else None
        self._layers = _layers(model)
        self._outputs = [_name(port, n) for n, port in enumerate(model.outputs)]
        self._compiled, self._tapped = self._started(()), tuple[str, ...]()

    @property
    def last_layers(self) -> Mapping[str, LastLayer]:
        """Convolutions and linear layers that could be the classifier, by name."""
        return {name: layer for name, (_, _, layer) in self._layers.items()}

    def run(self, x: Tensor, taps: Collection[str] = ()) -> tuple[object, list[Tap]]:
        """Run the graph; a change of taps compiles it anew.

        Raises:
            RuntimeError: as OpenVINO raised it, as for a size.
        """
        wanted = tuple(name for name in self._layers if name in taps)
        if wanted != self._tapped:
            self._compiled, self._tapped = self._started(wanted), wanted
        given = x.movedim(1, -1).contiguous() if self.last else x
        if self.takes_bytes:
            given = (given * 255).round().clamp(0, 255).byte()
        found = [*self._compiled([given.numpy()]).values()]
        values = [torch.from_numpy(array.copy()) for array in found]
        own, tapped = values[: len(self._outputs)], values[len(self._outputs) :]
        pairs = zip(wanted, tapped[::2], tapped[1::2])
        return dict(zip(self._outputs, own)), [Tap(name, *pair) for name, *pair in pairs]

    def _started(self, taps: Collection[str]) -> Any:
        """A compiled copy of the graph that also returns what the tapped layers see and say."""
        model = self.model.clone()
        layers = _layers(model)
        ports = [port for name in taps for port in layers[name][:2]]
        import openvino

        results = [*(each.input_value(0) for each in model.get_results()), *ports]
        whole = openvino.Model(results, model.get_parameters(), "tapped")
        try:
            return self._core.compile_model(whole, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        except Exception as error:
            raise ModelError(
                f"{self._path}: expected a graph that OpenVINO can run, but it said "
                f"{_said(error)}. Convert it again."
            ) from error


def _said(error: Exception) -> str:
    """What OpenVINO says of an error, without the lines of its own code."""
    lines = [line for line in str(error).splitlines() if line and "Exception from" not in line]
    return first_line(RuntimeError("\n".join(lines)))


def _name(port: Any, place: int) -> str:
    names = sorted(port.get_names())
    return names[0] if names else str(place)


def _layers(model: Any) -> dict[str, tuple[Any, Any, LastLayer]]:
    """Layers that could be the classifier, in order: what they see, what they say, and kind."""
    found = {}
    for node in model.get_ordered_ops():
        layer = _layer(node)
        if layer is not None:
            found[node.get_friendly_name()] = (node.input_value(0), _with_bias(node), layer)
    return found


def _layer(node: Any) -> LastLayer | None:
    kind = node.get_type_name()
    if kind not in ("Convolution", "MatMul") or not _constant(node.input_value(1)):
        return None
    shape = [*node.input_value(1).get_shape()]
    told = node.get_attributes()
    if kind == "MatMul":
        rows, columns = (*shape, 0)[:2] if len(shape) == 2 else (0, 0)
        channels = rows if told.get("transpose_b") else columns
        return LastLayer(channels, "linear") if channels and not told.get("transpose_a") else None
    begin, end = told["pads_begin"], told["pads_end"]
    if len(shape) != 4 or begin != end or told["auto_pad"] not in ("explicit", "notset"):
        return None
    if shape[2:] == [1, 1]:
        return LastLayer(shape[0], window=Window())
    window = window_of(shape[2:], told["strides"], begin, told["dilations"])
    return LastLayer(shape[0], window=window) if window else None


def _constant(port: Any) -> bool:
    """Whether a value is a constant, perhaps one that is kept in half precision."""
    node = port.get_node()
    if node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")


def _with_bias(node: Any) -> Any:
    """The output of a layer, its bias added."""
    port = node.output(0)
    users = [each.get_node() for each in port.get_target_inputs()]
    adding = [user for user in users if user.get_type_name() == "Add"]
    others = [user for user in users if user.get_type_name() not in ("Add", "ShapeOf")]
    return adding[0].output(0) if len(adding) == 1 and not others else port


def _inside(backend: OpenVinoBackend) -> Preprocessing | None:
    """How images are given to a graph that normalises them itself, or takes bytes."""
    bands = backend.bands or 3
    none = Preprocessing((0.0,) * bands, (1.0,) * bands, origin="the graph normalises inside")
    if backend.takes_bytes:
        return none
    port = backend.model.inputs[0].get_node().output(0)
    for _ in range(8):
        users = [each.get_node() for each in port.get_target_inputs()]
        users = [user for user in users if user.get_type_name() != "ShapeOf"]
        if len(users) != 1 or users[0].get_type_name() not in (*PASSING, *NORMALISING):
            return None
        kind, port = users[0].get_type_name(), users[0].output(0)
        if kind in PASSING:
            continue
        if not _constant(users[0].input_value(1)):
            return None
        return replace(none, std=(1 / 255,) * bands) if _of_bytes(kind, users[0]) else none
    return None


def _of_bytes(kind: str, node: Any) -> bool:
    """Whether the first step of a normalisation is one of values from 0 to 255."""
    source = node.input_value(1).get_node()
    source = source.input_value(0).get_node() if source.get_type_name() == "Convert" else source
    values = [abs(float(value)) for value in source.data.ravel()]
    if kind == "Multiply":
        return min(values) < 0.02
    return max(values) > (50 if kind == "Divide" else 1.5)
