"""What the labels of an image say of its softmax: in one pass from the native logits, in C."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from doubtmap.kernels import compiled
from doubtmap.kernels.fused import for_compiled, grid_of


@dataclass(frozen=True, eq=False)
class Observed:
    """Sums over the pixels with a label, and maps.

    Args:
        confidence: `(M, 3)` float64, by bin of the predicted class's probability: pixels, right
            ones, and the sum of the probability. Bin m is `(m / M, (m + 1) / M]`.
        classwise: `(C, M, 3)`, the same for each class's own probability and label.
        losses: `(3,)`: pixels, sum of the Brier score, sum of the negative log-likelihood in nats.
        confusion: `(C, C)` int64, pixels by label and predicted class.
        doubt: `(H, W)` float32, 1 - probability of the predicted class.
        brier: `(H, W)` float32, in [0, 2]; means nothing where there is no label.
    """

    confidence: NDArray[np.float64]
    classwise: NDArray[np.float64]
    losses: NDArray[np.float64]
    confusion: NDArray[np.int64]
    doubt: Tensor
    brier: Tensor


def serves(native_logits: Tensor) -> bool:
    """Whether `observed` can take these logits."""
    return for_compiled(native_logits) and len(native_logits) == 1


def observed(
    native_logits: Tensor,
    placement: tuple[tuple[int, int], tuple[float, float] | None, bool],
    classes: Tensor,
    label: Tensor,
    bins: int,
) -> Observed:
    """Hold an image's softmax to its labels. The full-size logits are never made.

    Args:
        native_logits: `(1, C, h, w)`, finite, such that it `serves`.
        placement: `size`, `covered` and `align_corners`, as in `resize`.
        classes: `(H, W)` int64, predicted, in [0, C).
        label: `(H, W)` int64, in [0, C), or below 0 for none.
        bins: M.
    """
    grid = grid_of(native_logits, *placement)
    sums, doubt, brier = compiled.observe(grid, classes.contiguous(), label.contiguous(), bins)
    count = native_logits.shape[1]
    ends = np.cumsum([3 * bins, 3 * count * bins, 3])
    confidence, classwise, losses, confusion = np.split(sums, ends)
    return Observed(
        confidence.reshape(bins, 3),
        classwise.reshape(count, bins, 3),
        losses,
        confusion.reshape(count, count).astype(np.int64),
        doubt,
        brier,
    )
