"""How far a prediction is from the uniform distribution: what is made small on negative pixels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def jensen_shannon(logits: Tensor) -> Tensor:
    """`(KL(u || m) + KL(p || m)) / 2` with `m = (u + p) / 2`, in [0, log 2).

    Bounded: a pixel on which the network is sure pulls less than one that is in doubt, which
    is what makes it robust to negatives that look like something known.

    Args:
        logits: `(N, C)`, of `p`.

    Returns:
        `(N,)`, in nats.

    Reference:
        Dense Out-of-Distribution Detection by Robust Learning on Synthetic Negative Data
        (Grcić et al., 2021), https://arxiv.org/abs/2112.12833
    """
    p, u = logits.log_softmax(1), -math.log(logits.shape[1])
    m = torch.logaddexp(p, torch.full_like(p, u)) - math.log(2)
    return 0.5 * (math.exp(u) * (u - m) + p.exp() * (p - m)).sum(1)


def uniform_to_prediction(logits: Tensor) -> Tensor:
    """`KL(u || p) = - log C - mean log p_c`, unbounded: one sure pixel can outweigh all others.

    Args:
        logits: `(N, C)`, of `p`.

    Returns:
        `(N,)`, in nats.

    Reference:
        Deep Anomaly Detection with Outlier Exposure (Hendrycks, Mazeika, Dietterich, 2018),
        https://arxiv.org/abs/1812.04606, up to a constant.
    """
    return -math.log(logits.shape[1]) - logits.log_softmax(1).mean(1)


def prediction_to_uniform(logits: Tensor) -> Tensor:
    """`KL(p || u) = log C - entropy`, in [0, log C].

    Args:
        logits: `(N, C)`, of `p`.

    Returns:
        `(N,)`, in nats.
    """
    p = logits.log_softmax(1)
    return math.log(logits.shape[1]) + (p.exp() * p).sum(1)


DIVERGENCES: dict[str, Callable[[Tensor], Tensor]] = {
    "jsd": jensen_shannon,
    "kl": uniform_to_prediction,
    "reverse-kl": prediction_to_uniform,
}
"""By the name that the command line gives."""
