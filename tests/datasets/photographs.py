"""Small photographs with outlines of objects, for tests."""

import numpy as np
from PIL import Image


def photograph(root, stem, lines, size=(20, 30), folder="polygons", seed=0):
    """An image of random pixels, height and width first, and its outlines in pixels.

    `lines` are pairs of a class number and points `[(x, y), ...]`.
    """
    height, width = size
    generator = np.random.default_rng([seed, *map(ord, stem)])
    pixels = generator.integers(0, 256, (height, width, 3), np.uint8)
    image = root / "images" / f"{stem}.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(image)
    text = root / folder / f"{stem}.txt"
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text(
        "".join(
            f"{number} "
            + " ".join(f"{float(x / width)!r} {float(y / height)!r}" for x, y in points)
            + "\n"
            for number, points in lines
        )
    )
    return pixels


def box(left, top, width, height):
    """The corners of a rectangle."""
    right, bottom = left + width, top + height
    return [(left, top), (right, top), (right, bottom), (left, bottom)]
