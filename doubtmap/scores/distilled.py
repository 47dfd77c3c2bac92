"""What a student learnt of its teachers' doubt: an ensemble's answer from one network."""

import torch
from torch import Tensor

from doubtmap.errors import DataError, ModelError
from doubtmap.prediction import Prediction

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
    if not bool(torch.isfinite(said).all()):
        raise DataError(
            "distilled: expected a finite second head, got NaN or infinity. Run the network in "
            "float32, or train the student again."
        )
    return prediction.to_size(said.float())[:, 0].sigmoid()


def said_by_head(prediction: Prediction) -> Tensor | None:
    """`(B, 1, h, w)`, what the second head of a network said, where it has one."""
    found = [said for name, said in prediction.layers.items() if name.split(".")[-1] == LAYER]
    return found[-1] if found else None
