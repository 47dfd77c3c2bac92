"""What a data set is to the rest of the library: named samples of image and label map."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from doubtmap.shown import ShownDataset

KNOWN = -3
"""Label of a pixel that is known to be of the model's world, its class not said."""
VOID = -2
"""Label of a pixel that counts for nothing."""
UNKNOWN = -1
"""Label of a pixel of something outside the model's classes."""


@dataclass(frozen=True)
class ComponentSizes:
    """Smallest connected components that count, in pixels, as the benchmark published them."""

    predicted: int = 0
    labelled: int = 0


@dataclass(frozen=True, eq=False)
class Sample:
    """One image with its labels.

    Args:
        name: unique within the data set, usable as a file name without suffix.
        image: `(3, H, W)` uint8 RGB; all bands for a network that takes others.
        label: `(H, W)` int16: index into the data set's `class_names`, or `KNOWN`, `UNKNOWN`,
            `VOID`.
    """

    name: str
    image: Tensor
    label: Tensor


@runtime_checkable
class Dataset(Protocol):
    """Anything with names, a length and samples.

    `class_names` is empty where labels only tell known from unknown.
    """

    @property
    def name(self) -> str:
        """How results call the data set, such as `camvid:test`."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the label classes, in the order of their indices."""
        ...

    @property
    def component_sizes(self) -> ComponentSizes | None:
        """The benchmark's component sizes, where it published any."""
        ...

    def __len__(self) -> int: ...

    def sample_name(self, index: int) -> str:
        """Name of a sample, without reading it."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Read one sample."""
        ...


class Derived(ShownDataset):
    """What data sets that are made of another have in common with it."""

    dataset: Dataset

    @property
    def class_names(self) -> tuple[str, ...]:
        """The other's."""
        return self.dataset.class_names

    @property
    def component_sizes(self) -> ComponentSizes | None:
        """The other's."""
        return self.dataset.component_sizes

    @property
    def notes(self) -> tuple[str, ...]:
        """The other's."""
        return notes_of(self.dataset)

    def with_bands(self, count: int) -> Any:
        """The same of the other with all bands."""
        other = with_bands(self.dataset, count)
        return self if other is self.dataset else replace(self, dataset=other)  # type: ignore[type-var]

    def __len__(self) -> int:
        return len(self.dataset)

    def sample_name(self, index: int) -> str:
        """Name of a sample, without reading it."""
        return self.dataset.sample_name(index)


def notes_of(dataset: Dataset) -> tuple[str, ...]:
    """What a reader of results on a data set must know of its files, in sentences."""
    return tuple(getattr(dataset, "notes", ()))


def with_bands(dataset: Dataset, count: int) -> Dataset:
    """The data set with all bands of its images, for a network that takes others than RGB.

    Args:
        dataset: any; one whose images lie in no files stays as it is.
        count: of bands that images must have; 0: red, green and blue are read.
    """
    method = getattr(dataset, "with_bands", None)
    found: Dataset = method(count) if count and method is not None else dataset
    return found
