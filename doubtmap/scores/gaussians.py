"""Class-wise Gaussians over features: streaming sums, and the squared distances that they give.

Squared distances of features to a class's Gaussian, in three forms that cost differently.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol, Self

import torch
from torch import Tensor

from doubtmap.errors import DataError
from doubtmap.kernels import recording

Covariance = Literal["full", "tied"]


LEAST = 1e-100
"""Of a weight, so that its square is a number too."""


class GaussianSums:
    """Weighted means and scatters of each class, image by image, in float64.

    Merging follows Chan et al., so nothing is lost to the difference of large sums.

    Args:
        classes: how many.
        channels: of the features.

    Reference:
        Algorithms for Computing the Sample Variance (Chan, Golub and LeVeque, 1983),
        https://doi.org/10.1080/00031305.1983.10483115
    """

    def __init__(self, classes: int, channels: int) -> None:
        self.pixels = torch.zeros(classes, dtype=torch.int64)
        self.weight = torch.zeros(classes, dtype=torch.float64)
        self.squares = torch.zeros(classes, dtype=torch.float64)
        self.mean = torch.zeros(classes, channels, dtype=torch.float64)
        self.scatter = torch.zeros(classes, channels, channels, dtype=torch.float64)

    def add(self, features: Tensor, labels: Tensor, weights: Tensor) -> None:
        """Take pixels.

        Args:
            features: `(N, D)`, finite.
            labels: `(N,)` class indices.
            weights: `(N,)`, at least 0; those up to `LEAST` count for nothing.
        """
        for number in torch.unique(labels).tolist():
            chosen = (labels == number) & (weights > LEAST)
            if chosen.any():
                self._add_class(number, features[chosen].double(), weights[chosen].double())

    def _add_class(self, number: int, z: Tensor, w: Tensor) -> None:
        total = w.sum()
        mean = w @ z / total
        centred = z - mean
        self._merge(number, len(z), total, (w * w).sum(), mean, (centred * w[:, None]).T @ centred)

    def _merge(
        self,
        number: int,
        pixels: int,
        weight: Tensor,
        squares: Tensor,
        mean: Tensor,
        scatter: Tensor,
    ) -> None:
        before = self.weight[number].clone()
        after = before + weight.cpu()
        shift = mean.cpu() - self.mean[number]
        self.mean[number] += shift * (weight.cpu() / after)
        self.scatter[number] += scatter.cpu() + torch.outer(shift, shift) * (
            before * weight.cpu() / after
        )
        self.pixels[number] += pixels
        self.weight[number] = after
        self.squares[number] += squares.cpu()

    def __add__(self, other: Self) -> Self:
        total = type(self)(*self.mean.shape)
        for part in (self, other):
            for number in part.weight.nonzero()[:, 0].tolist():
                total._merge(
                    number,
                    int(part.pixels[number]),
                    part.weight[number],
                    part.squares[number],
                    part.mean[number],
                    part.scatter[number],
                )
        return total


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Mean and covariance of each class's features, as measured, before any shrinkage.

    Args:
        pixels: `(C,)` int64, how many went in.
        weight: `(C,)` float64, the sum of their weights.
        effective: `(C,)` float64, how many equally weighted pixels tell as much.
        mean: `(C, D)` float64.
        covariance: `(C, D, D)` float64; zeros for a class without pixels.
    """

    pixels: Tensor
    weight: Tensor
    effective: Tensor
    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, sums: GaussianSums) -> Self:
        """What the sums say."""
        weight = sums.weight.clamp_min(torch.finfo(torch.float64).tiny)
        squares = sums.squares.clamp_min(torch.finfo(torch.float64).tiny)
        return cls(
            sums.pixels,
            sums.weight,
            torch.where(sums.weight > 0, sums.weight**2 / squares, 0),
            sums.mean,
            sums.scatter / weight[:, None, None],
        )

    @property
    def present(self) -> Tensor:
        """`(C,)` bool, the classes that pixels were seen of."""
        return self.weight > 0

    @cached_property
    def within(self) -> Tensor:
        """`(D, D)`, the covariance around the class means, pooled over all classes."""
        share = self.weight / self.weight.sum()
        return (share[:, None, None] * self.covariance).sum(0)

    @cached_property
    def overall(self) -> tuple[Tensor, Tensor]:
        """`(D,)` and `(D, D)`, mean and covariance of all pixels without regard to class."""
        share = self.weight / self.weight.sum()
        mean = share @ self.mean
        around = self.mean - mean
        return mean, self.within + (share[:, None] * around).T @ around

    def shrunk(self, covariance: Covariance, shrinkage: float) -> Tensor:
        """Covariances that can be inverted.

        Each is mixed with its own mean variance times the identity. That of a class with fewer
        effective pixels than channels first leans on the pooled one, and only that: to lean with
        more makes rare classes wide, and unknown things fit into them.

        Args:
            covariance: `full`, one for each class, or `tied`, the pooled one for all.
            shrinkage: share of the identity, in [0, 1].

        Returns:
            `(C, D, D)` float64.

        Raises:
            DataError: for covariances that are singular all the same.
        """
        channels = self.mean.shape[1]
        if covariance == "tied":
            mixed = self.within.expand_as(self.covariance)
        else:
            trust = (self.effective / channels).clamp_max(1)[:, None, None]
            mixed = trust * self.covariance + (1 - trust) * self.within
        return shrink(mixed, shrinkage)


def shrink(covariance: Tensor, shrinkage: float) -> Tensor:
    """`(1 - a) S + a tr(S) / D I`, for `(..., D, D)`."""
    size = covariance.shape[-1]
    identity = torch.eye(size, dtype=covariance.dtype)
    level = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    return (1 - shrinkage) * covariance + shrinkage * level * identity


def whitening(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse Cholesky factors and half log-determinants of covariances.

    Args:
        covariance: `(C, D, D)` float64.

    Returns:
        `W (C, D, D)` lower triangular with `W S W' = I`, and `-1/2 log det S`, `(C,)`.

    Raises:
        DataError: for a covariance that is singular or not finite.
    """
    factor, failed = torch.linalg.cholesky_ex(covariance)
    refuse_singular((failed == 0) & torch.isfinite(factor).flatten(1).all(1))
    identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype).expand_as(covariance)
    half = -factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return torch.linalg.solve_triangular(factor, identity, upper=False), half


def refuse_singular(sound: Tensor) -> None:
    """Raise for classes whose covariance cannot be inverted.

    Args:
        sound: `(C,)` bool.

    Raises:
        DataError: where any is not.
    """
    if not bool(sound.all()):
        which = ", ".join(str(number) for number in (~sound).nonzero()[:, 0].tolist())
        raise DataError(
            f"density: expected covariances that can be inverted, but those of the classes with "
            f"number {which} are singular: some features do not vary. Fit with a larger shrinkage, "
            f"as in density(shrinkage=0.01), or with another layer."
        )


BLOCK = 64
"""Rows of a triangular factor at a time."""


TILE = 2048
"""Pixels at a time, so that what is in hand stays in the cache and memory is bounded."""


def tiles(rows: Tensor) -> Iterator[Tensor]:
    """Pieces of at most `TILE` along the first axis; in a graph, whose sizes are free, one."""
    if recording(rows):
        yield rows
        return
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
        total = centred.new_zeros(())
        for start in range(0, size, BLOCK):  # the factor is triangular: a block needs its columns
            stop = min(start + BLOCK, size)
            total = total + _squared_length(centred[:, :stop] @ factor[start:stop, :stop].T)
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


def check_support(gaussians: Gaussians) -> None:
    """Refuse Gaussians that stand on next to nothing.

    Raises:
        DataError: where all classes together have fewer effective pixels than channels.
    """
    channels = gaussians.mean.shape[1]
    effective = float(gaussians.effective.sum())
    if effective < channels:
        raise DataError(
            f"density: expected at least as many effective pixels as the {channels} channels, got "
            f"{effective:.0f}. Fit on more images, or with a smaller certainty."
        )


def support_notes(gaussians: Gaussians, names: tuple[str, ...]) -> tuple[str, ...]:
    """A sentence for classes without pixels, and one for those with few."""
    label = names or tuple(str(number) for number in range(len(gaussians.mean)))
    channels = gaussians.mean.shape[1]
    absent = [label[i] for i, seen in enumerate(gaussians.present.tolist()) if not seen]
    few = [
        f"{label[i]} ({gaussians.effective[i]:.0f})"
        for i in range(len(label))
        if gaussians.present[i] and gaussians.effective[i] < channels
    ]
    notes = []
    if absent:
        notes.append(f"density: no pixel of {', '.join(absent)} was fitted.")
    if few:
        notes.append(
            f"density: fewer effective pixels than the {channels} channels in {', '.join(few)}; "
            f"their covariance leans on the pooled one."
        )
    return tuple(notes)
