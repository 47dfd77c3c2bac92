"""A data set read from a folder by its layout."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from doubtmap.datasets.dataset import VOID, ComponentSizes, Sample
from doubtmap.datasets.labels import LabelValues
from doubtmap.datasets.layouts import Layout, Selection
from doubtmap.datasets.patterns import IMAGE_SUFFIXES, fill, find, first_files, fits
from doubtmap.datasets.polygons import read_shapes
from doubtmap.datasets.reading import Rendering, read_label, read_labelled
from doubtmap.datasets.survey import Survey, left_beside, survey
from doubtmap.errors import DataError, UsageError
from doubtmap.shown import ShownDataset


class NotThereError(DataError):
    """Images or labels that a layout expects are not there; another layout may fit."""


_LOOKING = threading.Lock()
"""One thread looks at a data set as a whole, while others wait for what it finds."""


@dataclass(frozen=True, eq=False)
class LabelledFolder(ShownDataset):
    """Images and labels in a folder; implements `Dataset`.

    Args:
        name: how results call the data set.
        layout: what the files mean.
        sample_names: unique name of each sample.
        files: image and label of each sample; None where the label is missing.
        missing: for each such sample, by its index, the sentence that says so.
        fields: of each sample, what the fields of its path say.
        root: the folder.
        every: see `Rendering`.
    """

    name: str
    layout: Layout
    sample_names: tuple[str, ...]
    files: tuple[tuple[Path, Path | None], ...]
    missing: Mapping[int, str] = field(default_factory=dict)
    fields: tuple[Mapping[str, str], ...] = ()
    root: Path = Path()
    every: int = 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the label classes; empty where labels only tell known from unknown."""
        return self.layout.values.class_names

    @property
    def component_sizes(self) -> ComponentSizes | None:
        """The benchmark's component sizes, where it published any."""
        return self.layout.component_sizes

    def __len__(self) -> int:
        return len(self.files)

    def with_bands(self, count: int) -> LabelledFolder:
        """The same with all bands of its images, of which there must be so many."""
        return self if self.every == count else replace(self, every=count)

    def sample_name(self, index: int) -> str:
        """Name of a sample, without reading it."""
        return self.sample_names[index]

    def __getitem__(self, index: int) -> Sample:
        """Read one sample.

        Raises:
            DataError: a file is missing or damaged, the two differ in size, or a label value has
                no meaning.
        """
        image_path, label_path = self.files[index]
        if label_path is None:
            raise DataError(self.missing[index % len(self)])
        image, missing = read_labelled(image_path, self.looked_at.rendering)
        label = torch.from_numpy(self.read_labels(index, (image.shape[1], image.shape[2])))
        if missing is not None:
            label[missing] = VOID
        return Sample(self.sample_names[index], image, label)

    def read_labels(self, index: int, size: tuple[int, int]) -> NDArray[np.int16]:
        """The labels of one image of this height and width.

        Raises:
            DataError: as for a sample.
        """
        image_path, label_path = self.files[index]
        assert label_path is not None
        values = self.layout.values
        if label_path.suffix.lower() == ".json":
            return read_shapes(label_path, image_path, size, values)
        raw = read_raw(label_path, values, upright=self.looked_at.rendering.upright)
        if size != raw.shape[:2]:
            raise DataError(_other_size(image_path, size, label_path, raw.shape))
        return values.translate(raw, label_path)

    @property
    def looked_at(self) -> Survey:
        """What all files together say, found out when it is first asked for.

        Raises:
            DataError: where they contradict each other.
        """
        with _LOOKING:
            return self._survey

    @cached_property
    def _survey(self) -> Survey:
        rendering = Rendering(self.layout.range, self.layout.bands, every=self.every)
        return survey(self.files, rendering, by_place=not self.layout.values.in_colour)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results on this data set must know of its files, in sentences."""
        beside = left_beside(self.root, self.files, self._of_other_splits)
        return (*beside, *self._labels_alone(), *self.looked_at.notes)

    def _labels_alone(self) -> list[str]:
        """A note of the labels without an image, where the layout takes all images there are."""
        layout = self.layout
        if layout.listing or layout.parts or layout.selections or layout.only or layout.without:
            return []
        split = self.fields[0].get("split") if self.fields else None
        fields = {"split": split} if split else {}
        taken = {label for _, label in self.files} | {image for image, _ in self.files}
        alone = [
            found["file"]
            for pattern in layout.labels
            for found in find(self.root, pattern, fields)
            if self.root / found["file"] not in taken
        ]
        names = list(dict.fromkeys(alone))
        if not names:
            return []
        some = f"{len(names)} labels have" if len(names) > 1 else "1 label has"
        return [f"{some} no image, such as {names[0]}."]

    def _of_other_splits(self) -> set[Path]:
        return {
            self.root / image["file"]
            for split in splits_of(self.root, self.layout)
            for image in _images(self.root, self.layout, split)
        }


def read_raw(path: Path, values: LabelValues, *, upright: bool = True) -> NDArray[Any]:
    """The raw values of a label file, as `values` mean them.

    Palette files mean the place in the palette, or its colour where only that is described; greys
    of few bits are read alike: as numbers, or as they are shown, 0 to 255.

    Returns:
        As `read_label`.

    Raises:
        DataError: as `read_label`.
    """
    raw = read_label(path, colours=values.in_colour, upright=upright)
    if values.in_colour or values.describe(raw):
        return raw
    shown = read_label(path, colours=True, upright=upright)
    return shown if values.describe(shown) else raw


def _other_size(image: Path, size: tuple[int, int], label: Path, shape: tuple[int, ...]) -> str:
    turned = "Turn the label or the image: " if size == shape[1::-1] else ""
    advice = (
        "one lies on its side."
        if turned
        else "Bring the label to the image's size without blending its values (nearest neighbour)."
    )
    return (
        f"Expected an image and a label of one size, got {image} with {size[1]} x {size[0]} and "
        f"{label} with {shape[1]} x {shape[0]} (width x height). {turned}{advice}"
    )


def open_folder(root: Path, layout: Layout, layout_name: str, split: str | None) -> LabelledFolder:
    """Find the images and labels of a data set; nothing is read yet.

    Args:
        root: folder of the data set, which exists.
        layout: how it lies there.
        layout_name: what to call it in results and messages.
        split: the split, or `None` for the layout's default.

    Raises:
        UsageError: a split is needed, or was named where there is none.
        DataError: images, the split or all labels are missing, or it is not clear which label is
            whose.
    """
    split = _split(root, layout, layout_name, split)
    top, root = root, _beginning(root, layout, split)
    images = _images(root, layout, split)
    if not images:
        raise NotThereError(_no_images(top, layout, layout_name, split))
    images, labels = _without_labels(root, layout, layout_name, images)
    missing = {
        index: _no_label(root, layout, layout_name, image)
        for index, (image, label) in enumerate(zip(images, labels))
        if label is None
    }
    if len(missing) == len(images):
        all_lack = f" None of {len(images)} images has one." if len(images) > 1 else ""
        raise NotThereError(missing[0] + all_lack)
    files = tuple((root / image["file"], label) for image, label in zip(images, labels))
    _check_not_shared(files)
    return LabelledFolder(
        name=f"{layout_name}:{split}" if split else layout_name,
        layout=layout,
        sample_names=_unique_names([image["file"] for image in images]),
        files=files,
        missing=missing,
        fields=tuple(images),
        root=root,
    )


def _beginning(root: Path, layout: Layout, split: str | None) -> Path:
    """The folder below in which the data set begins."""
    places = [root / below for below in layout.below]
    return next((place for place in places if _images(place, layout, split)), root)


def _without_labels(
    root: Path, layout: Layout, layout_name: str, images: list[dict[str, str]]
) -> tuple[list[dict[str, str]], list[Path | None]]:
    """The images without those that are labels of others, and the label of each."""
    labels = [_label(root, layout, layout_name, image) for image in images]
    own = {root / image["file"]: label for image, label in zip(images, labels)}
    masks = {label for image, label in own.items() if label != image} & set(own)
    kept = [
        (image, label)
        for image, label in zip(images, labels)
        if label not in (None, root / image["file"])
        or not (root / image["file"] in masks or _is_label(image, layout))
    ]
    if not kept:
        return images, labels
    return [image for image, _ in kept], [label for _, label in kept]


def _is_label(image: Mapping[str, str], layout: Layout) -> bool:
    """Whether a file that was found as an image has the name of a label, of whatever image."""
    return any(fits(label, image["file"]) for label in layout.labels if label not in layout.images)


def _split(root: Path, layout: Layout, layout_name: str, split: str | None) -> str | None:
    if not layout.has_splits:
        if split:
            raise UsageError(
                f"{layout_name} has no splits, got {split}. Leave :{split} away, or check the path."
            )
        return None
    if split or layout.default_split:
        return split or layout.default_split
    raise UsageError(
        f"{layout_name} needs a split, as in LAYOUT:PATH:SPLIT. {_existing_splits(root, layout)}"
    )


def _images(root: Path, layout: Layout, split: str | None) -> list[dict[str, str]]:
    """The images of a split, as the fields that they fill."""
    if split and split in layout.selections:
        return _selected(root, layout, layout.selections[split])
    part = layout.parts.get(split or "")
    if split and part is None and not layout.splits_by_path:
        return []
    fields = _fields(layout, split)
    if layout.listing and part is None:
        return _listed_images(root, layout, layout.listing, fields)
    found: dict[str, dict[str, str]] = {}
    for pattern in layout.images:
        for image in find(root, pattern, fields, of_images=True):
            if _belongs(image, part or {}) and not _matches(image["file"], layout.without):
                found.setdefault(image["file"], image)
    chosen = [file for file in found if layout.only and fnmatchcase(file, layout.only)]
    return [found[file] for file in sorted(chosen or found)]


def _fields(layout: Layout, split: str | None) -> dict[str, str]:
    """What a split says of the fields in a path."""
    named = split in layout.parts or split in layout.selections
    return {"split": split} if split and not named else {}


def _selected(root: Path, layout: Layout, selection: Selection) -> list[dict[str, str]]:
    """The images of a split without those that a benchmark leaves out."""
    images = sorted(_images(root, layout, selection.split), key=lambda image: image["frame"])
    if images and selection.numbers and len(images) != selection.of:
        raise DataError(
            f"{root}: expected the {selection.of} images of the split {selection.split}, of which "
            f"some are left out by number, got {len(images)}. Complete the data, or use the split "
            f"{selection.split}."
        )
    return [
        image
        for number, image in enumerate(images)
        if number not in selection.numbers and not _matches(image["frame"], selection.without)
    ]


def _matches(text: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _belongs(image: Mapping[str, str], part: Mapping[str, Sequence[str]]) -> bool:
    return all(_matches(image.get(name, ""), patterns) for name, patterns in part.items())


def _listed_images(
    root: Path, layout: Layout, listing: str, fields: dict[str, str]
) -> list[dict[str, str]]:
    path = root / fill(listing, fields)
    if not path.is_file():
        return []
    images = []
    for frame in _frames(path):
        named = {**fields, "frame": frame}
        matches = (image for pattern in layout.images for image in find(root, pattern, named))
        found = next(matches, None)
        if found is None:
            missing = root / fill(layout.images[0], named)
            raise DataError(f"{path} lists {frame}, but there is no {missing}. Complete the data.")
        images.append(found)
    return images


def _frames(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        return sorted({_frame(line.split()[0]) for line in lines if line.strip()})
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: expected a list of images in UTF-8, got other bytes ({error}). Save it as "
            "plain text."
        ) from error


def _frame(entry: str) -> str:
    """The frame that a list names, perhaps by its path."""
    name = PurePosixPath(entry.replace("\\", "/")).name
    stem, _, suffix = name.rpartition(".")
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def _no_images(root: Path, layout: Layout, layout_name: str, split: str | None) -> str:
    fields = _fields(layout, split)
    patterns = (layout.listing,) if layout.listing else layout.images
    searched = " or ".join(fill(pattern, fields, "*") for pattern in patterns)
    what = f"images of the split {split}" if split else "images"
    for name, wanted in layout.parts.get(split or "", {}).items():
        searched += f" with {name} {' or '.join(wanted)}"
    hint = _existing_splits(root, layout) if split else _other_suffix(root, layout)
    return f"{root}: expected {what}, found no file {searched} ({layout_name} layout). {hint}"


def _other_suffix(root: Path, layout: Layout) -> str:
    """What to do where there are no images; names a picture that lies where they should."""
    for pattern in layout.images:
        folder = root / PurePosixPath(pattern).parent
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix.lower().lstrip(".") in IMAGE_SUFFIXES and not path.name.startswith("."):
                return f"There is {path.relative_to(root)}: correct the pattern."
    return "Check the path."


def _existing_splits(root: Path, layout: Layout) -> str:
    splits = splits_of(root, layout)
    if not splits:
        return "There are no images of any split: check the path."
    return f"Splits there: {', '.join(splits)}."


def splits_of(root: Path, layout: Layout) -> list[str]:
    """The splits of which there are images, sorted."""
    splits = {part for part in layout.parts if _images(root, layout, part)}
    splits |= {name for name, one in layout.selections.items() if _images(root, layout, one.split)}
    for pattern in (layout.listing,) if layout.listing else layout.images:
        for found in find(root, pattern, {}) if layout.splits_by_path else ():
            if layout.listing or first_files(root, layout.labels, found):
                splits.add(found["split"])
    return sorted(splits)


def _label(root: Path, layout: Layout, layout_name: str, image: dict[str, str]) -> Path | None:
    """The one label of an image, or None."""
    found = first_files(root, layout.labels, image)
    if len(found) > 1:
        raise DataError(
            f"{root / image['file']}: expected one label, found {len(found)}, such as {found[0]} "
            f"and {found[1]} ({layout_name} layout). Make the pattern of the labels exact "
            "(masks/{path}.png for images/{path}.jpg), or remove all but one."
        )
    return found[0] if found else None


def _no_label(root: Path, layout: Layout, layout_name: str, image: dict[str, str]) -> str:
    wanted = " or ".join(str(root / fill(label, image)) for label in layout.labels)
    return (
        f"{root / image['file']}: expected its label {wanted}, found none ({layout_name} layout). "
        "Add the label or remove the image."
    )


def _check_not_shared(files: Sequence[tuple[Path, Path | None]]) -> None:
    owners: dict[Path, Path] = {}
    for image, label in files:
        if label == image:
            raise DataError(
                f"{image}: expected an image and a label, got one file for both. Make the "
                "patterns of images and labels differ."
            )
        shared = label is None or label.suffix.lower() == ".json"
        if not shared and label is not None and owners.setdefault(label, image) != image:
            raise DataError(
                f"{label}: expected to be the label of one image, got {owners[label]} and {image}. "
                "Make the pattern of the labels exact, or remove one image."
            )


def _unique_names(files: Sequence[str]) -> tuple[str, ...]:
    """The shortest names that are unique, also where file names ignore case."""
    paths = [PurePosixPath(file) for file in files]
    for names in (
        [path.stem for path in paths],
        [str(path.with_suffix("")).replace("/", "__") for path in paths],
        [str(path).replace("/", "__").replace(".", "_") for path in paths],
    ):
        if len({name.casefold() for name in names}) == len(names):
            return tuple(names)
    return tuple(f"{index:06d}_{path.stem}" for index, path in enumerate(paths))
