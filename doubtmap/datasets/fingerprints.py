"""Which images a data set has, so that fitting and testing on the same ones is noticed."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeGuard

from torch import Tensor

from doubtmap.datasets.corruptions import Corrupted
from doubtmap.datasets.dataset import Dataset
from doubtmap.datasets.labelled_folder import LabelledFolder
from doubtmap.datasets.opening import Photographs
from doubtmap.datasets.pairs import PairedImages
from doubtmap.datasets.pasting import Part, Pasted
from doubtmap.errors import DataError, DoubtmapError
from doubtmap.files.afar import is_afar, mark_of


def fingerprints(dataset: Dataset, indices: Iterable[int] | None = None) -> tuple[str, ...]:
    """A short hash for each image: of its file's bytes, or of its pixels where it has no file.

    The same picture under another name, in another folder, corrupted or pasted into has the same
    fingerprint. A data set may tell them by a method of its own, `own_mark(index)`.

    Args:
        dataset: any; one without files is read, image by image.
        indices: which images; default: all.

    Raises:
        DataError: for an image that cannot be read.
    """
    chosen: Iterable[int] = range(len(dataset)) if indices is None else indices
    while isinstance(dataset, Corrupted | Pasted | Part):
        if isinstance(dataset, Part):
            chosen = [dataset.indices[index] for index in chosen]
        dataset = dataset.dataset
    return tuple(_hash(dataset, index) for index in chosen)


def image_files(dataset: Dataset) -> list[Path | None]:
    """The file of each image as it is; None for images that are drawn, pasted into or corrupted."""
    chosen = [*range(len(dataset))]
    while isinstance(dataset, Part):
        chosen, dataset = [dataset.indices[index] for index in chosen], dataset.dataset
    if isinstance(dataset, LabelledFolder):
        return [dataset.files[index][0] for index in chosen]
    if isinstance(dataset, Photographs):
        return [dataset.files[index] for index in chosen]
    told: Mapping[int, Path] = getattr(dataset, "told_files", {})  # where parts have told of it
    return [told.get(index) for index in chosen]


def folders_of(dataset: Dataset) -> set[Path]:
    """The folders that hold images and labels of a data set; none of one that lies in no files."""
    while isinstance(dataset, Corrupted | Pasted | Part):
        dataset = dataset.dataset
    if not isinstance(dataset, LabelledFolder | Photographs) and not _of_files(dataset):
        return set()
    files = (path for at in range(len(dataset)) for path in _files_of(dataset, at))
    return {path.parent for path in files if not is_afar(path)}


def _hash(dataset: Dataset, index: int) -> str:
    if isinstance(dataset, LabelledFolder):
        return fingerprint_of(dataset.files[index][0])
    if isinstance(dataset, Photographs):
        return fingerprint_of(dataset.files[index])
    if hasattr(dataset, "own_mark"):
        return str(dataset.own_mark(index))
    return _hash_of(dataset[index].image)


_short = functools.partial(hashlib.blake2b, digest_size=8)


def fingerprint_of(path: Path) -> str:
    """A short hash of a file's bytes.

    Raises:
        DataError: for a file that cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, _short).hexdigest()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}). Check the path."
        ) from error


def sample_marks(dataset: Dataset) -> dict[str, str]:
    """What each sample is made of, by its name: short hashes of its image and of its labels.

    Of files the bytes count, else the pixels. A sample that cannot be read is left out, and so are
    all of a data set that is drawn, whose attribute `settings` says what the drawing depends on.

    Args:
        dataset: any; one without files is read, image by image.
    """
    where = range(len(dataset))
    names = [dataset.sample_name(index) for index in where]
    chosen: list[int] = [*where]
    while isinstance(dataset, Corrupted | Pasted | Part):
        if isinstance(dataset, Part):
            chosen = [dataset.indices[index] for index in chosen]
        dataset = dataset.dataset
    if isinstance(dataset, LabelledFolder | Photographs) or _of_files(dataset):
        files = [_files_of(dataset, index) for index in chosen]
        of_files = file_marks(dict.fromkeys(path for paths in files for path in paths))
        return {
            name: " ".join(of_files.get(path, "missing") for path in paths)
            for name, paths in zip(names, files)
        }
    if hasattr(dataset, "settings"):
        return {}
    return {name: mark for name, at in zip(names, chosen) if (mark := _pixels(dataset, at))}


def file_marks(paths: Mapping[Path, str | None]) -> dict[Any, str]:
    """Hashes of files that can be read, by what the files are called; several are read at once.

    Of files afar, what their keeper says of them counts, not their bytes.

    Args:
        paths: the files, and their names; None: their paths.
    """
    with ThreadPoolExecutor(READERS, thread_name_prefix="doubtmap-hash") as pool:
        marks = pool.map(_mark, paths)
        return {name or path: mark for (path, name), mark in zip(paths.items(), marks) if mark}


READERS = 4
"""Threads that read files for their hashes: a disk is waited for longer than it is counted."""


def _mark(path: Path) -> str:
    try:
        return mark_of(path) if is_afar(path) else fingerprint_of(path)
    except DoubtmapError:
        return ""  # who needs the file says so


def _of_files(dataset: Dataset) -> TypeGuard[PairedImages]:
    """Whether all images and masks of a list of pairs are files."""
    if not isinstance(dataset, PairedImages):
        return False
    return len(dataset.files) == len(dataset) and all(mask for _, mask in dataset.files)


def _files_of(dataset: LabelledFolder | Photographs | PairedImages, index: int) -> tuple[Path, ...]:
    files = dataset.files[index]
    return tuple(path for path in files if path) if isinstance(files, tuple) else (files,)


def _pixels(dataset: Dataset, index: int) -> str:
    """Hashes of the pixels of an image and of its labels; empty where it cannot be read."""
    try:
        sample = dataset[index]
    except DataError:
        return ""
    return f"{_hash_of(sample.image)} {_hash_of(sample.label)}"


def _hash_of(values: Tensor) -> str:
    values = values.cpu().contiguous()
    digest = hashlib.blake2b(f"{tuple(values.shape)} {values.dtype}".encode(), digest_size=8)
    digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def labels_meant(dataset: Dataset) -> str:
    """A hash of what the values in label files mean, and how images of many bits become RGB."""
    folder = beneath(dataset)
    if not isinstance(folder, LabelledFolder):
        return ""
    layout = folder.layout
    said = repr((layout.values, layout.range, layout.bands)).encode(errors="surrogateescape")
    return hashlib.blake2b(said, digest_size=8).hexdigest()


def about_files(dataset: Dataset) -> dict[str, Any]:
    """What the results say of the files of a data set; nothing for one without.

    `hash` is one hash of all image and label files, in order: which version of a data set this is.
    `range` is what was black and white, in images of more than 8 bits.

    Raises:
        DataError: for a file that cannot be read.
    """
    return told_of_files(file_hashes(dataset, 0, 1), range_of(dataset))


def told_of_files(hashes: Iterable[str] | None, span: Sequence[float] | None) -> dict[str, Any]:
    """`about_files`, of the hashes of all files in order, and what is black and white."""
    if hashes is None:
        return {}
    whole = hashlib.blake2b(digest_size=8)
    for each in hashes:
        whole.update(each.encode())
    return {"hash": whole.hexdigest()} | ({"range": list(span)} if span else {})


def file_hashes(dataset: Dataset, part: int, parts: int) -> list[str] | None:
    """Hashes of the files of a data set, in order, or of one of several shares; None without files.

    Args:
        dataset: any.
        part: which share, from 0 on.
        parts: how many.

    Raises:
        DataError: for a file that cannot be read.
    """
    folder = beneath(dataset)
    if not isinstance(folder, LabelledFolder):
        return None
    files = list(dict.fromkeys(path for pair in folder.files for path in pair if path is not None))
    own = files[len(files) * part // parts : len(files) * (part + 1) // parts]
    return [fingerprint_of(path) for path in own]


def range_of(dataset: Dataset) -> list[float] | None:
    """What is black and white in images of more than 8 bits, where a data set's files have them."""
    folder = beneath(dataset)
    span = folder.looked_at.rendering.range if isinstance(folder, LabelledFolder) else None
    return list(span) if span else None


def beneath(dataset: Dataset) -> Dataset:
    """The data set that others were derived from: by corruption, by pasting, by taking a part."""
    while isinstance(dataset, Corrupted | Pasted | Part):
        dataset = dataset.dataset
    return dataset
