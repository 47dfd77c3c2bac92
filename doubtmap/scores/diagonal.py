"""How unlike anything seen a network's inner features are: class-wise diagonal Gaussians."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.errors import DataError, ModelError
from doubtmap.kernels import recording
from doubtmap.prediction import Prediction
from doubtmap.scores.inner_features import OUTSIDE, native_labels, probabilities_on
from doubtmap.scores.smoothing import smoothed

SURE = 0.9
"""Cells teach the fit where the network's mean probability of a class is above this."""


def unit(features: Tensor) -> Tensor:
    """Features of length 1, `(B, D, h, w)` float32; where all are 0 they stay so."""
    z = features.float()
    return z / z.square().sum(1, keepdim=True).sqrt().clamp_min(1e-6)


@dataclass(frozen=True, eq=False)
class DiagonalSums:
    """Count, sum and sum of squares of each class's features; sums add and subtract.

    Args:
        count: `(C,)` float64.
        sums: `(C, D)` float64.
        squares: `(C, D)` float64.
    """

    count: Tensor
    sums: Tensor
    squares: Tensor

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, classes: int) -> Self:
        """Of cells.

        Args:
            features: `(N, D)`, at most of length 1.
            labels: `(N,)` int64 below `classes`.
            classes: how many.
        """
        z, where = features.double().cpu(), labels.cpu()
        empty = torch.zeros(classes, z.shape[1], dtype=torch.float64)
        count = torch.bincount(where, minlength=classes).double()
        return cls(count, empty.index_add(0, where, z), empty.index_add(0, where, z.square()))

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.count + other.count, self.sums + other.sums, self.squares + other.squares
        )

    def __sub__(self, other: Self) -> Self:
        return type(self)(
            self.count - other.count, self.sums - other.sums, self.squares - other.squares
        )


@dataclass(frozen=True, eq=False)
class Diagonal:
    """A mixture of Gaussians with diagonal covariances, one for each class that was seen.

    Args:
        share: `(C,)` float64, of the cells; 0 for a class that was not seen.
        mean: `(C, D)` float64.
        variance: `(C, D)` float64, above 0.
        still: how many features never vary within a class.
    """

    share: Tensor
    mean: Tensor
    variance: Tensor
    still: int = 0

    @classmethod
    def of(cls, sums: DiagonalSums, shrinkage: float) -> Self:
        """What the sums say; rare classes lean on what all have in common.

        A class of n cells has n / (n + D) of its own variances and the rest of those pooled over
        all classes; then `shrinkage` of the mean pooled variance takes the place of as much.

        Raises:
            DataError: for no cell, or features that are the same everywhere.
        """
        count = sums.count.clamp_min(1)[:, None]
        mean = sums.sums / count
        own = (sums.squares / count - mean.square()).clamp_min(0)
        share = sums.count / sums.count.sum().clamp_min(1)
        pooled = (share[:, None] * own).sum(0)
        level = float(pooled.mean())
        if not level > 0:
            raise DataError(
                "doubt: expected inner features that vary where the network is sure, got none. "
                "Fit on more images, or with another layer, as in doubt(layer=NAME)."
            )
        trust = (sums.count / (sums.count + len(pooled)))[:, None]
        mixed = trust * own + (1 - trust) * pooled
        still = int((pooled <= 1e-9 * level).sum())
        return cls(share, mean, (1 - shrinkage) * mixed + shrinkage * level, still)

    def surprise(self, features: Tensor) -> Tensor:
        """`-log sum_c share_c N(z | mean_c, variance_c)`, in nats.

        Args:
            features: `(B, D, h, w)` float32.

        Returns:
            `(B, h, w)`.
        """
        seen = self.share > 0
        centre = (self.share[:, None] * self.mean).sum(0)
        mean, precision = self.mean[seen] - centre, 1 / self.variance[seen]
        constant = self.share[seen].log() - 0.5 * (
            mean.square() * precision + self.variance[seen].mul(2 * torch.pi).log()
        ).sum(1)
        z = features.flatten(2) - centre.to(features)[:, None]
        quadratic, linear = (-0.5 * precision).to(features), (mean * precision).to(features)
        each = quadratic @ z.square() + linear @ z + constant.to(features)[:, None]
        return -each.logsumexp(1).reshape(features[:, 0].shape)


def layer_features(prediction: Prediction, layer: str) -> Tensor:
    """`(B, D, h, w)` float32, what an inner layer said, on its own grid, each cell of length 1.

    Raises:
        ModelError: where the prediction does not carry the layer.
        DataError: where the features are not finite.
    """
    if layer not in prediction.layers:
        raise ModelError(
            f"doubt: needs the output of the layer {layer}, which this prediction does not carry. "
            f"Make it with segmenter.listening([{layer!r}])."
        )
    z = unit(prediction.layers[layer])
    if not bool(torch.isfinite(z.sum())):  # of numbers of at most 1, at a fraction of the cost
        raise DataError(
            "doubt: expected finite features, got NaN or infinity. Run the network in float32."
        )
    return z


def surprise(familiar: Diagonal, features: Tensor, like: Tensor, prediction: Prediction) -> Tensor:
    """How unlike anything seen, resized to a finer grid and smoothed over half a coarse cell.

    Args:
        familiar: the Gaussians.
        features: `(B, D, h, w)`.
        like: `(B, h', w')`, a map on the wanted grid.
        prediction: says how the grids lie on the image; what lies in the padding is taken to be
            as the image's border, so that it is not smoothed into the image.

    Returns:
        `(B, h', w')`, nats.
    """
    own = _bordered(familiar.surprise(features), prediction)
    grid = (like.shape[-2], like.shape[-1])
    wide = F.interpolate(
        own[:, None], grid, mode="bilinear", align_corners=prediction.align_corners
    )[:, 0]
    return smoothed(wide, max(0.5, grid[0] / own.shape[-2] / 2))


def _bordered(own: Tensor, prediction: Prediction) -> Tensor:
    """`(B, h, w)`, with the image's border in place of what lies in the padding."""
    inside = in_image(prediction, tuple(own.shape[-2:]))
    if inside is None:
        return own
    rows, columns = int(inside.any(1).sum()), int(inside.any(0).sum())
    beyond = (0, own.shape[-1] - columns, 0, own.shape[-2] - rows)
    return F.pad(own[:, None, :rows, :columns], beyond, mode="replicate")[:, 0]


def relative(strange: Tensor, inside: Tensor | None = None) -> Tensor:
    """A map minus half its median over the image.

    Args:
        strange: `(B, h, w)`.
        inside: `(h, w)`, what of it lies in the image, not in the padding; None: all.
    """
    seen = strange.flatten(1) if inside is None else strange[:, inside]
    if recording(strange):  # ONNX knows no median
        middle = seen.sort(1).values[:, (int(seen.shape[1]) - 1) // 2]
    else:
        middle = seen.median(1).values
    return strange - middle[:, None, None] / 2


def in_image(prediction: Prediction, grid: tuple[int, ...]) -> Tensor | None:
    """`(h, w)`, the cells of a grid that lie in the image; None where there is no padding."""
    if prediction.covered is None:
        return None
    labels = torch.zeros(1, *prediction.size, device=prediction.native_logits.device)
    return native_labels(prediction, labels, grid)[0] != OUTSIDE


def sums_of(prediction: Prediction, layer: str) -> DiagonalSums:
    """Of the cells of one image in which the network is sure, by predicted class."""
    z = layer_features(prediction, layer)
    p = probabilities_on(prediction, tuple(z.shape[-2:]))
    certainty, classes = p.max(1)
    sure, inside = certainty > SURE, in_image(prediction, tuple(z.shape[-2:]))
    sure = sure if inside is None else sure & inside
    return DiagonalSums.of(z.permute(0, 2, 3, 1)[sure], classes[sure], p.shape[1])
