"""What several networks, or passes of one, disagree about: three scores of one prediction.

Each needs a prediction that was made by several: an ensemble, or dropout switched on.
"""

from torch import Tensor

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
