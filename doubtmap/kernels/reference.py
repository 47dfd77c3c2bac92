"""The per-pixel pass in plain PyTorch: correct everywhere, and what other versions are held to."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PixelStatistics(NamedTuple):
    """What the stateless scores need of every pixel's logits `x`, each `(B, H, W)`.

    `rest` and `gap` are taken relative to the largest logit, so that very confident pixels keep
    their order where `1 - softmax(x).max()` has long been rounded to 0.
    """

    classes: Tensor
    """int64, the class of the largest logit (the first of equals)."""
    first: Tensor
    """The largest logit."""
    gap: Tensor
    """Largest minus second-largest logit, >= 0."""
    rest: Tensor
    """Sum of exp(x - first) over all classes but the predicted one, in [0, C - 1]."""
    entropy: Tensor
    """Of softmax(x), in nats, in [0, log C]."""

    @property
    def logsumexp(self) -> Tensor:
        """Log of the sum of exp(x)."""
        return self.first + torch.log1p(self.rest)


def pixel_statistics(logits: Tensor) -> PixelStatistics:
    """Reduce logits over their classes.

    Args:
        logits: `(B, C, H, W)`, finite, float32 or float64.

    Returns:
        Maps `(B, H, W)` in the logits' dtype.
    """
    first, classes = logits.max(1)
    chosen = classes[:, None]
    below = logits - first[:, None]
    below.scatter_(1, chosen, -torch.inf)
    gap = -below.amax(1)
    odds = below.exp()
    rest = odds.sum(1)
    below.scatter_(1, chosen, 0.0)
    entropy = torch.log1p(rest) - odds.mul_(below).sum(1) / (1 + rest)
    return PixelStatistics(classes, first, gap, rest, entropy)
