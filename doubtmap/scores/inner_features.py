"""Features on the native grid: of the classifier or of inner layers, with labels to match."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.errors import DataError, ModelError
from doubtmap.kernels import recording
from doubtmap.kernels.resizing import nearest_pixels
from doubtmap.prediction import Prediction

Scale = Literal["none", "unit"]
OUTSIDE = -2
"""Label of native samples that lie outside of the image, in the padding."""


def inner_features(
    prediction: Prediction, layers: Sequence[str], scale: Scale, score: str, native: bool = False
) -> Tensor:
    """The features that a fitted score is over.

    Args:
        prediction: with them.
        layers: names of inner layers, stacked in this order; none: what the classifier saw.
        scale: `unit` divides each pixel's features by their length.
        score: who asks, for errors.
        native: whether all layers are resized to the native grid.

    Returns:
        `(B, D, h, w)` float32, channels last in memory: on the native grid, or on the layer's own;
        of several layers on the finest, to which the others are resized bilinearly.

    Raises:
        ModelError: where the prediction does not carry them.
        DataError: where they are not finite.
    """
    if layers:
        corners = prediction.align_corners
        found = [_layer(prediction, name, score) for name in layers]
        grids = [prediction.native_logits] if native else found
        grid = max((tuple(x.shape[-2:]) for x in grids), key=math.prod)
        parts = [_on_grid(layer, grid, corners) for layer in found]
        z = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    else:
        z = prediction.require_features(score).float()
    if not recording(z) and not bool(torch.isfinite(z.sum())) and not bool(torch.isfinite(z).all()):
        raise DataError(
            f"{score}: expected finite features, got NaN or infinity. Run the network in float32."
        )
    # A pixel's features side by side, as all that follows reads.
    rows = z.flatten(2).transpose(1, 2).contiguous()
    if scale == "unit":
        length: Tensor = torch.linalg.vector_norm(rows, dim=2, keepdim=True)
        rows = rows / length.clamp_min(torch.finfo(z.dtype).tiny)
    return rows.view(z.shape[0], *z.shape[-2:], z.shape[1]).permute(0, 3, 1, 2)


def native_labels(
    prediction: Prediction, label: Tensor, grid: tuple[int, ...] | None = None
) -> Tensor:
    """The label of the image pixel nearest to each native sample.

    Args:
        prediction: whose grid it is.
        label: `(B, H, W)`.
        grid: `(h, w)` of another grid that stands for the same area.

    Returns:
        `(B, h, w)` int64; samples in the padding are `OUTSIDE`.
    """
    (height, width), covered, corners = prediction.placement
    full = covered or (float(height), float(width))
    grid = tuple(prediction.native_logits.shape[-2:]) if grid is None else grid
    rows, columns = (nearest_pixels(count, span, corners) for count, span in zip(grid, full))
    inside = (rows < height)[:, None] & (columns < width)
    picked = label[:, rows.clamp_max(height - 1)][:, :, columns.clamp_max(width - 1)]
    return torch.where(inside.to(label.device), picked.long(), OUTSIDE)


def probabilities_on(prediction: Prediction, grid: tuple[int, ...]) -> Tensor:
    """`(B, C, h, w)` float32 in [0, 1], the softmax averaged over the cells of a grid."""
    p = prediction.native_logits.float().softmax(1)
    return p if tuple(p.shape[-2:]) == grid else F.interpolate(p, grid, mode="area")


def predicted_on(prediction: Prediction, grid: tuple[int, ...]) -> Tensor:
    """`(B, h, w)` int64, the class predicted in the cells of a grid."""
    prediction = prediction.classes_of or prediction
    if tuple(prediction.native_logits.shape[-2:]) == grid:
        return prediction.native_logits.argmax(1)
    return probabilities_on(prediction, grid).argmax(1)


def sure_labels(
    prediction: Prediction, label: Tensor | None, grid: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """The labelled cells of a grid, their labels, and how sure of these the network is.

    Args:
        prediction: of the network.
        label: `(B, H, W)`, below 0 for none; None takes the network's own classes.
        grid: `(h, w)`.

    Returns:
        Which cells are labelled, `(B, h, w)` bool; of these N the labels `(N,)` int64 and the
        probabilities that the network gives to them, `(N,)` float64 in [0, 1].
    """
    probabilities = probabilities_on(prediction, grid)
    found = native_labels(prediction, prediction.classes if label is None else label, grid)
    if label is None:
        found = probabilities.argmax(1).where(found != OUTSIDE, OUTSIDE)
    valid = found >= 0
    known = found[valid]
    own = probabilities.permute(0, 2, 3, 1)[valid].gather(1, known[:, None])[:, 0]
    return valid, known, own.double()


def native_extent(prediction: Prediction) -> tuple[int, int]:
    """Rows and columns of the native grid whose samples lie in the image, not in the padding."""
    (height, width), covered, corners = prediction.placement
    full = covered or (float(height), float(width))
    grid = prediction.native_logits.shape[-2:]
    rows, columns = (nearest_pixels(count, span, corners) for count, span in zip(grid, full))
    return int((rows < height).sum()), int((columns < width).sum())


def _layer(prediction: Prediction, name: str, score: str) -> Tensor:
    if name not in prediction.layers:
        raise ModelError(
            f"{score}: needs the output of the layer {name}, which this prediction does not carry. "
            f"Make it with segmenter.listening([{name!r}])."
        )
    return prediction.layers[name].float()


def _on_grid(z: Tensor, grid: tuple[int, ...], align_corners: bool) -> Tensor:
    if tuple(z.shape[-2:]) == grid:
        return z
    return F.interpolate(z, grid, mode="bilinear", align_corners=align_corners)
