"""The pixels that a fusion of scores learns from: a sample for its curves, all for calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from doubtmap.errors import DataError
from doubtmap.prediction import Prediction, Score
from doubtmap.scores.monotone_curve import Numbers

SAMPLE = 1 << 18
"""Pixels in all, but for the least that each image gives."""
LEAST = 32
CELLS, RANGE = 1 << 13, 24.0
"""Log-odds are counted in so many cells between minus and plus this."""


class Pairs(Protocol):
    """Predictions with their labels `(1, H, W)`: a class of the model, or below 0."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Prediction, Tensor]]: ...


def sample_pixels(
    pairs: Pairs, scores: Mapping[str, Score], seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Equally many pixels of each image, blind to their labels, with what each stands for.

    Args:
        pairs: gone through once.
        scores: by name.
        seed: of the sample.

    Returns:
        Scores `(N, S)` float32, wrong or not `(N,)` bool, and weights `(N,)`: labelled pixels of
        the image for each one taken.

    Raises:
        DataError: for a score that is not finite, or a label that is no class.
    """
    generator = torch.Generator().manual_seed(seed)
    share = max(LEAST, SAMPLE // max(len(pairs), 1))
    rows, kinds, weights = [torch.zeros(0, len(scores))], [torch.zeros(0, dtype=torch.bool)], []
    for prediction, label in pairs:
        labelled = labelled_pixels(prediction, label)
        order = torch.randperm(len(labelled), generator=generator)[:share]
        taken = labelled[order.to(labelled.device)]
        maps = (finite(score(prediction), name) for name, score in scores.items())
        rows.append(torch.stack([values.flatten()[taken] for values in maps], 1).cpu())
        kinds.append((prediction.classes != label).flatten()[taken].cpu())
        weights.append(torch.full((len(taken),), len(labelled) / max(len(taken), 1)))
    return torch.cat(rows), torch.cat(kinds), torch.cat([torch.zeros(0), *weights])


def count_odds(pairs: Pairs, log_odds: Callable[[Prediction], Tensor]) -> tuple[Numbers, Numbers]:
    """Count every right and wrong pixel by its log-odds.

    Returns:
        Counts `(2, M)` of right and wrong pixels, and the cells' log-odds `(M,)`.

    Raises:
        DataError: for a score that is not finite, or a label that is no class.
    """
    counts = np.zeros((2, CELLS))
    for prediction, label in pairs:
        labelled = labelled_pixels(prediction, label)
        odds = log_odds(prediction).flatten()[labelled]
        wrong = (prediction.classes != label).flatten()[labelled]
        cell = ((odds + RANGE) * (CELLS / (2 * RANGE))).long().clamp_(0, CELLS - 1)
        found = torch.bincount(cell + CELLS * wrong, minlength=2 * CELLS)
        counts += found.view(2, CELLS).cpu().numpy()
    middles: Numbers = (np.arange(CELLS, dtype=np.float64) + 0.5) * (2 * RANGE / CELLS) - RANGE
    return counts, middles


def labelled_pixels(prediction: Prediction, label: Tensor) -> Tensor:
    """`(N,)`: where the flattened label is a class.

    Raises:
        DataError: for a label that is no class of the model.
    """
    classes = prediction.native_logits.shape[1]
    if label.numel() and int(label.max()) >= classes:
        raise DataError(
            f"wrong: expected labels below the model's {classes} classes, got {int(label.max())}. "
            f"Match labels and classes by name, as doubtmap.engine.Pairs does."
        )
    return torch.nonzero((label >= 0).flatten())[:, 0]


def check_kinds(wrong: float, right: float, purpose: str) -> None:
    """Refuse pixels of one kind only.

    Raises:
        DataError: where there are no wrong ones or no right ones.
    """
    if wrong and right:
        return
    found = "only wrong ones" if wrong else "only right ones" if right else "none with a label"
    raise DataError(
        f"wrong: expected right and wrong pixels {purpose}, found {found}. Fit on more labelled "
        f"images, whose class names are the model's and on which it makes some mistakes."
    )


def finite(values: Tensor, name: str) -> Tensor:
    """The map in float32, seen to be finite.

    Raises:
        DataError: for NaN or infinities.
    """
    values = values.float()
    if not bool(torch.isfinite(values.sum())) and not bool(torch.isfinite(values).all()):
        raise DataError(
            f"wrong: expected finite values of {name}, got NaN or infinity in "
            f"{int((~torch.isfinite(values)).sum())} pixels. Mend the score, or leave it out."
        )
    return values
