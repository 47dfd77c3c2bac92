"""Objects in the JSON that COCO's tools read.

A polygon of COCO has no holes: an object with holes is written as run lengths. Coordinates are
pixel edges, the image's upper left corner being 0, 0, as COCO's own rasteriser has it.

Reference:
    Microsoft COCO: Common Objects in Context (Lin et al., 2014), https://arxiv.org/abs/1405.0312;
    the format: https://cocodataset.org/#format-data
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from doubtmap.errors import UsageError
from doubtmap.objects.find import UnknownObject
from doubtmap.objects.polygons import Polygon

Encoding = Literal["polygon", "rle"]
CATEGORY = {"id": 1, "name": "unknown", "supercategory": "unknown"}
"""What all objects are; the predicted class is a field of the annotation."""


def check_encoding(encoding: str) -> Encoding:
    """The encoding, where there is such a one.

    Raises:
        UsageError: for another.
    """
    if encoding not in get_args(Encoding):
        raise UsageError(
            f"encoding: expected one of {', '.join(get_args(Encoding))}, got {encoding}."
        )
    return encoding  # type: ignore[return-value]


def annotation(
    thing: UnknownObject,
    shape: Sequence[Polygon],
    size: tuple[int, int],
    class_names: Sequence[str] = (),
    encoding: Encoding = "polygon",
) -> dict[str, Any]:
    """One object as COCO has it, without `id` and `image_id`.

    Args:
        thing: the object.
        shape: its outlines, exact or simplified.
        size: height and width of the image.
        class_names: of the network, or empty.
        encoding: `polygon`, with run lengths where there are holes, or `rle` for run lengths
            always; run lengths are always of the exact mask.

    Returns:
        `bbox` as left, top, width, height; `area` in pixels, of the exact mask; `segmentation`;
        `score`, the mean over the pixels; and, of our own, `score_max`, `predicted_class` and
        `predicted_share`; and `probability`, where it is known.
    """
    polygons = encoding == "polygon" and not any(polygon.holes for polygon in shape)
    segmentation: Any = (
        [polygon.outer[:-1].reshape(-1).tolist() for polygon in shape]
        if polygons
        else run_lengths(thing, size)
    )
    return {
        "category_id": CATEGORY["id"],
        "bbox": list(thing.box),
        "area": thing.area,
        "segmentation": segmentation,
        "iscrowd": 0,
        "score": thing.score_mean,
        **described(thing, class_names),
    }


def described(thing: UnknownObject, class_names: Sequence[str] = ()) -> dict[str, Any]:
    """What the formats have no field for: highest score, what the network says, P(unknown)."""
    known = thing.predicted < len(class_names)
    likely = {} if thing.probability is None else {"probability": thing.probability}
    return {
        **likely,
        "score_max": thing.score_max,
        "predicted_class": class_names[thing.predicted] if known else str(thing.predicted),
        "predicted_share": thing.predicted_share,
    }


def run_lengths(thing: UnknownObject, size: tuple[int, int]) -> dict[str, list[int]]:
    """The mask as lengths of runs, down the columns, off and on in turn, first off.

    Args:
        thing: the object.
        size: height and width of the image.

    Returns:
        `size` and `counts`, uncompressed, as COCO's mask tools take them.

    Example:
        >>> mask = np.array([[True, False], [True, True]])
        >>> run_lengths(UnknownObject((0, 0, 2, 2), 3, 1.0, 1.0, 0, 1.0, mask), (2, 3))
        {'size': [2, 3], 'counts': [0, 2, 1, 1, 2]}
    """
    height, width = size
    left, top, wide, _ = thing.box
    # a row of False above and below each column, so that runs start and end within it
    columns = np.pad(thing.mask.T, ((0, 0), (1, 1))).astype(np.int8)
    change = np.diff(columns, axis=1)
    offset = (left + np.arange(wide)) * height + top
    starts, ends = (
        offset[column] + row for column, row in (np.nonzero(change == way) for way in (1, -1))
    )
    apart = np.append(
        True, starts[1:] != ends[:-1]
    )  # from one column's foot to the next one's head
    starts, ends = starts[apart], ends[np.append(apart[1:], True)]
    edges = np.stack([starts, ends], 1).reshape(-1)
    counts = np.diff(edges, prepend=0, append=height * width).tolist()
    return {"size": [height, width], "counts": counts if counts[-1] else counts[:-1]}
