"""Free energy of the logits."""

from torch import Tensor

from doubtmap.errors import ModelError
from doubtmap.prediction import Prediction, as_prediction


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
            f"or max_softmax, or leave the calibrator out for this score."
        )
    return as_prediction(prediction).statistics.energy.float()
