"""Parts of a data set, by what a field of its images' paths says: towns, sites, tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from doubtmap.datasets.corruptions import Corrupted
from doubtmap.datasets.dataset import Dataset, Derived, Sample
from doubtmap.datasets.pasting import Pasted


@dataclass(frozen=True, eq=False)
class Part(Derived):
    """Some of the images of a data set; implements `Dataset`.

    Args:
        dataset: the whole.
        indices: of the images.
        name: how results call the part.
    """

    dataset: Dataset
    indices: Sequence[int]
    name: str

    def __len__(self) -> int:
        return len(self.indices)

    def sample_name(self, index: int) -> str:
        """Name of a sample, without reading it."""
        return self.dataset.sample_name(self.indices[index])

    def __getitem__(self, index: int) -> Sample:
        """Read one sample."""
        return self.dataset[self.indices[index]]


def parts_by(dataset: Dataset, field: str) -> dict[str, Part]:
    """The images that have one value of a field each, by that value; none without the field.

    Args:
        dataset: any. Images in a folder have the fields of their path, such as `town` in
            `images/{town}/{frame}.png`; a data set of one's own has them where its attribute
            `fields` is a sequence with a mapping for each image.
        field: its name.

    Returns:
        The parts, sorted by value, their images in the order of the data set.
    """
    indices: dict[str, list[int]] = {}
    for index, fields in enumerate(image_fields(dataset)):
        if field in fields:
            indices.setdefault(fields[field], []).append(index)
    return {
        value: Part(dataset, tuple(indices[value]), f"{dataset.name}/{value}")
        for value in sorted(indices)
    }


def image_fields(dataset: Dataset) -> Sequence[Mapping[str, str]]:
    """The fields of each image; empty for a data set that knows none."""
    while isinstance(dataset, Corrupted | Pasted):
        dataset = dataset.dataset
    return getattr(dataset, "fields", ())
