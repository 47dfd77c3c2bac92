"""Where the native grid lies on the image, and bilinear maps from one to the other."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.kernels.recording import recording


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def resize(
    maps: Tensor,
    size: tuple[int, int],
    covered: tuple[float, float] | None = None,
    align_corners: bool = False,
) -> Tensor:
    """Bring maps that stand for an area of `covered` pixels to `size`, bilinearly.

    Where the area is larger than the image (padding), only the image's part is computed.

    Args:
        maps: `(B, K, h, w)`, floating point.
        size: `(H, W)` in pixels.
        covered: height and width of the area, in the same pixels, not smaller than `size`.
        align_corners: as in `torch.nn.functional.interpolate`.

    Returns:
        `(B, K, H, W)`.
    """
    if covered is not None and recording(maps) and all(map(_is_whole, covered)):
        return _corner(_whole(maps, covered, align_corners), size)
    if same_grid(maps, size, covered):
        return maps
    if covered is None or tuple(covered) == tuple(size):
        return F.interpolate(maps, size, mode="bilinear", align_corners=align_corners)
    rows = _sample_positions(size[0], maps.shape[-2], covered[0], align_corners)
    columns = _sample_positions(size[1], maps.shape[-1], covered[1], align_corners)
    rows, columns = (
        _for_grid_sample(rows, maps.shape[-2]),
        _for_grid_sample(columns, maps.shape[-1]),
    )
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], -1)
    grid = grid.to(maps).expand(maps.shape[0], -1, -1, -1)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _is_whole(side: object) -> bool:
    """Whether a length is a whole number of pixels, as a graph writes lengths down."""
    of_tensor = isinstance(side, Tensor) and not side.is_floating_point()
    return of_tensor or isinstance(side, int | torch.SymInt)


def _whole(maps: Tensor, covered: tuple[float, float], align_corners: bool) -> Tensor:
    """All of the area: in a graph the image may fill it for one size and not for another."""
    if tuple(maps.shape[-2:]) == tuple(covered):
        return maps
    return F.interpolate(maps, covered, mode="bilinear", align_corners=align_corners)  # type: ignore[arg-type]


def _corner(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """The top left of maps; for `torch.export` by choice, since of a view it asks for its strides.

    Its program would then refuse images that fill the area.
    """
    if torch._C._get_tracing_state() is not None:
        return maps[..., : size[0], : size[1]]
    rows, columns = (torch.arange(side, device=maps.device) for side in size)
    return maps.index_select(2, rows).index_select(3, columns)


def resize_logits(
    native_logits: Tensor,
    size: tuple[int, int],
    covered: tuple[float, float] | None = None,
    align_corners: bool = False,
) -> Tensor:
    """`resize` in at least float32, with masks kept finite.

    Classes masked with the lowest float must not become infinite by interpolation.
    """
    logits = at_least_float32(native_logits)
    if recording(logits) or not same_grid(logits, size, covered):
        logits = logits.clamp(-1e37, 1e37)
    return resize(logits, size, covered, align_corners)


def same_grid(
    maps: Tensor, size: tuple[int, int], covered: tuple[float, float] | None = None
) -> bool:
    """Whether the maps are already the image's size, and stand for all of it."""
    whole = covered is None or tuple(covered) == tuple(size)
    return whole and tuple(maps.shape[-2:]) == tuple(size)


@functools.lru_cache(maxsize=64)
def neighbours(
    pixels: int, samples: int, covered: float, align_corners: bool
) -> tuple[Tensor, Tensor]:
    """The native samples between which each pixel centre of an axis lies.

    Args:
        pixels: length of the axis, in pixels.
        samples: native samples on the axis.
        covered: length that the native samples stand for, in pixels.
        align_corners: as in `torch.nn.functional.interpolate`.

    Returns:
        Index of the lower sample, int32, and weight of the next one, float32 in [0, 1].
    """
    position = _sample_positions(pixels, samples, covered, align_corners).clamp(0, samples - 1)
    lower = position.floor()
    return lower.int(), (position - lower).float()


def _sample_positions(pixels: int, samples: int, covered: float, align_corners: bool) -> Tensor:
    """Positions of pixel centres on a native axis, in samples; the first sample is at 0."""
    pixel = torch.arange(pixels, dtype=torch.float64)
    if align_corners:
        return pixel * (samples - 1) / max(covered - 1, 1)
    return (pixel + 0.5) * samples / covered - 0.5


def _for_grid_sample(position: Tensor, samples: int) -> Tensor:
    """Positions in samples in `grid_sample`'s [-1, 1]."""
    return (2 * position + 1) / samples - 1


def nearest_pixels(samples: int, span: float, align_corners: bool) -> Tensor:
    """The pixel nearest to the centre of each native sample, `(samples,)` int64.

    Args:
        samples: native samples on the axis.
        span: length that they stand for, in pixels; those in the padding lie beyond the image.
        align_corners: as in `torch.nn.functional.interpolate`.
    """
    sample = torch.arange(samples, dtype=torch.float64)
    if align_corners:
        centre = sample * (span - 1) / max(samples - 1, 1)
    else:
        centre = (sample + 0.5) * span / samples - 0.5
    return (centre + 0.5).floor().clamp_min(0).long()
