"""Labelled volumes as a data set of slices: `volumes:PATH` or `volumes:PATH:SPLIT`.

PATH/images/CASE.nii.gz    or imagesTr, imagesTs: a split is Tr or Ts; CASE_0000.nii.gz, too
PATH/labels/CASE.nii.gz    whole numbers; labelsTr, labelsTs
PATH/dataset.json          names of the numbers, as nnU-Net and the Decathlon have it;
or PATH/classes.txt, one name a line, from 0 on
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from doubtmap.datasets.dataset import VOID, ComponentSizes, Sample
from doubtmap.datasets.fingerprints import file_marks
from doubtmap.errors import DataError
from doubtmap.volumes.nifti import Volume, case_of, is_volume

SPLITS = ("", "Tr", "Ts")
SECOND = "_0001"
"""How nnU-Net ends the names of a case's second channel."""
IGNORED = "ignore"
"""nnU-Net's name for what counts for nothing."""


@dataclass(frozen=True, eq=False)
class Case:
    """An image and its labels.

    Args:
        name: of the case.
        image: its volume.
        label: of the same voxels.
    """

    name: str
    image: Volume
    label: Volume

    def check(self) -> None:
        """Refuse labels of other voxels.

        Raises:
            DataError: for another shape or place.
        """
        if self.image.shape != self.label.shape:
            raise DataError(
                f"{self.label.path}: expected labels of {self.image.shape} voxels, as "
                f"{self.image.path.name} has, got {self.label.shape}."
            )
        if not np.allclose(self.image.affine, self.label.affine, atol=1e-2):
            raise DataError(
                f"{self.label.path}: expected labels in the place of {self.image.path.name}, got "
                f"another affine. Resample them onto the image."
            )


@dataclass(frozen=True, eq=False)
class Volumes:
    """Slices of labelled volumes, case by case; implements `Dataset`.

    Args:
        name: how results call it.
        pairs: files of image and labels, by case.
        values: what each number in the labels is: an index of `class_names`, or `VOID`.
        class_names: of the numbers.
        axis: across which volumes are cut.
        range: the values that become black and white; default: by each volume.
        every: bands that are needed; 0: three, or the one three times.
    """

    name: str
    pairs: Mapping[str, tuple[Path, Path]]
    values: Mapping[int, int]
    class_names: tuple[str, ...]
    axis: int = 2
    range: tuple[float, float] | None = None
    every: int = 0
    _reading: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _held: dict[str, Case] = field(default_factory=dict, init=False, repr=False)

    component_sizes: ComponentSizes | None = None

    @cached_property
    def slices(self) -> tuple[tuple[str, int], ...]:
        """The case and the place of each sample."""
        lengths = {name: self._volume(name, 0).length for name in self.pairs}
        return tuple((name, at) for name, length in lengths.items() for at in range(length))

    @property
    def fields(self) -> list[dict[str, str]]:
        """Of each sample: its case, and its place in it."""
        return [{"case": name, "slice": f"{at:03d}"} for name, at in self.slices]

    @cached_property
    def settings(self) -> dict[str, object]:
        """What the samples depend on: what was asked for, and the content of the files."""
        files = dict.fromkeys(path for pair in self.pairs.values() for path in pair)
        marks = hashlib.sha256(json.dumps(list(file_marks(files).values())).encode()).hexdigest()
        asked = {"axis": self.axis, "range": self.range, "values": dict(self.values)}
        return asked | {"files": marks}

    def __len__(self) -> int:
        return len(self.slices)

    def sample_name(self, index: int) -> str:
        """Such as `CASE_slice012`."""
        case, at = self.slices[index]
        return f"{case}_slice{at:03d}"

    def with_bands(self, count: int) -> Volumes:
        """The same with all bands of its volumes, of which there must be so many."""
        return self if self.every == count else replace(self, every=count)

    def spacing_of(self, case: str) -> tuple[float, float, float]:
        """Between slices, rows and columns of a case, in the units of its volume."""
        return self._volume(case, 0).spacing

    def __getitem__(self, index: int) -> Sample:
        """Read one slice; the volumes of two cases are held.

        Raises:
            DataError: for files that cannot be read, or labels without a meaning.
        """
        name, at = self.slices[index]
        case = self._case(name)
        image = case.image.image(at, case.image.bands(self.every))
        label = self._translated(case.label.slice(at), case.label.path)
        return Sample(self.sample_name(index), image, torch.from_numpy(label))

    def _case(self, name: str) -> Case:
        with self._reading:
            if name not in self._held:
                found = Case(name, self._volume(name, 0), self._volume(name, 1))
                found.check()
                while len(self._held) > 1:
                    del self._held[next(iter(self._held))]
                self._held[name] = found
            return self._held[name]

    def _volume(self, name: str, which: int) -> Volume:
        return Volume(self.pairs[name][which], self.axis, None if which else self.range)

    def _translated(self, raw: NDArray[np.float32], path: Path) -> NDArray[np.int16]:
        label = np.full(raw.shape, VOID, np.int16)
        for value in np.unique(raw):
            if value not in self.values:
                raise DataError(
                    f"{path}: expected labels among {sorted(self.values)}, got {value:g}. Name it "
                    f"in dataset.json or classes.txt."
                )
            label[raw == value] = self.values[int(value)]
        return label


def open_volumes(place: str, *, axis: int = 2, range: tuple[float, float] | None = None) -> Volumes:
    """Open labelled volumes.

    Args:
        place: `PATH` or `PATH:SPLIT`.
        axis: across which they are cut: 0, 1 or 2.
        range: the values that become black and white; default: by each volume.

    Raises:
        UsageError: without nibabel.
        DataError: for a folder without the split, images, labels or names.
    """
    path, colon, split = place.rpartition(":")
    if not colon or Path(place).exists():
        path, split = place, ""
    root = Path(path).expanduser()
    found = [each for each in SPLITS if (root / f"images{each}").is_dir()]
    if not found or (split and split not in found):
        raise DataError(
            f"{root}: expected a folder {'images' + split if split else 'images, imagesTr'} of "
            f"NIfTI files with labels beside it, found none. Check the path."
        )
    chosen = split or found[0]
    pairs = _pairs(root / f"images{chosen}", root / f"labels{chosen}")
    names = _named_values(root)
    kept = tuple(name for name in names.values() if name != IGNORED)
    values = {number: kept.index(n) if n in kept else VOID for number, n in names.items()}
    title = f"volumes:{root.name}" + (f":{chosen}" if chosen else "")
    return Volumes(title, pairs, values, kept, axis, range)


def _pairs(images: Path, labels: Path) -> dict[str, tuple[Path, Path]]:
    found: dict[str, tuple[Path, Path]] = {}
    for image in sorted(path for path in images.iterdir() if is_volume(path.name)):
        stem = image.name.removesuffix(".gz").removesuffix(".nii")
        if stem.endswith(SECOND):
            raise DataError(
                f"{image}: expected one file for each case, got a second channel. Put the channels "
                f"into one file of four axes."
            )
        case = case_of(image)
        mask = labels / f"{case}.nii.gz"
        mask = mask if mask.exists() else mask.with_suffix("")
        if not mask.exists():
            raise DataError(f"{image}: expected labels {labels / case}.nii.gz, found none.")
        found[case] = image, mask
    if not found:
        raise DataError(f"{images}: expected NIfTI files, found none. Check the path.")
    return found


def _named_values(root: Path) -> dict[int, str]:
    """Numbers in labels, and what they are."""
    lines = root / "classes.txt"
    if lines.is_file():
        return dict(enumerate(filter(None, map(str.strip, lines.read_text().splitlines()))))
    file = root / "dataset.json"
    try:
        said: dict[str, Any] = json.loads(file.read_text())["labels"]
        pairs = [(k, v) if str(k).isdecimal() else (v, k) for k, v in said.items()]
        return dict(sorted((int(number), str(name)) for number, name in pairs))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file}: expected names of the labels, as in "
            f'{{"labels": {{"background": 0, "liver": 1}}}}, found none ({error}). Write it, or '
            f"classes.txt with one name a line."
        ) from error
