"""Networks from a Python file, `python:FILE.py:FUNCTION`: a function that returns a module."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from doubtmap.errors import ModelError, UsageError
from doubtmap.models.backend import first_line
from doubtmap.models.module import ModuleBackend, prints_to_stderr
from doubtmap.models.source import Source


def open_python(reference: str, device: torch.device | str | None = None) -> Source:
    """Call a function of a Python file and take the network that it returns.

    The file is run, as `python FILE.py` would: open only what you trust.

    Args:
        reference: `FILE.py:FUNCTION`; the function is called without arguments.
        device: where to move the network.

    Returns:
        The network, with ImageNet's mean and standard deviation.

    Raises:
        UsageError: where file or function is missing, or something else comes back.
        ModelError: where the file or the function raises.
    """
    file, _, name = reference.rpartition(":")
    start = f"python:{reference}"
    if not file or not name:
        raise UsageError(f"{start}: expected python:FILE.py:FUNCTION. Add the function's name.")
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"{start}: expected a file {file}, found none. Check the path.")
    with _neighbours_importable(path), prints_to_stderr():
        module = _imported(path, start)
        function: Callable[[], object] | None = getattr(module, name, None)
        if not callable(function):
            known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            raise UsageError(
                f"{start}: expected a function {name} in {file}, found "
                f"{', '.join(known) or 'no function'}. Check the name."
            )
        network = _called(function, start)
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"{start}: expected the function to return a torch.nn.Module, got "
            f"{type(network).__name__}. Return the network."
        )
    return Source(ModuleBackend(network, device), start, "python")


def _imported(path: Path, start: str) -> ModuleType:
    name = f"doubtmap_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{start}: expected a Python file, got {path}. Give it the suffix .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up by name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ModelError(_raised(start, "the file", error)) from error
    return module


def _called(function: Callable[[], object], start: str) -> object:
    try:
        return function()
    except Exception as error:
        raise ModelError(_raised(start, "the function", error)) from error


def _raised(start: str, what: str, error: Exception) -> str:
    return (
        f"{start}: expected a network, but {what} raised {type(error).__name__}: "
        f"{first_line(error)}. Run it by itself to see where."
    )


@contextmanager
def _neighbours_importable(path: Path) -> Iterator[None]:
    """Let the file import what lies next to it, as it could when run by itself."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
