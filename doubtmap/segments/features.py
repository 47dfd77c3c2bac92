"""What a segment looks like in the doubt maps: the inputs of meta classification.

Reference:
    Prediction Error Meta Classification in Semantic Segmentation: Detection via Aggregated
    Dispersion Measures of Softmax Probabilities (Rottmann et al., 2020),
    https://arxiv.org/abs/1811.00648; with variances for every score, as Maag and Riedlinger
    (2024), https://arxiv.org/abs/2303.06920, have them for gradient norms.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from doubtmap.errors import DataError, UsageError
from doubtmap.kernels import moments, summed_probabilities
from doubtmap.metrics.accumulator import Array
from doubtmap.prediction import Prediction
from doubtmap.segments.partition import Partition
from doubtmap.segments.table import SegmentTable

SIZES = ("size", "size_interior", "size_edge", "size_relative", "size_interior_relative")
OF_A_SCORE = tuple(
    f"{kind}{part}"
    for kind in ("mean", "variance")
    for part in ("", "_interior", "_edge", "_relative", "_interior_relative")
)
"""Of each score: mean and variance over the segment, its interior and its edge, and those of the
segment and the interior times size / size of the edge."""


def segment_table(
    prediction: Prediction, maps: Mapping[str, Tensor], partition: Partition | None = None
) -> SegmentTable:
    """The segments of one image, with their features.

    In one labelled pass over the maps and one over the native logits, whose full-size
    probabilities are not kept where the pass is compiled.

    Args:
        prediction: of one image.
        maps: `(H, W)` by score, as `engine.observation.score_maps` gives them.
        partition: of `prediction.classes[0]`, if it is there already.

    Returns:
        A row for each segment: sizes in pixels, `SCORE:mean` and the like for each score, and
        `probability:CLASS`, the mean probabilities.

    Raises:
        UsageError: for several images, or maps of another size.
        DataError: for maps that are not finite.
    """
    if len(prediction.native_logits) != 1:
        raise UsageError(
            f"segment_table: expected the prediction of one image, got "
            f"{len(prediction.native_logits)}. Predict one after the other."
        )
    for name, map_ in maps.items():
        if tuple(map_.shape) != prediction.size:
            raise UsageError(
                f"segment_table: expected {name} of the image's size {prediction.size}, got "
                f"{tuple(map_.shape)}."
            )
    found = Partition.of(prediction.classes[0]) if partition is None else partition
    if tuple(found.labels.shape) != prediction.size:
        raise UsageError(
            f"segment_table: expected the partition of this image, of size {prediction.size}, got "
            f"{tuple(found.labels.shape)}."
        )
    labels, count = found.labels, len(found)
    sums = moments(labels, found.edge, list(maps.values()), count).numpy()
    if not np.isfinite(sums).all():
        raise DataError("segment_table: expected finite scores, got NaN or infinity.")
    shares = summed_probabilities(prediction.native_logits, labels, count, *prediction.placement)
    size = found.sizes.sum(1).astype(float)
    relative = size / found.sizes[:, 1], found.sizes[:, 0] / found.sizes[:, 1]
    columns = [size, *found.sizes.T, *relative]
    names = list(SIZES)
    for at, name in enumerate(maps):
        names += [f"{name}:{kind}" for kind in OF_A_SCORE]
        columns += _of_a_score(sums[:, :, at], found.sizes, *relative)
    classes = prediction.native_logits.shape[1]
    names += [f"probability:{k}" for k in prediction.class_names or range(classes)]
    columns += list((shares.numpy() / size[:, None]).T)
    return SegmentTable(
        tuple(names),
        np.stack(columns, 1),
        np.arange(count),
        found.classes,
        found.boxes,
        np.zeros(count, np.int64),
        prediction.class_names,
    )


def _of_a_score(sums: Array, sizes: Array, relative: Array, interior: Array) -> list[Array]:
    """Columns in the order of `OF_A_SCORE`.

    Args:
        sums: `(S, 2, 2)` segment, interior or edge, first or second power.
        sizes: `(S, 2)` pixels.
        relative: `(S,)` size by size of the edge.
        interior: `(S,)` size of the interior by that of the edge.
    """
    whole, whole_size = sums.sum(1), sizes.sum(1)
    columns: list[Array] = []
    means = []
    for total, size in ((whole, whole_size), (sums[:, 0], sizes[:, 0]), (sums[:, 1], sizes[:, 1])):
        with np.errstate(invalid="ignore"):
            means.append(total / size[:, None])
    for power in range(2):
        parts = [m[:, 0] if power == 0 else np.maximum(m[:, 1] - m[:, 0] ** 2, 0) for m in means]
        columns += [*parts, parts[0] * relative, np.where(sizes[:, 0], parts[1], 0) * interior]
    return columns
