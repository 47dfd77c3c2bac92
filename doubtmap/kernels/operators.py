"""The door to the passes for code that `torch.compile` compiles, as operators of PyTorch.

What C and Triton write is in no graph, so a compiled function could only do without them. As
operators of a library, with implementations for fake tensors, they stay: `torch.compile`d code
calls what the same code calls uncompiled. Graphs that other programs run (`torch.export`, traces,
ONNX) cannot hold them, nor can `vmap`; there PyTorch's own operators do the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from doubtmap.kernels import fused
from doubtmap.kernels.reference import Label, PixelStatistics, Variant
from doubtmap.kernels.resizing import at_least_float32

PLACE = "SymInt[] size, float[] covered, bool align_corners"
torch.library.define("doubtmap::statistics", f"(Tensor x, {PLACE}, float? temperature) -> Tensor[]")
torch.library.define("doubtmap::divergence", f"(Tensor x, float temperature, {PLACE}) -> Tensor")
torch.library.define(
    "doubtmap::weight_norm", f"(Tensor x, float p, str label, str variant, {PLACE}) -> Tensor"
)
torch.library.define("doubtmap::feature_norm", f"(Tensor x, float p, {PLACE}) -> Tensor")

Size = tuple[int, int]
Covered = tuple[float, float] | None


def resized_statistics(
    native_logits: Tensor,
    size: Size,
    covered: Covered = None,
    align_corners: bool = False,
    temperature: float | None = None,
) -> PixelStatistics:
    """As `fused.resized_statistics`, kept in compiled code."""
    if not _kept(native_logits, covered):
        return fused.resized_statistics(native_logits, size, covered, align_corners, temperature)
    place = (list(size), list(covered or ()), align_corners)
    maps = torch.ops.doubtmap.statistics(native_logits, *place, temperature)
    return PixelStatistics(*maps)


def resized_divergence(
    native_logits: Tensor,
    temperature: float,
    size: Size,
    covered: Covered = None,
    align_corners: bool = False,
) -> Tensor:
    """As `fused.resized_divergence`, kept in compiled code."""
    if not _kept(native_logits, covered):
        return fused.resized_divergence(native_logits, temperature, size, covered, align_corners)
    place = (list(size), list(covered or ()), align_corners)
    found: Tensor = torch.ops.doubtmap.divergence(native_logits, temperature, *place)
    return found


def log_weight_norm(
    native_logits: Tensor,
    p: float,
    label: Label,
    variant: Variant,
    size: Size | None = None,
    covered: Covered = None,
    align_corners: bool = False,
) -> Tensor:
    """As `fused.log_weight_norm`, kept in compiled code."""
    place = (size, covered, align_corners)
    if not _kept(native_logits, covered):
        return fused.log_weight_norm(native_logits, p, label, variant, *place)
    kept = (list(size or native_logits.shape[-2:]), list(covered or ()), align_corners)
    found: Tensor = torch.ops.doubtmap.weight_norm(native_logits, p, label, variant, *kept)
    return found


def log_feature_norm(
    features: Tensor,
    p: float,
    size: Size | None = None,
    covered: Covered = None,
    align_corners: bool = False,
) -> Tensor:
    """As `fused.log_feature_norm`, kept in compiled code."""
    if not _kept(features, covered):
        return fused.log_feature_norm(features, p, size, covered, align_corners)
    place = (list(size or features.shape[-2:]), list(covered or ()), align_corners)
    found: Tensor = torch.ops.doubtmap.feature_norm(features, p, *place)
    return found


def _kept(x: Tensor, covered: Covered) -> bool:
    """Whether code is compiled that shall call a pass, which knows no gradients."""
    return (
        torch.compiler.is_compiling()
        and not _exporting()
        and torch._C._get_tracing_state() is None
        and not (x.requires_grad and torch.is_grad_enabled())
        and x.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and all(isinstance(side, int | float) for side in covered or ())
        and _served(x.device.type)
    )


def _exporting() -> bool:
    """Whether the graph is for others; PyTorch 2.8 cannot tell, and says so of all it compiles."""
    return bool(torch.compiler.is_exporting())


def _served(device: str) -> bool:
    """Whether there is more than the reference."""
    return fused.available(device)["kernels"] != "reference"


# As torch.compiler.assume_constant_result does, which imports the compiler: as long as PyTorch.
_served._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _place(size: Sequence[int], covered: Sequence[float]) -> tuple[Size, Covered]:
    return (size[0], size[1]), (covered[0], covered[1]) if covered else None


@torch.library.impl("doubtmap::statistics", "CompositeExplicitAutograd")
def _statistics(
    x: Tensor, size: Any, covered: Any, align_corners: bool, temperature: float | None
) -> list[Tensor]:
    maps = fused.resized_statistics(x, *_place(size, covered), align_corners, temperature)
    return [each for each in maps if each is not None]


@torch.library.impl("doubtmap::divergence", "CompositeExplicitAutograd")
def _divergence(
    x: Tensor, temperature: float, size: Any, covered: Any, align_corners: bool
) -> Tensor:
    return fused.resized_divergence(x, temperature, *_place(size, covered), align_corners)


@torch.library.impl("doubtmap::weight_norm", "CompositeExplicitAutograd")
def _weight_norm(
    x: Tensor, p: float, label: Any, variant: Any, size: Any, covered: Any, align_corners: bool
) -> Tensor:
    return fused.log_weight_norm(x, p, label, variant, *_place(size, covered), align_corners)


@torch.library.impl("doubtmap::feature_norm", "CompositeExplicitAutograd")
def _feature_norm(x: Tensor, p: float, size: Any, covered: Any, align_corners: bool) -> Tensor:
    return fused.log_feature_norm(x, p, *_place(size, covered), align_corners)


def _map_of(x: Tensor, size: Sequence[int]) -> Tensor:
    """A map without numbers."""
    return at_least_float32(x).new_empty((x.shape[0], size[0], size[1]))


@torch.library.register_fake("doubtmap::statistics")  # type: ignore[untyped-decorator]
def _fake_statistics(
    x: Tensor, size: Any, covered: Any, align_corners: bool, temperature: float | None
) -> list[Tensor]:
    maps = [_map_of(x, size) for _ in range(5 if temperature is None else 6)]
    return [maps[0].new_empty(maps[0].shape, dtype=torch.int64), *maps]


@torch.library.register_fake("doubtmap::divergence")  # type: ignore[untyped-decorator]
def _fake_divergence(x: Tensor, temperature: float, size: Any, *rest: Any) -> Tensor:
    return _map_of(x, size)


@torch.library.register_fake("doubtmap::weight_norm")  # type: ignore[untyped-decorator]
def _fake_weight_norm(
    x: Tensor, p: float, label: Any, variant: Any, size: Any, *rest: Any
) -> Tensor:
    return _map_of(x, size)


@torch.library.register_fake("doubtmap::feature_norm")  # type: ignore[untyped-decorator]
def _fake_feature_norm(x: Tensor, p: float, size: Any, *rest: Any) -> Tensor:
    return _map_of(x, size)
