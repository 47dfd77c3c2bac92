"""Images that something was fitted to or chosen on, met again where it is to be judged."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress

from doubtmap.datasets import fingerprints
from doubtmap.datasets.dataset import Dataset
from doubtmap.errors import DataError


def notes_of_seen(seen: Mapping[str, Collection[str]], dataset: Dataset) -> Iterator[str]:
    """A sentence for each thing that has seen images of a data set.

    Args:
        seen: fingerprints of images by what saw them, such as `the threshold of entropy`.
        dataset: to be judged on; images that cannot be read are passed over.
    """
    if not any(seen.values()):
        return
    here = []
    for index in range(len(dataset)):
        with suppress(DataError):
            here.append(fingerprints(dataset, [index])[0])
    for what, images in seen.items():
        held = set(images)
        again = sum(image in held for image in here)
        if again:
            yield (
                f"{again} of {len(dataset)} images of {dataset.name} were used for {what}, so its "
                f"figures are too good. Test on other images."
            )
