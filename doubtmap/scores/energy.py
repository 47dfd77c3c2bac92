"""Free energy of the logits."""

from torch import Tensor

from doubtmap.prediction import Prediction, as_prediction


def energy(prediction: Prediction | Tensor) -> Tensor:
    """The free energy at temperature 1: `- log sum_k exp(x_k)`.

    Args:
        prediction: a prediction, or logits `(B, C, H, W)`.

    Returns:
        `(B, H, W)` float32, any real number.

    Reference:
        Energy-based Out-of-distribution Detection (Liu et al., 2020),
        https://arxiv.org/abs/2010.03759

    Example:
        >>> import torch
        >>> round(energy(torch.zeros(1, 4, 1, 1)).item(), 4)
        -1.3863
    """
    return as_prediction(prediction).statistics.logsumexp.neg_().float()
