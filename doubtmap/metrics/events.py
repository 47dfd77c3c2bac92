"""Does what is said to be likely come true? Of things, each with a probability of its own.

Pixels are counted by `BinaryReliability`; here are objects and segments, which are few and often
rare: bins hold as many things each, and every figure comes with its interval over images.

Reference:
    Measuring Calibration in Deep Learning (Nixon et al., 2019), https://arxiv.org/abs/1904.01685:
    bins of equal shares
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from doubtmap.errors import DataError
from doubtmap.metrics.accumulator import Array, State
from doubtmap.metrics.bootstrap import BootstrapSums, Weights, interval
from doubtmap.metrics.ranking import Ranking
from doubtmap.metrics.reliability import mean_gap

BINS = 10


@dataclass(frozen=True, eq=False)
class EventReliability:
    """What probabilities of things came to.

    Args:
        events: how many things.
        images: that hold any.
        figures: `true`, the share that came true; `said`, the mean probability; `gap`, the expected
            calibration error over the bins; `brier`; `brier_of_the_mean`, that of always
            saying the share that came true; `auroc`. Each with `NAME_interval`, 95 % over images,
            but the last two.
        diagram: `(M, 5)` by bin of the probability, from the lowest: mean probability, share that
            came true, both ends of its interval (NaN where fewer than nine in ten replicates hold
            any of the bin), and how many things.
    """

    events: int
    images: int
    figures: Mapping[str, float | list[float] | None]
    diagram: Array

    def told(self) -> dict[str, Any]:
        """As JSON values."""
        rows = [[x if np.isfinite(x) else None for x in row] for row in self.diagram.tolist()]
        counts = {"events": self.events, "images": self.images}
        return {**counts, **self.figures, "diagram": rows}

    def rows(self) -> list[list[str]]:
        """For a table, the heading first: each figure with its interval."""
        told = [["figure", "value", "95 % interval over images"]]
        for name, title in TITLES.items():
            value, ends = self.figures[name], self.figures.get(f"{name}_interval")
            shown = f"{value:.3f}" if isinstance(value, float) else "-"
            told.append([title, shown, f"{ends[0]:.3f} to {ends[1]:.3f}" if _is_pair(ends) else ""])
        return told


def event_reliability(
    probability: Array,
    true: Array,
    image: Array,
    *,
    bins: int = BINS,
    replicates: int = 300,
    seed: int = 0,
) -> EventReliability:
    """Hold probabilities to what came true.

    Args:
        probability: `(N,)` in [0, 1].
        true: `(N,)` bool.
        image: `(N,)` number of the image that each thing lies in; images are drawn as a whole.
        bins: M at most, of equal shares as far as probabilities differ.
        replicates: of the bootstrap over images.
        seed: of it.

    Raises:
        DataError: for no things, or probabilities that are none.

    Example:
        >>> p, image = np.array([0.25, 0.25, 0.75, 0.75]), np.array([0, 0, 1, 1])
        >>> true = np.array([True, False, True, True])
        >>> event_reliability(p, true, image, bins=2).figures["gap"]
        0.25
    """
    p, true, image = np.asarray(probability), np.asarray(true, bool), np.asarray(image)
    if not len(p):
        raise DataError("reliability: expected things with a probability, got none.")
    if not ((p >= 0) & (p <= 1)).all():
        raise DataError("reliability: expected probabilities in [0, 1], got others.")
    edges = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1], method="lower"))
    at = np.searchsorted(edges, p)
    columns = (None, true, p, (p - true) ** 2)
    sums, drawn = BootstrapSums(1), BootstrapSums(replicates)
    weights, numbers = Weights(replicates, seed), np.unique(image)
    for number in numbers:
        own = image == number
        found = [
            np.bincount(at[own], None if each is None else each[own], len(edges) + 1)
            for each in columns
        ]
        state = {"sums": np.stack(found, 1).astype(np.float64)}
        sums.add(state, np.ones(1))
        drawn.add(state, weights(int(number)))
    (whole,) = sums.each()
    figures: dict[str, float | list[float] | None] = {}
    for name, figure in FIGURES.items():
        figures[name] = value = figure(whole)
        figures[f"{name}_interval"] = interval(value, drawn.figures(figure), (0, 1))
    share, ranking = float(true.mean()), Ranking()
    ranking.update(p, true)
    figures["brier_of_the_mean"] = share * (1 - share)
    figures["auroc"] = float(ranking.auroc()) if 0 < share < 1 else None
    diagram = _diagram(whole["sums"], drawn.sums["sums"])
    return EventReliability(len(true), len(numbers), figures, diagram)


def _is_pair(ends: object) -> TypeGuard[list[float]]:
    return isinstance(ends, list)


def _mean(state: State, column: int) -> float:
    """The mean over things of a column of the sums; NaN without things."""
    sums = state["sums"].sum(0)
    return float(sums[column] / sums[0]) if sums[0] else float("nan")


TITLES = {
    "true": "share that came true",
    "said": "mean probability",
    "gap": "calibration error (ECE)",
    "brier": "Brier score",
    "brier_of_the_mean": "Brier score of always saying the share",
    "auroc": "AUROC",
}
FIGURES: dict[str, Callable[[State], float]] = {
    "true": lambda state: _mean(state, 1),
    "said": lambda state: _mean(state, 2),
    "gap": lambda state: mean_gap(state["sums"][:, :3]),
    "brier": lambda state: _mean(state, 3),
}


def _diagram(whole: Array, drawn: Array) -> Array:
    count, true, said = whole.T[:3]
    with np.errstate(invalid="ignore"):  # bins may be empty
        shares, share, mean = drawn[:, :, 1] / drawn[:, :, 0], true / count, said / count
    ends = [interval(value, shares[:, at], (0, 1)) for at, value in enumerate(share)]
    low, high = np.array([each or [np.nan, np.nan] for each in ends]).T
    return np.stack([mean, share, low, high, count], 1)
