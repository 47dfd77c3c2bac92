"""Probability margin between the two likeliest classes."""

from torch import Tensor

from doubtmap.prediction import Prediction, as_prediction


def margin(prediction: Prediction | Tensor) -> Tensor:
    """One minus the difference of the two largest softmax probabilities.

    `1 - (p_(1) - p_(2))`: 0 where one class has all the probability, 1 where two classes tie.

    Args:
        prediction: a prediction, or logits `(B, C, H, W)`.

    Returns:
        `(B, H, W)` float32 in [0, 1].

    Reference:
        Prediction Error Meta Classification in Semantic Segmentation (Rottmann et al., 2020),
        https://arxiv.org/abs/1811.00648

    Example:
        >>> import torch
        >>> margin(torch.zeros(1, 4, 1, 1)).item()
        1.0
    """
    return as_prediction(prediction).statistics.margin.float()
