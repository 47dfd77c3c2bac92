"""How doubts are written into a graph: as numbers or bytes, and which of them is above what."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from doubtmap.decisions import Threshold
from doubtmap.errors import UsageError
from doubtmap.prediction import Score
from doubtmap.runtime import DOUBTS, Doubt
from doubtmap.scores import (
    Wrong,
    distilled,
    divergence,
    energy,
    entropy,
    island,
    margin,
    max_logit,
    max_softmax,
    negative,
    rejected,
)

Doubts = Literal["float", "uint8"]
STEPS = 255
OF_ONE = (max_softmax, margin, island, distilled)
"""Scores between 0 and 1."""


def written(
    scores: Mapping[str, Score],
    classes: int,
    doubts: Doubts = "float",
    threshold: Threshold | None = None,
) -> dict[str, Doubt]:
    """How each doubt is written.

    Args:
        scores: by name.
        classes: of the network.
        doubts: `uint8` for bytes, `low + step * byte`, from one bound of the score to the other.
        threshold: above which pixels are flagged.

    Raises:
        UsageError: for bytes of a score without bounds, or a threshold of no score that is there.
    """
    if doubts not in ("float", "uint8"):
        raise UsageError(f"--doubts: expected float or uint8, got {doubts}.")
    flagged = _flagged(scores, threshold)
    found = {}
    for name, score in scores.items():
        limit = threshold.threshold if threshold is not None and name == flagged else None
        low, high = bounds(name, score, classes) if doubts == "uint8" else (0.0, 0.0)
        step = (high - low) / STEPS if doubts == "uint8" else None
        found[name] = Doubt(step, low, limit)
    return found


def _flagged(scores: Mapping[str, Score], threshold: Threshold | None) -> str:
    """The score that a threshold is of."""
    if threshold is None:
        return ""
    owners = [name for name, score in scores.items() if threshold.belongs_to(name, score)]
    if not owners:
        raise UsageError(
            f"--threshold: expected {threshold.score} among the scores, as it was when the "
            f"threshold was chosen, got {', '.join(scores)}. Add it to --scores."
        )
    return owners[0]


def bounds(name: str, score: Score, classes: int) -> tuple[float, float]:
    """The least and the most that a score can be.

    Raises:
        UsageError: where there are no such numbers.
    """
    told = score.keywords if isinstance(score, functools.partial) else {}
    plain: Any = score.func if isinstance(score, functools.partial) else score
    if isinstance(plain, Wrong) or any(plain is each for each in OF_ONE):
        return 0, 1
    if plain is entropy:
        return 0, math.log(classes)
    if plain is divergence:
        return -math.log(2), 0
    if plain is negative:
        return -1, 1
    if plain is rejected and told.get("variant", "rba") == "rba":
        return -classes, 0
    raise UsageError(
        f"--doubts uint8: expected scores between two bounds, but {name} has none. Take "
        f"wrong:FILE, entropy or max_softmax, or leave --doubts out."
    )


def as_bytes(values: Tensor, how: Doubt) -> Tensor:
    """`(B, H, W)` uint8, the nearest steps."""
    assert how.step is not None
    return ((values - how.low) / how.step + 0.5).floor().clamp(0, STEPS).to(torch.uint8)


def described(doubts: Mapping[str, Doubt]) -> dict[str, dict[str, Any]]:
    """For the file, and for those who read it."""
    found: dict[str, dict[str, Any]] = {}
    for name, how in doubts.items():
        kind = {"type": "float32"} if how.step is None else {"type": "uint8"}
        scale = {} if how.step is None else {"low": how.low, "step": how.step}
        limit = {} if how.threshold is None else {"threshold": how.threshold}
        found[name] = kind | scale | limit
    return found


def check_native(scores: Mapping[str, Score]) -> None:
    """Refuse scores that the pass in C has not.

    Raises:
        UsageError: with what to do.
    """
    plain = dict(zip(DOUBTS, (max_softmax, margin, entropy, max_logit, energy, divergence)))
    for name, score in scores.items():
        if plain.get(name) is not score:
            raise UsageError(
                f"--native: expected some of {', '.join(DOUBTS)}, which the pass in C computes "
                f"from native logits, got {name}. Leave out --native, and it is in the graph."
            )
