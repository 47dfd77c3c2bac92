"""Folders of real negatives: photographs, and things with outlines in one of them."""

import numpy as np
from PIL import Image

CAT = "15 .125 .125 .375 .125 .375 .625 .125 .625"
CAR = "2 .5 .75 .875 .75 .875 .875 .5 .875"
SPECK = "16 .5 .5 .501 .5 .501 .501 .5 .501"
"""A dog between the centres of two pixels."""


def photographs(folder, sizes):
    """A photograph of noise of each size, in a folder that is made."""
    folder.mkdir(parents=True)
    for number, size in enumerate(sizes):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def outlined(folder, *lines, labels="polygons", classes=()):
    """A red cat, half as wide as high, and a blue car, in one photograph; the folder's path."""
    (folder / "images").mkdir(parents=True)
    (folder / labels).mkdir()
    pixels = np.full((80, 80, 3), 60, np.uint8)
    pixels[10:50, 10:30], pixels[60:70, 40:70] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(pixels).save(folder / "images" / "1.png")
    (folder / labels / "1.txt").write_text("\n".join(lines or (CAT, CAR)))
    if classes:
        (folder / "classes.txt").write_text("\n".join(classes))
    return str(folder)


def of_class(line, number):
    """An outline's line with another class."""
    return f"{number} {line.partition(' ')[2]}"
