"""What several networks, or passes of one, disagree about: three scores of one prediction.

Each needs a prediction that was made by several: an ensemble, or dropout switched on.

What a second head says: of its teachers' doubt, an ensemble's answer from one network; or of
how much a pixel looks like the negatives of the training.
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
    how = "--recipe dudes --teachers MODEL1,MODEL2,..."
    return _full_size(prediction, "distilled", how).sigmoid()


def negative(prediction: Prediction) -> Tensor:
    """`p_n - max_k p_k`: how much a pixel looks like a negative, and how unsure its class is.

    `p` is the softmax over the classes `k` and one more, `n`, that pasted negatives were taught as.
    The head's logit of `n` is resized as the others are.

    Args:
        prediction: of a network that `doubtmap train --recipe nflowjs --negative-class` wrote.

    Returns:
        `(B, H, W)` float32 in [-1, 1].

    Raises:
        ModelError: for a prediction without what the head says, or whose logits are not the
            network's own.
        DataError: where what the head says is not finite.

    Reference:
        Outlier detection by ensembling uncertainty with negative objectness (Delić, Grcić, Šegvić,
        2024), https://arxiv.org/abs/2402.15374: the score UNO of a classifier with K + 1 outputs.
    """
    said = _full_size(prediction, "negative", "--recipe nflowjs --negative-class --model MODEL")
    if prediction.classes_of is not None:
        raise ModelError(
            "negative: needs the network's own logits, beside which its class was learnt, but "
            "these are calibrated. Leave the calibrator out for this score."
        )
    known = prediction.statistics
    objectness = (said + known.energy.float()).sigmoid()
    return objectness - (1 - objectness) * (1 - known.max_softmax.float())


def _full_size(prediction: Prediction, name: str, how: str) -> Tensor:
    """`(B, H, W)` of what a second head says, by its name.

    Args:
        prediction: of a network with this head.
        name: of the head, and of the score.
        how: such a network is trained.

    Raises:
        ModelError: for a prediction without it.
        DataError: where it is not finite.
    """
    said = said_by_head(prediction, name)
    if said is None or said.ndim != 4 or said.shape[1] != 1:
        raise ModelError(
            f"{name}: needs a network with a second head, but this one has none. Train one with: "
            f"doubtmap train DATA {how} --out DIR."
        )
    if not recording(said) and not bool(torch.isfinite(said).all()):
        raise DataError(
            f"{name}: expected a finite second head, got NaN or infinity. Run the network in "
            f"float32, or train it again."
        )
    return prediction.to_size(said.float())[:, 0]


def said_by_head(prediction: Prediction, name: str = "distilled") -> Tensor | None:
    """`(B, 1, h, w)`, what the second head of this name said, where the network has one.

    Predictions carry it as a layer of this name, wherever it is in the network.
    """
    found = [said for layer, said in prediction.layers.items() if layer.split(".")[-1] == name]
    return found[-1] if found else None
