"""The per-pixel pass in plain PyTorch: correct everywhere, and what other versions are held to."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from doubtmap.kernels.recording import recording

Label = Literal["predicted", "uniform"]
Variant = Literal["exact", "published"]


class PixelStatistics(NamedTuple):
    """The stateless scores of every pixel's logits `x`, and its class, each `(B, H, W)`.

    All are computed relative to the largest logit, so that very confident pixels keep their order
    where `1 - softmax(x).max()` has long been rounded to 0.
    """

    classes: Tensor
    """int64, the class of the largest logit (the first of equals)."""
    max_softmax: Tensor
    """One minus the largest probability, in [0, 1 - 1/C]."""
    margin: Tensor
    """One minus the largest and plus the second-largest probability, in [0, 1]."""
    entropy: Tensor
    """Of softmax(x), in nats, in [0, log C]."""
    max_logit: Tensor
    """The negated largest logit."""
    energy: Tensor
    """The negated log of the sum of exp(x)."""
    divergence: Tensor | None = None
    """Jensen-Shannon divergence to uniform, in nats, where a temperature was given."""

    def with_divergence(self, divergence: Tensor | None) -> PixelStatistics:
        """The same with it; `_replace` is what `torch.compile` of PyTorch 2.8 cannot follow."""
        return PixelStatistics(
            self.classes,
            self.max_softmax,
            self.margin,
            self.entropy,
            self.max_logit,
            self.energy,
            divergence,
        )


def pixel_statistics(logits: Tensor) -> PixelStatistics:
    """Reduce logits over their classes.

    Args:
        logits: `(B, C, H, W)`, finite, float32 or float64.

    Returns:
        Maps `(B, H, W)` in the logits' dtype.
    """
    first, classes = logits.max(1)
    below = logits - first[:, None]
    others = below.scatter(1, classes[:, None], -torch.inf)
    second = others.amax(1).exp()
    odds = others.exp()
    del others
    rest = odds.sum(1)
    weighted = (odds * below).sum(1)
    all_odds, log_sum = 1 + rest, torch.log1p(rest)
    return PixelStatistics(
        classes,
        max_softmax=rest / all_odds,
        margin=(second + rest) / all_odds,
        entropy=log_sum - weighted / all_odds,
        max_logit=-first,
        energy=-(first + log_sum),
    )


def uniform_divergence(logits: Tensor, temperature: float) -> Tensor:
    """The Jensen-Shannon divergence of the tempered softmax to the uniform distribution.

    Args:
        logits: `(B, C, H, W)`, finite, float32 or float64.
        temperature: above 0.

    Returns:
        `(B, H, W)` in nats, in [0, log 2].
    """
    log_p = (logits / temperature).log_softmax(1)
    log_u = -math.log(log_p.shape[1])
    log_m = _log_added(log_p, log_u) - math.log(2)
    to_mixture = (log_p.exp() * (log_p - log_m)).sum(1) + (log_u - log_m).mean(1)
    return (to_mixture / 2).clamp_min(0)


def _log_added(x: Tensor, constant: float) -> Tensor:
    """`log(exp(x) + exp(constant))`."""
    if recording(x):  # ONNX has no such operator
        return x.clamp_min(constant) + torch.log1p((-(x - constant).abs()).exp())
    return torch.logaddexp(x, torch.full_like(x[:1, :1, :1, :1], constant))


def log_weight_norm(logits: Tensor, p: float, label: Label, variant: Variant) -> Tensor:
    """Logarithm of the p-norm of the loss's gradient in the logits.

    Args:
        logits: `(B, C, H, W)`, finite, float32 or float64; their softmax is S.
        p: above 0; `inf` is the maximum.
        label: y is the predicted class (one-hot), or uniform.
        variant: `exact` is `|| S - y ||_p`, `published` the authors' `|| S (1 - y) ||_p`.

    Returns:
        `(B, H, W)`.
    """
    return _log_norm(_log_weights(logits, label, variant), p)


def log_feature_norm(features: Tensor, p: float) -> Tensor:
    """Logarithm of the p-norm of features `(B, D, H, W)`: `(B, H, W)`, -inf where all are 0."""
    return _log_norm(features.abs().log(), p)


def _log_weights(logits: Tensor, label: Label, variant: Variant) -> Tensor:
    """`(B, C, H, W)`: log |S - y|, or log of the authors' S (1 - y)."""
    log_softmax = logits.log_softmax(1)
    classes = logits.shape[1]
    if label == "uniform":
        if variant == "published":
            return log_softmax + math.log1p(-1 / classes)
        log_ratio = log_softmax + math.log(classes)
        return torch.expm1(log_ratio).abs().log() - math.log(classes)
    predicted = logits.argmax(1, keepdim=True)
    others = logits.scatter(1, predicted, -torch.inf)
    if variant == "published":
        return log_softmax.scatter(1, predicted, -torch.inf)
    log_rest = others.logsumexp(1, keepdim=True) - logits.logsumexp(1, keepdim=True)
    return log_softmax.scatter(1, predicted, log_rest)


def _log_norm(log_values: Tensor, p: float) -> Tensor:
    """`(B, K, H, W)` to `(B, H, W)`: log of the p-norm from the logarithms of |v|."""
    if math.isinf(p):
        return log_values.amax(1)
    return (p * log_values).logsumexp(1) / p
