"""What a labelling tool is given of one image: predicted masks with scores, and doubt as a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from doubtmap.objects.find import UnknownObject


@dataclass(frozen=True, eq=False)
class Region:
    """A mask that a person is shown.

    Args:
        class_name: the class that the network sees there.
        score: in [0, 1].
        box: left, top, width and height, in pixels.
        mask: `(height, width)` bool, its pixels within the box.
        labelled: the class that it is labelled as; empty where there are no labels.
    """

    class_name: str
    score: float
    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_]
    labelled: str = ""

    @property
    def thing(self) -> UnknownObject:
        """The same as outlines and run lengths take it."""
        return UnknownObject(
            self.box, int(self.mask.sum()), self.score, self.score, 0, 1.0, self.mask
        )


@dataclass(frozen=True, eq=False)
class Task:
    """One image to be looked at or labelled.

    Args:
        name: unique, a file name without suffix.
        file: of the image, absolute.
        image: `(H, W, 3)` uint8 RGB.
        classes: `(H, W)` predicted class.
        doubt: `(H, W)` float32 in [0, 1].
        score: of the image, higher = sooner.
        regions: predicted masks, with scores.
    """

    name: str
    file: Path
    image: NDArray[np.uint8]
    classes: NDArray[np.int64]
    doubt: NDArray[np.float32]
    score: float
    regions: tuple[Region, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.classes.shape
        return height, width


def regions_of(
    segments: NDArray[np.int32],
    classes: NDArray[np.int64],
    scores: NDArray[np.float64],
    class_names: Sequence[str],
    smallest: int = 1,
) -> tuple[Region, ...]:
    """The predicted segments of one image as regions, in reading order.

    Args:
        segments: `(H, W)`, number of the segment of each pixel, from 0.
        classes: `(S,)`, predicted.
        scores: `(S,)` in [0, 1].
        class_names: of the network.
        smallest: pixels that one has at least.
    """
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(segments + 1)):
        mask = segments[rows, columns] == number
        if mask.sum() >= smallest:
            box = columns.start, rows.start, mask.shape[1], mask.shape[0]
            name = class_names[classes[number]]
            found.append(Region(name, float(scores[number]), box, mask))
    return tuple(found)
