"""Entropy of the predicted class distribution."""

from torch import Tensor

from doubtmap.prediction import Prediction, as_prediction


def entropy(prediction: Prediction | Tensor) -> Tensor:
    """Entropy of the softmax, in nats.

    `- sum_k p_k log p_k`, not divided by `log C`.

    Args:
        prediction: a prediction, or logits `(B, C, H, W)`.

    Returns:
        `(B, H, W)` float32 in [0, log C].

    Reference:
        A Mathematical Theory of Communication (Shannon, 1948); as a score for segmentation:
        Entropy Maximization and Meta Classification for Out-of-Distribution Detection in
        Semantic Segmentation (Chan et al., 2021), https://arxiv.org/abs/2012.06575

    Example:
        >>> import torch
        >>> round(entropy(torch.zeros(1, 4, 1, 1)).item(), 4)
        1.3863
    """
    return as_prediction(prediction).statistics.entropy.float()
