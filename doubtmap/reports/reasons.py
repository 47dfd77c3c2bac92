"""Why a figure is missing, found in the notes."""

from __future__ import annotations

import re
from collections.abc import Sequence


def reason(notes: Sequence[str], *path: str) -> str:
    """The note that speaks of a figure, the most exact one first.

    Args:
        notes: the notes of the results.
        path: where the figure stands, such as `"scores", "entropy", "unknown", "siou"`.

    Example:
        >>> reason(["unknown: no unknown pixel in the data"], "scores", "entropy", "unknown", "f1")
        'unknown: no unknown pixel in the data'
    """
    exact = [".".join(path[start:]) for start in range(len(path))]
    parents = [
        ".".join(path[start:stop]) for stop in range(len(path) - 1, 0, -1) for start in range(stop)
    ]
    for name in (*exact, *parents):
        if name == "scores":
            continue
        for note in notes:
            if re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.(])", note):
                return note
    return "not computed"
