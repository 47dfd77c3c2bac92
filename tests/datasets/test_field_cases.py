"""Data as it lies on people's disks, each case with the reading that is right.

The scenes are drawn in three colours, so that a class is known by its colour: where anything of an
image or a label is read wrongly, the nearest colour is not the label.
"""

import numpy as np
import pytest
from PIL import Image
from scenes import (
    CAR,
    COLOURS,
    ROAD,
    SKY,
    agreement,
    deep_png,
    described,
    exif,
    painted,
    save,
    scene,
    turned,
)

from doubtmap.datasets import VOID, open_dataset, read_image
from doubtmap.errors import DataError

HEX = '[classes]\nsky = "#4682b4"\nroad = "#804080"\ncar = "#00008e"\n'


def written(root, classes=None, suffix="png", label_suffix="png", count=2, **description):
    """A folder of scenes and labels of class numbers, described."""
    description.setdefault("images", f"images/{{frame}}.{suffix}")
    description.setdefault("labels", f"labels/{{frame}}.{label_suffix}")
    described(root, **({} if classes is None else {"classes": classes}), **description)
    for number in range(count):
        save(root / "images" / f"f{number}.{suffix}", painted(scene(number)))
        save(root / "labels" / f"f{number}.{label_suffix}", scene(number))
    return root


def opened(root):
    return open_dataset(f"folder:{root}")


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
def test_one_image_that_is_not_finite_does_not_end_the_look(tmp_path, said):
    root = written(tmp_path, suffix="tif", classes=f"{said}[classes]\nsky = 0\nroad = 1\ncar = 2\n")
    for number in range(2):
        grey = scene(number) / np.float32(4)
        grey[0, 0] = np.nan if number else 0
        save(root / f"images/f{number}.tif", grey.astype(np.float32))
    dataset = opened(root)
    assert dataset[0].image.max() == 128
    with pytest.raises(DataError, match=r"f1\.tif: expected finite values, got NaN"):
        dataset[1]


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


# Colour masks


def palette_file(path, classes, alpha=None):
    """A file of places in a palette whose order says nothing."""
    places = np.array([7, 2, 9], np.uint8)
    table = np.zeros((256, 3), np.uint8)
    table[places] = COLOURS
    picture = Image.fromarray(places[classes])
    picture.putpalette(table.tobytes())
    picture.save(path, **({} if alpha is None else {"transparency": alpha}))


@pytest.mark.parametrize(
    "classes",
    [
        HEX,
        HEX.replace("[classes]", "void = 0\n[classes]"),
        HEX.replace("[classes]", "void = 255\n[classes]"),
        '[classes]\nsky = ["#4682B4", "#000001"]\nroad = "#804080"\ncar = "#00008E"\n',
        "[classes]\nsky = [70, 130, 180]\nroad = [128, 64, 128]\ncar = [0, 0, 142]\n",
        "[classes]\nsky = [[70, 130, 180]]\nroad = [[128, 64, 128]]\ncar = [[0, 0, 142]]\n",
        "[classes]\nsky = {colour = [70, 130, 180]}\nroad = {color = [128, 64, 128]}\n"
        'car = {colour = "#00008e"}\n',
        # Numbers and colours, as data sets that go about in both forms.
        '[classes]\nsky = [0, "#4682b4"]\nroad = [1, "#804080"]\ncar = [2, "#00008e"]\n',
    ],
)
@pytest.mark.parametrize("form", ["RGB", "RGBA", "palette", "palette with alpha", "16 bits"])
def test_colours_however_they_are_written_and_stored(tmp_path, classes, form):
    root = written(tmp_path, classes=classes)
    for number in range(2):
        path = root / f"labels/f{number}.png"
        pixels = painted(scene(number))
        if form == "16 bits":
            deep_png(path, pixels.astype(np.uint16) * 257)
        elif form.startswith("palette"):
            palette_file(path, scene(number), b"\x80" * 10 if "alpha" in form else None)
        else:
            alpha = np.full((*pixels.shape[:2], 1), 128, np.uint8)
            save(path, np.concatenate([pixels, alpha], 2) if form == "RGBA" else pixels)
    assert agreement(opened(root)) == 1


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_equal_bands_are_one(tmp_path, bands):
    root = written(tmp_path)
    for number in range(2):
        grey = np.repeat(scene(number)[..., None], max(bands, 2), 2)
        if bands in (2, 4):
            grey[..., -1] = 255
        save(root / f"labels/f{number}.png", grey[..., 0] if bands == 1 else grey)
    assert agreement(opened(root)) == 1


def test_black_is_void_as_a_number_or_a_colour(tmp_path):
    for void in ("0", '"#000000"', "[0, 0, 0]"):
        classes = f"void = {void}\n{HEX}"
        root = written(tmp_path / str(void == "0") / void[:1], classes=classes, count=1)
        pixels = painted(scene())
        pixels[0, :3] = 0
        save(root / "labels/f0.png", pixels)
        label = opened(root)[0].label
        assert label[0, :4].tolist() == [VOID, VOID, VOID, 0]


def test_a_colour_that_is_not_listed_names_file_colour_and_place(tmp_path):
    root = written(tmp_path, classes=HEX, count=1)
    pixels = painted(scene())
    pixels[3, 5] = (1, 2, 3)
    save(root / "labels/f0.png", pixels)
    message = r"labels/f0\.png: .*#804080, got #010203 \(1 pixels\), the first in row 3, column 5"
    with pytest.raises(DataError, match=message):
        opened(root)[0]


def test_grey_of_more_than_eight_bits_is_no_colour(tmp_path):
    root = written(tmp_path, classes='[classes]\nsky = "#2c2c2c"\n', count=1)
    save(root / "labels/f0.png", np.full((12, 16), 300, np.uint16))
    with pytest.raises(DataError, match=r"labels/f0\.png: expected .*got 300"):
        opened(root)[0]


@pytest.mark.parametrize("folder", ["JPEGImages", "images", "data"])
def test_cvat_masks_with_their_labelmap(tmp_path, folder):
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\n"
        + "".join(
            f"{name}:{r},{g},{b}::\n"
            for name, (r, g, b) in zip(
                ("background", "car", "road", "sky"), ((0, 0, 0), CAR, ROAD, SKY)
            )
        )
    )
    for number, name in enumerate(("f0", "town/f1")):
        save(tmp_path / folder / f"{name}.png", painted(scene(number)))
        save(tmp_path / "SegmentationClass" / f"{name}.png", painted(scene(number)))
    dataset = opened(tmp_path)
    assert (len(dataset), dataset.class_names) == (2, ("background", "car", "road", "sky"))
    assert (dataset[0].label.numpy() == np.array([3, 2, 1])[scene()]).all()
    mine = tmp_path / "mine"
    described(mine, classes='classes = "labelmap.txt"\n')
    (mine / "labelmap.txt").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "labelmap.txt").read_bytes())
    save(mine / "images/f0.png", painted(scene()))
    save(mine / "labels/f0.png", painted(scene()))
    assert (opened(mine)[0].label == dataset[0].label).all()


# Label files


@pytest.mark.parametrize(
    ("suffix", "kind", "void"),
    [
        *((s, k, 255) for s in ("tif", "npy") for k in ("uint8", "uint16", "int32", "float32")),
        *((s, k, -1) for s in ("tif", "npy") for k in ("int16", "int32", "float32")),
        *((s, k, 65535) for s in ("tif", "npy") for k in ("uint16", "int32", "float32")),
        *(("npy", k, v) for k in ("int8", "int64", "float64", "float16") for v in (-1, 100)),
        ("npy", "uint32", 65535),
        ("npy", "bool", 1),
    ],
)
def test_labels_of_any_type_of_number(tmp_path, suffix, kind, void):
    said = f"void = {void}\n[classes]\nsky = 0\nroad = 1\ncar = 2\n"
    if kind == "bool":
        said = "[classes]\nsky = 0\nroad = 1\n"
    root = written(tmp_path, label_suffix=suffix, count=1, classes=said)
    values = scene().astype(np.int64)
    if kind == "bool":
        values = np.minimum(values, 1)
    else:
        values[0, :5] = void
    stored = values.astype(kind)
    save(root / f"labels/f0.{suffix}", stored)
    expected = values.copy()
    if kind != "bool":
        expected[0, :5] = VOID
    assert (opened(root)[0].label.numpy() == expected).all()


def test_minus_one_is_void_unasked(tmp_path):
    root = written(tmp_path, label_suffix="npy", count=1)
    values = scene().astype(np.int32)
    values[0, 0] = -1
    save(root / "labels/f0.npy", values)
    assert opened(root)[0].label[0, 0] == VOID


@pytest.mark.parametrize("shape", [(12, 16), (12, 16, 1), (1, 12, 16), (12, 16, 3), (3, 12, 16)])
def test_arrays_with_an_axis_more(tmp_path, shape):
    root = written(tmp_path, label_suffix="npy", count=1)
    first = shape[0] in (1, 3)
    axis = 0 if first else 2
    many = (
        scene() if len(shape) == 2 else np.repeat(np.expand_dims(scene(), axis), shape[axis], axis)
    )
    save(root / "labels/f0.npy", many)
    assert agreement(opened(root)) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 2, 12, 16), np.uint8), r"expected numbers \(H, W\)"),
        (np.zeros((12, 16), complex), r"expected numbers \(H, W\)"),
        (np.full((12, 16), 0.5), "expected whole numbers as labels, got 0.5 in row 0, column 0"),
        (np.full((12, 16), 2**40), "expected label values of at most 32 bits"),
        (np.array([{"a": 1}], object), "expected a readable image"),
    ],
)
def test_arrays_that_are_no_labels(tmp_path, values, message):
    root = written(tmp_path, label_suffix="npy", count=1)
    save(root / "labels/f0.npy", values)
    with pytest.raises(DataError, match=r"labels/f0\.npy: .*" + message):
        opened(root)[0]


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("shown", [False, True])
def test_labels_of_few_bits_as_numbers_or_as_they_are_shown(tmp_path, bits, shown):
    """A 0/255 mask that a program packed into one bit is still one."""
    most = min(2**bits - 1, 2)
    spread = 255 // (2**bits - 1) if shown else 1
    numbers = [k * spread for k in range(most + 1)]
    classes = "".join(f"{n} = {v}\n" for n, v in zip(("sky", "road", "car"), numbers))
    root = written(tmp_path, classes=f"[classes]\n{classes}", count=1)
    values = np.minimum(scene(), most)
    deep_png(root / "labels/f0.png", values, bits)
    assert (opened(root)[0].label.numpy() == values).all()


@pytest.mark.parametrize(
    ("suffix", "options"),
    [("jpg", {}), ("webp", {}), ("jp2", {"irreversible": True}), ("tif", {"compression": "jpeg"})],
)
def test_labels_with_loss(tmp_path, suffix, options):
    root = written(tmp_path, label_suffix=suffix, count=1)
    path = root / f"labels/f0.{suffix}"
    Image.fromarray(scene()).convert("RGB").save(path, **options)
    with pytest.raises(DataError, match=r"labels/f0.*: expected label values without loss"):
        opened(root)[0]


@pytest.mark.parametrize(
    ("suffix", "options"), [("webp", {"lossless": True}), ("jp2", {}), ("bmp", {}), ("gif", {})]
)
def test_labels_in_other_formats(tmp_path, suffix, options):
    root = written(tmp_path, classes=HEX, label_suffix=suffix, count=1)
    Image.fromarray(painted(scene())).save(root / f"labels/f0.{suffix}", **options)
    assert agreement(opened(root)) == 1


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
