"""Objects cut out of photographs along their outlines: what does not belong, to paste elsewhere.

A folder has `images/` and, beside it, `polygons/` (or `labels/`), with one text file for each image
and one line for each object: `class x1 y1 x2 y2 ...`, coordinates in shares of the image's width
and height. This is how COCO's objects are handed out for the YOLO detectors. Classes are COCO's 80
unless `classes.txt` in the folder names others, one a line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from doubtmap.datasets.class_tables import COCO, COCO_KIN
from doubtmap.datasets.opening import path_and_split
from doubtmap.datasets.patterns import collect_images
from doubtmap.datasets.polygons import filled
from doubtmap.datasets.reading import read_image, read_size
from doubtmap.errors import DataError, UsageError
from doubtmap.names import plain_name

HALVES = ("train", "test")
"""Of a folder's images: those whose objects serve as negatives in training, and the others."""


BEYOND = 0.01
"""Coordinates may lie this share of the image outside it, as rounding leaves them."""


@dataclass(frozen=True, eq=False)
class CutOut:
    """An object and the box around it.

    Args:
        name: of the image, and the object's line in its file.
        class_name: what it is.
        image: `(3, h, w)` uint8 RGB.
        mask: `(h, w)` bool, where the object is; every border of the box touches it.
    """

    name: str
    class_name: str
    image: Tensor
    mask: Tensor


@dataclass(frozen=True, eq=False)
class Outline:
    """Where an object is in its image.

    Args:
        name: of the image, and the object's line in its file.
        class_name: what it is.
        image: the file.
        points: `(N, 2)` float64, x and y in shares of the image's width and height.
    """

    name: str
    class_name: str
    image: Path
    points: NDArray[np.float64]

    def mask(self) -> tuple[NDArray[np.bool_], int, int]:
        """`(h, w)` mask in the tightest box, and the box's top and left; only the size is read.

        Raises:
            DataError: for an image that cannot be read.
        """
        size = np.array(read_size(self.image))[::-1]
        points = self.points * size
        low = np.floor(points.min(0)).clip(0, size).astype(np.int64)
        high = np.ceil(points.max(0)).clip(low, size).astype(np.int64)
        width, height = high - low
        mask, top, left = tightened(filled(points - low, height, width))
        return mask, top + int(low[1]), left + int(low[0])


@dataclass(frozen=True, eq=False)
class Outlines:
    """Objects by number: `outlines[k]` is the `CutOut`, read when it is asked for.

    Args:
        name: how results call them, such as `coco128:test`.
        outlines: one for each object.
        known_names: the names that a class can have.
    """

    name: str
    outlines: tuple[Outline, ...]
    known_names: tuple[str, ...] = COCO

    def __len__(self) -> int:
        return len(self.outlines)

    def __getitem__(self, index: int) -> CutOut:
        """Read one object.

        Raises:
            DataError: for an image that cannot be read, or an outline around no pixel.
        """
        outline = self.outlines[index]
        mask, top, left = outline.mask()
        if not mask.size:
            raise DataError(
                f"{outline.image}: expected an outline around at least one pixel's centre, got "
                f"{outline.name} around none. Remove it, or ask for larger objects."
            )
        image = read_image(outline.image)
        height, width = mask.shape
        crop = image[:, top : top + height, left : left + width].clone()
        return CutOut(outline.name, outline.class_name, crop, torch.from_numpy(mask))

    def __iter__(self) -> Iterator[CutOut]:
        return (self[index] for index in range(len(self)))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that any object has, in the order of their numbers."""
        there = {outline.class_name for outline in self.outlines}
        return tuple(name for name in self.known_names if name in there)

    def only(self, names: Sequence[str]) -> Outlines:
        """The objects of these classes.

        Raises:
            UsageError: for a name that no class can have.
            DataError: where nothing is left.
        """
        return self._kept(self._checked(names))

    def without(self, names: Sequence[str]) -> Outlines:
        """The objects of all other classes.

        Raises:
            UsageError: for a name that no class can have.
            DataError: where nothing is left.
        """
        return self._kept(set(self.known_names) - self._checked(names))

    def known_to(self, class_names: Iterable[str]) -> tuple[str, ...]:
        """The classes of these objects that a network with such classes was taught.

        Meant widely: a truck is known where there are cars, a traffic light where there are signs.

        Example:
            >>> objects = Outlines("", (Outline("", "truck", Path(), np.empty((0, 2))),))
            >>> objects.known_to(["road", "car"])
            ('truck',)
        """
        taught = [f" {plain_name(name)} " for name in class_names]
        return tuple(
            name
            for name in self.class_names
            if any(f" {word} " in other for word in _kin(name) for other in taught)
        )

    def foreign_to(self, class_names: Iterable[str]) -> tuple[Outlines, str]:
        """The objects that a network with these classes does not know, and a sentence about it.

        Args:
            class_names: the network's.

        Returns:
            The objects of classes outside `known_to`, and what was left out, empty if nothing.

        Raises:
            DataError: where nothing is left.
        """
        known = self.known_to(class_names)
        if not known:
            return self, ""
        foreign = self.without(known)
        note = (
            f"{self.name}: {len(self) - len(foreign)} of {len(self)} objects were left out, since "
            f"the network knows their classes: {', '.join(known)}."
        )
        return foreign, note

    def _checked(self, names: Sequence[str]) -> set[str]:
        by_name = {plain_name(name): name for name in self.known_names}
        for name in names:
            if plain_name(name) not in by_name:
                raise UsageError(
                    f"{self.name}: expected classes of objects among "
                    f"{', '.join(self.class_names)}, got {name}. Correct the name."
                )
        return {by_name[plain_name(name)] for name in names}

    def _kept(self, names: set[str]) -> Outlines:
        kept = tuple(outline for outline in self.outlines if outline.class_name in names)
        if not kept:
            raise DataError(
                f"{self.name}: expected objects of other classes than are here "
                f"({', '.join(self.class_names)}), none is left. Choose other classes or objects."
            )
        return replace(self, outlines=kept)


def open_outlines(text: str, *, seed: int = 0) -> Outlines:
    """Open a folder of photographs with outlines of objects; only the text files are read.

    The half of an image depends on the seed and its file's name alone, not on the other images, so
    no object of `train` is ever in `test`, whatever is added later. The halves are of nearly, not
    exactly, one size.

    Args:
        text: `PATH`, `PATH:train` or `PATH:test`.
        seed: of the halves.

    Returns:
        The objects in the order of the images and of the lines in their files.

    Raises:
        UsageError: for another half.
        DataError: where there is no folder, no image or no outline, or for a line that is none.
    """
    path, half = path_and_split(text)
    root = Path(path).expanduser()
    if half is not None and half not in HALVES:
        raise UsageError(
            f"Expected objects as PATH, PATH:train or PATH:test, got {text}. Correct the half."
        )
    if not root.is_dir():
        raise DataError(
            f"{root}: expected a folder with images and outlines of objects, found none there. "
            "Check the path."
        )
    names = _class_names(root)
    found: list[Outline] = []
    for image, outlines in _pairs(root):
        if half is None or half == half_of(image.stem, seed):
            found += _read(outlines, image, str(image.relative_to(root / "images")), names)
    if not found:
        where = f" in the half {half}" if half else ""
        raise DataError(
            f"{root}: expected outlines of objects in polygons/NAME.txt beside images/NAME.jpg, "
            f"found none{where}. Check the path."
        )
    name = root.resolve().name
    return Outlines(f"{name}:{half}" if half else name, tuple(found), names)


def half_of(stem: str, seed: int = 0) -> str:
    """`train` or `test`, from an image's name without suffix and a seed.

    Example:
        >>> half_of("000000000009"), half_of("000000000034")
        ('test', 'train')
    """
    digest = hashlib.blake2b(
        f"{seed}/{stem}".encode("utf-8", "surrogateescape"), digest_size=1
    ).digest()
    return HALVES[digest[0] & 1]


def tightened(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int, int]:
    """The smallest box that holds all of a mask, and its top and left; empty for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return mask[:0, :0], 0, 0
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.ascontiguousarray(box), int(rows[0]), int(columns[0])


def _kin(name: str) -> tuple[str, ...]:
    """Words that say that a class covers this object."""
    return COCO_KIN.get(name, (plain_name(name),))


def _pairs(root: Path) -> Iterator[tuple[Path, Path]]:
    """Images and their files of outlines, where they have one."""
    folder = next((root / name for name in ("polygons", "labels") if (root / name).is_dir()), None)
    if folder is None or not (root / "images").is_dir():
        raise DataError(
            f"{root}: expected the folders images and polygons (or labels), found "
            f"{', '.join(sorted(p.name for p in root.iterdir())[:8]) or 'nothing'}. Check the path."
        )
    owners: dict[Path, Path] = {}
    for image in collect_images([root / "images"]):
        path = (folder / image.relative_to(root / "images")).with_suffix(".txt")
        if not path.is_file():
            continue
        if owners.setdefault(path, image) != image:
            raise DataError(
                f"{path}: expected the outlines of one image, got {owners[path]} and {image}. "
                "Remove one of them."
            )
        yield image, path


def _class_names(root: Path) -> tuple[str, ...]:
    path = root / "classes.txt"
    if not path.is_file():
        return COCO
    names = tuple(line.strip() for line in _text(path).splitlines() if line.strip())
    if len({plain_name(name) for name in names}) < len(names):
        raise DataError(f"{path}: expected a name once, got one again. Rename or remove it.")
    return names


def _read(path: Path, image: Path, relative: str, names: Sequence[str]) -> Iterator[Outline]:
    """The outlines of one image."""
    stem = str(Path(relative).with_suffix("")).replace("/", "__").replace("\\", "__")
    for number, line in enumerate(_text(path).splitlines(), 1):
        if line.strip():
            index, points = _parsed(line.split(), f"{path}, line {number}", len(names))
            yield Outline(f"{stem}-{number}", names[index], image, points)


def _parsed(parts: list[str], place: str, classes: int) -> tuple[int, NDArray[np.float64]]:
    try:
        index, values = int(parts[0]), np.array(parts[1:], np.float64)
    except ValueError:
        raise DataError(
            f"{place}: expected numbers as in 'class x1 y1 x2 y2 x3 y3', got {' '.join(parts)[:60]}"
            ". Correct the line."
        ) from None
    if not 0 <= index < classes:
        raise DataError(
            f"{place}: expected a class of 0 to {classes - 1}, got {index}. Name the classes in "
            "classes.txt, one a line."
        )
    if len(values) < 6 or len(values) % 2:
        box = " (class and box, as of a detector)" if len(values) == 4 else ""
        raise DataError(
            f"{place}: expected an outline of at least 3 points, x and y each, got {len(values)} "
            f"numbers{box}. Correct the line."
        )
    if not ((values >= -BEYOND) & (values <= 1 + BEYOND)).all():
        raise DataError(
            f"{place}: expected coordinates in shares of the image, of 0 to 1, got "
            f"{values.min():g} to {values.max():g}. Divide x by the width and y by the height."
        )
    return index, values.reshape(-1, 2)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected UTF-8 text, got {error}. Replace it.") from error
