"""Largest logit, before any normalisation over the classes."""

from torch import Tensor

from doubtmap.prediction import Prediction, as_prediction


def max_logit(prediction: Prediction | Tensor) -> Tensor:
    """The negated largest logit: `- max_k x_k`.

    Args:
        prediction: a prediction, or logits `(B, C, H, W)`.

    Returns:
        `(B, H, W)` float32, any real number.

    Reference:
        Scaling Out-of-Distribution Detection for Real-World Settings (Hendrycks et al., 2022),
        https://arxiv.org/abs/1911.11132

    Example:
        >>> import torch
        >>> max_logit(torch.tensor([3.0, 1.0]).reshape(1, 2, 1, 1)).item()
        -3.0
    """
    return as_prediction(prediction).statistics.max_logit.float()
