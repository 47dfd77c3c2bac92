"""Label files as they lie on people's disks, each kind with the reading that is right.

The scenes are drawn in three colours, so that a class is known by its colour.
"""

import numpy as np
import pytest
from PIL import Image
from scenes import (
    CAR,
    COLOURS,
    HEX,
    ROAD,
    SKY,
    agreement,
    deep_png,
    described,
    opened,
    painted,
    save,
    scene,
    written,
)

from doubtmap.datasets import VOID
from doubtmap.errors import DataError

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
