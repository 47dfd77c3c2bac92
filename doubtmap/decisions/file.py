"""A threshold as a file: which score, which number, how it was chosen, and at what price."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor

from doubtmap.errors import UsageError
from doubtmap.files import Content, Entry, FileKind, Origin, read, write
from doubtmap.files.tables import FLAG, TEXT, TEXTS, one_of, optional, within
from doubtmap.prediction import Score, Segmenter
from doubtmap.scoring import OfScore
from doubtmap.shown import ShownFit

Of = Literal["wrong", "unknown"]


By = Literal["f1", "tpr", "fpr", "risk", "risks"]
_SHARE = optional(within(0, 1))
FLOAT32 = float(np.finfo(np.float32).max)
FILE = FileKind(
    "threshold",
    "a threshold",
    "Make one with: doubtmap threshold MODEL DATA --scores NAME --of unknown --by f1 --out FILE.",
    {
        "score": TEXT,
        "threshold": within(-FLOAT32, FLOAT32),
        "of": one_of(*get_args(Of)),
        "by": one_of(*get_args(By)),
        "level": _SHARE,
        "figures": Entry(
            "a table of shares",
            lambda value: isinstance(value, dict) and all(map(_SHARE.holds, value.values())),
        ),
        "digest": TEXT,
        "unknown": TEXTS,
        "empty": FLAG,
        "notes": TEXTS,
    },
    plain=True,
)


@dataclass(frozen=True)
class Threshold(ShownFit, OfScore):
    """From which score on a pixel is flagged, chosen on data of its own.

    Args:
        score: as on the command line, such as `entropy` or `wrong:FILE`.
        threshold: a float32 number; flagged is what has a score above it.
        of: what it was chosen to flag: `wrong` pixels among the known, or `unknown` ones.
        by: `f1`, `tpr`, `fpr`, `risk` or `risks`.
        level: the rate, the tolerated share, or delta of `risks`; None for `f1`.
        figures: at this threshold on those data: `missed` (mean over images that hold any, of the
            missed share), `tpr`, `fpr`, `precision`, `f1` and `flagged` (share of the pixels that
            count), pooled; None where not defined.
        digest: of the score, where it learnt from data.
        unknown: label classes that were unknown objects there.
        empty: whether images without any pixel to flag counted, as having missed nothing.
        notes: sentences for the user.
        origin: the data it was chosen on, and the network; its fingerprint is of logits.

    Raises:
        UsageError: for values that cannot be.
    """

    WHO: ClassVar[str] = "threshold"
    DONE: ClassVar[str] = "chosen"
    AGAIN: ClassVar[str] = "Choose it again with: doubtmap threshold MODEL DATA"

    score: str
    threshold: float
    of: Of
    by: By
    level: float | None = None
    figures: Mapping[str, float | None] = field(default_factory=dict)
    digest: str = ""
    unknown: tuple[str, ...] = ()
    empty: bool = False
    notes: tuple[str, ...] = ()
    origin: Origin = field(default_factory=Origin)

    def __post_init__(self) -> None:
        if self.of not in get_args(Of) or self.by not in get_args(By):
            raise UsageError(
                f"threshold: expected one of {', '.join(get_args(Of))} by one of "
                f"{', '.join(get_args(By))}, got {self.of!r} by {self.by!r}."
            )
        if not math.isfinite(self.threshold) or float(np.float32(self.threshold)) != self.threshold:
            raise UsageError(
                f"threshold: expected a finite float32 number, got {self.threshold!r}."
            )

    @property
    def kept(self) -> dict[str, float]:
        """Of `risks` the levels that are kept, by name, such as `{"missed": 0.1}`; else none."""
        found = self.origin.facts.get("keep")
        return dict(found) if isinstance(found, Mapping) else {}

    def flag(self, values: Tensor) -> Tensor:
        """Which pixels are flagged.

        Args:
            values: any shape, float32, the score's.

        Returns:
            The same shape, bool: above the threshold, not at it.
        """
        return (values if values.dtype == torch.float64 else values.float()) > self.threshold

    @classmethod
    def of_content(cls, content: Content) -> Self:
        """From what a file holds, once that is what a threshold's file should."""
        known = content.entries
        texts = {name: tuple(known[name]) for name in ("unknown", "notes")}
        return cls(
            **known | texts | {"threshold": float(known["threshold"])}, origin=content.origin
        )


def thresholds_by_score(
    thresholds: Sequence[Threshold], scores: Mapping[str, Score], segmenter: Segmenter
) -> dict[str, Threshold]:
    """Thresholds of unknown objects by the name of the score that each belongs to.

    Raises:
        UsageError: for one of wrong pixels, of a score that is not there, or a second one of a
            score.
        ModelError: for one of another network.
    """
    found: dict[str, Threshold] = {}
    for threshold in thresholds:
        if threshold.of != "unknown":
            raise UsageError(
                f"threshold: expected one of unknown objects, got one of {threshold.of} pixels. "
                f"Choose one with: doubtmap threshold MODEL DATA --of unknown."
            )
        threshold.check_network(segmenter)
        owners = [name for name, score in scores.items() if threshold.belongs_to(name, score)]
        if not owners:
            raise UsageError(
                f"threshold: expected {threshold.score} among the scores, as it was when the "
                f"threshold was chosen, got {', '.join(scores)}. Add it to --scores."
            )
        if owners[0] in found:
            raise UsageError(f"threshold: {owners[0]} got two thresholds. Leave one out.")
        found[owners[0]] = threshold
    return found


def save_threshold(threshold: Threshold, path: str | Path) -> None:
    """Write a threshold as JSON; the file is whole or not there.

    Raises:
        DataError: where it cannot be written.
    """
    entries = {part.name: getattr(threshold, part.name) for part in fields(threshold)}
    origin = entries.pop("origin")
    write(path, FILE, Content(entries, {}, origin))


def load_threshold(path: str | Path) -> Threshold:
    """Read a threshold.

    Args:
        path: a file that `doubtmap threshold` wrote.

    Raises:
        DataError: where there is no such file, or it holds something else.
    """
    return read(path, FILE, Threshold.of_content)
