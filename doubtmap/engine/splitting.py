"""Parting images so that neighbouring frames of one drive stay on one side."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from doubtmap.errors import UsageError

RUNS = 4
MOST = 2 / 3
"""Share of the images above which a sequence is not left whole."""


def split_images(names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Part images into two halves to fit on and to compare on.

    A sequence is the images whose names are alike but for the last number that varies among names
    of one pattern: `7` in `a_0007_leftImg8bit`, where the 8 is in every name. Four or more
    sequences go to either side whole, the longest first, each to the side that has fewer images;
    fewer, or where one holds most of the images, are cut into four runs of consecutive images
    each, and the runs alternate. Neighbouring frames look alike, so parting them at random would
    test on what was fitted.

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
    groups = sequences_of(names)
    parts: tuple[list[int], list[int]] = ([], [])
    if len(groups) < RUNS or max(map(len, groups)) > MOST * len(names):
        for place, run in enumerate(run for group in groups for run in _runs(group)):
            parts[place % 2].extend(run)
    else:
        for group in sorted(groups, key=len, reverse=True):
            min(parts, key=len).extend(group)
    return sorted(parts[0]), sorted(parts[1])


def folds_of(names: Sequence[str], count: int) -> tuple[list[list[int]], bool]:
    """Part images into folds, sequences undivided where there are enough of them.

    At least `count` sequences, as in `split_images`, none of which has most of the images, go to
    one fold each as they are, the longest first, each to the fold that has fewest images. Otherwise
    each sequence is cut into `count` runs of consecutive images, one for each fold.

    Args:
        names: of the images, in order.
        count: of the folds, at least 2.

    Returns:
        Indices of each fold, ascending, none empty where there are images enough; whether all
        sequences are undivided.

    Raises:
        UsageError: for fewer than two images or folds.

    Example:
        >>> folds_of([f"drive_{frame}" for frame in range(8)], 2)
        ([[0, 1, 2, 3], [4, 5, 6, 7]], False)
    """
    if len(names) < 2 or count < 2:
        raise UsageError(
            f"split: expected at least 2 images, to fit on some and judge on others, got "
            f"{len(names)}."
        )
    groups = sequences_of(names)
    whole = len(groups) >= count and max(map(len, groups)) <= MOST * len(names)
    folds: list[list[int]] = [[] for _ in range(count)]
    for group in sorted(groups, key=len, reverse=True):
        if whole:
            min(folds, key=len).extend(group)
            continue
        cuts = [round(k * len(group) / count) for k in range(count + 1)]
        for fold, (start, end) in zip(sorted(folds, key=len), itertools.pairwise(cuts)):
            fold.extend(group[start:end])
    return [sorted(fold) for fold in folds], whole


def sequences_of(names: Sequence[str]) -> list[list[int]]:
    """Indices of the images of each sequence, in order."""
    patterns: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        patterns.setdefault(re.sub(r"\d+", "0", name), []).append(index)
    sequences: dict[tuple[str, ...], list[int]] = {}
    for pattern, indices in patterns.items():
        numbers = [re.findall(r"\d+", names[index]) for index in indices]
        varying = [place for place, found in enumerate(zip(*numbers)) if len(set(found)) > 1]
        frame = varying[-1] if varying else len(numbers[0]) - 1
        for index, found in zip(indices, numbers):
            rest = (number for place, number in enumerate(found) if place != frame)
            sequences.setdefault((pattern, *rest), []).append(index)
    return list(sequences.values())


def named_sequences(names: Sequence[str]) -> dict[str, list[int]]:
    """The images of each sequence by what their names begin with; empty where that tells nothing.

    So it is where all images are of one sequence, or each is of its own.
    """
    groups = sequences_of(names)
    if not 1 < len(groups) < len(names):
        return {}
    found: dict[str, list[int]] = {}
    for group in groups:
        first, last = names[group[0]], names[group[-1]]
        alike = next((at for at, (a, b) in enumerate(zip(first, last)) if a != b), len(first))
        name = first if len(group) == 1 else first[:alike].rstrip("0123456789").rstrip("_-. ")
        found.setdefault(name, []).extend(group)
    return found


def _runs(indices: list[int]) -> list[list[int]]:
    count = min(RUNS, len(indices))
    cuts = [round(k * len(indices) / count) for k in range(count + 1)]
    return [indices[a:b] for a, b in itertools.pairwise(cuts)]
