"""Class tables of the public data sets: the raw label values of every class, in index order."""

from __future__ import annotations

CITYSCAPES_IDS: dict[str, tuple[int, ...]] = {
    "road": (7,),
    "sidewalk": (8,),
    "building": (11,),
    "wall": (12,),
    "fence": (13,),
    "pole": (17,),
    "traffic light": (19,),
    "traffic sign": (20,),
    "vegetation": (21,),
    "terrain": (22,),
    "sky": (23,),
    "person": (24,),
    "rider": (25,),
    "car": (26,),
    "truck": (27,),
    "bus": (28,),
    "train": (31,),
    "motorcycle": (32,),
    "bicycle": (33,),
}
"""The 19 classes that the Cityscapes benchmark evaluates, by `labelIds`."""

CITYSCAPES_VOID_IDS = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, 255)
"""The Cityscapes `labelIds` that the benchmark leaves out."""


def numbered(names: str, first: int = 0) -> dict[str, tuple[int, ...]]:
    """Comma-separated class names with consecutive values from `first`.

    Example:
        >>> numbered("sky, road", first=1)
        {'sky': (1,), 'road': (2,)}
    """
    return {name.strip(): (value,) for value, name in enumerate(names.split(","), first)}


CITYSCAPES_TRAIN_IDS = numbered(", ".join(CITYSCAPES_IDS))

CAMVID = numbered(
    "sky, building, pole, road, pavement, tree, signsymbol, fence, car, pedestrian, bicyclist"
)

VOC = numbered(
    "background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, "
    "dog, horse, motorbike, person, pottedplant, sheep, sofa, train, tvmonitor"
)

STREETHAZARDS = numbered(
    "unlabeled, building, fence, other, pedestrian, pole, road line, road, sidewalk, vegetation, "
    "car, wall, traffic sign",
    first=1,
)
