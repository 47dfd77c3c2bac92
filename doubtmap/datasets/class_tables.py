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

DUBAI = numbered("land, vegetation, building, road, water")

VOC = numbered(
    "background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, "
    "dog, horse, motorbike, person, pottedplant, sheep, sofa, train, tvmonitor"
)

STREETHAZARDS = numbered(
    "unlabeled, building, fence, other, pedestrian, pole, road line, road, sidewalk, vegetation, "
    "car, wall, traffic sign",
    first=1,
)
"""The 13 classes that the authors train and test, by the values in the files. `unlabeled` is what
CARLA gave no class, such as the sky; `other` is void to those who follow Grcic and Segvic."""

COCO = tuple(
    numbered(
        "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, "
        "fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, "
        "elephant, bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, "
        "skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, "
        "tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, "
        "sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, "
        "potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, "
        "cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, "
        "teddy bear, hair drier, toothbrush"
    )
)
"""The 80 classes of COCO's objects, in the order of their numbers from 0."""

COCO_KIN: dict[str, tuple[str, ...]] = {
    "person": (
        *("person", "people", "pedestrian", "human", "rider", "bicyclist", "cyclist"),
        *("motorcyclist", "man", "woman", "child"),
    ),
    "bicycle": ("bicycle", "bike", "bicyclist", "cyclist", "two wheeler"),
    "car": ("car", "vehicle", "van"),
    "motorcycle": ("motorcycle", "motorbike", "motorcyclist", "two wheeler"),
    "airplane": ("airplane", "aeroplane", "plane", "aircraft"),
    "bus": ("bus", "car", "vehicle", "van"),
    "train": ("train", "tram", "vehicle", "on rails"),
    "truck": ("truck", "lorry", "car", "vehicle", "van"),
    "boat": ("boat", "ship"),
    "traffic light": ("traffic light", "sign", "signsymbol", "sign symbol"),
    "stop sign": ("sign", "signsymbol", "sign symbol"),
    "couch": ("couch", "sofa"),
    "potted plant": ("potted plant", "pottedplant", "plant", "vegetation", "tree"),
    "dining table": ("dining table", "diningtable", "table"),
    "tv": ("tv", "tvmonitor", "tv monitor", "television"),
    "cell phone": ("cell phone", "phone"),
}
"""Words in the name of a class which a network that has it knows this object by; others by their
own name. Data sets group vehicles and signs differently, so these are meant widely."""
