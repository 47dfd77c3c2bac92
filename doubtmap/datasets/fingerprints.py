"""Which images a data set has, so that fitting and testing on the same ones is noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from doubtmap.datasets.corruptions import Corrupted
from doubtmap.datasets.dataset import Dataset
from doubtmap.datasets.labelled_folder import LabelledFolder
from doubtmap.datasets.pasting import Part, Pasted
from doubtmap.datasets.photographs import Photographs
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
