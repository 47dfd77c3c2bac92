"""The per-pixel pass, from native logits to full-size maps, by the best implementation there is.

In C on the CPU and in Triton on CUDA devices, in float32 (half precision is widened), else in
PyTorch, which is also the reference. The environment variable `DOUBTMAP_KERNELS` overrides:
`reference`, `compiled` or `triton`; what the chosen one does not take goes to the reference.
"""

from __future__ import annotations

import functools
import logging
import math
import os

import torch
from torch import Tensor

from doubtmap.errors import UsageError
from doubtmap.kernels import compiled, reference, triton_pass
from doubtmap.kernels.recording import recording
from doubtmap.kernels.reference import Label, PixelStatistics, Variant
from doubtmap.kernels.resizing import at_least_float32, resize, resize_logits, same_grid

_MOST_PIXELS = 2**31 - 2**16
"""Of an image, for the Triton pass, which counts them in 32 bits."""


def available(device: str = "cpu") -> dict[str, str]:
    """What computes the per-pixel pass of tensors on a device of this machine, and why.

    Args:
        device: `cpu` or `cuda`.

    Returns:
        `kernels` is `compiled`, `triton` or `reference`; then what is known of it (`instructions`
        and `threads`, or `version`), or the `reason`.

    Raises:
        UsageError: where `DOUBTMAP_KERNELS` asks for what there is not.

    Example:
        >>> available()["kernels"] in ("compiled", "triton", "reference")
        True
    """
    wanted = os.environ.get("DOUBTMAP_KERNELS", "")
    if wanted not in ("", "reference", "compiled", "triton"):
        raise UsageError(
            f"DOUBTMAP_KERNELS: expected reference, compiled, triton or nothing, got {wanted!r}."
        )
    if wanted == "compiled" and compiled.missing():
        raise UsageError(
            f"DOUBTMAP_KERNELS=compiled: the compiled pass cannot be used: {compiled.missing()}. "
            f"Install a C compiler and reinstall with: pip install --force-reinstall --no-deps "
            f"doubtmap"
        )
    if wanted == "triton" and triton_pass.missing():
        raise UsageError(
            f"DOUBTMAP_KERNELS=triton: the Triton pass cannot be used: {triton_pass.missing()}. "
            f"Install a CUDA build of PyTorch, which brings Triton, on a machine with such a "
            f"device, or leave DOUBTMAP_KERNELS out."
        )
    # The interpreter is for tests: on the CPU only where it is asked for.
    if device == triton_pass.device_type() and (device != "cpu" or wanted == "triton"):
        return _served("triton", triton_pass.missing(), wanted)
    return _served("compiled", _why_not_compiled(device), wanted)


def compiled_serves() -> bool:
    """Whether the C library computes what is on the CPU: `available` in a few microseconds."""
    if os.environ.get("DOUBTMAP_KERNELS", "") == "" and compiled.missing() is None:
        return True
    return available()["kernels"] == "compiled"


def _why_not_compiled(device: str) -> str | None:
    return _missing() if device == "cpu" else f"no pass is written for {device}"


def _missing() -> str | None:
    """Why the compiled pass cannot be used; the first time, it is told."""
    reason = compiled.missing()
    if reason is not None:
        _tell(f"the compiled pass is missing: {reason}. PyTorch serves, some 20 times slower")
    return reason


@functools.cache
def _tell(sentence: str) -> None:
    """Log it once."""
    logging.getLogger("doubtmap").warning(sentence)


def _served(kernels: str, reason: str | None, wanted: str) -> dict[str, str]:
    """That implementation, or the reference and why."""
    if wanted not in ("", kernels):
        return {"kernels": "reference", "reason": f"DOUBTMAP_KERNELS={wanted}"}
    if reason is not None:
        return {"kernels": "reference", "reason": reason}
    if kernels == "triton":
        return {"kernels": kernels, "version": triton_pass.version()}
    return {
        "kernels": kernels,
        "instructions": str(compiled.instructions()),
        "threads": str(torch.get_num_threads()),
    }


def resized_statistics(
    native_logits: Tensor,
    size: tuple[int, int],
    covered: tuple[float, float] | None = None,
    align_corners: bool = False,
    temperature: float | None = None,
) -> PixelStatistics:
    """`pixel_statistics` of the logits at the image's size, without those logits.

    Args:
        native_logits: `(B, C, h, w)`, finite.
        size: `(H, W)` in pixels.
        covered: as in `resize`.
        align_corners: as in `resize`.
        temperature: of the divergence to uniform, where that is wanted in the same pass.

    Returns:
        Maps `(B, H, W)`, at least float32.
    """
    if for_compiled(native_logits) and _representable(temperature):
        grid = grid_of(native_logits, size, covered, align_corners)
        return PixelStatistics(**compiled.statistics(grid, temperature))
    if _for_triton(native_logits, size) and _representable(temperature):
        on_gpu = _triton_grid(native_logits, size, covered, align_corners)
        return PixelStatistics(**triton_pass.statistics(on_gpu, temperature))
    logits = resize_logits(native_logits, size, covered, align_corners)
    statistics = reference.pixel_statistics(logits)
    if temperature is None:
        return statistics
    return statistics.with_divergence(reference.uniform_divergence(logits, temperature))


def resized_divergence(
    native_logits: Tensor,
    temperature: float,
    size: tuple[int, int],
    covered: tuple[float, float] | None = None,
    align_corners: bool = False,
) -> Tensor:
    """The Jensen-Shannon divergence to uniform at the image's size, and nothing else.

    Args:
        native_logits: `(B, C, h, w)`, finite.
        temperature: above 0.
        size: `(H, W)` in pixels.
        covered: as in `resize`.
        align_corners: as in `resize`.

    Returns:
        `(B, H, W)` in nats, in [0, log 2].
    """
    if for_compiled(native_logits) and _representable(temperature):
        grid = grid_of(native_logits, size, covered, align_corners)
        return compiled.statistics(grid, temperature, wanted=())["divergence"]
    if _for_triton(native_logits, size) and _representable(temperature):
        on_gpu = _triton_grid(native_logits, size, covered, align_corners)
        return triton_pass.statistics(on_gpu, temperature, wanted=())["divergence"]
    logits = resize_logits(native_logits, size, covered, align_corners)
    return reference.uniform_divergence(logits, temperature)


def log_weight_norm(
    native_logits: Tensor,
    p: float,
    label: Label,
    variant: Variant,
    size: tuple[int, int] | None = None,
    covered: tuple[float, float] | None = None,
    align_corners: bool = False,
) -> Tensor:
    """Logarithm of the p-norm of the loss's gradient in the logits.

    Args:
        native_logits: `(B, C, h, w)`, finite.
        p: above 0; `inf` is the maximum.
        label: `predicted` or `uniform`.
        variant: `exact` or `published`.
        size: `(H, W)` for the norm at every image pixel, None for the native grid.
        covered: as in `resize`.
        align_corners: as in `resize`.

    Returns:
        `(B, H, W)` or `(B, h, w)`, at least float32.
    """
    size = size or (native_logits.shape[-2], native_logits.shape[-1])
    if for_compiled(native_logits) and _usual(p):
        grid = grid_of(native_logits, size, covered, align_corners)
        return compiled.log_weight_norm(grid, p, label == "uniform", variant == "published")
    if _for_triton(native_logits, size) and _usual(p):
        on_gpu = _triton_grid(native_logits, size, covered, align_corners)
        return triton_pass.log_weight_norm(on_gpu, p, label == "uniform", variant == "published")
    logits = resize_logits(native_logits, size, covered, align_corners)
    return reference.log_weight_norm(logits, p, label, variant)


def log_feature_norm(
    features: Tensor,
    p: float,
    size: tuple[int, int] | None = None,
    covered: tuple[float, float] | None = None,
    align_corners: bool = False,
) -> Tensor:
    """Logarithm of the p-norm of the features of every pixel.

    Args:
        features: `(B, D, h, w)`.
        p: above 0; `inf` is the maximum.
        size: `(H, W)` for the norm at every image pixel, None for the native grid.
        covered: as in `resize`.
        align_corners: as in `resize`.

    Returns:
        `(B, H, W)` or `(B, h, w)`, at least float32; -inf where all features are 0.
    """
    size = size or (features.shape[-2], features.shape[-1])
    if for_compiled(features) and _usual(p):
        return compiled.log_norm(grid_of(features, size, covered, align_corners), p)
    if _for_triton(features, size) and _usual(p):
        return triton_pass.log_norm(_triton_grid(features, size, covered, align_corners), p)
    resized = resize(at_least_float32(features), size, covered, align_corners)
    return reference.log_feature_norm(resized, p)


def for_compiled(x: Tensor) -> bool:
    """Whether the C pass can take it: it knows float32 on the CPU, and no gradients."""
    return _plain(x) and x.device.type == "cpu" and compiled_serves()


def _for_triton(x: Tensor, size: tuple[int, int]) -> bool:
    """Whether the Triton pass can take it, on its device, and no gradients."""
    return (
        _plain(x)
        and x.device.type == triton_pass.device_type()
        and available(x.device.type)["kernels"] == "triton"
        and size[0] * size[1] <= _MOST_PIXELS
    )


def _plain(x: Tensor) -> bool:
    """Numbers that are there, that float32 holds, without gradients."""
    return (
        not recording(x)
        and type(x) in (Tensor, torch.nn.Parameter)
        and x.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and not (x.requires_grad and torch.is_grad_enabled())
    )


def grid_of(
    values: Tensor,
    size: tuple[int, int],
    covered: tuple[float, float] | None,
    align_corners: bool,
) -> compiled.Grid:
    """The values as the C pass takes them."""
    values = at_least_float32(values.detach()).resolve_neg()
    if same_grid(values, size, covered):
        return compiled.Grid(values)
    return compiled.Grid(values, size, covered, align_corners)


def _triton_grid(
    values: Tensor,
    size: tuple[int, int],
    covered: tuple[float, float] | None,
    align_corners: bool,
) -> triton_pass.Grid:
    """The values as the Triton pass takes them, half precision as it is."""
    values = values.detach().resolve_neg()
    if same_grid(values, size, covered):
        return triton_pass.Grid(values)
    return triton_pass.Grid(values, size, covered, align_corners)


def _representable(temperature: float | None) -> bool:
    """Whether float32 has the temperature and its inverse."""
    return temperature is None or 1e-30 < temperature < 1e30


def _usual(p: float) -> bool:
    """Orders for which float32 has all powers; others go to the reference."""
    return 1e-3 <= p <= 1e3 or math.isinf(p)
