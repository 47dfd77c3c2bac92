"""Folders made up at random, read by doubtmap and by a plain reading with Pillow and NumPy."""

import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from scenes import deep_png, exif, save, turned

from doubtmap.datasets import VOID, open_dataset

FOLDERS = int(os.environ.get("DOUBTMAP_FOLDERS", "40"))

MODES = {
    "png": ("RGB", "RGBA", "L", "LA", "P", "1", "two bits", "four bits"),
    "jpg": ("RGB", "L", "CMYK"),
    "jpeg": ("RGB", "L"),
    "tif": ("RGB", "RGBA", "L", "CMYK", "P", "1"),
    "tiff": ("RGB", "L"),
    "webp": ("RGB", "RGBA"),
    "bmp": ("RGB", "L", "P", "1"),
    "gif": ("L", "P"),
    "jp2": ("RGB", "L"),
    "ppm": ("RGB",),
    "pgm": ("L",),
}
"""Of eight bits or less; with EXIF those that can carry it."""
WITH_EXIF = ("png", "jpg", "jpeg", "tif", "tiff", "webp")
DEEP = {
    "none": (),
    "whole": (("png", "I;16"), ("tif", "I;16"), ("png", "RGB;16")),
    "fractions": (("tif", "F"),),
}
NUMBERS = {
    "png": ("L", "P", "P and alpha", "RGB", "RGBA", "LA", "uint16"),
    "tif": ("L", "P", "RGB", "uint16", "int32", "float32"),
    "bmp": ("L", "P", "RGB"),
    "npy": ("uint8", "int8", "uint16", "int16", "int32", "int64", "float32", "float64"),
}
COLOURS = {
    "png": ("colours", "colours and alpha", "colours of 16 bits", "P", "P and alpha"),
    "tif": ("colours", "colours and alpha", "P"),
    "bmp": ("colours", "P"),
}
"""Forms of labels: one band, palettes, equal bands, arrays."""
DECOYS = (
    "images/.hidden.png",
    "images/Thumbs.db",
    "images/._a.png",
    "labels/.DS_Store",
    "notes.txt",
)

NAMES = st.text("ab1 _-.é\u0308日[]*?(){}'", min_size=1, max_size=6).filter(
    lambda name: (
        not name.startswith(".") and name == name.strip(" .") and not name.endswith("\u0308")
    )
)


@dataclass
class Picture:
    """One image and its label: where they lie, of what kind, how turned, and what is in them."""

    path: str
    suffix: str
    mode: str
    size: tuple[int, int]
    orientation: int
    label: tuple[str, str]
    seed: int


@st.composite
def pictures(draw, deep, in_colour):
    """A picture of a folder whose images may be deep, and whose labels may be colours."""
    kinds = [(suffix, mode) for suffix, modes in MODES.items() for mode in modes]
    suffix, mode = draw(st.sampled_from((*kinds, *DEEP[deep] * 6)))
    forms = COLOURS if in_colour else NUMBERS
    carries = suffix in WITH_EXIF and not mode.endswith(("bits", "RGB;16"))
    return Picture(
        path="/".join(draw(st.lists(NAMES, min_size=1, max_size=2))),
        suffix="".join(c.upper() if draw(st.booleans()) else c for c in suffix),
        mode=mode,
        size=(draw(st.integers(1, 7)), draw(st.integers(1, 7))),
        orientation=draw(st.integers(1, 8)) if carries else 1,
        label=draw(st.sampled_from([(s, m) for s, modes in forms.items() for m in modes])),
        seed=draw(st.integers(0, 2**31)),
    )


@st.composite
def folders(draw):
    """Pictures, what their labels mean, and whether labels lie on the pictures as stored."""
    deep = draw(st.sampled_from(sorted(DEEP)))
    in_colour = draw(st.booleans())
    found = draw(
        st.lists(
            pictures(deep, in_colour),
            min_size=1,
            max_size=3,
            unique_by=lambda one: one.path.casefold(),
        )
    )
    bits = draw(st.sampled_from((8, 10, 11, 12, 14, 16)))
    numbers = draw(st.lists(st.integers(0, 120), min_size=2, max_size=4, unique=True))
    as_stored = draw(st.booleans()) and any(
        one.orientation > 4 and one.size[0] != one.size[1] for one in found
    )
    # In a folder of their own, or beside their images.
    labels = draw(st.sampled_from(("labels/{path}", "labels/{path}_L", "images/{path}_mask")))
    return found, bits, numbers, in_colour, as_stored, labels


def drawn(one, bits, generator):
    """The values of an image, upright."""
    height, width = one.size
    bands = {"RGB": 3, "RGBA": 4, "LA": 2, "CMYK": 4, "RGB;16": 3}.get(one.mode, 0)
    shape = (height, width, bands) if bands else (height, width)
    if one.mode == "F":
        return generator.random(shape, np.float32)
    top = {"1": 2, "two bits": 4, "four bits": 16, "P": 9}.get(one.mode, 256)
    if one.mode.endswith(";16"):
        return generator.integers(0, 2**bits, shape).astype(np.uint16)
    return generator.integers(0, top, shape).astype(np.uint8)


def write_image(path, one, values):
    """An image of its kind, turned as a camera would store it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if one.mode in ("two bits", "four bits", "RGB;16"):
        deep_png(path, values, {"two bits": 2, "four bits": 4}.get(one.mode, 16))
        return
    picture = Image.fromarray(turned(values, one.orientation))
    if one.mode == "CMYK":
        picture = Image.frombytes("CMYK", picture.size, picture.tobytes())
    if one.mode == "1":
        picture = picture.point(lambda value: 255 * value).convert("1")
    if one.mode == "P":
        picture.putpalette(
            np.random.default_rng(one.seed).integers(0, 256, 768, np.uint8).tobytes()
        )
    options = {"exif": exif(one.orientation)} if one.orientation > 1 else {}
    suffix = one.suffix.lower()
    kind = {"jpg": "JPEG", "jpeg": "JPEG", "tif": "TIFF", "tiff": "TIFF", "jp2": "JPEG2000"}
    kind |= {"ppm": "PPM", "pgm": "PPM"}
    options |= {"lossless": True} if suffix == "webp" else {}
    picture.save(path, kind.get(suffix, suffix.upper()), **options)


def read_plainly(path, one, values, white):
    """The image as Pillow reads it, upright; deep ones by the range of the run."""
    if one.mode == "F":
        shades = np.rint(values * 255.0)
    elif one.mode.endswith(";16"):
        shades = np.rint(values * 255.0 / white)
    else:
        # From memory: of TIFF files that it maps, Pillow 13 turns some twice.
        with Image.open(io.BytesIO(path.read_bytes())) as picture:
            return np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    return np.repeat(shades[..., None], 3, 2) if shades.ndim == 2 else shades


def colour_table(numbers):
    """A colour for each class, and for void."""
    generator = np.random.default_rng(numbers)
    rest = generator.permutation(2**12)[: len(numbers) + 1] * 4001 + 77
    return np.array([[n >> 16, n >> 8 & 255, n & 255] for n in rest.tolist()], np.uint8)


def write_label(path, form, places, numbers):
    """A label file of a form: places in a table of classes whose last is void."""
    table, stored = colour_table(numbers), np.array([*numbers, 255], np.uint8)[places]
    if form.startswith("P"):
        palette = np.zeros((256, 3), np.uint8)
        palette[[*numbers, 255]] = table
        picture = Image.fromarray(stored)
        picture.putpalette(palette.tobytes())
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, **({"transparency": b"\x40" * 256} if "alpha" in form else {}))
        return
    if form.startswith("colours"):
        colours = table[places]
        if form == "colours of 16 bits":
            deep_png(path, colours.astype(np.uint16) * 257)
            return
        alpha = np.full((*places.shape, 1), 9, np.uint8)
        save(path, np.concatenate([colours, alpha], 2) if "alpha" in form else colours)
        return
    kind = {"L": "uint8", "LA": "uint8", "RGB": "uint8", "RGBA": "uint8"}.get(form, form)
    void = -1 if not kind.startswith("u") else 65535 if kind == "uint16" else 255
    values = np.array([*numbers, void], np.int64)[places].astype(kind)
    bands = {"LA": 2, "RGB": 3, "RGBA": 4}.get(form)
    save(path, np.repeat(values[..., None], bands, 2) if bands else values)


def description(numbers, in_colour, where):
    """The `doubtmap.toml` of a folder."""
    table = colour_table(numbers)
    said = [f'"#{bytes(colour).hex()}"' for colour in table] if in_colour else [*numbers]
    void = said[-1] if in_colour else "[255, -1, 65535]"
    labels = ", ".join(f'"{where}.{suffix}"' for suffix in ("png", "tif", "bmp", "npy"))
    classes = "".join(f"class{k} = {said[k]}\n" for k in range(len(numbers)))
    images = "images/{path}.{suffix}"
    return f'images = "{images}"\nlabels = [{labels}]\nvoid = {void}\n[classes]\n{classes}'


@settings(
    max_examples=FOLDERS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(folders())
def test_a_plain_reading_finds_the_same(made_up):
    """Images and labels of made-up folders are what Pillow and NumPy find in them.

    `DOUBTMAP_FOLDERS=5000 pytest tests/datasets/test_made_up_folders.py` makes up as many.
    """
    found, bits, numbers, in_colour, as_stored, labels = made_up
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "doubtmap.toml").write_text(
            description(numbers, in_colour, labels), encoding="utf-8"
        )
        expected = {}
        for one in found:
            generator = np.random.default_rng(one.seed)
            image = root / f"images/{one.path}.{one.suffix}"
            values = drawn(one, bits, generator)
            places = generator.integers(0, len(numbers) + 1, one.size)
            write_image(image, one, values)
            label = places if not as_stored else turned(places.astype(np.uint8), one.orientation)
            file = labels.replace("{path}", one.path)
            write_label(root / f"{file}.{one.label[0]}", one.label[1], label, numbers)
            meant = np.array([*range(len(numbers)), VOID])[label]
            expected[image] = (one, values, meant)
        for decoy in DECOYS:
            (root / decoy).parent.mkdir(exist_ok=True)
            (root / decoy).write_text("no picture")
        deep = [v.max() for one, v, _ in expected.values() if v.dtype == np.uint16]
        white = 2 ** next(b for b in (8, 10, 11, 12, 14, 16) if max(deep, default=0) < 2**b) - 1
        dataset = open_dataset(f"folder:{root}")
        assert {image for image, _ in dataset.files} == set(expected)
        for index, (image, _) in enumerate(dataset.files):
            one, values, label = expected[image]
            sample = dataset[index]
            assert sample.label.tolist() == label.tolist()
            plain = read_plainly(image, one, values, white)
            if as_stored:
                plain = turned(plain.astype(np.uint8), one.orientation)
            assert sample.image.permute(1, 2, 0).tolist() == plain.tolist()
