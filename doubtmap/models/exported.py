"""Programs saved by `torch.export.save` (`.pt2`), listened to while interpreted node by node."""

from __future__ import annotations

import importlib
import json
import logging
import os
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from doubtmap.errors import ModelError, first_line
from doubtmap.files.archives import check_archive
from doubtmap.files.resuming import sha256_of
from doubtmap.models.backend import LastLayer, Source, Tap, fixed_notes
from doubtmap.models.foreign import beside
from doubtmap.models.huggingface import INSTALL
from doubtmap.models.module import explained, window_of
from doubtmap.models.preprocessing import FixedSize, Preprocessing
from doubtmap.prediction import Window

ABOUT, LOGITS = "doubtmap.json", "native_logits"
"""Of files of `doubtmap export`: what they say about themselves, and the output to score."""


def of_doubtmap(text: str, path: Path, bands: int = 3) -> tuple[Preprocessing, tuple[str, ...]]:
    """How images are given to a file of `doubtmap export`, and its class names.

    Args:
        text: what the file says about itself.
        path: of the file.
        bands: of its images.

    Raises:
        ModelError: for a file without native logits, with what can be done.
    """
    try:
        said = json.loads(text)
        outputs, names = said["outputs"], tuple(map(str, said["classes"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{path}: expected a file of doubtmap export, but what it says about itself cannot be "
            f"read. Export it again."
        ) from error
    if LOGITS not in outputs:
        raise ModelError(
            f"{path}: expected {LOGITS} among the outputs of a file of doubtmap export, got "
            f"{', '.join(map(str, outputs))}, of which no other score can be made. Run the file "
            f"itself, or export it again with --native-logits."
        )
    origin = "inside the file, by doubtmap export"
    return Preprocessing((0.0,) * bands, (1.0,) * bands, origin=origin), names


def open_exported(
    path: Path, device: torch.device | str | None = None, *, trust: bool = False
) -> Source:
    """Open an exported program.

    Args:
        path: of the `.pt2` file.
        device: where to move the program; default: where it was exported.
        trust: leave out the search for what could run while PyTorch opens the file.

    Returns:
        The network, with ImageNet's mean and standard deviation.

    Raises:
        ModelError: where the file cannot be read, has no image input, or holds what could run.
    """
    if not path.is_file():
        raise ModelError(f"{path}: expected an exported program, found none. Check the path.")
    try:
        _refuse_compiled(path)
        if not trust:
            check_archive(path)
        _register_outputs(path)
        with _safely():
            program = torch.export.load(path)
            return exported_source(program, device, path)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{path}: expected a program saved by torch.export.save, but it cannot be read "
            f"({first_line(error)}). Export it again with this PyTorch."
        ) from error


def exported_source(
    program: torch.export.ExportedProgram,
    device: torch.device | str | None = None,
    path: Path | None = None,
) -> Source:
    """An exported program as a network.

    Args:
        program: with one image input.
        device: where to move it; default: where it was exported.
        path: the file it came from.
    """
    if device is not None:
        from torch.export.passes import move_to_device_pass  # PyTorch 2.5 and later

        program = move_to_device_pass(program, str(device))
    backend = ExportedBackend(program, path or Path("ExportedProgram"), device)
    fixed = backend.fixed_size
    told, names = beside(path) if path else (None, ())
    if path and (about := _about(path)):
        told, names = of_doubtmap(about, path)
    how = told or Preprocessing()
    if fixed:
        how = replace(how, size=FixedSize(*fixed), window=None)
    return Source(
        backend,
        str(path or "ExportedProgram"),
        "exported",
        how,
        names,
        notes=fixed_notes(fixed, backend.fixed_batch),
        sha256=sha256_of(path) if path else None,
    )


class ExportedBackend:
    """An exported program; taps are read while its graph is interpreted.

    Args:
        program: with one image input.
        path: named in errors.
        device: where it was moved to; default: where its weights are.
    """

    def __init__(
        self,
        program: torch.export.ExportedProgram,
        path: Path,
        device: torch.device | str | None = None,
    ) -> None:
        inputs = _user_inputs(program)
        shape = list(inputs[0].shape) if inputs else []
        if len(inputs) != 1 or len(shape) != 4 or not inputs[0].is_floating_point():
            raise ModelError(
                f"{path}: expected one floating-point input (B, 3, H, W), got "
                f"{', '.join(str(tuple(value.shape)) for value in inputs) or 'none'}. "
                f"Export the network with the image as its only input."
            )
        self.dtype = inputs[0].dtype
        self.device = torch.device(device) if device is not None else inputs[0].device
        batch, _, height, width = (side if isinstance(side, int) else None for side in shape)
        self.fixed_batch = batch
        self.fixed_size = (height, width) if height and width else None
        self._module: fx.GraphModule = program.module()
        self._layers = _convolutions(self._module)

    @property
    def module(self) -> fx.GraphModule:
        """The graph with its weights."""
        return self._module

    @property
    def last_layers(self) -> Mapping[str, LastLayer]:
        """Convolutions that could be the classifier, by their modules' names."""
        return {name: layer for name, (_, layer) in self._layers.items()}

    def run(self, x: Tensor, taps: Collection[str] = ()) -> tuple[object, list[Tap]]:
        """Run the program, by interpreting it where layers are listened to."""
        with torch.no_grad(), explained(x):
            if not taps:
                return self._module(x), []
            nodes = {self._layers[name][0]: name for name in taps}
            listener = _Listener(self._module, nodes)
            return listener.run(x), listener.calls


class _Listener(fx.Interpreter):
    """Interprets a graph and keeps the calls of some of its convolutions."""

    def __init__(self, module: fx.GraphModule, nodes: Mapping[str, str]) -> None:
        super().__init__(module)
        self.nodes = nodes
        self.calls: list[Tap] = []

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.nodes:
            args, _ = self.fetch_args_kwargs_from_env(n)
            self.calls.append(Tap(self.nodes[n.name], args[0], result))
        return result


def _convolutions(module: fx.GraphModule) -> dict[str, tuple[str, LastLayer]]:
    """Convolutions that could be the classifier, in the graph's order: node name and layer."""
    layers: dict[str, tuple[str, LastLayer]] = {}
    for node in module.graph.nodes:
        weight = _weight(module, node)
        if weight is None or _groups(node) != 1:
            continue
        kernel = tuple(weight.shape[2:])
        window = Window() if kernel == (1, 1) else window_of(kernel, *_steps(node))
        if window is not None:
            name = _module_name(node)
            key = node.name if name in layers or not name else name
            layers[key] = (node.name, LastLayer(len(weight), window=window))
    return layers


def _steps(node: fx.Node) -> tuple[Sequence[int], Sequence[int] | str, Sequence[int]]:
    """Stride, padding and dilation of a convolution."""
    given = [*node.args[3:6]]
    names = ("stride", "padding", "dilation")[len(given) :]
    given += [node.kwargs.get(name, 0 if name == "padding" else 1) for name in names]
    stride, padding, dilation = (
        [v, v] if isinstance(v, int) else v * 2 if isinstance(v, list) and len(v) == 1 else v
        for v in given
    )
    return stride, padding, dilation  # type: ignore[return-value]


def _weight(module: fx.GraphModule, node: fx.Node) -> Tensor | None:
    aten = torch.ops.aten
    if node.target == aten.convolution.default:
        if node.args[6]:  # transposed
            return None
    elif node.target not in (aten.conv2d.default, aten.conv2d.padding):
        return None
    source = node.args[1]
    if not isinstance(source, fx.Node):
        return None
    value = source.meta.get("val")
    if value is None and source.op == "get_attr":
        owner, _, name = str(source.target).rpartition(".")
        value = getattr(module.get_submodule(owner), name)
    return value if isinstance(value, Tensor) and value.ndim == 4 else None


def _groups(node: fx.Node) -> object:
    place = 8 if node.target == torch.ops.aten.convolution.default else 6
    return node.args[place] if len(node.args) > place else node.kwargs.get("groups", 1)


def _module_name(node: fx.Node) -> str:
    """Dotted name of the module that the node was made from, or nothing."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    name = str(stack[-1][0]) if stack else ""
    return name.removeprefix("L['self']").removeprefix(".")


def _user_inputs(program: torch.export.ExportedProgram) -> list[Tensor]:
    names = set(program.graph_signature.user_inputs)
    nodes = (n for n in program.graph.nodes if n.op == "placeholder" and n.name in names)
    values = (node.meta.get("val") for node in nodes)
    return [value for value in values if isinstance(value, Tensor)]


def _about(path: Path) -> str:
    """What a file of `doubtmap export` says about itself; nothing for any other."""
    with zipfile.ZipFile(path) as archive:
        found = [name for name in archive.namelist() if name.endswith(f"/extra/{ABOUT}")]
        return archive.read(found[0]).decode("utf-8", "replace") if found else ""


def _refuse_compiled(path: Path) -> None:
    """Refuse packages with machine code, which `torch.export.load` would load as a library."""
    with zipfile.ZipFile(path) as archive:
        if any("data/aotinductor/" in name for name in archive.namelist()):
            raise ModelError(
                f"{path}: expected an exported program without compiled code, got an AOTInductor "
                f"package. Save the program itself with torch.export.save."
            )


def _register_outputs(path: Path) -> None:
    """Let PyTorch know the outputs of networks of transformers, where the file has such."""
    with zipfile.ZipFile(path) as archive:
        texts = (archive.read(name) for name in archive.namelist() if name.endswith("model.json"))
        if not any(b"transformers.modeling_outputs" in text for text in texts):
            return
    try:
        importlib.import_module("transformers.modeling_outputs")
    except ImportError as error:
        raise ModelError(
            f"{path}: expected transformers, whose outputs the program returns, found none. "
            f"Install with {INSTALL}."
        ) from error


@contextmanager
def _safely() -> Iterator[None]:
    """Keep `torch.export.load` from unpickling, which it else does, and from logging tracebacks."""
    name, logger = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", logging.getLogger("torch.export")
    before, level = os.environ.get(name), logger.level
    os.environ[name] = "1"
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
