"""How likely an object is unknown: a probability, for what is only a high score.

A score says which object is more doubtful than which; the probability says how often one like it is
unknown. It is learnt from objects of labelled images, and goes with the rule by which they were
found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from doubtmap.calibration.logistic import logistic, sigmoid
from doubtmap.errors import UsageError
from doubtmap.files import Content, Entry, FileKind, Origin, read, write
from doubtmap.files.tables import FLAG, TABLE, TEXT, TEXTS, all_within, whole, within
from doubtmap.metrics.accumulator import Array
from doubtmap.objects.find import ObjectRule, UnknownObject
from doubtmap.scoring import OfScore
from doubtmap.shown import ShownFit

FEATURES = ("score", "score_max", "size", "fill", "predicted_share")
"""Mean and maximum of the score; logarithm of the share of the image's pixels; share of its box;
share of its pixels that are predicted as one class."""
PENALTY = 1.0
"""On the squared weights of standardised features."""
_ROW = all_within(count=len(FEATURES))
FILE = FileKind(
    "objects",
    "a fitted probability of objects",
    "Fit it with: doubtmap fit objects MODEL DATA --threshold FILE --out FILE.",
    {
        "score": TEXT,
        "digest": TEXT,
        "threshold": within(),
        "smallest": whole(0),
        "smallest_share": within(0, 1),
        "fill_holes": FLAG,
        "on": TEXTS,
        "on_share": within(0, 1),
        "unknown": TEXTS,
        "low": _ROW,
        "high": _ROW,
        "mean": _ROW,
        "scale": all_within(1e-300, count=len(FEATURES)),
        "weights": _ROW,
        "offset": within(),
        "figures": Entry("a table", TABLE.holds),
        "notes": TEXTS,
    },
    plain=True,
)


def features_of(things: Sequence[UnknownObject], size: tuple[int, int]) -> Array:
    """`(N, 5)`, see `FEATURES`.

    Args:
        things: of one image.
        size: its height and width.
    """
    rows = [
        (
            thing.score_mean,
            thing.score_max,
            np.log(thing.area / (size[0] * size[1])),
            thing.area / thing.mask.size,
            thing.predicted_share,
        )
        for thing in things
    ]
    return np.array(rows, np.float64).reshape(-1, len(FEATURES))


@dataclass(frozen=True, eq=False)
class ObjectProbability(ShownFit, OfScore):
    """P(unknown) of objects that a rule finds in a score: logistic regression of `FEATURES`.

    Outside of the range that it was fitted to, a feature counts as the end of that range.

    Args:
        score: as on the command line, such as `entropy`.
        rule: by which objects are found.
        low: `(5,)`, the least of each feature in the fit.
        high: `(5,)`, the most.
        mean: `(5,)` of the features in the fit, by which they are standardised.
        scale: `(5,)`, their deviation.
        weights: `(5,)` of the standardised features.
        offset: of the log-odds.
        on: names of the classes of the rule.
        digest: of the score, where it learnt from data.
        unknown: label classes that were unknown objects.
        figures: what the probability came to on images that it was not fitted to, see
            `doubtmap.metrics.events.EventReliability.told`.
        notes: sentences for the user.
        origin: the data of the fit, and the network; its fingerprint is of logits.
    """

    WHO: ClassVar[str] = "objects"
    DONE: ClassVar[str] = "fitted"
    AGAIN: ClassVar[str] = "Fit the probability again with: doubtmap fit objects MODEL DATA"

    score: str
    rule: ObjectRule
    low: Array
    high: Array
    mean: Array
    scale: Array
    weights: Array
    offset: float
    on: tuple[str, ...] = ()
    digest: str = ""
    unknown: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    origin: Origin = field(default_factory=Origin)

    @classmethod
    def fit(cls, features: Array, unknown: Array, score: str, rule: ObjectRule) -> Self:
        """Fit to objects.

        Args:
            features: `(N, 5)`.
            unknown: `(N,)` bool.
            score: in which they were found.
            rule: by which.

        Raises:
            DataError: where all are unknown, or none is.
        """
        mean, scale = features.mean(0), features.std(0)
        scale = np.where(scale > 1e-12 * np.maximum(np.abs(mean), 1), scale, 1.0)
        weights, offset = logistic((features - mean) / scale, unknown, PENALTY)
        return cls(score, rule, features.min(0), features.max(0), mean, scale, weights, offset)

    def of_features(self, features: Array) -> Array:
        """`(N,)` in [0, 1] of `(N, 5)`."""
        inside = np.clip(features, self.low, self.high)
        return sigmoid((inside - self.mean) / self.scale @ self.weights + self.offset)

    def __call__(
        self, things: Sequence[UnknownObject], size: tuple[int, int]
    ) -> list[UnknownObject]:
        """The objects of one image with their `probability`, the likeliest first.

        Args:
            things: found by the rule.
            size: height and width of the image.
        """
        found = self.of_features(features_of(things, size))
        likely = [replace(thing, probability=float(p)) for thing, p in zip(things, found)]
        return [likely[at] for at in np.argsort(-found, kind="stable")]

    def check_rule(self, rule: ObjectRule) -> None:
        """Refuse another rule: other objects are found by it, or others are kept.

        Raises:
            UsageError: naming what differs.
        """
        for name in vars(rule):
            if getattr(rule, name) != getattr(self.rule, name):
                raise UsageError(
                    f"objects: expected the rule that the probability was fitted with, whose "
                    f"{name} is {getattr(self.rule, name)}, got {getattr(rule, name)}. Leave it "
                    f"out, or fit again with: doubtmap fit objects MODEL DATA."
                )

    def save(self, path: str | Path) -> None:
        """Write as JSON; the file is whole or not there.

        Raises:
            DataError: where it cannot be written.
        """
        entries: dict[str, Any] = {
            name: getattr(self.rule if hasattr(self.rule, name) and name != "on" else self, name)
            for name in FILE.entries
        }
        plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in entries.items()}
        write(path, FILE, Content(plain | {"figures": dict(self.figures)}, {}, self.origin))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DataError: where there is no such file, or it holds something else.
        """
        return read(path, FILE, cls._of)

    @classmethod
    def _of(cls, content: Content) -> Self:
        known = dict(content.entries)
        for name in ("low", "high", "mean", "scale", "weights"):
            known[name] = np.array(known[name], np.float64)
        for name in ("on", "unknown", "notes"):
            known[name] = tuple(known[name])
        names = ("threshold", "smallest", "smallest_share", "fill_holes", "on_share")
        about: dict[str, Any] = {name: known.pop(name) for name in names}
        classes = list(content.origin.class_names)
        on = tuple(classes.index(name) for name in known["on"])
        return cls(rule=ObjectRule(**about, on=on), **known, origin=content.origin)
