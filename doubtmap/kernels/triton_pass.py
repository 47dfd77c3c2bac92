"""The per-pixel pass on a GPU (`triton_kernels.py`), from tensors to tensors.

Triton comes with PyTorch's CUDA builds. Everything here trusts its arguments: `fused.py` is the
door. With `TRITON_INTERPRET=1`, set before Python starts, the same kernels run slowly on the CPU,
which is how they are tested where there is no GPU.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from doubtmap.kernels.resizing import neighbours

_BLOCK = 512
"""Pixels of a program."""
_MAPS = ("max_softmax", "margin", "entropy", "max_logit", "energy")


class Grid:
    """Values `(B, K, h, w)` and the image size that they are brought to.

    Args:
        values: float32, float16 or bfloat16, of any strides.
        size: `(H, W)`, or None for the values' own grid.
        covered: as in `resize`.
        align_corners: as in `resize`.
    """

    def __init__(
        self,
        values: Tensor,
        size: tuple[int, int] | None = None,
        covered: tuple[float, float] | None = None,
        align_corners: bool = False,
    ) -> None:
        self.values = values
        images, channels, *native = values.shape
        height, width = size or native
        self.shape = (images, height, width)
        places: tuple[Tensor | None, ...] = (None, None, None, None)
        if size is not None:
            area = covered or size
            rows = neighbours(height, native[0], area[0], align_corners)
            columns = neighbours(width, native[1], area[1], align_corners)
            places = tuple(t.to(values.device) for t in (*rows, *columns))
        self.resized = size is not None
        self.tiles = math.ceil(height * width / _BLOCK)
        self.arguments = (
            *(values, *values.stride(), *native, *places),
            *(height * width, width, self.tiles, channels),
        )

    def run(self, kernel: Any, *arguments: object, **constants: object) -> None:
        """Launch a kernel over all pixels, on the values' own device."""
        device = self.values.device
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            kernel[(self.shape[0] * self.tiles,)](
                *self.arguments, *arguments, **constants, RESIZED=self.resized, BLOCK=_BLOCK
            )

    def new_map(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """An empty `(B, H, W)` beside the values."""
        return torch.empty(self.shape, dtype=dtype, device=self.values.device)


def statistics(
    grid: Grid, temperature: float | None = None, wanted: tuple[str, ...] = _MAPS
) -> Mapping[str, Tensor]:
    """Maps by name: `classes` and those of `wanted`, all or none; `divergence` if tempered."""
    maps = {"classes": grid.new_map(torch.int64)} if wanted else {}
    for name in (*wanted, *(("divergence",) if temperature is not None else ())):
        maps[name] = grid.new_map()
    grid.run(
        _kernels().statistics_kernel,
        *(maps.get(name) for name in ("classes", *_MAPS, "divergence")),
        1 / temperature if temperature is not None else 0.0,
        STATISTICS=bool(wanted),
        DIVERGENCE=temperature is not None,
    )
    return maps


def log_norm(grid: Grid, p: float) -> Tensor:
    """Log of the p-norm over the channels."""
    norm = grid.new_map()
    grid.run(_kernels().norm_kernel, norm, _order(p), MAXIMUM=math.isinf(p))
    return norm


def log_weight_norm(grid: Grid, p: float, uniform: bool, published: bool) -> Tensor:
    """Log of the p-norm of the gradient in the logits."""
    norm, classes = grid.new_map(), grid.values.shape[1]
    grid.run(
        _kernels().weight_kernel,
        *(norm, _order(p), math.log1p(-1 / classes) if published else math.log(classes)),
        MAXIMUM=math.isinf(p),
        UNIFORM=uniform,
        PUBLISHED=published,
    )
    return norm


def interpreted() -> bool:
    """Whether Triton was told to run kernels on the CPU, one operation after the other."""
    return os.environ.get("TRITON_INTERPRET", "") == "1"


@functools.cache
def missing() -> str | None:
    """Why the pass cannot be used, half a sentence, or None where it can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if not torch.cuda.is_available() and not interpreted():
        return "there is no CUDA device"
    try:
        _kernels()
    except (ImportError, AttributeError, OSError) as error:
        return f"triton cannot be imported ({error})"
    return None


def device_type() -> str:
    """Where the kernels run: `cuda`, or `cpu` in the interpreter."""
    return "cpu" if interpreted() else "cuda"


def version() -> str:
    """Triton's."""
    import triton

    return str(triton.__version__)


@functools.cache
def _kernels() -> Any:
    from doubtmap.kernels import triton_kernels

    return triton_kernels


def _order(p: float) -> float:
    return 1.0 if math.isinf(p) else p
