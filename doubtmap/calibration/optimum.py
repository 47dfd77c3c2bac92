"""Fitting that converges, or says that it did not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from doubtmap.errors import DataError

TOLERANCE = 1e-5
"""Largest slope of the mean loss, in nats per unit of a parameter, that counts as an optimum."""


def minimise(
    loss: Callable[[], Tensor],
    parameters: Sequence[Tensor],
    who: str,
    tolerance: float = TOLERANCE,
    rounds: int = 20,
) -> None:
    """Move parameters to a minimum of a smooth loss, by L-BFGS in float64.

    Args:
        loss: a scalar function of the parameters, float64.
        parameters: float64 leaves that require gradients; changed in place.
        who: the method, for the message.
        tolerance: largest slope at an optimum.
        rounds: of 50 steps each, before giving up.

    Raises:
        DataError: where the slope stays above the tolerance, or the loss is not finite.
    """
    solver = torch.optim.LBFGS(
        list(parameters),
        max_iter=50,
        history_size=20,
        tolerance_grad=tolerance / 10,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        solver.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    for _ in range(rounds):
        solver.step(closure)  # type: ignore[no-untyped-call]
        value = closure()
        slope = max(_slope(parameter) for parameter in parameters)
        if bool(torch.isfinite(value)) and slope <= tolerance:
            return
    raise DataError(
        f"{who}: expected the fit to converge, but after {rounds} rounds the loss still falls by "
        f"{slope:.2g} nats per unit of a parameter. Fit on more images, or take a method of fewer "
        f"parameters such as temperature."
    )


def _slope(parameter: Tensor) -> float:
    assert parameter.grad is not None
    return float(parameter.grad.abs().max())
