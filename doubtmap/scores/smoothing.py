"""Maps smoothed, and averaged to coarser cells; plain tensor code that a tracer can follow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def smoothed(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian blur; beyond the border the outermost values go on.

    Args:
        maps: `(B, h, w)`, floating point.
        sigma: standard deviation, in cells, above 0; four of them are taken to each side.

    Returns:
        `(B, h, w)`.
    """
    reach = max(1, int(4 * sigma + 0.5))
    steps = torch.arange(-reach, reach + 1, dtype=maps.dtype, device=maps.device)
    kernel = (-0.5 * (steps / sigma).square()).exp()
    kernel = kernel / kernel.sum()
    rows = F.pad(maps[:, None], (reach, reach, 0, 0), mode="replicate")
    columns = F.conv2d(rows, kernel.view(1, 1, 1, -1))
    columns = F.pad(columns, (0, 0, reach, reach), mode="replicate")
    return F.conv2d(columns, kernel.view(1, 1, -1, 1))[:, 0]


def spread_out(maps: Tensor, cell: int, grid: tuple[int, int]) -> Tensor:
    """Bring maps of squares back to the grid that `averaged` took them from, bilinearly.

    Args:
        maps: `(B, h', w')`.
        cell: as in `averaged`.
        grid: `(h, w)` of that grid.

    Returns:
        `(B, h, w)`.
    """
    if cell == 1:
        return maps
    whole = (maps.shape[-2] * cell, maps.shape[-1] * cell)
    wide = F.interpolate(maps[:, None], whole, mode="bilinear", align_corners=False)[:, 0]
    return wide[:, : grid[0], : grid[1]]
