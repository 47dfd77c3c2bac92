"""Jensen-Shannon divergence between the prediction and the uniform distribution."""

import math

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
    return -as_prediction(prediction).divergence(float(temperature)).float()
