"""Maximum softmax probability, the baseline of the field."""

from torch import Tensor

from doubtmap.prediction import Prediction, as_prediction


def max_softmax(prediction: Prediction | Tensor) -> Tensor:
    """One minus the largest softmax probability.

    `1 - max_k softmax(x)_k`, computed from the other classes' share, so that it keeps its
    relative precision where the largest probability rounds to 1.

    Args:
        prediction: a prediction, or logits `(B, C, H, W)`.

    Returns:
        `(B, H, W)` float32 in [0, 1 - 1/C].

    Reference:
        A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural
        Networks (Hendrycks and Gimpel, 2017), https://arxiv.org/abs/1610.02136

    Example:
        >>> import torch
        >>> max_softmax(torch.zeros(1, 4, 1, 1)).item()
        0.75
    """
    return as_prediction(prediction).statistics.max_softmax.float()


max_softmax.probability_of_wrong = True  # type: ignore[attr-defined]
"""What it claims to be: `evaluate` checks it."""
