"""Maximum softmax probability, the baseline of the field.

Entropy of the predicted class distribution.

Free energy of the logits.

Largest logit, before any normalisation over the classes.

Jensen-Shannon divergence between the prediction and the uniform distribution.

Probability margin between the two likeliest classes.
"""

from __future__ import annotations

import math

from torch import Tensor

from doubtmap.errors import ModelError, UsageError
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


def energy(prediction: Prediction | Tensor) -> Tensor:
    """The free energy at temperature 1: `- log sum_k exp(x_k)`.

    Args:
        prediction: a prediction, or logits `(B, C, H, W)`.

    Returns:
        `(B, H, W)` float32, any real number.

    Raises:
        ModelError: for a prediction of several networks or passes, whose energy is 0 everywhere,
            and for a calibrated one whose logits have lost their level.

    Reference:
        Energy-based Out-of-distribution Detection (Liu et al., 2020),
        https://arxiv.org/abs/2010.03759

    Example:
        >>> import torch
        >>> round(energy(torch.zeros(1, 4, 1, 1)).item(), 4)
        -1.3863
    """
    if isinstance(prediction, Prediction) and prediction.members is not None:
        raise ModelError(
            "energy: expected the logits of one network, got the logarithm of the mean probability "
            "of several, whose energy is 0 everywhere. Use entropy or max_softmax."
        )
    if isinstance(prediction, Prediction) and prediction.energy_missing:
        raise ModelError(
            f"energy: needs the network's own logits, but {prediction.energy_missing}. Use entropy "
            f"or max_softmax."
        )
    return as_prediction(prediction).statistics.energy.float()


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
