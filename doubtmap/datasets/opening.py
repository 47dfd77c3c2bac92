"""Data sets by the text a command line gives: `camvid:PATH:test`, `folder:PATH`, `synthetic:20`.

Images without labels, too, for what learns from ordinary images alone. An installed package names
layouts of its own in the group `doubtmap.layouts` of its entry points.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch

from doubtmap.datasets.dataset import VOID, ComponentSizes, Dataset, Sample
from doubtmap.datasets.description import FILE_NAME, LABEL_MAP, read_description
from doubtmap.datasets.labelled_folder import NotThereError, open_folder, splits_of
from doubtmap.datasets.layouts import LAYOUTS, Layout
from doubtmap.datasets.pairs import (
    classes_beside,
    is_saved,
    open_saved,
    open_table,
    pair_images,
)
from doubtmap.datasets.patterns import IMAGE_SUFFIXES, collect_images
from doubtmap.datasets.reading import Rendering, read_image
from doubtmap.datasets.survey import survey
from doubtmap.errors import DataError, DoubtmapError, UsageError, first_line
from doubtmap.files.shards import Member, members_of, shards_of
from doubtmap.shown import ShownDataset

GROUP = "doubtmap.layouts"
ABOVE = {
    "film": ("doubtmap.films.labelled", "open_film"),
    "volumes": ("doubtmap.volumes.labelled", "open_volumes"),
}
"""What rooms above open, by their module and function, which take what follows the colon."""
_OURS = (*LAYOUTS, *ABOVE, "folder", "synthetic", "table", "webdataset")


def open_dataset(
    text: object,
    *,
    seed: int = 0,
    classes: Sequence[str] = (),
    void: int | Sequence[int] = (255, -1),
) -> Dataset:
    """Open a data set.

    Args:
        text: `LAYOUT:PATH` or `LAYOUT:PATH:SPLIT` with a name of `LAYOUTS`; `folder:PATH[:SPLIT]`
            for a folder with a `doubtmap.toml`, or one that `save_to_disk` of Hugging Face's
            datasets wrote; `table:FILE` for a table of paths, `.csv` or `.parquet`, with the
            columns image and label; `webdataset:SHARDS` for tar files of samples, such as
            `shards-{000..009}.tar`; `volumes:PATH[:SPLIT]` for labelled NIfTI volumes;
            `film:FILM[:LABELS]` for labelled frames of a film; `synthetic:N` for N drawn
            streets; or `NAME:` and what a layout of an installed package takes. Or a data set in
            Python: a torch `Dataset` or `DataLoader`, a Hugging Face
            data set, a list of pairs.
        seed: of the drawn streets.
        classes: of a data set in Python, in the order of the numbers in its masks.
        void: numbers in such masks that count for nothing.

    Returns:
        The data set in a fixed order; images are read one by one, on demand.

    Raises:
        UsageError: the text does not name a data set.
        DataError: the folder, its images, the split or a label is missing.
    """
    if isinstance(text, Dataset):
        return text
    if not isinstance(text, str):
        return pair_images(text, classes, void)
    name, colon, rest = text.partition(":")
    brought = None if name in _OURS else _of_package(name, text)
    if not colon or not rest:
        raise UsageError(f"Expected {_form(name)}, got {text}.")
    if name == "table":
        return open_table(rest, classes, void)
    if name == "webdataset":
        return _webdataset(rest, classes, void)
    if name == "synthetic":
        return _synthetic(rest, text, seed)
    if name in ABOVE:
        module, function = ABOVE[name]
        opened: Dataset = getattr(importlib.import_module(module), function)(rest)
        return opened
    if brought is not None and not isinstance(brought, Layout):
        return _made(brought, rest, text, classes, void)
    path, split = path_and_split(rest)
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(
            f"{root}: expected the folder of the data set, found none there. Check the path "
            "(relative ones start at the current folder)."
        )
    try:
        if name == "folder" and is_saved(root):
            return open_saved(root, split, classes, void)
        if name == "folder":
            files, layout = read_description(root)
            return open_folder(files, layout, layout.title, split)
        return open_folder(root, brought or LAYOUTS[name], name, split)
    except NotThereError as error:
        raise DataError(f"{error}{_advice(root, name)}") from error


def _of_package(name: str, text: str) -> Any:
    """A layout of an installed package: a `Layout`, or a function that opens a data set.

    Raises:
        UsageError: where nobody has the name.
        DataError: where the package cannot be imported, or names something else.
    """
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        raise UsageError(_unknown_layout(name, text, sorted({*_OURS, *points})))
    try:
        found = points[name].load()
    except Exception as error:
        raise DataError(
            f"{text}: the layout {name} is of an installed package, {points[name].value}, which "
            f"cannot be imported ({first_line(error)}). Mend the package."
        ) from error
    if not isinstance(found, Layout) and not callable(found):
        raise DataError(
            f"{text}: expected a Layout or a function at {points[name].value}, which an installed "
            f"package names {name}, got {type(found).__name__}."
        )
    return found


def _made(
    function: Callable[[str], object],
    rest: str,
    text: str,
    classes: Sequence[str],
    void: int | Sequence[int],
) -> Dataset:
    """What a package's function opens: a `Dataset`, or any data set in Python."""
    try:
        found = function(rest)
    except DoubtmapError:
        raise
    except Exception as error:
        raise DataError(
            f"{text}: expected a data set, but the function of an installed package raised "
            f"{type(error).__name__}: {first_line(error)}. Check what follows the colon."
        ) from error
    return found if isinstance(found, Dataset) else pair_images(found, classes, void)


def _advice(root: Path, name: str) -> str:
    """Which layouts fit a folder that the named one does not."""
    fit = [other for other in fitting_layouts(root) if other != name]
    places = [f"{other}:{root}" for other in fit]
    if not places:
        below = (path for path in sorted(root.iterdir()) if path.is_dir())
        places = [f"{other}:{path}" for path in below for other in fitting_layouts(path)][:4]
    return f" What lies there fits {' or '.join(places)}." if places else ""


def fitting_layouts(root: Path) -> list[str]:
    """The names of the layouts of which a folder has images and labels."""
    fit = []
    for name, layout in LAYOUTS.items():
        if any(_opens(root, name, split) for split in (None, *splits_of(root, layout))):
            fit.append(name)
    if (root / FILE_NAME).is_file() or (root / LABEL_MAP).is_file() or is_saved(root):
        fit.append("folder")
    return fit


def _opens(root: Path, name: str, split: str | None) -> bool:
    try:
        open_folder(root, LAYOUTS[name], name, split)
    except (DataError, UsageError):
        return False
    return True


def _synthetic(count: str, text: str, seed: int) -> Dataset:
    if not count.isascii() or not count.isdigit() or int(count) == 0:
        raise UsageError(f"Expected synthetic:N with a number of images, got {text}.")
    from doubtmap.streets.synthetic import SyntheticStreets

    return SyntheticStreets(int(count), seed=seed)


OF_LABELS = ("seg", "mask", "label", "labels", "segmentation", "annotation")
"""What the names of labels have between a sample's key and the suffix, as in `KEY.seg.png`."""
OF_IMAGES = ("", "image", "img", "input")
"""Likewise of images, mostly nothing."""


def _webdataset(text: str, classes: Sequence[str], void: int | Sequence[int]) -> Dataset:
    """The samples of shards: `KEY.png` or `.jpg` with `KEY.seg.png` or `KEY.mask.png`.

    Raises:
        UsageError: without class names.
        DataError: for a sample without image or labels, or with two; for shards without samples.
    """
    shards = shards_of(text)
    classes = classes or classes_beside(str(shards[0].parent), text)
    keys, pairs = [], []
    for shard, members in zip(shards, members_of(shards)):
        samples: dict[str, dict[str, Member]] = {}
        for member in members:
            key, kind = _in_sample(member.inside)
            if kind and kind in samples.setdefault(key, {}):
                raise DataError(
                    f"{shard}: expected one {kind} in the sample {key}, got "
                    f"{samples[key][kind].name} and {member.name}. Leave one of them out."
                )
            if kind:
                samples[key][kind] = member
        for key, found in samples.items():
            if missing := [kind for kind in ("image", "label") if kind not in found]:
                raise DataError(
                    f"{shard}: expected KEY.png or KEY.jpg with KEY.seg.png or KEY.mask.png, but "
                    f"the sample {key} has no {missing[0]}. Add it, or leave the sample out."
                )
            keys.append((shard.stem, key.replace("/", "_")))
            pairs.append((found["image"], found["label"]))
    if not pairs:
        raise DataError(f"{text}: expected samples of image and label, found none.")
    twice = Counter(key for _, key in keys)
    names = [key if twice[key] == 1 else f"{stem}_{key}" for stem, key in keys]
    if again := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(
            f"{text}: expected samples of names of their own, got {again[0]} twice. Rename a shard."
        )
    name = f"webdataset:{text.rpartition('/')[2]}"
    return replace(pair_images(pairs, classes, void), name=name, names=tuple(names))


def _in_sample(name: str) -> tuple[str, str]:
    """Key of the sample that a file of a shard belongs to; and `image`, `label`, or nothing.

    Example:
        >>> _in_sample("a/7.seg.png"), _in_sample("7.jpg"), _in_sample("7.cls")
        (('a/7', 'label'), ('7', 'image'), ('7', ''))
    """
    folder, _, file = name.rpartition("/")
    start, _, rest = file.partition(".")
    kind, _, suffix = rest.lower().rpartition(".")
    key = f"{folder}/{start}".removeprefix("./").lstrip("/")
    if not start or suffix not in IMAGE_SUFFIXES:
        return key, ""
    return key, "label" if kind in OF_LABELS else "image" if kind in OF_IMAGES else ""


def path_and_split(rest: str) -> tuple[str, str | None]:
    """Part PATH from SPLIT; a colon of the path itself (a drive, an existing folder) stays."""
    path, colon, split = rest.rpartition(":")
    drive = len(path) == 1 and (os.name == "nt" or split.startswith(("\\", "/")))
    if not colon or drive or "/" in split or "\\" in split or Path(rest).exists():
        return rest, None
    return path, split or None


def _form(name: str) -> str:
    own = {"synthetic": "synthetic:N", "table": "table:FILE.csv or table:FILE.parquet"}
    own["film"] = "film:FILM or film:FILM:LABELS"
    own["webdataset"] = "webdataset:SHARDS such as webdataset:shards-{000..009}.tar"
    return own.get(name, f"{name}:PATH or {name}:PATH:SPLIT")


def _unknown_layout(name: str, text: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.lower(), known, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return (
        f"Expected LAYOUT:PATH[:SPLIT] with one of the layouts {', '.join(known)}, got {text}."
        f"{hint}"
    )


@dataclass(frozen=True, eq=False)
class Photographs(ShownDataset):
    """Images whose every pixel is void; implements `Dataset`.

    Args:
        name: how results call them.
        files: the images.
        every: see `Rendering`.
    """

    name: str
    files: tuple[Path, ...]
    every: int = 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def component_sizes(self) -> ComponentSizes | None:
        """None."""
        return None

    def __len__(self) -> int:
        return len(self.files)

    def sample_name(self, index: int) -> str:
        """Name of a sample, without reading it."""
        return self.files[index].stem

    def with_bands(self, count: int) -> Photographs:
        """The same with all bands of its images, of which there must be so many."""
        return self if self.every == count else replace(self, every=count)

    @functools.cached_property
    def rendering(self) -> Rendering:
        """How all of them become RGB."""
        known = Rendering(every=self.every)
        return survey([(path, None) for path in self.files], known).rendering

    def __getitem__(self, index: int) -> Sample:
        """Read one image.

        Raises:
            DataError: where it cannot be read.
        """
        image = read_image(self.files[index], self.rendering)
        void = torch.full(image.shape[-2:], VOID, dtype=torch.int16)
        return Sample(self.sample_name(index), image, void)


def open_images(text: str, *, seed: int = 0) -> Dataset:
    """Open a data set, or a plain folder of photographs, for what needs no labels.

    Args:
        text: as of `open_dataset`, or the path of a folder, an image or a pattern.
        seed: see `open_dataset`.

    Raises:
        UsageError, DataError: as `open_dataset`, or for a folder without images.
    """
    if Path(text).expanduser().exists() or any(mark in text for mark in "*?"):
        found = collect_images([Path(text).expanduser()])
        return Photographs(f"images:{Path(text).name}", tuple(found))
    return open_dataset(text, seed=seed)
