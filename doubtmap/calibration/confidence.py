"""Giving every pixel a wished-for confidence without changing which class is the likeliest."""

from __future__ import annotations

import torch
from torch import Tensor


def with_confidence(logits: Tensor, classes: Tensor, confidence: Tensor) -> Tensor:
    """Log-probabilities whose predicted class has the given probability.

    The other classes share the rest in the proportions that they had. Where that would put one
    of them above the predicted class, the uniform distribution is mixed in from there on, so the
    order of the classes stays. Confidence cannot go below 1 / C, where the class would no longer
    be the likeliest.

    Args:
        logits: `(B, C, H, W)`.
        classes: `(B, H, W)` int64, class of the largest logit.
        confidence: `(B, H, W)` in [0, 1].

    Returns:
        `(B, C, H, W)`, finite.
    """
    count = logits.shape[1]
    chosen = classes[:, None]
    others = logits.scatter(1, chosen, -torch.inf).softmax(1)  # among themselves
    wanted = confidence[:, None].to(others).clamp(1 / count, 1 - torch.finfo(others.dtype).eps)
    second = others.amax(1, keepdim=True)
    level = torch.maximum(wanted, second / (1 + second))  # no other class above the predicted one
    p = (others * (1 - level)).scatter(1, chosen, level)
    share = (wanted - 1 / count) / (level - 1 / count).clamp_min(torch.finfo(p.dtype).eps)
    share = torch.where(wanted < level, share.clamp(0, 1), 1.0)
    mixed = share * p + (1 - share) / count
    return mixed.clamp_min(torch.finfo(p.dtype).tiny).log()


def log_odds_of_confidence(logits: Tensor, classes: Tensor) -> Tensor:
    """`(B, H, W)`: log p / (1 - p) of the predicted class, without rounding near p = 1."""
    chosen = classes[:, None]
    others = logits.scatter(1, chosen, -torch.inf).logsumexp(1)
    return logits.gather(1, chosen)[:, 0] - others
