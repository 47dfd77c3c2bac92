"""Slices of volumes without labels as a data set, case by case."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch

from doubtmap.datasets.dataset import VOID, ComponentSizes, Sample
from doubtmap.datasets.fingerprints import fingerprint_of
from doubtmap.shown import ShownDataset
from doubtmap.volumes.nifti import Volume, case_of, slice_name


@dataclass(frozen=True, eq=False)
class Slices(ShownDataset):
    """Slices of volumes whose every voxel is void; implements `Dataset`.

    Args:
        paths: of NIfTI files.
        axis: across which they are cut.
        range: the values that become black and white; default: by each volume.
        every: bands that are needed; 0: three, or the one three times.
    """

    paths: tuple[Path, ...]
    axis: int = 2
    range: tuple[float, float] | None = None
    every: int = 0
    _opening: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _held: dict[Path, Volume] = field(default_factory=dict, init=False, repr=False)
    _marks: dict[Path, str] = field(default_factory=dict, init=False, repr=False)

    component_sizes: ComponentSizes | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def name(self) -> str:
        """Such as `volumes:spleen_3`."""
        return "volumes:" + ",".join(map(case_of, self.paths))

    @cached_property
    def slices(self) -> tuple[tuple[Path, int], ...]:
        """The file and the place of each sample."""
        lengths = {path: self._volume(path).length for path in self.paths}
        return tuple((path, at) for path, length in lengths.items() for at in range(length))

    def __len__(self) -> int:
        return len(self.slices)

    def sample_name(self, index: int) -> str:
        """Such as `CASE_slice012`."""
        return slice_name(*self.slices[index])

    def with_bands(self, count: int) -> Slices:
        """The same with all bands of its volumes, of which there must be so many."""
        return self if self.every == count else replace(self, every=count)

    def own_mark(self, index: int) -> str:
        """A hash of the file's bytes, with the slice: empty ones are alike, and each counts."""
        path, at = self.slices[index]
        if path not in self._marks:
            self._marks[path] = fingerprint_of(path)
        return f"{self._marks[path]}-{self.axis}-{at}"

    def __getitem__(self, index: int) -> Sample:
        """Read one slice; the volumes of two files are held.

        Raises:
            DataError: for a file that cannot be read, or has too few bands.
        """
        path, at = self.slices[index]
        with self._opening:
            if path not in self._held:
                while len(self._held) > 1:
                    del self._held[next(iter(self._held))]
                self._held[path] = self._volume(path)
            volume = self._held[path]
            image = volume.image(at, volume.bands(self.every))
        void = torch.full(image.shape[-2:], VOID, dtype=torch.int16)
        return Sample(self.sample_name(index), image, void)

    def _volume(self, path: Path) -> Volume:
        return Volume(path, self.axis, self.range)
