"""Data as it lies on people's disks, each case with the reading that is right.

The scenes are drawn in three colours, so that a class is known by its colour: where anything of an
image or a label is read wrongly, the nearest colour is not the label.
"""

import numpy as np
import pytest
from scenes import (
    agreement,
    deep_png,
    described,
    exif,
    opened,
    painted,
    save,
    scene,
    turned,
    written,
)

from doubtmap.datasets import VOID, read_image
from doubtmap.errors import DataError

# Images of more than 8 bits


@pytest.mark.parametrize("bits", [8, 10, 11, 12, 14, 16])
def test_bits_of_sixteen_that_are_used(tmp_path, bits):
    root = written(tmp_path, count=3)
    white = 2**bits - 1
    for number in range(3):
        shares = painted(scene(number)) / 255
        # The bits are told from the brightest value of all images, not of each.
        deep = np.rint(shares * white / (1 + number)).astype(np.uint16)
        deep_png(root / f"images/f{number}.png", deep)
    dataset = opened(root)
    for number in range(3):
        expected = painted(scene(number)).astype(float) / (1 + number)
        image = dataset[number].image.permute(1, 2, 0).numpy()
        assert np.abs(image - expected).max() <= 1
    assert any(f"0 to {white} was taken as black to white" in note for note in dataset.notes)


def test_a_range_that_is_said(tmp_path):
    root = written(tmp_path, classes="range = [100, 300]\n[classes]\nsky = 0\nroad = 1\ncar = 2\n")
    values = np.array([[0, 100, 200, 300, 900]], np.uint16)
    for number in range(2):
        deep_png(root / f"images/f{number}.png", values)
    expected = [0, 0, 128, 255, 255]
    assert opened(root).looked_at.rendering.range == (100, 300)
    assert read_image(root / "images/f0.png", opened(root).looked_at.rendering)[0, 0].tolist() == (
        expected
    )


@pytest.mark.parametrize("said", ["", "range = [0, 1]\n"])
def test_pixels_that_are_not_finite_are_void_and_end_no_look(tmp_path, said):
    root = written(tmp_path, suffix="tif", classes=f"{said}[classes]\nsky = 0\nroad = 1\ncar = 2\n")
    for number in range(2):
        grey = scene(number) / np.float32(4)
        grey[0, :2] = (np.nan, np.inf) if number else 0
        save(root / f"images/f{number}.tif", grey.astype(np.float32))
    dataset = opened(root)
    assert dataset[0].image.max() == 128
    label = dataset[1].label.numpy()
    assert (label[0, :2] == VOID).all()
    label[0, :2] = dataset[0].label[0, :2]
    assert (label >= 0).all() and dataset[1].image.max() == 128
    with pytest.raises(DataError, match=r"f1\.tif: expected finite values, got NaN"):
        read_image(root / "images/f1.tif")


# What a folder holds


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (("f0.png", "f1.PNG", "f2.Png"), ("f0.png", "f1.png", "f2.png")),
        (("f0.PNG", "f1.PNG", "f2.PNG"), ("f0.PNG", "f1.pNg", "f2.png")),
        (("a b.png", "ä [1].png", "日本.png"), ("a b.png", "ä [1].png", "日本.PNG")),
        # Accents as two signs, as archives from a Mac have them, and as one.
        (("a\u0308.png", "e.png", "f.png"), ("\u00e4.png", "e.png", "f.png")),
    ],
)
def test_names_and_suffixes_in_any_spelling(tmp_path, images, labels):
    described(tmp_path)
    for number in range(3):
        save(tmp_path / "images" / images[number], painted(scene(number)), format="PNG")
        save(tmp_path / "labels" / labels[number], scene(number), format="PNG")
    dataset = opened(tmp_path)
    assert (len(dataset), agreement(dataset)) == (3, 1.0)
    assert dataset.notes == ()


def test_all_patterns_count(tmp_path):
    described(tmp_path, images='images/{frame}.jpg", "images/{frame}.png')
    text = (tmp_path / "doubtmap.toml").read_text()
    (tmp_path / "doubtmap.toml").write_text(
        text.replace('images = "', 'images = ["', 1).replace('.png"\nlabels', '.png"]\nlabels')
    )
    for number, suffix in enumerate(("jpg", "png", "JPG")):
        save(tmp_path / f"images/f{number}.{suffix}", painted(scene(number)))
        save(tmp_path / f"labels/f{number}.png", scene(number))
    dataset = opened(tmp_path)
    assert len(dataset) == 3
    assert agreement(dataset) > 0.9  # JPEG blurs borders


def test_no_image_of_the_suffix(tmp_path):
    described(tmp_path, images="images/{frame}.jpg")
    save(tmp_path / "images/f0.JPEG", painted(scene()))
    with pytest.raises(DataError, match=r"no file images/\*\.jpg .*There is images/f0\.JPEG: corr"):
        opened(tmp_path)


def test_what_is_left_is_counted(tmp_path):
    root = written(tmp_path)
    for name in ("images/g.tif", "images/night/h.png", "images/.hidden/i.png", "images/._f0.png"):
        save(root / name, painted(scene()), format="PNG")
    (root / "images/gone.png").symlink_to(root / "nowhere.png")
    (root / "images/notes.txt").write_text("x")
    (root / "images/empty").mkdir()
    save(root / "labels/alone.png", scene())
    notes = " ".join(opened(root).notes)
    assert (
        "2 pictures beside the 2 images were not taken (1 .tif, 1 .png), such as images/" in notes
    )
    assert "1 of the pictures are links that lead nowhere, such as images/gone.png" in notes
    assert "1 label has no image, such as labels/alone.png." in notes


def test_links_to_files_and_folders_are_followed(tmp_path):
    written(tmp_path / "store")
    root = tmp_path / "linked"
    described(root)
    (root / "images").symlink_to(tmp_path / "store/images", target_is_directory=True)
    (root / "labels").mkdir()
    for number in range(2):
        (root / f"labels/f{number}.png").symlink_to(tmp_path / f"store/labels/f{number}.png")
    assert (len(opened(root)), agreement(opened(root))) == (2, 1.0)


def test_nested_folders_and_sizes_that_differ(tmp_path):
    described(tmp_path, images="images/{path}.png", labels="labels/{path}_gt.png")
    sizes = {"f0": (12, 16), "town/f0": (14, 20), "town/north/f0": (20, 12)}
    for name, size in sizes.items():
        save(tmp_path / f"images/{name}.png", painted(scene(0, *size)))
        save(tmp_path / f"labels/{name}_gt.png", scene(0, *size))
    dataset = opened(tmp_path)
    assert (len(dataset), agreement(dataset)) == (3, 1.0)
    assert len({dataset.sample_name(index) for index in range(3)}) == 3


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("images", ["all/{frame}.*", "all/{frame}.{suffix}", "**/{frame}.*"])
def test_masks_beside_their_images(tmp_path, suffix, images):
    mark = "" if suffix == "jpg" else "_mask"
    described(tmp_path, images=images, labels=f"all/{{frame}}{mark}.png")
    for number in range(2):
        save(tmp_path / f"all/f{number}.{suffix}", painted(scene(number)))
        save(tmp_path / f"all/f{number}{mark}.png", scene(number))
    save(tmp_path / "all/alone_mask.png", scene())
    dataset = opened(tmp_path)
    names = [dataset.sample_name(index) for index in range(len(dataset))]
    assert names[-2:] == ["f0", "f1"]
    if mark:
        assert (len(dataset), agreement(dataset)) == (2, 1.0)
        assert "1 label has no image, such as all/alone_mask.png." in dataset.notes


def test_one_file_cannot_be_both(tmp_path):
    described(tmp_path, images="all/*.png", labels="all/{stem}.png")
    save(tmp_path / "all/f0.png", painted(scene()))
    with pytest.raises(DataError, match=r"f0\.png: expected an image and a label, got one file"):
        opened(tmp_path)


def test_only_masks(tmp_path):
    described(tmp_path, images="all/{frame}.png", labels="all/{frame}_mask.png")
    save(tmp_path / "all/f0_mask.png", scene())
    with pytest.raises(DataError, match=r"f0_mask\.png: expected its label .*f0_mask_mask\.png"):
        opened(tmp_path)


# Photographs that are stored turned


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(12, 16), (12, 12)])
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_labels_drawn_on_the_upright_photograph(tmp_path, orientation, size, suffix):
    described(tmp_path, images=f"images/{{frame}}.{suffix}")
    options = {"lossless": True} if suffix == "webp" else {}
    for number in range(2):
        stored = turned(painted(scene(number, *size)), orientation)
        save(tmp_path / f"images/f{number}.{suffix}", stored, exif=exif(orientation), **options)
        save(tmp_path / f"labels/f{number}.png", scene(number, *size))
    dataset = opened(tmp_path)
    assert agreement(dataset) == 1
    assert dataset[0].image.equal(read_image(tmp_path / f"images/f0.{suffix}"))
    noted = any(f"(orientation {orientation})" in note for note in dataset.notes)
    assert noted == (orientation > 1)


@pytest.mark.parametrize("orientation", range(5, 9))
def test_labels_that_fit_only_as_stored(tmp_path, orientation):
    described(tmp_path)
    save(tmp_path / "images/f0.png", painted(scene()), exif=exif(orientation))
    save(tmp_path / "labels/f0.png", scene())
    assert agreement(opened(tmp_path)) == 1
    assert "left as stored, which alone fits their labels" in opened(tmp_path).notes[0]


def test_labels_that_lie_in_two_ways(tmp_path):
    described(tmp_path)
    save(tmp_path / "images/f0.png", painted(scene()), exif=exif(6))
    save(tmp_path / "labels/f0.png", scene())
    save(tmp_path / "images/f1.png", turned(painted(scene()), 6), exif=exif(6))
    save(tmp_path / "labels/f1.png", scene())
    with pytest.raises(DataError, match=r"f1\.png whose label fits once .*f0\.png whose label"):
        opened(tmp_path)[0]


# Descriptions


def test_a_description_saved_by_notepad(tmp_path):
    root = written(tmp_path)
    text = (root / "doubtmap.toml").read_bytes()
    (root / "doubtmap.toml").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    assert agreement(opened(root)) == 1


def test_backslashes_in_patterns(tmp_path):
    root = written(tmp_path)
    text = (root / "doubtmap.toml").read_text()
    (root / "doubtmap.toml").write_text(
        text.replace('"images/{frame}.png"', r"'images\{frame}.png'")
    )
    with pytest.raises(DataError, match=r"expected / between folders in images, .*Write / for"):
        opened(root)
