"""The public data sets as they lie on disk, described as data.

Adding a data set is adding an entry to `LAYOUTS`. The data sets themselves belong to their
authors, whose terms stand on the homepage named with each. Class tables hold the raw label
values of every class, in index order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from doubtmap.datasets.dataset import VOID, ComponentSizes
from doubtmap.datasets.labels import LabelValues
from doubtmap.datasets.patterns import fields_of

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


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk and what its labels mean.

    Args:
        title: the data set in a few words.
        images: patterns of the images, see `patterns`, all of which count.
        labels: patterns of an image's label, filled from its fields; the first that exists is
            used. `{stem}`, `{folder}` and `{file}` of the image are fields too.
        values: what the values in a label file mean. Of palette files the index counts.
        listing: pattern of a text file that lists the `{frame}`s of a split.
        parts: splits by what the image's fields say: for each split, shell patterns by field, of
            which each field must match one. They come on top of those of a `{split}` in `images`.
        default_split: the split where none is asked for.
        component_sizes: the benchmark's component sizes, where it published any.
        only: of the images, those whose path matches this shell pattern, where any does.
        below: folders in which the data set may begin; the first in which it does counts.
        range: values that are black and white, in images of more than 8 bits.
        bands: that are red, green and blue, from 1.
        homepage: where the data and their terms of use are found.
        paper: title, authors, year, link.
    """

    title: str
    images: tuple[str, ...]
    labels: tuple[str, ...]
    values: LabelValues
    listing: str | None = None
    parts: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    default_split: str | None = None
    component_sizes: ComponentSizes | None = None
    only: str | None = None
    below: tuple[str, ...] = ("",)
    range: tuple[float, float] | None = None
    bands: tuple[int, ...] = ()
    homepage: str = ""
    paper: str = ""

    @property
    def has_splits(self) -> bool:
        """Whether the data set is divided, as into train, val and test."""
        return bool(self.parts) or self.splits_by_path

    @property
    def splits_by_path(self) -> bool:
        """Whether the paths of the images, or a list of them, name a split."""
        patterns = (self.listing,) if self.listing else self.images
        return any("split" in fields_of(pattern) for pattern in patterns)


_OBJECTS = ComponentSizes(predicted=500, labelled=100)
"""SegmentMeIfYouCan's sizes for anomalies anywhere in the image (SegEval-AnomalyTrack)."""


_OBSTACLES = ComponentSizes(predicted=50, labelled=10)
"""SegmentMeIfYouCan's sizes for obstacles on the road (SegEval-ObstacleTrack)."""


_ANOMALY_MASK = LabelValues(known=(0,), unknown=(1,), void=(255,))


_CITYSCAPES = Layout(
    title="Cityscapes, fine labels as labelIds",
    images=("leftImg8bit/{split}/{city}/{frame}_leftImg8bit.png",),
    labels=("gtFine/{split}/{city}/{frame}_gtFine_labelIds.png",),
    values=LabelValues(CITYSCAPES_IDS, void=CITYSCAPES_VOID_IDS),
    default_split="val",
    homepage="https://www.cityscapes-dataset.com",
    paper="The Cityscapes Dataset for Semantic Urban Scene Understanding, Cordts et al., 2016, "
    "https://arxiv.org/abs/1604.01685",
)


_SMIYC = Layout(
    title="SegmentMeIfYouCan RoadAnomaly21",
    # The distributed folder also holds the test images, whose labels are not public.
    images=("images/{frame}.{suffix}",),
    only="images/validation*",
    labels=("labels_masks/{stem}_labels_semantic.png", "labels_masks/{stem}.png"),
    values=_ANOMALY_MASK,
    component_sizes=_OBJECTS,
    homepage="https://segmentmeifyoucan.com",
    paper="SegmentMeIfYouCan: A Benchmark for Anomaly Segmentation, Chan et al., 2021, "
    "https://arxiv.org/abs/2104.14812",
)


LAYOUTS: dict[str, Layout] = {
    "camvid": Layout(
        title="CamVid, 11 classes, a folder of images and a folder of labels for each split",
        images=("{split}/{frame}.jpg", "{split}/{frame}.png"),
        labels=("{split}_labels/{frame}.png",),
        values=LabelValues(CAMVID, void=(11,)),
        default_split="test",
        homepage="http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
        paper="Semantic object classes in video: A high-definition ground truth database, "
        "Brostow, Fauqueur and Cipolla, 2009, https://doi.org/10.1016/j.patrec.2008.04.005",
    ),
    "cityscapes": _CITYSCAPES,
    "cityscapes-trainids": replace(
        _CITYSCAPES,
        title="Cityscapes, fine labels as labelTrainIds",
        labels=("gtFine/{split}/{city}/{frame}_gtFine_labelTrainIds.png",),
        values=LabelValues(CITYSCAPES_TRAIN_IDS, void=(255,)),
    ),
    "dubai": Layout(
        title="Aerial photographs of Dubai, labels as class indices",
        images=("images/{tile}_{frame}.jpg",),
        labels=("labels/{tile}_{frame}.png",),
        values=LabelValues(DUBAI, void=(255,)),
        # By tile, since the photographs of one tile are neighbours on the ground.
        parts={
            "train": {"tile": ("tile1", "tile2", "tile3", "tile6", "tile8")},
            "val": {"tile": ("tile5",)},
            "test": {"tile": ("tile4", "tile7")},
        },
        default_split="test",
        homepage="https://humansintheloop.org/resources/datasets/semantic-segmentation-dataset-2/",
        paper="Semantic Segmentation of Aerial Imagery, Humans in the Loop and MBRSC, 2020, "
        "https://humansintheloop.org/resources/datasets/semantic-segmentation-dataset-2/",
    ),
    "fishyscapes": Layout(
        title="Fishyscapes, validation",
        images=("images/{frame}_leftImg8bit.{suffix}", "images/{frame}.{suffix}"),
        # The distributed labels of Lost & Found carry a running number: 0001_FRAME_labels.png.
        labels=(
            "labels_masks/{stem}.png",
            "labels_masks/{frame}_labels.png",
            "labels_masks/????_{frame}_labels.png",
        ),
        values=_ANOMALY_MASK,
        component_sizes=_OBJECTS,
        homepage="https://fishyscapes.com",
        paper="The Fishyscapes Benchmark: Measuring Blind Spots in Semantic Segmentation, "
        "Blum et al., 2019, https://arxiv.org/abs/1904.03215",
    ),
    "lostandfound": Layout(
        title="Lost and Found, obstacles on the road",
        images=("leftImg8bit/{split}/{scene}/{frame}_leftImg8bit.{suffix}",),
        labels=("gtCoarse/{split}/{scene}/{frame}_gtCoarse_labelIds.png",),
        # 0 and whatever is not named is void, as SegmentMeIfYouCan reads these labels.
        values=LabelValues(known=(1,), unknown=tuple(range(2, 201)), other=VOID),
        default_split="test",
        component_sizes=_OBSTACLES,
        homepage="http://www.6d-vision.com/lostandfounddataset",
        paper="Lost and Found: Detecting Small Road Hazards for Self-Driving Vehicles, "
        "Pinggera et al., 2016, https://arxiv.org/abs/1609.04653",
    ),
    "roadanomaly": Layout(
        title="Road Anomaly of Lis et al.",
        # As the authors pack it, or as it is often passed on.
        images=("frames/{frame}.{suffix}", "images/{frame}.{suffix}"),
        labels=("frames/{frame}.labels/labels_semantic.png", "labels_masks/{frame}.png"),
        # The authors' code names 0 background, 1 road, 2 anomaly, and leaves no region out.
        values=LabelValues(known=(0, 1), unknown=(2,), other=VOID),
        homepage="https://www.epfl.ch/labs/cvlab/data/road-anomaly/",
        paper="Detecting the Unexpected via Image Resynthesis, Lis et al., 2019, "
        "https://arxiv.org/abs/1904.07595",
    ),
    "smiyc": _SMIYC,
    "smiyc-obstacle": replace(
        _SMIYC, title="SegmentMeIfYouCan RoadObstacle21", component_sizes=_OBSTACLES
    ),
    "streethazards": Layout(
        title="StreetHazards, simulated streets with foreign objects",
        # As unpacked (test/images/test/t5/...), or with the two top folders merged.
        images=("{part}/images/{split}/{town}/{path}.png", "images/{split}/{town}/{path}.png"),
        labels=(
            "{part}/annotations/{split}/{town}/{path}.png",
            "annotations/{split}/{town}/{path}.png",
        ),
        # The files hold the authors' numbers plus 1, so that their loader, which subtracts 1 and
        # leaves out -1, also learns number 0, `unlabeled`: it is the background, and a class
        # (https://github.com/hendrycks/anomaly-seg, issues 15 and 17). 14 is the anomaly.
        values=LabelValues(STREETHAZARDS, unknown=(14,), void=(0,)),
        # The towns of the test, each of which gives the other its threshold (docs/protocols.md).
        parts={town: {"split": ("test",), "town": (town,)} for town in ("t5", "t6")},
        default_split="test",
        homepage="https://github.com/hendrycks/anomaly-seg",
        paper="Scaling Out-of-Distribution Detection for Real-World Settings, Hendrycks et al., "
        "2022, https://arxiv.org/abs/1911.11132",
    ),
    "voc": Layout(
        title="Pascal VOC 2012 segmentation",
        images=("JPEGImages/{frame}.jpg",),
        labels=("SegmentationClass/{frame}.png",),
        values=LabelValues(VOC, void=(255,)),
        listing="ImageSets/Segmentation/{split}.txt",
        default_split="val",
        homepage="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        paper="The Pascal Visual Object Classes (VOC) Challenge, Everingham et al., 2010, "
        "https://doi.org/10.1007/s11263-009-0275-4",
    ),
}
"""Layouts by the name that `open_dataset` knows them under."""
