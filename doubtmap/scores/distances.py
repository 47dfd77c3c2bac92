"""Squared distances of features to a class's Gaussian, in three forms that cost differently."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from doubtmap.scores.gaussians import refuse_singular, shrink, whitening

BLOCK = 64
"""Rows of a triangular factor at a time."""
TILE = 2048
"""Pixels at a time, so that what is in hand stays in the cache and memory is bounded."""


def tiles(rows: Tensor) -> Iterator[Tensor]:
    """Pieces of at most `TILE` along the first axis."""
    for start in range(0, len(rows), TILE):
        yield rows[start : start + TILE]


class Distances(Protocol):
    """Squared Mahalanobis distances under some model of the classes' covariances.

    `log_constant` is `(C,)`: `log q(z | c) = log_constant[c] - distance / 2`.
    """

    @property
    def log_constant(self) -> Tensor:
        """`(C,)`, what is left of the log density at the mean."""
        ...

    def to(self, device: torch.device) -> Distances:
        """The same on a device, but for `log_constant`."""
        ...

    def squared(self, centred: Tensor, number: int) -> Tensor:
        """`(N,)` from `z - mean`, `(N, D)` float32, of class `number`."""
        ...


@dataclass(frozen=True, eq=False)
class Full:
    """`|W d|^2` with W the inverse Cholesky factor: exact, `N D^2` multiplications a class.

    Args:
        factors: `(C, D, D)` float32.
        log_constant: `(C,)` float32.
    """

    factors: Tensor
    log_constant: Tensor

    @classmethod
    def of(cls, covariance: Tensor) -> Full:
        """From covariances `(C, D, D)` float64."""
        factors, half = whitening(covariance)
        constant = half - covariance.shape[-1] / 2 * math.log(2 * math.pi)
        return cls(factors.float(), constant.float())

    def to(self, device: torch.device) -> Full:
        """See `Distances`."""
        return replace(self, factors=self.factors.to(device))

    def squared(self, centred: Tensor, number: int) -> Tensor:
        """See `Distances`."""
        factor = self.factors[number]
        size = len(factor)
        total = centred.new_zeros(len(centred))
        for start in range(
            0, size, BLOCK
        ):  # the factor is triangular: each block needs its columns
            stop = min(start + BLOCK, size)
            total += _squared_length(centred[:, :stop] @ factor[start:stop, :stop].T)
        return total


@dataclass(frozen=True, eq=False)
class LowRank:
    """The `rank` widest directions as they are, all others with one variance between them.

    `|d|^2 / s - |A d|^2`, from the inverse of `U diag(l) U' + s (I - U U')`.

    Args:
        factors: `(C, rank, D)` float32, A.
        precision: `(C,)` float32, 1 / s.
        log_constant: `(C,)` float32.

    Reference:
        Probabilistic Principal Component Analysis (Tipping and Bishop, 1999),
        https://doi.org/10.1111/1467-9868.00196
    """

    factors: Tensor
    precision: Tensor
    log_constant: Tensor

    @classmethod
    def of(cls, covariance: Tensor, rank: int) -> LowRank:
        """From covariances `(C, D, D)` float64."""
        size = covariance.shape[-1]
        values, vectors = torch.linalg.eigh(covariance)
        rest, top = values[:, : size - rank].mean(1), values[:, size - rank :]
        refuse_singular((rest > 0) & (top > 0).all(1) & rest.isfinite())
        gain = (1 / rest[:, None] - 1 / top).clamp_min(0).sqrt()
        half = -(top.log().sum(1) + (size - rank) * rest.log()) / 2
        return cls(
            (gain[:, None] * vectors[..., size - rank :]).mT.contiguous().float(),
            (1 / rest).float(),
            (half - size / 2 * math.log(2 * math.pi)).float(),
        )

    def to(self, device: torch.device) -> LowRank:
        """See `Distances`."""
        return replace(self, factors=self.factors.to(device), precision=self.precision.to(device))

    def squared(self, centred: Tensor, number: int) -> Tensor:
        """See `Distances`."""
        near = _squared_length(centred @ self.factors[number].T)
        return _squared_length(centred) * self.precision[number] - near


@dataclass(frozen=True, eq=False)
class Projected:
    """Full covariances in a subspace that all classes share, one variance for what lies outside.

    Args:
        projection: `(K, D)` float32, orthonormal rows: the widest directions within the classes.
        inside: distances there.
        precision: 1 over the mean variance outside.
        log_constant: `(C,)` float32.
    """

    projection: Tensor
    inside: Full
    precision: float
    log_constant: Tensor

    @classmethod
    def of(cls, covariance: Tensor, within: Tensor, channels: int) -> Projected:
        """From covariances `(C, D, D)` and their pooled one `(D, D)`, float64."""
        size = within.shape[0]
        values, vectors = torch.linalg.eigh(shrink(within, 1e-6))
        projection = vectors[:, size - channels :].T
        inside = Full.of(projection @ covariance @ projection.T)
        if channels == size:
            return cls(projection.float(), inside, 0.0, inside.log_constant)
        outside = float(values[: size - channels].mean())
        refuse_singular(torch.tensor([outside > 0]))
        more = -(size - channels) / 2 * math.log(2 * math.pi * outside)
        return cls(projection.float(), inside, 1 / outside, inside.log_constant + more)

    def to(self, device: torch.device) -> Projected:
        """See `Distances`."""
        return replace(self, projection=self.projection.to(device), inside=self.inside.to(device))

    def squared(self, centred: Tensor, number: int) -> Tensor:
        """See `Distances`."""
        inner = centred @ self.projection.T
        outer = (_squared_length(centred) - _squared_length(inner)).clamp_min(0)
        return self.inside.squared(inner, number) + outer * self.precision


def _squared_length(rows: Tensor) -> Tensor:
    """`(N,)` from `(N, D)`, in one pass without a temporary."""
    length: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return length.square()
