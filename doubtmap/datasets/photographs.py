"""Images without labels, as a data set: for what learns from ordinary images alone."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from doubtmap.datasets.dataset import VOID, ComponentSizes, Dataset, Sample
from doubtmap.datasets.opening import open_dataset
from doubtmap.datasets.reading import Rendering, collect_images, read_image
from doubtmap.datasets.survey import survey


@dataclass(frozen=True, eq=False)
class Photographs:
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
