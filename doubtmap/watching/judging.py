"""What a watch says: functions of its state, from the first image to the last."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from doubtmap.kernels.steps import STEPS, top_of_step
from doubtmap.metrics.accumulator import Array
from doubtmap.metrics.bootstrap import interval
from doubtmap.shown import Shown
from doubtmap.watching.bound import mean_bounds
from doubtmap.watching.comparing import Change, changes
from doubtmap.watching.looking import BINS, SHIFT, Look, expected_miou, expected_wrong
from doubtmap.watching.martingale import composite_jumper, evidence, first_above, p_values
from doubtmap.watching.state import State

WATCHED = ("doubt", "distance")
"""By what images are ranked; each has a gambler of its own."""
SHRUNK = 0.2
"""Share of independence in the covariance of `distance`, so that a few images settle it."""
REPLICATES = 500
QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Expected:
    """A figure that is expected of a set of images, with its 95 % interval over images.

    Args:
        value: of the set.
        interval: both ends; None for fewer than two images.
    """

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class Risk:
    """What labelled images have lost.

    Args:
        name: of the loss.
        losses: how many images.
        mean: of their losses.
        low, high: after each, `(T,)`; all hold at once, and with those of the other losses,
            with 1 - rate.
        limit: that the mean must not exceed.
        broken_at: after how many labelled images it was certain that it does; None where not.
    """

    name: str
    losses: int
    mean: float
    low: Array
    high: Array
    limit: float
    broken_at: int | None

    @property
    def kept(self) -> bool:
        """Whether it is certain that the promise is kept."""
        return bool(self.high[-1] <= self.limit)


@dataclass(frozen=True, eq=False)
class Verdict(Shown):
    """What a watch says of all that it has seen.

    Args:
        reference: images of the reference.
        images: new ones.
        looks: how often new images came.
        rate: probability of ever raising a false alarm.
        wrong: expected share of wrong pixels, of the reference and of the new images.
        miou: expected mIoU, likewise.
        capital: `(T, K)` natural logarithm of what each gambler has after each block of images.
        evidence: `(T,)` natural logarithm of what they show together.
        alarm_at: after how many new images it reached 1 / rate; None where it has not.
        p: of the two-sample test over all figures, for one look.
        changes: figures of images, the one that has changed most first.
        quantiles: of the score's pixels: share below, reference, new.
        distance: share of the pixels whose score would have to change, in [0, 1].
        risks: of labelled images, one for each loss of which there are any.
    """

    reference: int
    images: int
    looks: int
    rate: float
    wrong: tuple[Expected, Expected | None]
    miou: tuple[Expected, Expected | None]
    capital: Array
    evidence: Array
    alarm_at: int | None
    p: float | None
    changes: tuple[Change, ...]
    quantiles: tuple[tuple[float, float, float], ...]
    distance: float | None
    risks: tuple[Risk, ...]

    def _facts(self) -> Mapping[str, object]:
        at = {} if self.alarm_at is None else {"alarm after": f"{self.alarm_at} images"}
        largest = math.exp(min(float(self.evidence.max(initial=0.0)), 700.0))
        most = f"{largest:.3g} of {1 / self.rate:g}"
        return {"images": self.images, "alarm": self.alarm, **at, "evidence at most": most}

    @property
    def alarm(self) -> bool:
        """Whether the new images are unlike the reference, or the promise is seen to be broken."""
        return self.alarm_at is not None or bool(self.broken)

    @property
    def broken(self) -> tuple[Risk, ...]:
        """The promises that labelled images show to be broken."""
        return tuple(risk for risk in self.risks if risk.broken_at is not None)

    @property
    def risk(self) -> Risk | None:
        """The first that is broken, else the first; None without labelled images."""
        return next(iter((*self.broken, *self.risks)), None)

    @property
    def figures(self) -> dict[str, Any]:
        """All of it as JSON values, without the paths."""
        return {
            "alarm": self.alarm,
            "alarm_at": self.alarm_at,
            "images": self.images,
            "reference": self.reference,
            "looks": self.looks,
            "rate": self.rate,
            "evidence": _exp(self.evidence[-1]) if len(self.evidence) else 1.0,
            "largest_evidence": _exp(self.evidence.max()) if len(self.evidence) else 1.0,
            "needed": 1 / self.rate,
            "capital": dict(zip(WATCHED, map(_exp, self.capital[-1:].reshape(-1)))),
            "expected_wrong": _told(self.wrong),
            "expected_miou": _told(self.miou),
            "two_sample_p": self.p,
            "score_distance": self.distance,
            "changes": [
                {"name": each.name, "before": each.before, "now": each.now, "p": each.p}
                | {"effect": each.effect if math.isfinite(each.effect) else None}
                for each in self.changes
            ],
            "risk": None if self.risk is None else _risk_told(self.risk),
            "risks": [_risk_told(risk) for risk in self.risks],
        }


def _risk_told(risk: Risk) -> dict[str, Any]:
    return {
        "name": risk.name,
        "images": risk.losses,
        "mean": risk.mean,
        "bounds": [float(risk.low[-1]), float(risk.high[-1])],
        "limit": risk.limit,
        "broken_at": risk.broken_at,
        "kept": risk.kept,
    }


def judged(state: State) -> Verdict:
    """What a watch says."""
    reference, new = state.reference, state.new
    capital = capitals(state)
    together = evidence(capital) if len(capital) else np.empty(0)
    reached = first_above(together, -math.log(state.rate))
    names, before = figure_table(reference, state.origin.class_names)
    _, now = figure_table(new, state.origin.class_names)
    before, now = in_blocks(before, state.block), in_blocks(now, state.block)
    found = changes(names, before, now, seed=state.seed) if len(now) and len(before) else ()
    wrong, miou = (_of_both(state, figure) for figure in (expected_wrong, expected_miou))
    return Verdict(
        len(reference),
        len(new),
        state.looks,
        state.rate,
        wrong,
        miou,
        capital,
        together,
        None if reached is None else reached * state.block,
        min((each.p for each in found), default=None),
        found,
        tuple((q, *_quantile(state.scores, q)) for q in QUANTILES) if new else (),
        _distance(state.scores) if new else None,
        tuple(_risks(state)),
    )


def capitals(state: State) -> Array:
    """`(T, K)` natural logarithm of each gambler's capital after each whole block of new images."""
    ranked = ranks(state.reference, state.new, state.block, state.seed)
    count = len(ranked[0][1])
    ties = np.array([_ties(state.seed, place) for place in range(count)])
    ties = ties.reshape(count, len(WATCHED))
    p = [p_values(*pair, ties[:, k]) for k, pair in enumerate(ranked)]
    return composite_jumper(np.stack(p, 1))


def ranks(
    reference: Sequence[Look], new: Sequence[Look], block: int = 1, seed: int = 0
) -> list[tuple[Array, Array]]:
    """By what blocks of images are ranked, for each of `WATCHED`: of the reference, and new.

    `distance` is that of an image's mean logits from those of one half of the reference, drawn at
    random, in their own covariance (Mahalanobis). New images are ranked among the other half,
    which the distance does not know either.
    """
    doubts = [np.array([one.doubt for one in looks]) for looks in (reference, new)]
    logits = [np.array([one.logits for one in looks]) for looks in (reference, new)]
    whole = len(reference) // block
    halves = np.random.default_rng(seed).permutation(whole) < whole // 2
    usual = np.repeat(halves, block)
    away = _distances(logits[0][: whole * block][usual])
    old, now = (in_blocks(away(rows), block) for rows in logits)
    return [
        (in_blocks(doubts[0], block), in_blocks(doubts[1], block)),
        (old[~halves], now),
    ]


def _distances(usual: Array) -> Callable[[Array], Array]:
    """Squared distances of rows `(n, C)` from the mean of usual ones, in their covariance."""
    centre, spread = usual.mean(0), usual.std(0)
    spread = np.where(spread > 0, spread, 1)
    scaled = (usual - centre) / spread
    covariance = (1 - SHRUNK) * scaled.T @ scaled / len(usual) + SHRUNK * np.eye(len(centre))
    inverse = np.linalg.inv(covariance)

    def distances(rows: Array) -> Array:
        away = (rows.reshape(-1, len(centre)) - centre) / spread
        found: Array = ((away @ inverse) * away).sum(1)
        return found

    return distances


def figure_table(looks: Sequence[Look], class_names: Sequence[str]) -> tuple[list[str], Array]:
    """Names of the figures that are compared, `(K,)`, and `(n, K)`."""
    count = looks[0].table.shape[1] if looks else len(class_names)
    names = class_names or [str(number) for number in range(count)]
    rows = [
        [one.doubt, expected_wrong(one.table), one.brightness, one.contrast, *one.table[0]]
        for one in looks
    ]
    titles = ["doubt", "expected wrong", "brightness", "contrast"]
    titles += [f"share {name}" for name in names]
    return titles, np.array(rows).reshape(-1, len(titles))


def in_blocks(values: Array, size: int) -> Array:
    """Means of consecutive rows, so many at a time; those that fill no block are left out."""
    whole = len(values) // size
    found: Array = values[: whole * size].reshape(whole, size, *values.shape[1:]).mean(1)
    return found


def _ties(seed: int, place: int) -> Array:
    return np.random.default_rng([seed, place]).random(len(WATCHED))


def _of_both(state: State, figure: Callable[[Array], Array]) -> tuple[Expected, Expected | None]:
    before, now = (_expected(each, figure, state) for each in (state.reference, state.new))
    assert before is not None
    return before, now


def _expected(
    looks: Sequence[Look], figure: Callable[[Array], Array], state: State
) -> Expected | None:
    """A figure of images, with its interval by a bootstrap over blocks of them."""
    if not looks:
        return None
    tables = np.stack([one.table for one in looks])
    value = float(figure(tables.sum(0)))
    blocks = -(-len(tables) // state.block)
    if blocks < 2:
        return Expected(value, None)
    generator = np.random.default_rng(state.seed)
    drawn = np.empty(REPLICATES)
    for number in range(REPLICATES):
        weights = np.repeat(generator.poisson(1.0, blocks), state.block)[: len(tables)]
        with np.errstate(invalid="ignore"):
            drawn[number] = figure(np.tensordot(weights.astype(np.float64), tables, 1))
    ends = interval(value, drawn, (0, 1))
    return Expected(value, None if ends is None else (ends[0], ends[1]))


def _risks(state: State) -> Iterator[Risk]:
    """Of each loss; the rate of false alarms is shared among all that are promised."""
    for name, limit in state.limits.items():
        losses = np.array([own[name] for _, own in state.losses if name in own])
        if len(losses):
            rate = state.rate / len(state.limits)
            low, high = mean_bounds(losses, rate, low=state.lowest)
            broken = first_above(low, np.nextafter(limit, 1))
            yield Risk(name, len(losses), float(losses.mean()), low, high, limit, broken)


def _quantile(scores: Array, share: float) -> tuple[float, float]:
    """Of the reference's pixels and of the new ones: the top of the bin that reaches a share."""
    below = scores.cumsum(1) / scores.sum(1, keepdims=True)
    at = [int(np.searchsorted(row, share - 1e-9)) for row in below]
    before, now = (top_of_step(min(((place + 1) << SHIFT) - 1, STEPS - 1)) for place in at)
    return float(before), float(now)


def _distance(scores: Array) -> float:
    """Half the sum of differences of two histograms."""
    before, now = scores / scores.sum(1, keepdims=True)
    return float(np.abs(before - now).sum() / 2)


def _told(both: tuple[Expected, Expected | None]) -> dict[str, Any]:
    names = ("reference", "new")
    return {
        name: None if one is None else {"value": one.value, "interval": one.interval}
        for name, one in zip(names, both)
    }


def _exp(logarithm: float) -> float:
    """A finite number of a logarithm."""
    return float(math.exp(min(float(logarithm), 700.0)))


assert BINS << SHIFT == STEPS
