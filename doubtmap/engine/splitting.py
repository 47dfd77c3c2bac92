"""Parting images so that neighbouring frames of one drive stay on one side."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from doubtmap.errors import UsageError

RUNS = 4


def split_images(names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Part images into two halves to fit on and to compare on.

    A sequence is the images whose names are alike but for the last number. Four or more sequences
    go to either side whole; fewer are cut into four runs of consecutive images each, and the runs
    alternate. Neighbouring frames look alike, so parting them at random would test on what was
    fitted.

    Args:
        names: of the images, in order.

    Returns:
        Indices of the two parts, each ascending and not empty.

    Raises:
        UsageError: for fewer than two images.

    Example:
        >>> split_images([f"drive_{frame}" for frame in range(8)])
        ([0, 1, 4, 5], [2, 3, 6, 7])
    """
    if len(names) < 2:
        raise UsageError(
            f"calibrate: expected at least 2 images, to fit on some and compare on others, got "
            f"{len(names)}."
        )
    sequences: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        sequences.setdefault(re.sub(r"\d+(?=\D*$)", "", name), []).append(index)
    groups = list(sequences.values())
    if len(groups) < RUNS:
        groups = [run for group in groups for run in _runs(group)]
    parts: tuple[list[int], list[int]] = ([], [])
    for place, group in enumerate(groups):
        parts[place % 2].extend(group)
    return sorted(parts[0]), sorted(parts[1])


def _runs(indices: list[int]) -> list[list[int]]:
    count = min(RUNS, len(indices))
    cuts = [round(k * len(indices) / count) for k in range(count + 1)]
    return [indices[a:b] for a, b in itertools.pairwise(cuts)]
