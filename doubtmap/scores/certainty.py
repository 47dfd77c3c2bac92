"""How sure of its label a pixel must be to count in a fit of Gaussians, for a network at hand.

A pixel weighs `p(label)^g`. What a g means depends on the network: with 64 one that says 0.9 of
most pixels keeps few of them, one that says 0.999 keeps nearly all, mislabelled rims included. So
g is chosen by the share of *effective* pixels that it leaves, `(sum w)^2 / sum w^2` of each class,
summed, over all pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from doubtmap.errors import DataError, UsageError
from doubtmap.prediction import Prediction
from doubtmap.scores.density import Labels
from doubtmap.scores.inner_features import inner_features, sure_labels

HALF = "half"
SHARE = 0.5
"""Of effective pixels that is aimed at."""
EXPONENTS = 2.0 ** torch.arange(17, dtype=torch.float64)
"""That are tried: 1 to 65536."""


def read_certainty(text: str) -> float | None:
    """The exponent that `certainty=` names, None for `half`.

    Raises:
        UsageError: for anything else.
    """
    try:
        return None if text == HALF else float(text)
    except ValueError:
        raise UsageError(
            f"density: expected certainty as a number of at least 0, or {HALF}, got {text!r}."
        ) from None


def effective_shares(
    pairs: Iterable[tuple[Prediction, Tensor]],
    layers: Sequence[str] = (),
    labels: Labels = "given",
) -> Tensor:
    """The share of effective pixels that each of `EXPONENTS` leaves.

    Args:
        pairs: predictions with labels `(B, H, W)`; below 0 is void or unknown.
        layers: inner layers on whose grid the fit is, none for the classifier's.
        labels: as `Density`.

    Returns:
        `(E,)` float64 in [0, 1], falling.

    Raises:
        DataError: for no labelled pixel.
    """
    sums, squares, pixels = torch.zeros(2, 0), torch.zeros(2, 0), 0
    for prediction, label in pairs:
        grid = inner_features(prediction, layers, "none", "density").shape[-2:]
        given = None if labels == "predicted" else label
        _, known, sureness = sure_labels(prediction, given, tuple(grid))
        if not pixels:
            sums = torch.zeros(prediction.native_logits.shape[1], len(EXPONENTS)).double()
            squares = sums.clone()
        weights = sureness.cpu()[:, None] ** EXPONENTS
        sums.index_add_(0, known.cpu(), weights)
        squares.index_add_(0, known.cpu(), weights.square())
        pixels += len(known)
    if not pixels:
        raise DataError(
            "density: expected labelled pixels of the model's classes, found none. Fit on a "
            "labelled data set whose classes the model knows, or give certainty=64, say."
        )
    tiny = torch.finfo(torch.float64).tiny
    return (sums.square() / squares.clamp_min(tiny)).sum(0) / pixels


def exponent_for(shares: Tensor, share: float = SHARE) -> float:
    """That of `EXPONENTS` whose share of effective pixels is nearest.

    Args:
        shares: of `effective_shares`.
        share: aimed at, in (0, 1].

    Example:
        >>> exponent_for(torch.linspace(1, 0, 17, dtype=torch.float64))
        256.0
    """
    return float(EXPONENTS[(shares - share).abs().argmin()])
