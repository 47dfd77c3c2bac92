"""Probabilities averaged over squares, and islands in them: in C where it is built."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.kernels import compiled
from doubtmap.kernels.fused import for_compiled

Sides = Literal["mean", "geometric"]
PARTS = (16, 8, 4)
"""The windows reach over these parts of the width."""
WIDEST = 32
"""Side of the largest squares that the compiled pass holds at once."""


def averaged(maps: Tensor, cell: int) -> Tensor:
    """Means over squares of `cell` x `cell`; those at the right and bottom may be cut.

    Args:
        maps: `(B, K, h, w)`.
        cell: side of the squares, at least 1.

    Returns:
        `(B, K, ceil(h / cell), ceil(w / cell))`.
    """
    if cell == 1:
        return maps
    return F.avg_pool2d(maps, cell, ceil_mode=True, count_include_pad=False)


def averaged_softmax(logits: Tensor, cell: int) -> tuple[Tensor, Tensor]:
    """Softmax and its entropy, averaged over squares; compiled, in one pass.

    Args:
        logits: `(B, C, h, w)`, float32 or float64.
        cell: side of the squares, at least 1.

    Returns:
        `(B, C, h', w')`, and `(B, h', w')` in nats.
    """
    if logits.dtype == torch.float32 and cell <= WIDEST and for_compiled(logits):
        return compiled.squares(compiled.Grid(logits.detach().resolve_neg()), cell)
    log_p = logits.log_softmax(1).clamp_min(-1e4)
    p = log_p.exp()
    return averaged(p, cell), averaged(-(log_p * p).sum(1, keepdim=True), cell)[:, 0]


def islands(probabilities: Tensor, sides: Sides) -> Tensor:
    """The formula of `island` on the grid of the probabilities.

    Args:
        probabilities: `(B, C, h, w)`.
        sides: see `island`.

    Returns:
        `(B, h, w)` in [0, 1].
    """
    p, (height, width) = probabilities, map(int, probabilities.shape[-2:])
    if p.dtype == torch.float32 and for_compiled(p):
        first, second, third = (max(1, width // part) for part in PARTS)
        kept = p.detach().resolve_neg().contiguous()
        return compiled.islands(kept, (first, second, third), sides == "geometric")
    other = 1 - p
    best = p.new_zeros(p.shape[0], height, width)
    for part in PARTS:
        reach = max(1, width // part)
        across, down = _ahead(width, reach, p), _ahead(height, reach, p)
        if sides == "mean":
            mean = (p @ (across + across.T) + down.T @ p) / 3
        else:
            product = (p @ across) * (p @ across.T) * (down.T @ p)
            mean = (product.clamp_min(1e-9).log() / 3).exp()
        best = torch.maximum(best, (mean * other).amax(1) / reach)
    return best.clamp(0, 1)


def _ahead(count: int, reach: int, like: Tensor) -> Tensor:
    """`(n, n)`: of n cells in a row itself and those ahead, within reach: 1 at (cell, of which).

    Windows are products with such matrices: quicker here than running sums, and no less exact.
    """
    steps = torch.arange(count, device=like.device)
    gap = steps[:, None] - steps
    return ((gap >= 0) & (gap <= reach)).to(like)
