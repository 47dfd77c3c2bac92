import pickle
import sys
import types

import pytest

from doubtmap.datasets import open_dataset
from doubtmap.datasets.dataset import VOID
from doubtmap.datasets.opening import open_images, path_and_split
from doubtmap.errors import DataError, UsageError


@pytest.fixture
def camvid(folder):
    for split in ("train", "test"):
        folder.image(f"{split}/a.jpg")
        folder.label(f"{split}_labels/a.png", [[0, 1, 11]] * 2)
    return folder


def test_the_default_split_and_a_named_one(camvid):
    assert open_dataset(f"camvid:{camvid.root}").name == "camvid:test"
    assert open_dataset(f"camvid:{camvid.root}:train").name == "camvid:train"
    assert open_dataset(f"camvid:{camvid.root}/:train").name == "camvid:train"


def test_order_is_by_name_whatever_the_file_system_says(folder):
    for stem in ("b", "c", "a"):
        folder.image(f"images/{stem}.png")
        folder.label(f"labels_masks/{stem}.png", [[0, 0, 0]] * 2)
    dataset = open_dataset(f"smiyc:{folder.root}")
    assert [dataset.sample_name(i) for i in range(3)] == ["a", "b", "c"]


def test_a_data_set_travels_to_another_process(camvid):
    dataset = open_dataset(f"camvid:{camvid.root}")
    before = dataset[0].label
    assert pickle.loads(pickle.dumps(dataset))[0].label.equal(before)


def test_hidden_files_are_left_out(camvid):
    camvid.text("test/._a.jpg", "of an archive")
    assert len(open_dataset(f"camvid:{camvid.root}")) == 1


def test_names_are_unique_even_where_stems_are_not(folder):
    for city in ("ulm", "bonn"):
        folder.image(f"leftImg8bit/val/{city}/1_leftImg8bit.png")
        folder.label(f"gtFine/val/{city}/1_gtFine_labelIds.png", [[0, 0, 0]] * 2)
    dataset = open_dataset(f"cityscapes:{folder.root}")
    assert [dataset.sample_name(i) for i in range(2)] == [
        "leftImg8bit__val__bonn__1_leftImg8bit",
        "leftImg8bit__val__ulm__1_leftImg8bit",
    ]


def test_names_differ_by_suffix_where_only_that_differs(folder):
    folder.image("images/a.png")
    folder.image("images/a.jpg")
    for suffix in ("png", "jpg"):
        folder.label(f"labels/images/a.{suffix}.png", [[0, 0, 0]] * 2)
    folder.text("doubtmap.toml", 'images="images/*"\nlabels="labels/{file}.png"\nknown=0')
    dataset = open_dataset(f"folder:{folder.root}")
    assert {dataset.sample_name(0), dataset.sample_name(1)} == {"images__a_jpg", "images__a_png"}


@pytest.mark.parametrize(
    ("rest", "path", "split"),
    [
        ("data/camvid:test", "data/camvid", "test"),
        ("data/camvid", "data/camvid", None),
        ("data/camvid:", "data/camvid", None),
        ("C:\\data\\camvid", "C:\\data\\camvid", None),
        ("C:/data/camvid", "C:/data/camvid", None),
        ("C:\\data\\camvid:test", "C:\\data\\camvid", "test"),
        ("C:/data/camvid:test", "C:/data/camvid", "test"),
        ("odd:place/camvid", "odd:place/camvid", None),
        ("odd:place/camvid:test", "odd:place/camvid", "test"),
    ],
)
def testpath_and_split(rest, path, split):
    assert path_and_split(rest) == (path, split)


def test_an_existing_folder_with_a_colon_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "at:noon").mkdir()
    assert path_and_split("at:noon") == ("at:noon", None)


def test_synthetic_streets_take_number_and_seed(monkeypatch):
    module = types.ModuleType("doubtmap.streets.synthetic")
    module.SyntheticStreets = lambda count, seed=0: ("streets", count, seed)
    monkeypatch.setitem(sys.modules, "doubtmap.streets.synthetic", module)
    assert open_dataset("synthetic:12", seed=5) == ("streets", 12, 5)


@pytest.mark.parametrize(
    "text", ["synthetic", "synthetic:", "synthetic:0", "synthetic:x", "synthetic:-2"]
)
def test_synthetic_needs_a_number(text):
    with pytest.raises(UsageError, match="synthetic:N"):
        open_dataset(text)


def test_unknown_layout_lists_all_and_names_the_nearest():
    with pytest.raises(UsageError, match=r"camvid, camvid-colours.* Did you mean cityscapes\?"):
        open_dataset("cityscape:data")


def test_no_path():
    with pytest.raises(UsageError, match="Expected camvid:PATH or camvid:PATH:SPLIT, got camvid"):
        open_dataset("camvid")


@pytest.mark.parametrize("name", ["camvid", "folder"])
def test_missing_folder(tmp_path, name):
    with pytest.raises(DataError, match=r"nowhere: expected the folder of the data set"):
        open_dataset(f"{name}:{tmp_path}/nowhere")


def test_empty_folder_says_what_was_searched(tmp_path):
    with pytest.raises(DataError, match=r"no file images/\*\.\* \(smiyc"):
        open_dataset(f"smiyc:{tmp_path}")
    with pytest.raises(DataError, match=r"test/\*\.jpg .*no images of any split"):
        open_dataset(f"camvid:{tmp_path}")


def test_unknown_split_lists_those_that_exist(camvid):
    camvid.image("test_labels/b.png")
    with pytest.raises(DataError, match=r"split vall.*Splits there: test, train\."):
        open_dataset(f"camvid:{camvid.root}:vall")


def test_unknown_split_of_a_listing(folder):
    folder.text("ImageSets/Segmentation/trainval.txt", "a")
    with pytest.raises(DataError, match=r"Segmentation/val\.txt .*Splits there: trainval\."):
        open_dataset(f"voc:{folder.root}")


def test_split_where_there_is_none(folder):
    folder.image("images/a.png")
    with pytest.raises(UsageError, match="smiyc has no splits, got test"):
        open_dataset(f"smiyc:{folder.root}:test")


def test_image_without_label_names_both_when_it_is_read(camvid):
    camvid.image("test/b.jpg")
    dataset = open_dataset(f"camvid:{camvid.root}")
    assert (len(dataset), dataset[0].name) == (2, "a")
    for index in (1, -1):
        with pytest.raises(
            DataError, match=r"test/b\.jpg: expected its label .*test_labels/b\.png"
        ):
            dataset[index]


def test_no_label_at_all(camvid):
    camvid.image("test/b.jpg")
    (camvid.root / "test_labels/a.png").unlink()
    with pytest.raises(DataError, match=r"test_labels/a\.png.*None of 2 images has one"):
        open_dataset(f"camvid:{camvid.root}")


def test_list_that_is_no_text(folder):
    folder.text("ImageSets/Segmentation/val.txt", "")
    (folder.root / "ImageSets/Segmentation/val.txt").write_bytes(b"\xff\xfea")
    with pytest.raises(DataError, match=r"val\.txt: expected a list of images in UTF-8"):
        open_dataset(f"voc:{folder.root}")


def test_listed_image_that_is_missing(folder):
    folder.text("ImageSets/Segmentation/val.txt", "ghost")
    with pytest.raises(DataError, match=r"val\.txt lists ghost, .*JPEGImages/ghost\.jpg"):
        open_dataset(f"voc:{folder.root}")


def test_value_without_meaning_names_file_values_and_counts(camvid):
    camvid.label("test_labels/a.png", [[0, 99, 99], [12, 1, 1]])
    message = r"test_labels/a\.png: expected the label values 0 to 11, got 12 \(1 pixels\), 99 \(2"
    with pytest.raises(DataError, match=message):
        open_dataset(f"camvid:{camvid.root}")[0]


def test_many_values_without_meaning_are_cut_short(camvid):
    camvid.image("test/a.jpg", height=4, width=5)
    camvid.label("test_labels/a.png", [[20 + 5 * y + x for x in range(5)] for y in range(4)])
    with pytest.raises(DataError, match="and 12 more"):
        open_dataset(f"camvid:{camvid.root}")[0]


def test_sizes_that_differ_name_both_files_and_sizes(camvid):
    camvid.label("test_labels/a.png", [[0, 0, 0, 0]])
    message = r"test/a\.jpg with 3 x 2 and .*test_labels/a\.png with 4 x 1"
    with pytest.raises(DataError, match=message):
        open_dataset(f"camvid:{camvid.root}")[0]


@pytest.fixture
def package(folder, monkeypatch):
    """An installed package that brings layouts: of files, by a function, and some that are none."""
    folder.text(
        "farm.py",
        """
from doubtmap.datasets import LabelValues, Layout

fields = Layout(
    title="fields from above",
    images=("{split}/{frame}.png",),
    labels=("masks/{frame}.png",),
    values=LabelValues({"crop": (0,), "weed": (1,)}, void=(9,)),
    default_split="test",
)

def pairs(rest):
    import numpy as np
    label = np.zeros((2, 3), np.uint8)
    return [(np.zeros((2, 3, 3), np.uint8), label) for _ in range(int(rest))]

number = 3
""",
    )
    folder.text("farm-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: farm\nVersion: 1.0\n")
    names = {"fields": "fields", "pairs": "pairs", "number": "number", "gone": "gone"}
    lines = [f"{name} = farm:{of}" for name, of in names.items()]
    lines.append("camvid = farm:gone")
    folder.text(
        "farm-1.0.dist-info/entry_points.txt", "\n".join(["[doubtmap.layouts]", *lines, ""])
    )
    monkeypatch.syspath_prepend(folder.root)
    yield folder
    sys.modules.pop("farm", None)


def test_installed_packages_bring_layouts_of_files(package):
    package.image("test/a.png")
    package.label("masks/a.png", [[0, 1, 9]] * 2)
    for opened in (open_dataset, open_images):
        dataset = opened(f"fields:{package.root}:test")
        assert dataset.name == "fields:test" and dataset.class_names == ("crop", "weed")
    assert dataset[0].label.tolist() == [[0, 1, VOID]] * 2
    with pytest.raises(DataError, match="nowhere: expected the folder of the data set"):
        open_dataset("fields:nowhere")


def test_installed_packages_bring_functions_that_open(package):
    dataset = open_dataset("pairs:4", classes=["crop", "weed"])
    assert len(dataset) == 4 and dataset[3].label.tolist() == [[0, 0, 0]] * 2


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("pairs:four", DataError, "the function of an installed package raised ValueError"),
        ("pairs", UsageError, "Expected pairs:PATH or pairs:PATH:SPLIT"),
        ("number:4", DataError, "expected a Layout or a function at farm:number.* got int"),
        ("gone:4", DataError, "gone is of an installed package, farm:gone, which cannot be"),
        ("feilds:4", UsageError, "fields, .*Did you mean fields"),
        ("camvid:nowhere", DataError, "nowhere: expected the folder"),  # ours cannot be taken
    ],
)
@pytest.mark.usefixtures("package")
def test_layouts_of_packages_that_cannot_be_opened(text, error, told):
    with pytest.raises(error, match=told):
        open_dataset(text)
