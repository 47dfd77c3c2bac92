import pytest

from doubtmap.datasets import KNOWN, LAYOUTS, UNKNOWN, VOID, Corrupted, Dataset, open_dataset
from doubtmap.datasets.pasting import parts_by
from doubtmap.errors import DataError

K, U, V = KNOWN, UNKNOWN, VOID

TREES = {
    "acdc": (
        "rgb_anon/fog/val/GOPR0476/GOPR0476_frame_000854_rgb_anon.png",
        "gt/fog/val/GOPR0476/GOPR0476_frame_000854_gt_labelIds.png",
        [[7, 8, 11], [33, 0, 29]],
        [[0, 1, 2], [18, V, V]],
    ),
    "ade20k": (
        "ADEChallengeData2016/images/validation/ADE_val_00000001.jpg",
        "ADEChallengeData2016/annotations/validation/ADE_val_00000001.png",
        [[0, 1, 2], [150, 3, 4]],
        [[V, 0, 1], [149, 2, 3]],
    ),
    "bdd100k": (
        "bdd100k/images/10k/val/7d06fefd.jpg",
        "bdd100k/labels/sem_seg/masks/val/7d06fefd.png",
        [[0, 1, 2], [18, 255, 255]],
        [[0, 1, 2], [18, V, V]],
    ),
    "camvid-colours": (
        "701_StillsRaw_full/0001TP_006690.png",
        "LabeledApproved_full/0001TP_006690_L.png",
        [[(64, 128, 64), (0, 0, 0), (192, 0, 128)], [(64, 192, 0), (128, 64, 128), (64, 0, 128)]],
        [[0, V, 1], [30, 17, 5]],
    ),
    "kitti": (
        "training/image_2/000000_10.png",
        "training/semantic/000000_10.png",
        [[7, 8, 11], [33, 0, 29]],
        [[0, 1, 2], [18, V, V]],
    ),
    "loveda": (
        "Val/Urban/images_png/3514.png",
        "Val/Urban/masks_png/3514.png",
        [[0, 1, 2], [7, 3, 4]],
        [[V, 0, 1], [6, 2, 3]],
    ),
    "potsdam": (
        "2_Ortho_RGB/top_potsdam_2_13_RGB.tif",
        "5_Labels_all_noBoundary/top_potsdam_2_13_label_noBoundary.tif",
        [[(255,) * 3, (0, 0, 255), (0, 255, 255)], [(0, 0, 0), (255, 255, 0), (255, 0, 0)]],
        [[0, 1, 2], [V, 4, 5]],
    ),
    "vistas": (
        "validation/images/abc.jpg",
        "validation/v1.2/labels/abc.png",
        [[0, 13, 64], [65, 1, 2]],
        [[0, 13, 64], [V, 1, 2]],
    ),
}
"""Data sets as their pages hand them out."""

CASES = TREES | {
    "ade-ood": (
        "ADE-OoD/images/ADE_val_00000001.jpg",
        "ADE-OoD/annotations/ADE_val_00000001_mask.png",
        [[0, 1, 255], [0, 0, 0]],
        [[K, U, V], [K, K, K]],
    ),
    "issu": (
        "ISSU-Test-Static/leftImg8bit/test/0/009599_leftImg8bit.png",
        "ISSU-Test-Static/gtFine_csT/test/0/009599_gtFine_csT.png",
        [[0, 1, 254], [18, 255, 3]],
        [[0, 1, U], [18, V, 3]],
    ),
    "muad": (
        "MUAD/val/leftImg8bit/003506_leftImg8bit.png",
        "MUAD/val/leftLabel/003506_leftLabel.png",
        [[0, 18, 19], [20, 21, 255]],
        [[0, 18, U], [U, V, V]],
    ),
    "oodis": (
        "fs_lost_found/leftImg8bit/test/02_Str/02_Str_000000_000030_leftImg8bit.png",
        "fs_lost_found/gtCoarse/test/02_Str/02_Str_000000_000030_gtCoarse_labelTrainIds.png",
        [[0, 1, 255], [2, 0, 0]],
        [[K, U, V], [V, K, K]],
    ),
    "cityscapes": (
        "leftImg8bit/val/ulm/ulm_000_leftImg8bit.png",
        "gtFine/val/ulm/ulm_000_gtFine_labelIds.png",
        [[7, 8, 11], [33, 0, 29]],
        [[0, 1, 2], [18, V, V]],
    ),
    "cityscapes-trainids": (
        "leftImg8bit/val/ulm/ulm_000_leftImg8bit.png",
        "gtFine/val/ulm/ulm_000_gtFine_labelTrainIds.png",
        [[0, 1, 2], [18, 255, 255]],
        [[0, 1, 2], [18, V, V]],
    ),
    "camvid": (
        "test/0001TP_1.jpg",
        "test_labels/0001TP_1.png",
        [[0, 3, 10], [11, 9, 8]],
        [[0, 3, 10], [V, 9, 8]],
    ),
    "dubai": (
        "images/tile7_003.jpg",
        "labels/tile7_003.png",
        [[0, 1, 2], [3, 4, 255]],
        [[0, 1, 2], [3, 4, V]],
    ),
    "smiyc": (
        "images/0.png",
        "labels_masks/0.png",
        [[0, 1, 255], [0, 0, 0]],
        [[K, U, V], [K, K, K]],
    ),
    "smiyc-obstacle": (
        "images/validation_1.webp",
        "labels_masks/validation_1_labels_semantic.png",
        [[0, 1, 255], [0, 0, 0]],
        [[K, U, V], [K, K, K]],
    ),
    "fishyscapes": (
        "images/04_Weg_000000_000030_leftImg8bit.png",
        "labels_masks/0001_04_Weg_000000_000030_labels.png",
        [[0, 1, 255], [0, 0, 0]],
        [[K, U, V], [K, K, K]],
    ),
    "lostandfound": (
        "leftImg8bit/test/02_Str/02_Str_000000_000030_leftImg8bit.png",
        "gtCoarse/test/02_Str/02_Str_000000_000030_gtCoarse_labelIds.png",
        [[0, 1, 2], [200, 201, 255]],
        [[V, K, U], [U, V, V]],
    ),
    "roadanomaly": (
        "frames/animals01.jpg",
        "frames/animals01.labels/labels_semantic.png",
        [[0, 1, 2], [0, 3, 255]],
        [[K, K, U], [K, V, V]],
    ),
    "streethazards": (
        "test/images/test/t5/300.png",
        "test/annotations/test/t5/300.png",
        [[1, 2, 13], [14, 0, 8]],
        [[0, 1, 12], [U, V, 7]],
    ),
    "voc": (
        "JPEGImages/2007_000033.jpg",
        "SegmentationClass/2007_000033.png",
        [[0, 1, 20], [255, 15, 0]],
        [[0, 1, 20], [V, 15, 0]],
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_labels_mean_what_the_layout_says(folder, name):
    image, label, raw, expected = CASES[name]
    folder.image(image)
    folder.label(label, raw, palette=name == "voc")
    folder.text("ImageSets/Segmentation/val.txt", "2007_000033\n")
    dataset = open_dataset(f"{name}:{folder.root}")
    sample = dataset[0]
    assert isinstance(dataset, Dataset)
    assert len(dataset) == 1
    assert sample.label.tolist() == expected
    assert sample.image.shape == (3, 2, 3)
    assert (str(sample.image.dtype), str(sample.label.dtype)) == ("torch.uint8", "torch.int16")
    assert sample.name == dataset.sample_name(0)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_names_its_source(name):
    layout = LAYOUTS[name]
    assert layout.homepage.startswith("http")
    assert "https://" in layout.paper
    assert layout.has_splits == bool(layout.default_split)
    values = [value for value, _, _ in layout.values.described()]
    assert len(values) == len(set(values))


def test_layouts_are_sorted():
    assert list(LAYOUTS) == sorted(LAYOUTS)


@pytest.mark.parametrize(
    ("name", "predicted", "labelled"),
    [
        ("smiyc", 500, 100),
        ("fishyscapes", 500, 100),
        ("smiyc-obstacle", 50, 10),
        ("lostandfound", 50, 10),
    ],
)
def test_published_component_sizes(name, predicted, labelled):
    sizes = LAYOUTS[name].component_sizes
    assert (sizes.predicted, sizes.labelled) == (predicted, labelled)


def test_cityscapes_classes():
    ids = LAYOUTS["cityscapes"].values
    train_ids = LAYOUTS["cityscapes-trainids"].values
    assert ids.class_names == train_ids.class_names
    assert len(ids.class_names) == 19
    assert ids.class_names[0] == "road" and ids.class_names[18] == "bicycle"
    assert {value for value, _, _ in ids.described()} == {*range(34), 255}


def test_distributed_smiyc_folder_leaves_unlabelled_test_images_out(folder):
    for stem in ("airplane0000", "validation0001", "validation0000"):
        folder.image(f"images/{stem}.jpg")
    for stem in ("validation0000", "validation0001"):
        folder.label(f"labels_masks/{stem}_labels_semantic.png", [[0, 1, 255]] * 2)
        folder.label(f"labels_masks/{stem}_labels_semantic_color.png", [[9, 9, 9]] * 2)
    dataset = open_dataset(f"smiyc:{folder.root}")
    assert [dataset.sample_name(i) for i in range(len(dataset))] == [
        "validation0000",
        "validation0001",
    ]


def test_road_anomaly_as_it_is_passed_on(folder):
    folder.image("images/animals01.jpg")
    folder.label("labels_masks/animals01.png", [[0, 1, 2], [0, 3, 255]])
    dataset = open_dataset(f"roadanomaly:{folder.root}")
    assert dataset[0].label.tolist() == [[K, K, U], [K, V, V]]


def test_streethazards_splits_lie_in_two_folders(folder):
    for part, split in (("train", "training"), ("train", "validation"), ("test", "test")):
        folder.image(f"{part}/images/{split}/t1/1.png")
        folder.image(f"{part}/images/{split}/t2/1.png")
        folder.label(f"{part}/annotations/{split}/t1/1.png", [[1, 1, 1]] * 2)
        folder.label(f"{part}/annotations/{split}/t2/1.png", [[2, 2, 2]] * 2)
    dataset = open_dataset(f"streethazards:{folder.root}:validation")
    assert dataset.name == "streethazards:validation"
    assert [dataset[i].label[0, 0].item() for i in range(len(dataset))] == [0, 1]
    names = [dataset.sample_name(i) for i in range(2)]
    assert len(set(names)) == 2
    assert not any("/" in name for name in names)


def test_streethazards_has_the_classes_of_its_authors():
    """13 of them: file value 1, number 0 in their table, is the background and is learnt."""
    values = LAYOUTS["streethazards"].values
    assert len(values.class_names) == 13
    assert [values.class_names[i] for i in (0, 3, 12)] == ["unlabeled", "other", "traffic sign"]
    assert (values.unknown, values.void) == ((14,), (0,))
    assert {value for value, _, _ in values.described()} == set(range(15))


def test_images_are_parted_by_any_field_of_their_paths(folder):
    for city, frame in (("ulm", "1"), ("bonn", "2"), ("ulm", "3")):
        folder.image(f"leftImg8bit/val/{city}/{frame}_leftImg8bit.png")
        folder.label(f"gtFine/val/{city}/{frame}_gtFine_labelIds.png", [[7, 7, 7]] * 2)
    dataset = open_dataset(f"cityscapes:{folder.root}")
    order = [dataset.sample_name(index) for index in range(3)]
    parts = parts_by(dataset, "city")
    assert {city: part.indices for city, part in parts.items()} == {"bonn": (0,), "ulm": (1, 2)}
    assert [parts["ulm"].sample_name(i) for i in range(2)] == order[1:]
    assert list(parts_by(Corrupted(dataset, "fog", 1), "city")) == ["bonn", "ulm"]
    assert parts_by(Corrupted(dataset, "fog", 1), "city")["ulm"].name.startswith(
        "cityscapes:val+fog"
    )
    assert parts_by(dataset, "town") == {}


def test_voc_reads_only_the_listed_images_of_the_split(folder):
    for stem in ("b", "a", "c"):
        folder.image(f"JPEGImages/{stem}.jpg")
        folder.label(f"SegmentationClass/{stem}.png", [[0, 0, 0]] * 2, palette=True)
    folder.text("ImageSets/Segmentation/train.txt", "b\na\n\n")
    dataset = open_dataset(f"voc:{folder.root}:train")
    assert [dataset.sample_name(i) for i in range(len(dataset))] == ["a", "b"]


@pytest.fixture
def tiles(folder):
    for tile in range(1, 9):
        for frame in ("001", "002"):
            folder.image(f"images/tile{tile}_{frame}.jpg")
            folder.label(f"labels/tile{tile}_{frame}.png", [[0, 1, 255]] * 2)
    return folder


def names(dataset):
    return [dataset.sample_name(index) for index in range(len(dataset))]


def test_dubai_is_split_by_tile(tiles):
    splits = {
        split: open_dataset(f"dubai:{tiles.root}:{split}") for split in LAYOUTS["dubai"].parts
    }
    assert list(splits) == ["train", "val", "test"]
    assert names(splits["val"]) == ["tile5_001", "tile5_002"]
    assert splits["val"].name == "dubai:val"
    found = [{name[:5] for name in names(split)} for split in splits.values()]
    assert sum(map(len, found)) == len(set.union(*found)) == 8
    assert names(open_dataset(f"dubai:{tiles.root}")) == names(splits["test"])


def test_a_split_that_no_part_is(tiles):
    with pytest.raises(DataError, match=r"split tile1.*Splits there: test, train, val\."):
        open_dataset(f"dubai:{tiles.root}:tile1")
    for path in (tiles.root / "images").glob("tile5*"):
        path.unlink()
    with pytest.raises(
        DataError, match=r"with tile tile5 or 5 \(dubai.*Splits there: test, train\."
    ):
        open_dataset(f"dubai:{tiles.root}:val")


def test_the_towns_of_streethazards(folder):
    for split, town in (("test", "t5"), ("test", "t6"), ("training", "t5")):
        folder.image(f"part/images/{split}/{town}/300.png")
        folder.label(f"part/annotations/{split}/{town}/300.png", [[1, 1, int(town[1])]] * 2)
    both = open_dataset(f"streethazards:{folder.root}:test")
    assert len(both) == 2
    for town in ("t5", "t6"):
        dataset = open_dataset(f"streethazards:{folder.root}:{town}")
        assert (len(dataset), dataset.name) == (1, f"streethazards:{town}")
        assert dataset[0].label[0, 2] == int(town[1]) - 1
        part = parts_by(both, "town")[town]
        assert (part.name, len(part), part.class_names) == (
            f"streethazards:test/{town}",
            1,
            both.class_names,
        )
        assert isinstance(part, Dataset)
        assert part.sample_name(0) == part[0].name == both.sample_name(town == "t6")
        assert (part[0].label == dataset[0].label).all()
        assert list(parts_by(dataset, "town")) == [town]
    with pytest.raises(DataError, match=r"Splits there: t5, t6, test, training\."):
        open_dataset(f"streethazards:{folder.root}:t1")


def test_issu_as_composed_and_as_converted(folder):
    """Its scripts copy both tests into one folder, by names that begin with which."""
    for part, half in (("Train", "val"), ("Test-Static", "test"), ("Test-Temporal", "test")):
        folder.image(f"ISSU-{part}/leftImg8bit/{half}/7/11_leftImg8bit.png")
        folder.label(f"ISSU-{part}/gtFine_csT/{half}/7/11_gtFine_csT.png", [[254] * 3] * 2)
    folder.image("ISSU-Test-Temporal-Clip/leftImg8bit/test/7/10_leftImg8bit.png")
    sizes = {
        s: len(open_dataset(f"issu:{folder.root}:{s}"))
        for s in LAYOUTS["issu"].parts
        if s != "train"
    }
    assert sizes == {"val": 1, "test": 2, "static": 1, "temporal": 1}
    for name in ("static_0_009599.png", "temporal_99_520.png"):
        folder.image(f"dataset_ISSUTrack/images/{name}")
        folder.label(f"dataset_ISSUTrack/labels_masks/{name}", [[0, 18, 254]] * 2)
    track = folder.root / "dataset_ISSUTrack"
    assert len(open_dataset(f"issu:{track}")) == 2
    temporal = open_dataset(f"issu:{track}:temporal")
    assert temporal[0].label.tolist() == [[0, 18, U]] * 2
