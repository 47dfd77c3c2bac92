"""Which images a data set has, so that fitting and testing on the same ones is noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from doubtmap.datasets.corruptions import Corrupted
from doubtmap.datasets.dataset import Dataset
from doubtmap.datasets.labelled_folder import LabelledFolder
from doubtmap.datasets.opening import Photographs
from doubtmap.datasets.pasting import Part, Pasted
from doubtmap.errors import DataError


def fingerprints(dataset: Dataset, indices: Iterable[int] | None = None) -> tuple[str, ...]:
    """A short hash for each image: of its file's bytes, or of its pixels where it has no file.

    The same picture under another name, in another folder, corrupted or pasted into has the same
    fingerprint.

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


def _hash(dataset: Dataset, index: int) -> str:
    if isinstance(dataset, LabelledFolder):
        return fingerprint_of(dataset.files[index][0])
    if isinstance(dataset, Photographs):
        return fingerprint_of(dataset.files[index])
    image = dataset[index].image.cpu().contiguous()
    digest = hashlib.blake2b(f"{tuple(image.shape)} {image.dtype}".encode(), digest_size=8)
    digest.update(image.numpy().tobytes())
    return digest.hexdigest()


def fingerprint_of(path: Path) -> str:
    """A short hash of a file's bytes.

    Raises:
        DataError: for a file that cannot be read.
    """
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}). Check the path."
        ) from error


def about_files(dataset: Dataset) -> dict[str, Any]:
    """What the results say of the files of a data set; nothing for one without.

    `hash` is one hash of all image and label files, in order: which version of a data set this is.
    `range` is what was black and white, in images of more than 8 bits.

    Raises:
        DataError: for a file that cannot be read.
    """
    folder = beneath(dataset)
    if not isinstance(folder, LabelledFolder):
        return {}
    whole = hashlib.blake2b(digest_size=8)
    files = dict.fromkeys(path for pair in folder.files for path in pair if path is not None)
    for path in files:
        whole.update(fingerprint_of(path).encode())
    span = folder.looked_at.rendering.range
    return {"hash": whole.hexdigest()} | ({"range": list(span)} if span else {})


def beneath(dataset: Dataset) -> Dataset:
    """The data set that others were derived from: by corruption, by pasting, by taking a part."""
    while isinstance(dataset, Corrupted | Pasted | Part):
        dataset = dataset.dataset
    return dataset
