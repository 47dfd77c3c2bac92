"""A data set looked at as a whole before any of it is read: what one file cannot say.

How deep its images are, which way up, what palettes its labels have, what lies beside them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from doubtmap.datasets.patterns import IMAGE_SUFFIXES
from doubtmap.datasets.polygons import said_size
from doubtmap.datasets.rasters import Header, read_header, read_raster
from doubtmap.datasets.reading import Brightness, Rendering, bands_of, brightness, implied_range
from doubtmap.errors import DataError

Pair = tuple[Path, Path | None]

_FULL = 2**14
"""From this value on, all 16 bits are used, and no further image need be looked at."""


@dataclass(frozen=True)
class Survey:
    """How the images of one run are to be read, and what a reader of its results must know.

    Args:
        rendering: the same for all images.
        notes: in sentences.
    """

    rendering: Rendering
    notes: tuple[str, ...] = ()


def survey(pairs: Sequence[Pair], rendering: Rendering, *, by_place: bool = False) -> Survey:
    """Look at all files of a run.

    Files that cannot be read are passed over: they are reported when they are read.

    Args:
        pairs: image and label, where there is one.
        rendering: what is known; its `upright` is found out where labels say so.
        by_place: labels of palette files mean the place in the palette, not the colour.

    Raises:
        DataError: where the files contradict each other.
    """
    heads = {image: head for image, _ in pairs if (head := _head(image)) is not None}
    upright, turned = _orientation(pairs, heads)
    notes = list(turned)
    deep = [image for image, head in heads.items() if head.deep]
    span = rendering.range
    if deep:
        found = list(_brightness(deep, rendering, labelled=any(label for _, label in pairs)))
        if span is None and found:
            span = implied_range(found, f"{len(deep)} images such as {deep[0]}")
        if span and found:
            notes.append(
                _of_range(found, len(deep), len(pairs), span, chosen=bool(rendering.range))
            )
    notes += _bands([image for image, head in heads.items() if head.format == "TIFF"], rendering)
    if by_place:
        check_palettes([label for _, label in pairs if label is not None])
    return Survey(replace(rendering, range=span, upright=upright), tuple(notes))


def _head(path: Path) -> Header | None:
    try:
        return read_header(path)
    except DataError:
        return None


def _orientation(pairs: Sequence[Pair], heads: Mapping[Path, Header]) -> tuple[bool, list[str]]:
    """Whether labels lie on the upright photographs, and what to note."""
    turned = [pair for pair in pairs if pair[0] in heads and heads[pair[0]].orientation > 1]
    fits: dict[bool, list[Path]] = {True: [], False: []}
    for image, label in turned:
        head = heads[image]
        if label is None or not (size := _label_size(label, image)):
            continue
        stored = (head.height, head.width)
        if (size == stored) != (size == head.upright_size):
            fits[size == head.upright_size].append(image)
    if fits[True] and fits[False]:
        raise DataError(
            f"Expected labels that lie on photographs in one way, got {fits[True][0]} whose label "
            f"fits once it is turned upright (EXIF), and {fits[False][0]} whose label fits as "
            "stored. Turn the photographs themselves, and remove their EXIF orientation."
        )
    if not turned:
        return True, []
    upright = not fits[False]
    how = "turned upright" if upright else "left as stored, which alone fits their labels"
    why = (
        ""
        if fits[upright] or not any(label for _, label in turned)
        else (" Their labels fit either way: they were taken to lie on the upright photographs.")
    )
    return upright, [
        f"{len(turned)} of {len(pairs)} images say by EXIF that they are stored turned, such as "
        f"{turned[0][0].name} (orientation {heads[turned[0][0]].orientation}): they were {how}."
        f"{why}"
    ]


def _label_size(path: Path, image: Path) -> tuple[int, int] | None:
    if path.suffix.lower() == ".json":
        try:
            return said_size(path, image)
        except (DataError, LookupError, TypeError, ValueError):
            return None
    head = _head(path)
    return head.upright_size if head else None


def _brightness(
    deep: Sequence[Path], rendering: Rendering, *, labelled: bool
) -> Iterator[Brightness]:
    """Of images of more than 8 bits, until one shows that all bits are used.

    Those with labels may lack data in places, which are void.
    """
    for path in deep:
        try:
            raster = read_raster(path).filled if labelled else read_raster(path)
        except DataError:
            continue
        if raster.pixels.dtype == np.uint8:
            continue
        bands = bands_of(raster, raster.pixels.shape[2], rendering, path)
        try:
            found = brightness(raster.pixels[..., list(bands)], raster.white, path)
        except DataError:
            continue
        yield found
        if rendering.range or (found.whole and found.high >= _FULL and found.white is None):
            return


def _of_range(
    found: Sequence[Brightness], deep: int, images: int, span: tuple[float, float], *, chosen: bool
) -> str:
    high = max(each.high for each in found)
    some = "" if deep == images else f" ({deep} of {images}; the others have 8)"
    if chosen:
        return f"Images of more than 8 bits{some}: {span[0]:g} to {span[1]:g} is black to white."
    looked = f"the brightest value is {high:g}" if len(found) == deep else f"values reach {high:g}"
    return (
        f"Images of more than 8 bits{some}: {looked}, so {span[0]:g} to {span[1]:g} was taken as "
        "black to white in all of them. If another range is meant, say range = [LOW, HIGH] in "
        "doubtmap.toml, or --range LOW,HIGH for images without labels."
    )


def _bands(deep: Sequence[Path], rendering: Rendering) -> list[str]:
    """Of images with more bands than three, by the first that there is."""
    for path in deep:
        try:
            raster = read_raster(path)
        except DataError:
            continue
        count = raster.pixels.shape[2]
        if raster.format != "TIFF" or (count < 4 and raster.pages < 2 and not raster.band_names):
            return []
        if rendering.every:
            return [
                f"Images of {count} bands, such as {path.name}: the network gets what it asks for "
                f"of all of them; pictures show the first as red, green and blue."
            ]
        taken = bands_of(raster, count, rendering, path)
        said = " (as its bands are named)" if taken != (0, 1, 2) and not rendering.bands else ""
        what = f"{raster.pages} pages" if raster.pages > 1 else f"{count} bands"
        return [
            f"Images of {what}, such as {path.name}: {', '.join(str(b + 1) for b in taken)} "
            f"{'is grey' if len(taken) == 1 else 'are red, green and blue'}{said}. If others are "
            "meant, say bands = [R, G, B] in doubtmap.toml."
        ]
    return []


def check_palettes(labels: Sequence[Path]) -> None:
    """Refuse label files whose palettes were made file by file, so that places mean nothing.

    Raises:
        DataError: where one colour stands at different places in use, of different files.
    """
    palettes: dict[bytes, list[Path]] = {}
    for path in labels:
        head = _head(path)
        if head is None or head.mode != "P":
            continue
        palette = read_raster(path).palette
        if palette is not None:
            palettes.setdefault(palette.tobytes(), []).append(path)
    if len(palettes) < 2:
        return
    first: dict[bytes, tuple[int, Path]] = {}
    meant: dict[int, bytes] = {}
    for path in (path for group in palettes.values() for path in group):
        raster = read_raster(path)
        assert raster.palette is not None
        used = np.unique(raster.pixels).tolist()
        own = {raster.palette[place].tobytes(): place for place in used}
        for colour, place in own.items():
            before, other = first.setdefault(colour, (place, path))
            if before != place and meant.get(place, colour) != colour:
                raise DataError(
                    f"{path}: expected palettes in which a colour has one place, got "
                    f"#{colour.hex()} at {place} here and at {before} in {other}. Describe the "
                    f'classes by their colours, as in road = "#{colour.hex()}".'
                )
        meant.update({place: colour for colour, place in own.items() if place not in meant})


def left_beside(
    root: Path, taken: Sequence[Pair], elsewhere: Callable[[], Collection[Path]] = tuple
) -> list[str]:
    """A note of the pictures that lie beside or below the images that were taken, and were not.

    Args:
        root: the folder of the data set.
        taken: images and labels.
        elsewhere: gives images that belong to other splits; asked for where any are beside.
    """
    files = {path for pair in taken for path in pair if path is not None}
    folders = {image.parent for image, _ in taken}
    of_labels = {label.parent for _, label in taken if label is not None} - folders
    there = [path for folder in _tops(folders) for path in _pictures(folder, of_labels)]
    beside = sorted(path for path in there if path not in files and path.is_file())
    known = set(elsewhere()) if beside else set()
    beside = [path for path in beside if path not in known]
    broken = sorted(path for path in there if not path.exists())
    notes = []
    if beside:
        suffixes = Counter(path.suffix for path in beside)
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(4))
        one = len(beside) == 1
        notes.append(
            f"{len(beside)} picture{'' if one else 's'} beside the {len(taken)} images "
            f"{'was' if one else 'were'} not taken ({kinds}), such as "
            f"{beside[0].relative_to(root)}."
        )
    if broken:
        notes.append(
            f"{len(broken)} of the pictures are links that lead nowhere, such as "
            f"{broken[0].relative_to(root)}: they were not taken. Fetch what they stand for."
        )
    return notes


def _tops(folders: Collection[Path]) -> list[Path]:
    """The folders that lie in no other of them."""
    return sorted(folder for folder in folders if not set(folder.parents) & set(folders))


def _pictures(folder: Path, without: Collection[Path]) -> Iterator[Path]:
    """Files and links with an image suffix, hidden ones left out."""
    for top, inner, names in os.walk(folder):
        inner[:] = [n for n in inner if not n.startswith(".") and Path(top, n) not in without]
        for name in names:
            path = Path(top, name)
            if path.suffix.lower().lstrip(".") in IMAGE_SUFFIXES and not name.startswith("."):
                yield path
