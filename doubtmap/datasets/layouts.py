"""The public data sets as they lie on disk, described as data.

Adding a data set is adding an entry to `LAYOUTS`. The data sets themselves belong to their
authors, whose terms stand on the homepage named with each. Class tables hold the raw label
values of every class, in index order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from doubtmap.datasets.class_tables import (
    ADE20K,
    CAMVID,
    CAMVID_COLOURS,
    CITYSCAPES_IDS,
    CITYSCAPES_TRAIN_IDS,
    CITYSCAPES_VOID_IDS,
    DUBAI,
    LOVEDA,
    POTSDAM_COLOURS,
    STREETHAZARDS,
    VISTAS,
    VOC,
)
from doubtmap.datasets.dataset import KNOWN, VOID, ComponentSizes
from doubtmap.datasets.labels import LabelValues, colour_value
from doubtmap.datasets.patterns import fields_of


@dataclass(frozen=True)
class Selection:
    """A split that is another without some of its images.

    Args:
        split: the other.
        without: shell patterns of the frames that are left out.
        numbers: of the images that are left out too, from 0, in the order of all frames.
        of: the images that the other must have for the numbers to mean anything.
    """

    split: str
    without: tuple[str, ...]
    numbers: tuple[int, ...] = ()
    of: int = 0


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
        without: shell patterns of paths of images that the benchmark leaves out.
        selections: further splits, which are others without some images.
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
    without: tuple[str, ...] = ()
    selections: Mapping[str, Selection] = field(default_factory=dict)
    below: tuple[str, ...] = ("",)
    range: tuple[float, float] | None = None
    bands: tuple[int, ...] = ()
    homepage: str = ""
    paper: str = ""

    @property
    def has_splits(self) -> bool:
        """Whether the data set is divided, as into train, val and test."""
        return bool(self.parts or self.selections) or self.splits_by_path

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


def _cityscapes_labels(kind: str) -> tuple[str, ...]:
    label = f"gtFine/{{split}}/{{city}}/{{frame}}_gtFine_{kind}.png"
    return label, f"gtFine_*/{label}"


_CITYSCAPES = Layout(
    title="Cityscapes, fine labels as labelIds",
    # The second of each: the two archives, unpacked into folders of their own names.
    images=(
        "leftImg8bit/{split}/{city}/{frame}_leftImg8bit.png",
        "leftImg8bit_*/leftImg8bit/{split}/{city}/{frame}_leftImg8bit.png",
    ),
    labels=_cityscapes_labels("labelIds"),
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


_NO_KNOWN = Selection(
    split="test",
    without=(
        "15_Rechbergstr_Deckenpfronn*",
        "01_Hanns_Klemm_Str_45_00000[67]*",
        "10_Schlossberg_9_000004*",
    ),
    numbers=(*(17, 37, 55, 72, 91, 110, 129, 153, 174, 197, 218, 353, 490, 618, 686, 792, 793),),
    of=1203,
)
"""SegmentMeIfYouCan's LostAndFound-testNoKnown: without children and bicycles, and without the
frames that have no label, which its code lists by number (1,043 frames of 1,203)."""


_CAMVID = Layout(
    title="CamVid, 11 classes, a folder of images and a folder of labels for each split",
    images=("{split}/{frame}.jpg", "{split}/{frame}.png"),
    labels=("{split}_labels/{frame}.png", "{split}annot/{frame}.png"),
    values=LabelValues(CAMVID, void=(11,)),
    default_split="test",
    below=("", "CamVid"),
    homepage="http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
    paper="Semantic object classes in video: A high-definition ground truth database, "
    "Brostow, Fauqueur and Cipolla, 2009, https://doi.org/10.1016/j.patrec.2008.04.005",
)


LAYOUTS: dict[str, Layout] = {
    "acdc": Layout(
        title="ACDC, streets in fog, night, rain and snow",
        images=("rgb_anon/{condition}/{split}/{sequence}/{frame}_rgb_anon.png",),
        labels=("gt/{condition}/{split}/{sequence}/{frame}_gt_labelIds.png",),
        values=LabelValues(CITYSCAPES_IDS, void=CITYSCAPES_VOID_IDS),
        default_split="val",
        homepage="https://acdc.vision.ee.ethz.ch",
        paper="ACDC: The Adverse Conditions Dataset with Correspondences for Semantic Driving "
        "Scene Understanding, Sakaridis, Dai and Van Gool, 2021, https://arxiv.org/abs/2104.13395",
    ),
    # As the authors' configuration and evaluation have it
    # (https://github.com/lmb-freiburg/diffusion-for-ood, configs/datasets/test/ade_ood.py).
    "ade-ood": Layout(
        title="ADE-OoD, unknown things in everyday photographs",
        images=("images/{frame}.jpg",),
        labels=("annotations/{frame}_mask.png",),
        values=LabelValues(unknown=(1,), void=(255,), other=KNOWN),
        below=("", "ADE-OoD"),
        homepage="https://ade-ood.github.io",
        paper="Diffusion for Out-of-Distribution Detection on Road Scenes and Beyond, Galesso et "
        "al., 2024, https://arxiv.org/abs/2407.15739",
    ),
    "ade20k": Layout(
        title="ADE20K scene parsing, 150 classes",
        images=("images/{split}/{frame}.jpg",),
        labels=("annotations/{split}/{frame}.png",),
        values=LabelValues(ADE20K, void=(0,)),
        default_split="validation",
        below=("", "ADEChallengeData2016"),
        homepage="https://groups.csail.mit.edu/vision/datasets/ADE20K/",
        paper="Scene Parsing through ADE20K Dataset, Zhou et al., 2017, "
        "https://doi.org/10.1109/CVPR.2017.544",
    ),
    "bdd100k": Layout(
        title="BDD100K semantic segmentation",
        images=("images/10k/{split}/{frame}.jpg",),
        labels=("labels/sem_seg/masks/{split}/{frame}.png",),
        values=LabelValues(CITYSCAPES_TRAIN_IDS, void=(255,)),
        default_split="val",
        below=("", "bdd100k"),
        homepage="https://www.vis.xyz/bdd100k/",
        paper="BDD100K: A Diverse Driving Dataset for Heterogeneous Multitask Learning, Yu et al., "
        "2020, https://arxiv.org/abs/1805.04687",
    ),
    "camvid": _CAMVID,
    "camvid-colours": replace(
        _CAMVID,
        title="CamVid as its page hands it out, 31 classes in colours",
        images=("701_StillsRaw_full/{frame}.png",),
        labels=("LabeledApproved_full/{frame}_L.png",),
        values=LabelValues(CAMVID_COLOURS, void=(colour_value(0, 0, 0),)),
        default_split=None,
        below=("",),
    ),
    "cityscapes": _CITYSCAPES,
    "cityscapes-trainids": replace(
        _CITYSCAPES,
        title="Cityscapes, fine labels as labelTrainIds",
        labels=_cityscapes_labels("labelTrainIds"),
        values=LabelValues(CITYSCAPES_TRAIN_IDS, void=(255,)),
    ),
    "dubai": Layout(
        title="Aerial photographs of Dubai, labels as class indices or as colours",
        images=("images/{tile}_{frame}.jpg", "Tile {tile}/images/{frame}.jpg"),
        labels=("labels/{tile}_{frame}.png", "Tile {tile}/masks/{frame}.png"),
        values=LabelValues(DUBAI, void=(255, colour_value(0x9B, 0x9B, 0x9B))),
        below=("", "Semantic segmentation dataset"),
        # By tile, since the photographs of one tile are neighbours on the ground.
        parts={
            "train": {
                "tile": ("tile1", "tile2", "tile3", "tile6", "tile8", "1", "2", "3", "6", "8")
            },
            "val": {"tile": ("tile5", "5")},
            "test": {"tile": ("tile4", "tile7", "4", "7")},
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
    # As its scripts compose it, or as they then convert it for the benchmark
    # (https://github.com/vojirt/benchmark_issu, benchmark/datasets/scripts and tracks.py).
    "issu": Layout(
        title="ISSU, Indian streets with classes and unknown things",
        images=(
            "ISSU-{part}/leftImg8bit/{half}/{sequence}/{frame}_leftImg8bit.png",
            "images/{part}_{sequence}_{frame}.png",
        ),
        labels=(
            "ISSU-{part}/gtFine_csT/{half}/{sequence}/{frame}_gtFine_csT.png",
            "labels_masks/{stem}.png",
        ),
        values=LabelValues(CITYSCAPES_TRAIN_IDS, unknown=(254,), void=(255,)),
        parts={
            "train": {"part": ("Train",), "half": ("train",)},
            "val": {"part": ("Train",), "half": ("val",)},
            "test": {"part": ("Test-Static", "Test-Temporal", "static*", "temporal*")},
            "static": {"part": ("Test-Static", "static*")},
            "temporal": {"part": ("Test-Temporal", "temporal*")},
        },
        default_split="test",
        below=("", "ISSU_datasets", "dataset_ISSUTrack"),
        homepage="https://github.com/vojirt/benchmark_issu",
        paper="A Dataset for Semantic Segmentation in the Presence of Unknowns, Laskar et al., "
        "2025, https://arxiv.org/abs/2503.22309",
    ),
    "kitti": Layout(
        title="KITTI semantic segmentation",
        images=("training/image_2/{frame}.png",),
        labels=("training/semantic/{frame}.png",),
        values=LabelValues(CITYSCAPES_IDS, void=CITYSCAPES_VOID_IDS),
        below=("", "data_semantics"),
        homepage="https://www.cvlibs.net/datasets/kitti/eval_semseg.php?benchmark=semantics2015",
        paper="Augmented Reality Meets Computer Vision, Alhaija et al., 2018, "
        "https://arxiv.org/abs/1708.01566",
    ),
    "lostandfound": Layout(
        title="Lost and Found, obstacles on the road",
        images=("leftImg8bit/{split}/{scene}/{frame}_leftImg8bit.{suffix}",),
        labels=("gtCoarse/{split}/{scene}/{frame}_gtCoarse_labelIds.png",),
        # 0 and whatever is not named is void, as SegmentMeIfYouCan reads these labels.
        values=LabelValues(known=(1,), unknown=tuple(range(2, 201)), other=VOID),
        selections={"testNoKnown": _NO_KNOWN},
        default_split="test",
        component_sizes=_OBSTACLES,
        homepage="http://www.6d-vision.com/lostandfounddataset",
        paper="Lost and Found: Detecting Small Road Hazards for Self-Driving Vehicles, "
        "Pinggera et al., 2016, https://arxiv.org/abs/1609.04653",
    ),
    "loveda": Layout(
        title="LoveDA, aerial photographs of towns and country",
        images=("{split}/{area}/images_png/{frame}.png",),
        labels=("{split}/{area}/masks_png/{frame}.png",),
        values=LabelValues(LOVEDA, void=(0,)),
        default_split="Val",
        homepage="https://github.com/Junjue-Wang/LoveDA",
        paper="LoveDA: A Remote Sensing Land-Cover Dataset for Domain Adaptive Semantic "
        "Segmentation, Wang et al., 2021, https://arxiv.org/abs/2110.08733",
    ),
    # As its download unpacks (classes: https://github.com/ENSTA-U2IS-AI/MUAD-Dataset; folders and
    # void: MUAD in https://github.com/torch-uncertainty/torch-uncertainty). 19 and 20 are animals
    # and rubbish, which no training image shows.
    "muad": Layout(
        title="MUAD, drawn streets with many kinds of doubt",
        images=("{split}/leftImg8bit/{frame}_leftImg8bit.png",),
        labels=("{split}/leftLabel/{frame}_leftLabel.png",),
        values=LabelValues(CITYSCAPES_TRAIN_IDS, unknown=(19, 20), void=(21, 255)),
        default_split="val",
        below=("", "MUAD", "MUAD_small"),
        homepage="https://muad-dataset.github.io",
        paper="MUAD: Multiple Uncertainties for Autonomous Driving, Franchi et al., 2022, "
        "https://arxiv.org/abs/2203.01437",
    ),
    # The part whose folders are documented (https://github.com/kumuji/ugains, README and
    # fishyscapes_lost_found.py); those of SegmentMeIfYouCan are its own, for `smiyc`.
    "oodis": Layout(
        title="OoDIS, objects of Fishyscapes Lost & Found",
        images=("fs_lost_found/leftImg8bit/{split}/{path}_leftImg8bit.png",),
        labels=("fs_lost_found/gtCoarse/{split}/{path}_gtCoarse_labelTrainIds.png",),
        values=LabelValues(known=(0,), unknown=(1,), void=(2, 255)),
        default_split="test",
        component_sizes=_OBJECTS,
        below=("", "data"),
        homepage="https://vision.rwth-aachen.de/oodis",
        paper="OoDIS: Anomaly Instance Segmentation and Detection Benchmark, Nekrasov et al., 2024,"
        " https://arxiv.org/abs/2406.11835",
    ),
    "potsdam": Layout(
        title="ISPRS Potsdam, orthophotos in RGB",
        images=("2_Ortho_RGB/top_potsdam_{tile}_RGB.tif",),
        labels=(
            "5_Labels_all/top_potsdam_{tile}_label.tif",
            "5_Labels_all_noBoundary/top_potsdam_{tile}_label_noBoundary.tif",
            "5_Labels_for_participants/top_potsdam_{tile}_label.tif",
        ),
        values=LabelValues(POTSDAM_COLOURS, void=(colour_value(0, 0, 0),)),
        # The benchmark's: what it kept back, and what it gave to participants.
        parts={
            "train": {"tile": ("[23456]_1[012]", "7_1[012]", "[67]_[789]")},
            "test": {"tile": ("[2347]_13", "[234]_14", "4_15", "5_1[345]", "6_1[345]")},
        },
        default_split="test",
        homepage="https://www.isprs.org/education/benchmarks/UrbanSemLab/2d-sem-label-potsdam.aspx",
        paper="The ISPRS benchmark on urban object classification and 3D building reconstruction, "
        "Rottensteiner et al., 2012, https://doi.org/10.5194/isprsannals-I-3-293-2012",
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
        _SMIYC,
        title="SegmentMeIfYouCan RoadObstacle21",
        component_sizes=_OBSTACLES,
        # As the benchmark's own code leaves them out of ObstacleTrack-validation.
        without=("images/validation_19*", "images/validation_2[1-9]*"),
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
    "vistas": Layout(
        title="Mapillary Vistas 1.2, 65 classes",
        images=("{split}/images/{frame}.jpg",),
        labels=("{split}/v1.2/labels/{frame}.png", "{split}/labels/{frame}.png"),
        values=LabelValues(VISTAS, void=(65,)),
        default_split="validation",
        homepage="https://www.mapillary.com/dataset/vistas",
        paper="The Mapillary Vistas Dataset for Semantic Understanding of Street Scenes, Neuhold "
        "et al., 2017, https://doi.org/10.1109/ICCV.2017.534",
    ),
    "voc": Layout(
        title="Pascal VOC 2012 segmentation",
        images=("JPEGImages/{frame}.jpg",),
        labels=("SegmentationClass/{frame}.png",),
        values=LabelValues(VOC, void=(255,)),
        listing="ImageSets/Segmentation/{split}.txt",
        default_split="val",
        below=("", "VOC2012", "VOCdevkit/VOC2012", "VOCtrainval_11-May-2012/VOCdevkit/VOC2012"),
        homepage="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        paper="The Pascal Visual Object Classes (VOC) Challenge, Everingham et al., 2010, "
        "https://doi.org/10.1007/s11263-009-0275-4",
    ),
}
"""Layouts by the name that `open_dataset` knows them under."""
