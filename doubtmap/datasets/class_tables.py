"""Class tables of the public data sets: the raw label values of every class, in index order."""

from __future__ import annotations

from doubtmap.datasets.labels import colour_value

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


DUBAI: dict[str, tuple[int, ...]] = {
    "land": (0, colour_value(0x84, 0x29, 0xF6)),
    "vegetation": (1, colour_value(0xFE, 0xDD, 0x3A)),
    "building": (2, colour_value(0x3C, 0x10, 0x98)),
    "road": (3, colour_value(0x6E, 0xC1, 0xE4)),
    "water": (4, colour_value(0xE2, 0xA9, 0x29)),
}
"""By the numbers that are often made of it, and by the colours in which it is handed out."""


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


CAMVID_COLOURS: dict[str, tuple[int, ...]] = {
    "Animal": (colour_value(64, 128, 64),),
    "Archway": (colour_value(192, 0, 128),),
    "Bicyclist": (colour_value(0, 128, 192),),
    "Bridge": (colour_value(0, 128, 64),),
    "Building": (colour_value(128, 0, 0),),
    "Car": (colour_value(64, 0, 128),),
    "CartLuggagePram": (colour_value(64, 0, 192),),
    "Child": (colour_value(192, 128, 64),),
    "Column_Pole": (colour_value(192, 192, 128),),
    "Fence": (colour_value(64, 64, 128),),
    "LaneMkgsDriv": (colour_value(128, 0, 192),),
    "LaneMkgsNonDriv": (colour_value(192, 0, 64),),
    "Misc_Text": (colour_value(128, 128, 64),),
    "MotorcycleScooter": (colour_value(192, 0, 192),),
    "OtherMoving": (colour_value(128, 64, 64),),
    "ParkingBlock": (colour_value(64, 192, 128),),
    "Pedestrian": (colour_value(64, 64, 0),),
    "Road": (colour_value(128, 64, 128),),
    "RoadShoulder": (colour_value(128, 128, 192),),
    "Sidewalk": (colour_value(0, 0, 192),),
    "SignSymbol": (colour_value(192, 128, 128),),
    "Sky": (colour_value(128, 128, 128),),
    "SUVPickupTruck": (colour_value(64, 128, 192),),
    "TrafficCone": (colour_value(0, 0, 64),),
    "TrafficLight": (colour_value(0, 64, 64),),
    "Train": (colour_value(192, 64, 128),),
    "Tree": (colour_value(128, 128, 0),),
    "Truck_Bus": (colour_value(192, 128, 192),),
    "Tunnel": (colour_value(64, 0, 64),),
    "VegetationMisc": (colour_value(192, 192, 0),),
    "Wall": (colour_value(64, 192, 0),),
}
"""CamVid's 31 classes by the colours in which its page hands them out; black is void."""


POTSDAM_COLOURS: dict[str, tuple[int, ...]] = {
    "impervious surface": (colour_value(255, 255, 255),),
    "building": (colour_value(0, 0, 255),),
    "low vegetation": (colour_value(0, 255, 255),),
    "tree": (colour_value(0, 255, 0),),
    "car": (colour_value(255, 255, 0),),
    "clutter": (colour_value(255, 0, 0),),
}
"""ISPRS's six classes; black, where there is any, is the border that does not count."""


ADE20K = numbered(
    "wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, "
    "sidewalk, person, earth, door, table, mountain, plant, curtain, chair, car, water, "
    "painting, sofa, shelf, house, sea, mirror, rug, field, armchair, seat, fence, desk, "
    "rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of "
    "drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, "
    "stairs, runway, case, pool table, pillow, screen door, stairway, river, bridge, "
    "bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop, stove, "
    "palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, "
    "towel, light, truck, tower, chandelier, awning, streetlight, booth, television receiver, "
    "airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, "
    "buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, "
    "swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, "
    "ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, "
    "screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, "
    "crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag",
    first=1,
)
"""The 150 classes of the scene-parsing benchmark; 0 is what has none."""


LOVEDA = numbered(
    "background, building, road, water, barren, forest, agricultural",
    first=1,
)
"""0 is no data."""


VISTAS = numbered(
    "Bird, Ground Animal, Curb, Fence, Guard Rail, Barrier, Wall, Bike Lane, Crosswalk - "
    "Plain, Curb Cut, Parking, Pedestrian Area, Rail Track, Road, Service Lane, Sidewalk, "
    "Bridge, Building, Tunnel, Person, Bicyclist, Motorcyclist, Other Rider, Lane Marking - "
    "Crosswalk, Lane Marking - General, Mountain, Sand, Sky, Snow, Terrain, Vegetation, "
    "Water, Banner, Bench, Bike Rack, Billboard, Catch Basin, CCTV Camera, Fire Hydrant, "
    "Junction Box, Mailbox, Manhole, Phone Booth, Pothole, Street Light, Pole, Traffic Sign "
    "Frame, Utility Pole, Traffic Light, Traffic Sign (Back), Traffic Sign (Front), Trash "
    "Can, Bicycle, Boat, Bus, Car, Caravan, Motorcycle, On Rails, Other Vehicle, Trailer, "
    "Truck, Wheeled Slow, Car Mount, Ego Vehicle"
)
"""Mapillary Vistas 1.2; 65 is unlabeled."""
