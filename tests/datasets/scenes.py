"""Drawn scenes in three colours, whose labels are known, for tests of reading."""

import struct
import zlib

import numpy as np
from PIL import Image

from doubtmap.datasets import open_dataset

SKY, ROAD, CAR = (70, 130, 180), (128, 64, 128), (0, 0, 142)
COLOURS = np.array([SKY, ROAD, CAR], np.uint8)
VALUES = "[classes]\nsky = 0\nroad = 1\ncar = 2\n"


def scene(number=0, height=12, width=16):
    """Classes of a scene, `(H, W)` uint8, which is like none of its turns."""
    classes = np.zeros((height, width), np.uint8)
    classes[height // 2 :] = 1
    classes[height // 2 + 1 : height // 2 + 4, 1 + number : 5 + number] = 2
    return classes


def painted(classes):
    """`(H, W, 3)` uint8."""
    return COLOURS[classes]


def agreement(dataset):
    """The share of labelled pixels at which the nearest of the colours is the label."""
    right = labelled = 0
    for index in range(len(dataset)):
        sample = dataset[index]
        image = sample.image.permute(1, 2, 0).numpy().astype(int)
        nearest = np.abs(image[:, :, None] - COLOURS.astype(int)).sum(3).argmin(2)
        label = sample.label.numpy()
        right += int((nearest == label)[label >= 0].sum())
        labelled += int((label >= 0).sum())
    return right / labelled


def save(path, values, **options):
    """An array as a file, of the kind that its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path, **options)


def described(root, classes=VALUES, images="images/{frame}.png", labels="labels/{frame}.png"):
    """A description in a folder."""
    root.mkdir(parents=True, exist_ok=True)
    text = f'images = "{images}"\nlabels = "{labels}"\n{classes}'
    (root / "doubtmap.toml").write_text(text, encoding="utf-8")


def deep_png(path, values, bits=16):
    """Grey `(H, W)` or colours `(H, W, 3)` as a PNG of 1 to 16 bits, not by Pillow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = values.shape[:2]
    flat = values.reshape(height, -1)
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in flat]
    else:
        places = (flat[..., None] >> np.arange(bits)[::-1] & 1).reshape(height, -1)
        rows = [np.packbits(row.astype(np.uint8)).tobytes() for row in places]
    kind = 2 if values.ndim == 3 else 0
    head = struct.pack(">LLBBBBB", width, height, bits, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts))


def _chunk(name, data):
    return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))


def turned(pixels, orientation):
    """What a camera stores whose picture is upright once it is turned by an EXIF orientation."""
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    picture = Image.fromarray(pixels)
    return np.array(picture.transpose(back[orientation]) if orientation > 1 else picture)


def exif(orientation):
    """EXIF data that say how a picture is turned."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


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
