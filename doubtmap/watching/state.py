"""All that a watch has seen, as a file: every figure that it tells is a function of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from doubtmap.files import Content, Entry, FileKind, Origin, read, write
from doubtmap.files.tables import TEXT, one_of, whole, within
from doubtmap.metrics.accumulator import Array
from doubtmap.shown import Shown
from doubtmap.watching.looking import BINS, ROWS, Look
from doubtmap.watching.promise import KINDS, Promise

_ROW = 6
"""Mark, doubt, brightness, contrast, logits and table: what is written of one image."""


def _rows(value: object, length: int) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, list) and len(row) == length and isinstance(row[0], str) for row in value
    )


def _levels(value: object) -> bool:
    return isinstance(value, dict) and all(map(within(0, 1).holds, value.values()))


IMAGES = Entry("rows of images", lambda value: _rows(value, _ROW))
FILE = FileKind(
    "watch",
    "the state of a watch",
    "Begin anew with: doubtmap watch MODEL --promise FILE --reference DATA --out DIR.",
    {
        "promise": TEXT,
        "digest": TEXT,
        "of": one_of(*KINDS),
        "limits": Entry("a table of levels", _levels),
        "lowest": within(-1, 0),
        "rate": within(0, 1),
        "block": whole(1),
        "seed": whole(0),
        "looks": whole(0),
        "reference": IMAGES,
        "new": IMAGES,
        "losses": Entry("rows of losses", lambda value: _rows(value, 2)),
        "scores": Entry("two tables", lambda value: isinstance(value, list) and len(value) == 2),
    },
    plain=True,
)


@dataclass(frozen=True, eq=False)
class State(Shown):
    """What a watch has seen.

    Args:
        promise: its file.
        digest: of that file.
        of: kind of promise.
        limits: what the mean losses of images must not exceed, by name.
        lowest: the least that an image can lose; the most is 1.
        rate: of false alarms, in (0, 1).
        block: so many consecutive images count as one.
        seed: of ties, permutations and intervals.
        looks: how often new images came.
        reference: the images that the new ones are held to.
        new: in the order in which they came.
        losses: of labelled images, with their fingerprint, by name.
        scores: `(2, 4096)`, see `Look.scores`, summed over the reference and over the new images.
        origin: the reference, and the network; its fingerprint is of logits.
    """

    promise: str
    digest: str
    of: str
    limits: Mapping[str, float]
    lowest: float
    rate: float = 0.05
    block: int = 1
    seed: int = 0
    looks: int = 0
    reference: tuple[Look, ...] = ()
    new: tuple[Look, ...] = ()
    losses: tuple[tuple[str, Mapping[str, float]], ...] = ()
    scores: Array = field(default_factory=lambda: np.zeros((2, BINS)))
    origin: Origin = field(default_factory=Origin)

    def _facts(self) -> Mapping[str, object]:
        counts = {"reference": len(self.reference), "new": len(self.new)}
        return {"promise": self.promise, **counts, "labelled": len(self.losses)}

    @classmethod
    def begun(
        cls, promise: Promise, looks: Sequence[Look], origin: Origin, **settings: Any
    ) -> Self:
        """A watch that knows its reference, and has seen no new image."""
        about = (promise.path, promise.digest, promise.kind, promise.limits, promise.lowest)
        begun = cls(*about, origin=origin, **settings)
        return replace(begun, reference=tuple(looks), scores=_added(begun.scores, 0, looks))

    def with_new(self, looks: Sequence[Look]) -> State:
        """The state once new images have come."""
        return replace(
            self,
            looks=self.looks + bool(looks),
            new=(*self.new, *looks),
            scores=_added(self.scores, 1, looks),
        )

    def with_losses(self, losses: Iterable[tuple[str, Mapping[str, float]]]) -> State:
        """The state once labelled images have come."""
        return replace(self, losses=(*self.losses, *losses))

    @property
    def marks(self) -> set[str]:
        """Fingerprints of all images seen without labels."""
        return {each.mark for each in (*self.reference, *self.new)}

    def save(self, path: str | Path) -> None:
        """Write it as JSON; the file is whole or not there.

        Raises:
            DataError: where it cannot be written.
        """
        plain = {name: getattr(self, name) for name in FILE.entries}
        rows = {name: [_row(each) for each in plain[name]] for name in ("reference", "new")}
        scores = [_sparse(counts) for counts in self.scores]
        write(path, FILE, Content(plain | rows | {"scores": scores}, {}, self.origin))

    @classmethod
    def load(cls, path: str | Path) -> State:
        """Read what `save` wrote.

        Raises:
            DataError: where there is no such file, or it holds something else.
        """
        return read(path, FILE, _state)


def _added(scores: Array, row: int, looks: Iterable[Look]) -> Array:
    found = scores.copy()
    for each in looks:  # one by one: so the sums do not depend on how images were parted
        found[row] += each.scores
    return found


def _row(one: Look) -> list[Any]:
    figures = [one.mark, one.doubt, one.brightness, one.contrast]
    return [*figures, one.logits.tolist(), one.table.reshape(-1).tolist()]


def _sparse(counts: Array) -> dict[str, float]:
    return {str(at): float(counts[at]) for at in np.flatnonzero(counts)}


def _state(content: Content) -> State:
    known: dict[str, Any] = dict(content.entries)
    if not known["reference"] or not (classes := len(known["reference"][0][-2])):
        raise ValueError("no reference")
    for name in ("reference", "new"):
        known[name] = tuple(_look(row, classes) for row in known[name])
    known["losses"] = tuple((mark, _losses(own, known["limits"])) for mark, own in known["losses"])
    known["scores"] = np.stack([_dense(counts) for counts in known["scores"]])
    for name in ("block", "seed", "looks"):
        known[name] = int(known[name])
    return State(**known, origin=content.origin)


def _losses(own: Mapping[str, Any], limits: Mapping[str, float]) -> dict[str, float]:
    if own.keys() - limits.keys():
        raise ValueError("losses that were not promised")
    return {name: _number(loss) for name, loss in own.items()}


def _look(row: Sequence[Any], classes: int) -> Look:
    mark, *figures, logits, table = row
    numbers = [np.array([_number(value) for value in part]) for part in (logits, table)]
    if [len(part) for part in numbers] != [classes, classes * len(ROWS)]:
        raise ValueError("images of another number of classes")
    shaped = numbers[1].reshape(len(ROWS), classes)
    doubt, brightness, contrast = map(_number, figures)
    return Look(mark, doubt, brightness, contrast, numbers[0], shaped, np.empty(0))


def _dense(counts: Mapping[str, float]) -> Array:
    found = np.zeros(BINS)
    for at, count in counts.items():
        found[int(at)] = _number(count)
    return found


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise ValueError(f"expected a finite number, got {str(value)[:60]!r}")
    return float(value)
