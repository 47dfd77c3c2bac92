"""Jensen-Shannon divergence between the prediction and the uniform distribution."""

import math

import torch
from torch import Tensor

from doubtmap.errors import UsageError
from doubtmap.prediction import Prediction, as_prediction


def divergence(prediction: Prediction | Tensor, temperature: float = 2.0) -> Tensor:
    """The negated Jensen-Shannon divergence of the tempered softmax to uniform, in nats.

    With `p = softmax(x / T)`, `u = 1/C`, `m = (p + u) / 2`:
    `- (KL(p || m) + KL(u || m)) / 2`. Negated, since a prediction near uniform is doubtful.

    Args:
        prediction: a prediction, or logits `(B, C, H, W)`.
        temperature: T > 0; 2 as in the paper.

    Returns:
        `(B, H, W)` float32 in [-log 2, 0].

    Raises:
        UsageError: for a temperature that is not above 0.

    Reference:
        Dense Out-of-Distribution Detection by Robust Learning on Synthetic Negative Data
        (Grcić et al., 2021), https://arxiv.org/abs/2112.12833

    Example:
        >>> import torch
        >>> round(divergence(torch.tensor([1e4, 0.0]).reshape(1, 2, 1, 1)).item(), 4)
        -0.2158
    """
    if not temperature > 0 or math.isinf(temperature):
        raise UsageError(f"divergence: expected a finite temperature above 0, got {temperature}.")
    log_p = (as_prediction(prediction).logits / temperature).log_softmax(1)
    log_u = -math.log(log_p.shape[1])
    log_m = torch.logaddexp(log_p, torch.full_like(log_p[:1, :1, :1, :1], log_u)) - math.log(2)
    to_mixture = (log_p.exp() * (log_p - log_m)).sum(1) + (log_u - log_m).mean(1)
    return -(to_mixture / 2).clamp_min(0).float()
