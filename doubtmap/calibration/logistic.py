"""Logistic regression of an event: from what is known of a thing to its probability.

Newton's method on the penalised log-likelihood, which is convex, so there is one answer and no
seed. With the log-odds of another model as the only input it is Platt's scaling.

Reference:
    Probabilistic Outputs for Support Vector Machines (Platt, 1999): the scaling; his targets that
    are not quite 0 and 1 do here what the penalty does.
"""

from __future__ import annotations

import numpy as np

from doubtmap.errors import DataError
from doubtmap.metrics.accumulator import Array

ROUNDS = 100
SETTLED = 1e-10
"""Largest step of a parameter at the end."""


def sigmoid(odds: Array) -> Array:
    """`(N,)` probabilities of log-odds."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * odds)))


def logistic(x: Array, true: Array, penalty: float = 1.0) -> tuple[Array, float]:
    """Weights and offset of the log-odds `x . weights + offset`.

    Args:
        x: `(N, F)`, of about unit size.
        true: `(N,)` bool.
        penalty: on half the sum of the squared weights; the offset has none, so that the mean
            probability is the share that is true.

    Returns:
        `(F,)` and the offset.

    Raises:
        DataError: where all or none are true.

    Example:
        >>> x = np.array([[0.0], [0.0], [1.0], [1.0], [1.0], [1.0]])
        >>> weights, offset = logistic(x, np.array([0, 1, 1, 1, 1, 0], bool), 1e-9)
        >>> [round(float(p), 3) for p in sigmoid(np.array([offset, weights[0] + offset]))]
        [0.5, 0.75]
    """
    true = np.asarray(true, bool)
    if true.all() or not true.any():
        raise DataError(
            f"logistic: expected things of which some came true and some did not, got {len(true)} "
            f"of one kind. Fit on more images."
        )
    inputs = np.column_stack([x, np.ones(len(x))])
    held = np.diag(np.append(np.full(x.shape[1], penalty), 0.0))
    found = np.append(np.zeros(x.shape[1]), np.log(true.mean() / (1 - true.mean())))
    for _ in range(ROUNDS):
        p = sigmoid(inputs @ found)
        slope = inputs.T @ (p - true) + held @ found
        curvature = (inputs * (p * (1 - p))[:, None]).T @ inputs + held
        step = np.linalg.lstsq(curvature, slope, rcond=None)[0]
        found = found - _shortened(step, inputs, true, held, found)
        if np.abs(step).max() <= SETTLED:
            break
    return found[:-1], float(found[-1])


def _shortened(step: Array, inputs: Array, true: Array, held: Array, found: Array) -> Array:
    """The step, halved until the loss does not rise: far from the answer Newton's leaps too far."""

    def loss(at: Array) -> float:
        odds = inputs @ at
        return float(np.logaddexp(0, np.where(true, -odds, odds)).sum() + 0.5 * at @ held @ at)

    before = loss(found)
    for _ in range(40):
        if loss(found - step) <= before:
            break
        step = step / 2
    return step
