"""Rejected by all: how little of a pixel the queries of a mask network accept.

For networks that predict masks by queries (Mask2Former, MaskFormer, EoMT). There entropy is no
measure of the unknown: a pixel that no query claims has small scores for all classes alike, and
their softmax may be as sure as anywhere.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from doubtmap.errors import UsageError
from doubtmap.prediction import Prediction
from doubtmap.scores import DEFAULT

Acceptance = Literal["rba", "eam"]


def rejected(prediction: Prediction, variant: Acceptance = "rba") -> Tensor:
    """Minus how much the known classes accept a pixel.

    With the class scores `s_c = sum_q softmax(class_q)_c sigmoid(mask_q)`:

        rba = - sum_c tanh(s_c),    eam = - sum_q sigmoid(mask_q) max_c softmax(class_q)_c

    Args:
        prediction: of a network that predicts masks by queries.
        variant: `rba` is rejected by all, over classes; `eam` the ensemble of anomaly scores of
            the masks, over queries.

    Returns:
        `(B, H, W)` float32 in [-C, 0] (`rba`) or [-Q, 0] (`eam`).

    Raises:
        ModelError: for another network.
        UsageError: for an unknown variant.

    Reference:
        RbA: Segmenting Unknown Regions Rejected by All (Nayal, Yavuz, Henriques, Güney, 2023),
        https://arxiv.org/abs/2211.14293; On Advantages of Mask-level Recognition for Outlier-aware
        Segmentation (Grcić, Šarić, Šegvić, 2023), https://arxiv.org/abs/2301.03407

    Example:
        >>> import torch
        >>> from doubtmap.prediction import Queries
        >>> scores = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1)
        >>> queries = Queries(torch.tensor(0.9).view(1, 1, 1))
        >>> made = Prediction(scores.log(), size=(1, 1), queries=queries)
        >>> round(rejected(made).item(), 4), round(rejected(made, "eam").item(), 4)
        (-0.816, -0.9)
    """
    if variant not in get_args(Acceptance):
        raise UsageError(f"rejected: expected variant=rba or variant=eam, got {variant!r}.")
    queries = prediction.require_queries("rejected")
    if variant == "eam":
        return -queries.accepted.float()
    return -prediction.logits.exp().tanh().sum(1).float()


def suited(prediction: Prediction) -> tuple[str, str]:
    """The score for unknown objects that suits the kind of network, and why, half a sentence."""
    if prediction.queries is None:
        return DEFAULT, "an unknown object is often an unsure island in what the network is sure of"
    return "rejected", (
        "what no query claims has small scores for all classes alike, and their shares, which "
        "entropy, margin and max_softmax look at, may be as sure as anywhere"
    )
