"""`doubtmap check`: each suspicious thing as one meets it, and the screen that the docs show."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from doubtmap.datasets import LAYOUTS, open_dataset
from doubtmap.datasets.checking import check
from doubtmap.datasets.guessing import guessed
from doubtmap.errors import DataError

DOCS = Path(__file__).parents[2] / "docs" / "bring_your_data.md"
CLASSES = "void = 255\n[classes]\nroad = 0\ncar = 1\nsky = 2\n"
PLAIN = 'images = "images/{frame}.png"\nlabels = "labels/{frame}.png"\n' + CLASSES
SPLIT = (
    'images = "images/{split}/{frame}.png"\nlabels = "labels/{split}/{frame}.png"\n'
    'split = "test"\n' + CLASSES
)


def scene(seed, size=(48, 64)):
    """A label map of road, car and sky, and a photograph of it."""
    generator = np.random.default_rng(seed)
    label = np.zeros(size, np.uint8)
    label[: 10 + seed % 7] = 2
    top, left = generator.integers(18, 30), generator.integers(0, 40)
    label[top : top + 10, left : left + 16] = 1
    colours = np.array([[90, 90, 90], [20, 20, 160], [130, 180, 230]])
    noise = generator.integers(-30, 30, (6, 8, 3)).repeat(8, 0).repeat(8, 1)
    return (colours[label] + noise[: size[0], : size[1]]).clip(0, 255).astype(np.uint8), label


def put(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def fill(root, count=4, change=lambda k, label: label, toml=PLAIN):
    """A folder of scenes, whose labels are changed."""
    for k in range(count):
        image, label = scene(k)
        put(root / f"images/{k}.png", image)
        put(root / f"labels/{k}.png", change(k, label))
    if toml:
        (root / "doubtmap.toml").write_text(toml)
    return root


def warnings(root, model=("road", "car", "sky")):
    return [line for line in check(str(root), model).splitlines() if line.startswith("!")]


def test_a_sound_folder(tmp_path):
    said = check(str(fill(tmp_path)), ["road", "car", "sky"])
    assert said.splitlines()[-1] == "Nothing suspicious was found."
    rows = [re.split(r"\s{2,}", line.strip()) for line in said.splitlines()[4:7]]
    whole = np.stack([scene(k)[1] for k in range(4)])
    for label, (name, share, images, model) in enumerate(rows):
        assert share == f"{100 * (whole == label).mean():.1f} %"
        assert (images, model) == ("4", name)


def test_the_screen_of_the_docs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "yard"
    for k in range(7):
        image, label = scene(k)
        place = f"{'train' if k < 4 else 'test'}/drive_{k:04d}.png"
        put(root / "images" / place, image if k != 6 else scene(3)[0])
        label = np.where((label == 1) & (k > 4), 7, label).astype(np.uint8)
        put(root / "labels" / place, label)
    (root / "doubtmap.toml").write_text(SPLIT)
    shown = re.search(
        r"\$ doubtmap check yard road,car,building\n((?:    .*\n|\n)+?)\n\S", DOCS.read_text()
    )
    lines = [line[4:].rstrip() for line in shown[1].splitlines()]
    printed = check("yard", ["road", "car", "building"]).splitlines()
    assert "\n".join(lines).split() == "\n".join(printed).split()


def test_values_that_nothing_describes(tmp_path):
    root = fill(tmp_path, change=lambda k, label: np.where(label == 1, 9, label).astype(np.uint8))
    assert any("describes: 9 (" in line and "0.png" in line for line in warnings(root))
    said = check(str(root))
    assert re.search(r"^\(not listed\) +\d+\.\d %", said, re.MULTILINE)
    assert "(void)" not in said


def test_classes_counted_from_one(tmp_path):
    toml = (
        PLAIN.replace("0\n", "1\n", 1).replace("car = 1", "car = 2").replace("sky = 2", "sky = 3")
    )
    assert any("counted from 1?" in line for line in warnings(fill(tmp_path, toml=toml)))


def test_train_ids_under_the_name_of_label_ids(folder):
    folder.image("leftImg8bit/val/ulm/ulm_000_leftImg8bit.png")
    label = "gtFine/val/ulm/ulm_000_gtFine_labelIds.png"
    folder.label(label, [[0, 2, 10], [8, 13, 255]])
    assert any("are these train ids?" in line for line in warnings(folder.root, ()))
    folder.label(label, [[7, 11, 23], [21, 26, 0]])
    assert not warnings(folder.root, ())


def test_label_ids_under_the_name_of_train_ids(folder):
    folder.image("leftImg8bit/val/ulm/ulm_000_leftImg8bit.png")
    folder.label("gtFine/val/ulm/ulm_000_gtFine_labelTrainIds.png", [[7, 11, 23], [21, 26, 0]])
    assert any("are these label ids?" in line for line in warnings(folder.root, ()))


def test_labels_of_one_class_only(tmp_path):
    root = fill(tmp_path, change=lambda k, label: np.ones_like(label))
    assert warnings(root) == ["! All labels are of one class, car."]


def test_palettes_that_differ_between_files(tmp_path):
    fill(tmp_path)
    for k, colours in enumerate([[1, 2, 3], [1, 2, 3], [9, 9, 9], [1, 2, 3]]):
        image = Image.fromarray(scene(k)[1])
        image.putpalette([*colours, 50, 60, 70, 80, 90, 100])
        image.save(tmp_path / f"labels/{k}.png")
    (line,) = warnings(tmp_path)
    assert "0 is #010203 in the palette of 0.png and #090909 in that of 2.png" in line


def test_labels_on_their_side(tmp_path):
    root = fill(tmp_path, change=lambda k, label: label.T if k else label)
    assert any("3 of 4 labels lie on their side" in line for line in warnings(root))


@pytest.mark.parametrize(
    ("said", "turn"),
    [
        ("upside down", lambda x: x[::-1, ::-1]),
        ("turned to the right", np.rot90),
        ("turned to the left", lambda x: np.rot90(x, -1)),
    ],
)
def test_labels_turned_against_their_images(tmp_path, said, turn):
    """What would make the label fit is said."""
    for k in range(6):
        image, label = scene(k, (48, 48))
        put(tmp_path / f"images/{k}.png", image)
        put(tmp_path / f"labels/{k}.png", turn(label))
    (tmp_path / "doubtmap.toml").write_text(PLAIN)
    assert any(re.search(f"better {said}, in [56] of 6", line) for line in warnings(tmp_path))


def test_frames_in_two_splits(tmp_path):
    for k in range(6):
        image, label = scene(k % 3)
        place = f"{'train' if k < 3 else 'test'}/drive_{k:04d}.png"
        put(tmp_path / "images" / place, (image * 0.98 + 2).astype(np.uint8) if k > 2 else image)
        put(tmp_path / "labels" / place, label)
    (tmp_path / "doubtmap.toml").write_text(SPLIT.replace('split = "test"\n', ""))
    (line,) = warnings(tmp_path)
    assert "3 of 3 images of test look like images of train" in line
    assert line.endswith("such as drive_0003 and drive_0000, both of drive_*.")


def test_few_of_sixteen_bits_are_noted(tmp_path):
    fill(tmp_path)
    for k in range(4):
        put(tmp_path / f"images/{k}.png", scene(k)[0][..., 0].astype(np.uint16) * 4)
    assert re.search(r"^note .* so 0 to 1023 was taken", check(str(tmp_path)), re.MULTILINE)


def test_a_file_that_cannot_be_read(tmp_path):
    root = fill(tmp_path)
    (root / "labels/2.png").write_text("none")
    assert any("1 of 4 images cannot be used, such as 2:" in line for line in warnings(root))


def test_names_of_the_model(tmp_path):
    (line,) = warnings(fill(tmp_path), ("Road", "car", "building"))
    assert line == "! The data set has no labels for the model's class building."
    assert "sky" in check(str(tmp_path), ["Road", "car"]) and "lacks it: void" in check(
        str(tmp_path), ["Road", "car"]
    )


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("photos/{}.JPG", "masks/{}_mask.png"),
        ("{}.png", "{}_L.png"),
        ("train/images/{}.png", "train/labels/{}.png"),
        ("images/a/{}.png", "gt/a/{}.png"),
    ],
)
def test_a_description_to_start_from_opens(tmp_path, images, labels):
    root = tmp_path / "data"
    for k in range(4):
        image, label = scene(k)
        put(root / images.format(k), image)
        put(root / labels.format(k), label)
        for other, there in (("val", "train"), ("b", "a")):
            if f"{there}/" in images:
                put(root / images.replace(f"{there}/", f"{other}/").format(k), image)
                put(root / labels.replace(f"{there}/", f"{other}/").format(k), label)
    written = check(str(root), ["road", "car", "sky"]).partition("in the folder:\n\n")[2]
    (root / "doubtmap.toml").write_text(written)
    opened = open_dataset(f"folder:{root}")
    assert opened.class_names == ("road", "car", "sky")
    assert len(opened) == 4
    assert (opened[0].label.numpy() == scene(0)[1]).all()


def test_labels_in_colour_begin_a_description(tmp_path):
    table = np.array([[128, 64, 128], [0, 0, 142], [70, 130, 180]], np.uint8)
    fill(tmp_path, change=lambda k, label: table[label], toml=None)
    layout, text = guessed(tmp_path)
    assert sorted(re.findall(r'= "(#\w+)"', text)) == ["#00008e", "#4682b4", "#804080"]
    assert layout.values.in_colour


def test_a_folder_of_labels_is_not_taken_for_images(tmp_path):
    fill(tmp_path, toml=None)
    for k in range(4):
        put(tmp_path / f"another/{k}.png", scene(k)[1])
    assert 'images = "images/{frame}.png"' in guessed(tmp_path)[1]


def test_what_is_no_data_set(tmp_path):
    with pytest.raises(DataError, match="expected images and labels whose names go together"):
        check(str(tmp_path))
    with pytest.raises(DataError, match="expected the folder of a data set"):
        check(str(tmp_path / "missing"))


def test_images_of_other_splits_are_not_left_beside(folder):
    for tile in (4, 5, 7):
        folder.image(f"images/tile{tile}_001.jpg")
        folder.label(f"labels/tile{tile}_001.png", [[0, 1, 2]] * 2)
    assert not open_dataset(f"dubai:{folder.root}:val").notes
    folder.image("images/stray.jpg")
    (note,) = open_dataset(f"dubai:{folder.root}:val").notes
    assert note.startswith("1 picture beside the 1 images was not taken")


def test_the_layouts_of_the_docs_are_those_of_the_code():
    shown = re.search(r"<!-- layouts -->\n(.*?)<!-- end -->", DOCS.read_text(), re.DOTALL)[1]
    assert shown == layout_rows()


def layout_rows():
    """A row for each layout: its name, what it is, its splits."""
    rows = []
    for name, layout in LAYOUTS.items():
        default = layout.default_split
        others = [*layout.parts, *layout.selections]
        named = [default, *(split for split in others if split != default)] if default else []
        splits = ", ".join(f"`{split}`" for split in named)
        more = ", and what else lies there" if layout.splits_by_path else ""
        rows.append(f"| `{name}` | [{layout.title}]({layout.homepage}) | {splits or '-'}{more} |\n")
    return "".join(rows)
