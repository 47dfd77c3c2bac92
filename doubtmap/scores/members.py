"""What several networks, or passes of one, disagree about: three scores of one prediction.

Each needs a prediction that was made by several: an ensemble, or dropout switched on.

What a student learnt of its teachers' doubt: an ensemble's answer from one network.
"""

from __future__ import annotations

import torch
from torch import Tensor

from doubtmap.errors import DataError, ModelError
from doubtmap.kernels import recording
from doubtmap.prediction import Prediction


def mutual_information(prediction: Prediction) -> Tensor:
    """Entropy of the members' mean minus the mean entropy of the members, in nats.

    `H[mean_m p_m] - mean_m H[p_m]`; high where members are sure of different classes. Clamped at
    0, below which only rounding can bring it.

    Args:
        prediction: of several networks or passes.

    Returns:
        `(B, H, W)` float32 in [0, log M] for M members.

    Raises:
        ModelError: for a prediction of one network.

    Reference:
        Bayesian Active Learning for Classification and Preference Learning (Houlsby et al.,
        2011), https://arxiv.org/abs/1112.5745
    """
    members = prediction.require_members("mutual_information")
    return (prediction.statistics.entropy - members.entropy).clamp_min(0).float()


def member_entropy(prediction: Prediction) -> Tensor:
    """Mean over the members of the entropy of each one's softmax, in nats.

    The doubt that members share, as at ambiguous borders; also called expected entropy.

    Args:
        prediction: of several networks or passes.

    Returns:
        `(B, H, W)` float32 in [0, log C].

    Raises:
        ModelError: for a prediction of one network.

    Reference:
        Decomposition of Uncertainty in Bayesian Deep Learning (Depeweg et al., 2018),
        https://arxiv.org/abs/1710.07283
    """
    return prediction.require_members("member_entropy").entropy.float()


def member_spread(prediction: Prediction) -> Tensor:
    """Standard deviation over the members of the probability of the class that their mean predicts.

    With divisor M - 1, as the teacher's target of DUDES has it.

    Args:
        prediction: of several networks or passes.

    Returns:
        `(B, H, W)` float32 in [0, sqrt(M / (4 (M - 1)))] for even M, so at most 0.71.

    Raises:
        ModelError: for a prediction of one network.

    Reference:
        DUDES: Deep Uncertainty Distillation using Ensembles for Semantic Segmentation (Landgraf
        et al., 2024), https://arxiv.org/abs/2303.09843
    """
    return prediction.require_members("member_spread").spread.float()


LAYER = "distilled"
"""What predictions of a student carry: a layer of this name, wherever it is in the network."""


def distilled(prediction: Prediction) -> Tensor:
    """`sigmoid(resize(w . z + b))`: the student's guess of what its teachers disagree about.

    By default a guess of `member_spread`, in the same unit. It is resized as the logits are, and
    then squashed, as published.

    Args:
        prediction: of a student with a second head, as `doubtmap train --recipe dudes` writes it.

    Returns:
        `(B, H, W)` float32 in [0, 1].

    Raises:
        ModelError: for a prediction without what the second head says.
        DataError: where that is not finite.

    Reference:
        DUDES: Deep Uncertainty Distillation using Ensembles for Semantic Segmentation (Landgraf
        et al., 2024), https://arxiv.org/abs/2303.09843
    """
    said = said_by_head(prediction)
    if said is None or said.ndim != 4 or said.shape[1] != 1:
        raise ModelError(
            "distilled: needs a network with a second head, but this one has none. Train one with: "
            "doubtmap train DATA --recipe dudes --teachers MODEL1,MODEL2,... --out DIR."
        )
    if not recording(said) and not bool(torch.isfinite(said).all()):
        raise DataError(
            "distilled: expected a finite second head, got NaN or infinity. Run the network in "
            "float32, or train the student again."
        )
    return prediction.to_size(said.float())[:, 0].sigmoid()


def said_by_head(prediction: Prediction) -> Tensor | None:
    """`(B, 1, h, w)`, what the second head of a network said, where it has one."""
    found = [said for name, said in prediction.layers.items() if name.split(".")[-1] == LAYER]
    return found[-1] if found else None
