"""Which images a data set has, so that fitting and testing on the same ones is noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from doubtmap.datasets.dataset import Dataset
from doubtmap.errors import DataError


def fingerprints(dataset: Dataset, indices: Iterable[int] | None = None) -> tuple[str, ...]:
    """A short hash for each image, of its file's bytes, or of its name where it has no file.

    The same picture under another name or in another folder has the same fingerprint.

    Args:
        dataset: any.
        indices: which images; default: all.

    Raises:
        DataError: for a file that cannot be read.
    """
    files = getattr(dataset, "files", None)
    found = []
    for index in range(len(dataset)) if indices is None else indices:
        if files is None:
            content = f"{dataset.name}/{dataset.sample_name(index)}".encode()
        else:
            try:
                content = files[index][0].read_bytes()
            except OSError as error:
                raise DataError(
                    f"{files[index][0]}: cannot be read ({error.strerror or error}). Check the "
                    f"path."
                ) from error
        found.append(hashlib.blake2b(content, digest_size=8).hexdigest())
    return tuple(found)
