"""Whether images still come as if shuffled among those of the reference: evidence at any time.

Every new image gets a p-value, its rank by some figure among the reference and all new images up
to it. If all of these are exchangeable, as if they had been shuffled, the p-values are independent
and uniform on [0, 1], whatever the figure and the network. A gambler who bets against that starts
with 1 and can hardly ever become rich: his capital is a martingale, and the probability that it
*ever* reaches 1 / rate is at most the rate (Ville, 1939). So one may look after each image, stop at
any time, and go on.

Reference:
    Retrain or not retrain: conformal test martingales for change-point detection (Vovk, Petej,
    Nouretdinov, Ahlberg, Carlsson and Gammerman, 2021), https://arxiv.org/abs/2102.10439: the
    Simple Jumper, and the Composite Jumper, its mean over five rates of jumping. Deviation: the
    stakes are -2, -1, 0, 1, 2 instead of -1, 0, 1, so that the first images of a clear shift
    count twice.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

import numpy as np

from doubtmap.metrics.accumulator import Array

STAKES = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
"""How the gambler may bet: for -2 on small p-values alone, for 2 on large ones, for 0 not at all.
At most 2 in size, so that no bet can lose more than all."""
JUMPS = np.array([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
"""Shares of the capital that are spread anew over the stakes before each image."""


def p_values(reference: Array, new: Array, ties: Array) -> Array:
    """Smoothed ranks of new values, each among the reference and the new ones up to it.

        p_t = (#{i: s_i > s_t} + tie_t #{i: s_i = s_t}) / (n + t)

    Args:
        reference: `(n,)`.
        new: `(T,)`, in the order in which they came.
        ties: `(T,)` uniform in [0, 1], independent of all else; between equal values they decide.

    Returns:
        `(T,)` in [0, 1]; small for a value that is larger than most.

    Example:
        >>> p_values(np.array([1.0, 2.0, 3.0]), np.array([9.0, 0.0]), np.array([0.5, 0.5]))
        array([0.125, 0.9  ])
    """
    ordered, found = sorted(reference.tolist()), np.empty(len(new))
    for place, (value, tie) in enumerate(zip(new.tolist(), ties.tolist())):
        insort(ordered, value)
        first, last = bisect_left(ordered, value), bisect_right(ordered, value)
        found[place] = (len(ordered) - last + tie * (last - first)) / len(ordered)
    return found


def composite_jumper(p: Array) -> Array:
    """The logarithm of the capital of a gambler who bets against uniform p-values.

    Before each p-value the share J of the capital is spread anew over the stakes e; each then
    grows by `1 + e (p - 1/2)`. The capital is the mean over the rates J.

    Args:
        p: `(T,)` or `(T, K)`, K gamblers apart, in [0, 1].

    Returns:
        The same shape, natural logarithm after each p-value; it starts from 0.
    """
    p = np.asarray(p, np.float64)
    share = np.full((*p.shape[1:], len(JUMPS), len(STAKES)), 1 / len(STAKES))
    total, found = np.zeros((*p.shape[1:], len(JUMPS))), np.empty(p.shape)
    for place, each in enumerate(p):
        spread = (1 - JUMPS)[:, None] * share + JUMPS[:, None] / len(STAKES)
        grown = spread * (1 + STAKES * (each[..., None, None] - 0.5))
        whole = grown.sum(-1)
        share = grown / whole[..., None]
        total = total + np.log(whole)
        found[place] = _log_mean(total)
    return found


def evidence(capital: Array) -> Array:
    """What several gamblers show together, so that its ever reaching 1 / rate has at most the rate.

    Each is a martingale by itself. The largest capital over their number K reaches 1 / rate only
    where one of them reaches K / rate, which happens with at most rate / K for each of the K.

    Args:
        capital: `(T, K)`, logarithms.

    Returns:
        `(T,)`, logarithm.
    """
    found: Array = capital.max(1) - np.log(capital.shape[1])
    return found


def first_above(values: Array, limit: float) -> int | None:
    """How many images it took until a value reached a limit; None where none did."""
    reached = np.flatnonzero(values >= limit)
    return int(reached[0]) + 1 if len(reached) else None


def _log_mean(logarithms: Array) -> Array:
    """Along the last axis."""
    top = logarithms.max(-1)
    found: Array = top + np.log(np.exp(logarithms - top[..., None]).mean(-1))
    return found
