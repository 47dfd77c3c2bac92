"""What a meta model sees of a table: finite numbers, the same ones in fitting and in use."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from doubtmap.errors import DataError, ModelError
from doubtmap.metrics.accumulator import Array
from doubtmap.segments.table import SegmentTable


def inputs(table: SegmentTable, names: Sequence[str]) -> Array:
    """`(S, F)` float64, finite; an empty interior is given the values of the whole segment.

    Raises:
        ModelError: for a feature that the table lacks.
        DataError: for one that is not finite.
    """
    place = {name: at for at, name in enumerate(table.names)}
    missing = [name for name in names if name not in place]
    if missing:
        raise ModelError(
            f"segments: expected the features that the model was fitted to, but the table lacks "
            f"{', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}. Use the same scores "
            f"and a network with the same classes."
        )
    x = np.empty((len(table), len(names)))
    for at, name in enumerate(names):
        column = table.features[:, place[name]]
        whole = name.removesuffix("_interior")
        if whole != name and whole in place:
            column = np.where(np.isnan(column), table.features[:, place[whole]], column)
        x[:, at] = column
    if not np.isfinite(x).all():
        bad = names[int(np.flatnonzero(~np.isfinite(x).all(0))[0])]
        raise DataError(f"segments: expected finite features, got NaN or infinity in {bad}.")
    return x
