"""How far apart the surfaces of two bodies are, in the units of their volume.

A surface is the voxels of a body that have a neighbour outside of it, edges counting as outside;
each distance is from a voxel of one surface to the nearest of the other, by the voxels' spacing.

References:
    Metrics Reloaded (Maier-Hein, Reinke et al., 2024), https://doi.org/10.1038/s41592-023-02151-z
    Deep learning to achieve clinically applicable segmentation of head and neck anatomy (Nikolov et
    al., 2018), https://arxiv.org/abs/1809.04430: the surface Dice at a tolerance
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SURFACE = ("surface_dice", "surface_distance", "hd95")
"""Figures of two surfaces: Dice at a tolerance, mean distance, and that of 95 % of them."""
Mask = NDArray[np.bool_]


def surface_figures(
    predicted: Mask, labelled: Mask, spacing: Sequence[float], tolerance: float
) -> dict[str, float | None]:
    """Compare a predicted body with the labelled one.

    `surface_dice` is the share of both surfaces that lies within the tolerance of the other;
    `surface_distance` the mean of all distances, both ways; `hd95` the larger of the two 95th
    percentiles, one a way.

    Args:
        predicted: `(a, b, c)`, or of any number of axes.
        labelled: likewise.
        spacing: of voxels along each axis.
        tolerance: in the same units.

    Returns:
        None for all where there is neither body; where there is one, `surface_dice` is 0 and
        there are no distances.

    Example:
        >>> body = np.zeros((8, 8), bool); body[2:5, 2:5] = True
        >>> surface_figures(body, np.roll(body, 1, 0), (3, 1), 1)
        {'surface_dice': 0.625, 'surface_distance': 1.25, 'hd95': 3.0}
    """
    if not predicted.any() and not labelled.any():
        return dict.fromkeys(SURFACE)
    if not (predicted.any() and labelled.any()):
        return {"surface_dice": 0.0, "surface_distance": None, "hd95": None}
    around = ndimage.find_objects((predicted | labelled).astype(np.uint8))[0]
    ours, theirs = surface(predicted[around]), surface(labelled[around])
    there, back = (_distances(*pair, spacing) for pair in ((ours, theirs), (theirs, ours)))
    both = np.concatenate([there, back])
    return {
        "surface_dice": float((both <= tolerance).mean()),
        "surface_distance": float(both.mean()),
        "hd95": float(max(np.percentile(there, 95), np.percentile(back, 95))),
    }


def surface(body: Mask) -> Mask:
    """The voxels of a body that share a face with one outside of it."""
    inner: Mask = ndimage.binary_erosion(body)
    return body & ~inner


def _distances(of: Mask, to: Mask, spacing: Sequence[float]) -> NDArray[np.float64]:
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(~to, spacing)
    return distance[of]
