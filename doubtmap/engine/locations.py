"""Class means at distant places of the image, over a data set."""

from __future__ import annotations

import math

from doubtmap.datasets.dataset import Dataset
from doubtmap.engine.fit import before_last_activation
from doubtmap.engine.pairs import Pairs
from doubtmap.engine.run import Progress
from doubtmap.errors import DataError
from doubtmap.metrics.locations import LocationFigures, Locations
from doubtmap.prediction import Segmenter, listening_to
from doubtmap.scores.inner_features import Scale, inner_features, native_extent, native_labels


def locate(
    segmenter: Segmenter,
    dataset: Dataset,
    *,
    layer: str = "auto",
    scale: Scale = "unit",
    grid: int = 8,
    progress: Progress | None = None,
) -> LocationFigures:
    """Compare class means at distant places, the same class's with other classes'.

    Args:
        segmenter: the network.
        dataset: labelled images.
        layer: whose output the features are; `auto` and `classifier` as in fitting a density.
        scale: as in fitting a density.
        grid: cells along each side of the image.
        progress: told after each image.

    Raises:
        UsageError, ModelError, DataError: as fitting a density does.
        DataError: where no class is seen at two distant places.
    """
    if layer == "auto":
        layer = before_last_activation(segmenter) or "classifier"
    layers = () if layer == "classifier" else tuple(layer.split("+"))
    sums: Locations | None = None
    for prediction, label in Pairs(listening_to(segmenter, layers), dataset, progress=progress):
        z = inner_features(prediction, layers, scale, "locations")
        if sums is None:
            sums = Locations(prediction.native_logits.shape[1], z.shape[1], grid)
        sums.update(z, native_labels(prediction, label), native_extent(prediction))
    assert sums is not None
    figures = sums.figures()
    if not math.isfinite(figures.ratio):
        raise DataError(
            f"{dataset.name}: expected two classes with pixels enough at distant places, and "
            f"features that tell them apart, found none. Use more images, or a coarser --grid."
        )
    return figures
