"""A doubt map as one number: by its mean, and by the shape of the doubt.

Reference:
    "Better than average" (2026), https://arxiv.org/abs/2603.29941, which compares such numbers; the
    autocorrelation is Moran's I, Notes on continuous stochastic phenomena (1950),
    https://doi.org/10.2307/2332142
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

QUANTILE = 0.9
PATCH = 8
"""Sides of an image by the side of a patch."""
ABOVE = 0.3
"""Doubt from which on a pixel's counts."""

Doubt = NDArray[np.float32]


def mean(doubt: Doubt) -> float:
    """Of all pixels."""
    return float(doubt.mean(dtype=np.float64))


def quantile(doubt: Doubt) -> float:
    """What a tenth of the pixels are above."""
    return float(np.quantile(doubt, QUANTILE))


def patch(doubt: Doubt) -> float:
    """The largest mean of a square whose side is an eighth of the image's shorter one."""
    side = max(1, min(doubt.shape) // PATCH)
    means = ndimage.uniform_filter(doubt.astype(np.float64), side, mode="nearest")
    half, rest = side // 2, (side - 1) // 2
    height, width = doubt.shape
    return float(means[half : height - rest, half : width - rest].max())


def mass(doubt: Doubt) -> float:
    """Doubt of the pixels above `ABOVE`, summed and divided by the number of all."""
    return float(np.where(doubt > ABOVE, doubt, 0).mean(dtype=np.float64))


def moran(doubt: Doubt) -> float:
    """How alike neighbours are, Moran's I over edges of pixels; 0 for a flat map.

    In [-1, 1], and up to a tenth beyond on maps of a few pixels, where edges are scarce.
    """
    away = doubt.astype(np.float64) - doubt.mean(dtype=np.float64)
    spread = float((away**2).mean())
    down, right = away[1:] * away[:-1], away[:, 1:] * away[:, :-1]
    count = down.size + right.size
    if not spread or not count:
        return 0.0
    return float((down.sum() + right.sum()) / count / spread)


SHAPES: dict[str, Callable[[Doubt], float]] = {
    "mean": mean,
    "quantile": quantile,
    "patch": patch,
    "mass": mass,
    "moran": moran,
}
"""By name; each takes `(H, W)` in [0, 1] and grows with doubt, but for `moran`, which may not."""
