"""Log-odds `log p / (1 - p)` counted in a fixed number of fine cells.

Probabilities that are crowded at 0 and 1 stay apart in them, and every pixel counts: none is
sampled, whatever the number of images.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
CELLS = 1 << 13
RANGE = 24.0
"""Log-odds are clamped to plus and minus this: a probability 4e-11 from 0 or 1."""


def cells_of(odds: Tensor) -> Tensor:
    """The cell of each log-odds, int64 in [0, CELLS)."""
    scaled = (odds + RANGE) * (CELLS / (2 * RANGE))
    return scaled.floor().long().clamp_(0, CELLS - 1)


def edges() -> Array:
    """`(CELLS,)` upper edge of every cell."""
    upper = np.arange(1, CELLS + 1) * (2 * RANGE / CELLS) - RANGE
    return np.asarray(upper, np.float64)


def middles() -> Array:
    """`(CELLS,)` log-odds in the middle of every cell."""
    centres = (np.arange(CELLS) + 0.5) * (2 * RANGE / CELLS) - RANGE
    return np.asarray(centres, np.float64)


def counted(odds: Tensor, hit: Tensor) -> NDArray[np.int64]:
    """How often each cell was met, without and with a hit.

    Args:
        odds: any shape.
        hit: the same shape, bool.

    Returns:
        `(2, CELLS)`.
    """
    at = (cells_of(odds) + CELLS * hit).reshape(-1)
    return torch.bincount(at, minlength=2 * CELLS).view(2, CELLS).cpu().numpy()
