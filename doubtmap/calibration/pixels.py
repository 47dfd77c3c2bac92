"""A bounded sample of labelled pixels, from which methods of few parameters are fitted.

Sampling is blind to labels but for leaving out those below 0. Every image gives equally many
pixels, weighted by how many it stands for, so that sums estimate those over all pixels. When the
sample outgrows its budget, every image's share is halved; what stays is a uniform sample still.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from doubtmap.calibration.calibrator import Pairs
from doubtmap.errors import DataError, UsageError
from doubtmap.files import Origin
from doubtmap.kernels.resizing import nearest_pixels
from doubtmap.prediction import Prediction

VALUES = 3_000_000
"""Numbers that a sample may hold by default: 330,000 pixels of nine classes."""
EXTENT = 1e7
"""Difference between the logits of a pixel above which nothing is learnt of it."""
FEWEST = 50
"""Pixels of an image below which shares are not halved."""


@dataclass(frozen=True, eq=False)
class Pixels:
    """Sampled pixels.

    Args:
        values: `(N, K)` float32, what was asked for, such as full-size logits.
        labels: `(N,)` int64 in [0, C).
        weights: `(N,)` float64, mean 1: pixels for which each stands.
        classes: `(N,)` int64, what the network predicts there.
        channels: number of the model's classes.
        class_names: of the model, or empty.
    """

    values: Tensor
    labels: Tensor
    weights: Tensor
    classes: Tensor
    channels: int
    class_names: tuple[str, ...] = ()

    @property
    def origin(self) -> Origin:
        """What a calibrator fitted to them knows of where it comes from."""
        return Origin(class_names=self.class_names)

    @property
    def wrong(self) -> Tensor:
        """`(N,)` bool."""
        return self.classes != self.labels

    def mean(self, values: Tensor) -> Tensor:
        """Weighted mean over the pixels of `(N, ...)`."""
        total: Tensor = torch.tensordot(self.weights.to(values), values, 1)
        return total / self.weights.sum().to(values)

    def where(self, keep: Tensor) -> Pixels:
        """Those of `keep`, `(N,)` bool."""
        parts = (self.values[keep], self.labels[keep], self.weights[keep], self.classes[keep])
        return Pixels(*parts, self.channels, self.class_names)


@dataclass
class _Share:
    values: Tensor
    labels: Tensor
    classes: Tensor
    stands_for: int


def full_logits(prediction: Prediction) -> Tensor:
    """`(B, C, H, W)`: the logits at the image's size."""
    return prediction.logits


def draw_pixels(
    pairs: Pairs,
    read: Callable[[Prediction], Tensor] = full_logits,
    *,
    on_native_grid: bool = False,
    values: int = VALUES,
    seed: int = 0,
) -> Pixels:
    """Go through the pairs once and sample labelled pixels.

    Args:
        pairs: held-out predictions and labels.
        read: what to keep of a prediction, `(B, K, H, W)` or `(B, K, h, w)`.
        on_native_grid: whether `read` gives the native grid; its pixels then have the label of
            the image pixel nearest to their centre; those in the padding have none.
        values: budget, in numbers.
        seed: of the draw.

    Raises:
        UsageError: for an empty budget.
        DataError: where no pixel has a class, a label is no class, logits are extreme, or no
            pixel is wrong, so that there is nothing to learn from.
    """
    if values < 1:
        raise UsageError(f"calibrate: expected a budget of at least 1 number, got values={values}.")
    shares: list[_Share] = []
    per_image, images, classes = 1 << 16, 0, 0
    names: tuple[str, ...] = ()
    for images, (prediction, label) in enumerate(pairs, 1):
        share = _draw(prediction, label, read, on_native_grid, per_image, seed + images)
        if not len(share.labels):
            continue
        shares.append(share)
        names = names or prediction.class_names
        classes = prediction.native_logits.shape[1]
        width = share.values.shape[1]
        while per_image > FEWEST and sum(len(s.labels) for s in shares) * width > values:
            per_image //= 2
            shares = [_cut(s, per_image) for s in shares]
    if not shares:
        raise DataError(
            f"calibrate: expected pixels labelled with a class of the model, found none in "
            f"{images} images. Pass labelled images whose class names are the model's."
        )
    return _joined(shares, classes, names)


def checked_label(label: Tensor, prediction: Prediction) -> Tensor:
    """Refuse labels of another shape, or that are no class of the prediction.

    Raises:
        DataError: for such labels.
    """
    classes = prediction.native_logits.shape[1]
    shape = (len(prediction.native_logits), *prediction.size)
    if tuple(label.shape) != shape:
        raise DataError(
            f"calibrate: expected labels of the image's size {shape}, got {tuple(label.shape)}. "
            f"Bring them to it with nearest-neighbour resizing."
        )
    if label.numel() and int(label.max()) >= classes:
        raise DataError(
            f"calibrate: expected labels below {classes}, the number of the model's classes, got "
            f"{int(label.max())}. Set others to -2 (void)."
        )
    return label


def check_extent(prediction: Prediction) -> None:
    """Refuse to learn from logits so far apart that float32 leaves nothing to calibrate.

    Raises:
        DataError: where the logits of a pixel differ by more than `EXTENT`.
    """
    low, high = prediction.native_logits.detach().aminmax(dim=1)
    if bool(((high.double() - low.double()) > EXTENT).any()):
        raise DataError(
            f"calibrate: expected logits of a pixel to differ by less than {EXTENT:g}, got up to "
            f"{float((high.double() - low.double()).max()):.2g}. Check the network's weights, or "
            f"divide its output by a constant."
        )


def _draw(
    prediction: Prediction,
    label: Tensor,
    read: Callable[[Prediction], Tensor],
    on_native_grid: bool,
    most: int,
    seed: int,
) -> _Share:
    label, classes = checked_label(label, prediction), prediction.classes
    check_extent(prediction)
    values = read(prediction).detach()
    if on_native_grid:
        rows, columns = native_centres(prediction)
        label, classes = (m[:, rows[:, None], columns] for m in (label, classes))
        label = label.masked_fill(~inside_image(prediction).to(label.device), -2)
    there = torch.nonzero(label.reshape(-1) >= 0)[:, 0]
    order = torch.randperm(len(there), generator=torch.Generator().manual_seed(seed))[:most]
    at = there[order.to(there.device)]
    flat = values.movedim(1, -1).reshape(-1, values.shape[1])
    return _Share(
        flat[at].float().cpu(),
        label.reshape(-1)[at].cpu(),
        classes.reshape(-1)[at].cpu(),
        len(there),
    )


def native_centres(prediction: Prediction) -> tuple[Tensor, Tensor]:
    """Row and column of the image pixel nearest to the centre of each native sample."""
    rows, columns = _nearest(prediction)
    height, width = prediction.size
    return rows.clamp(0, height - 1), columns.clamp(0, width - 1)


def inside_image(prediction: Prediction) -> Tensor:
    """`(h, w)` bool: which native samples lie in the image, not in its padding."""
    rows, columns = _nearest(prediction)
    height, width = prediction.size
    return (rows < height)[:, None] & (columns < width)


def _nearest(prediction: Prediction) -> tuple[Tensor, Tensor]:
    """As `native_centres`, and beyond the image's edge in the padding."""
    size, covered, align_corners = prediction.placement
    native = prediction.native_logits.shape[-2:]
    device = prediction.native_logits.device
    rows, columns = (
        nearest_pixels(samples, span, align_corners).to(device)
        for span, samples in zip(covered or size, native)
    )
    return rows, columns


def _cut(share: _Share, most: int) -> _Share:
    """The first of a random order are a uniform sample."""
    return _Share(
        share.values[:most].clone(),
        share.labels[:most].clone(),
        share.classes[:most].clone(),
        share.stands_for,
    )


def _joined(shares: list[_Share], channels: int, names: tuple[str, ...]) -> Pixels:
    weights = torch.cat(
        [
            torch.full((len(s.labels),), s.stands_for / len(s.labels), dtype=torch.float64)
            for s in shares
        ]
    )
    pixels = Pixels(
        torch.cat([s.values for s in shares]),
        torch.cat([s.labels for s in shares]),
        weights / weights.mean(),
        torch.cat([s.classes for s in shares]),
        channels,
        names,
    )
    if not bool(pixels.wrong.any()):
        raise DataError(
            f"calibrate: expected some wrong pixels to learn from, but all {len(pixels.labels)} "
            f"sampled ones are right. Fit on held-out images on which the network makes mistakes."
        )
    return pixels
