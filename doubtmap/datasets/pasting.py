"""Objects pasted into the images of a data set: what is unknown there is known to the pixel.

Reference:
    Simultaneous Semantic Segmentation and Outlier Detection in Presence of Domain Shift (Bevandic
    et al., 2019), https://arxiv.org/abs/1908.01098: WD-Pascal, in which one instance of Pascal VOC
    is pasted into each image of WildDash, unscaled, at a uniform place, if it covers more than
    0.7 % of the image; the pass over the images is repeated with other draws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Never

import numpy as np
import torch
from torch import Tensor

from doubtmap.datasets.corruptions import Corrupted
from doubtmap.datasets.cutouts import CutOut, Outlines, open_outlines
from doubtmap.datasets.dataset import KNOWN, UNKNOWN, VOID, Dataset, Derived, Sample
from doubtmap.errors import DataError, UsageError

SMALLEST = 0.007
"""Share of the image that an object covers, at least."""


@dataclass(frozen=True, eq=False)
class Placed:
    """An object and where it goes.

    Args:
        cut_out: the object.
        top: row of the image that the box's first row goes to.
        left: column of the image that the box's first column goes to.
    """

    cut_out: CutOut
    top: int
    left: int


def draw_cut_out(
    outlines: Outlines,
    size: tuple[int, int],
    random: np.random.Generator,
    smallest: float = SMALLEST,
) -> Placed:
    """Draw an object and a place: each suitable object, then each place inside, is equally likely.

    Suitable are objects that fit into the image as they are and cover enough of it; others are
    drawn again.

    Args:
        outlines: the objects.
        size: height and width of the image, in pixels.
        random: of everything random.
        smallest: share of the image that the object covers, at least.

    Raises:
        DataError: where no object is suitable.
    """
    height, width = size
    for index in random.permutation(len(outlines)).tolist():
        mask, _, _ = outlines.outlines[index].mask()
        rows, columns = mask.shape
        if rows <= height and columns <= width and mask.sum() >= max(1, smallest * height * width):
            top = int(random.integers(height - rows + 1))
            left = int(random.integers(width - columns + 1))
            return Placed(outlines[index], top, left)
    raise DataError(
        f"{outlines.name}: expected an object that fits into {width} x {height} pixels and covers "
        f"at least {smallest:.2%} of them, found none among {len(outlines)}. Give other objects, "
        "or larger images."
    )


def paste(
    image: Tensor, label: Tensor, placed: Placed, meaning: int = UNKNOWN
) -> tuple[Tensor, Tensor]:
    """Put an object over an image, hard at its border, without blending.

    Args:
        image: `(3, H, W)`, uint8, or floating point in [0, 1].
        label: `(H, W)`, integers.
        placed: the object, with its box inside the image.
        meaning: label of the object's pixels.

    Returns:
        New tensors of the same kinds.

    Raises:
        UsageError: where the box is not inside the image.
    """
    cut_out, top, left = placed.cut_out, placed.top, placed.left
    rows, columns = cut_out.mask.shape
    height, width = label.shape
    if not (0 <= top <= height - rows and 0 <= left <= width - columns):
        raise UsageError(
            f"paste: expected the box {rows} x {columns} at {top}, {left} inside the image "
            f"{height} x {width}. Draw its place with draw_cut_out."
        )
    pixels = cut_out.image.to(image.device)
    if image.is_floating_point():
        pixels = pixels.to(image.dtype) / 255
    mask = cut_out.mask.to(image.device)
    image, label = image.clone(), label.clone()
    window = (slice(top, top + rows), slice(left, left + columns))
    image[:, *window] = torch.where(mask, pixels, image[:, *window])
    label[window] = torch.where(mask.to(label.device), meaning, label[window])
    return image, label


@dataclass(frozen=True, eq=False)
class Pasted(Derived):
    """A data set with one object pasted into each image; implements `Dataset`.

    The object's pixels are unknown, all others keep their labels. The draw depends on the seed and
    the image's name, so image `i` is the same in whatever order, part or process it is read.

    Departures from WD-Pascal: void pixels of the image stay void, where the published figures count
    them as known (`void_known=True` does); and of the objects that fit, none is cut by the image's
    border.

    Args:
        dataset: any.
        outlines: the objects.
        seed: of the draws; another seed is another pass.
        smallest: share of the image that an object covers, in [0, 1].
        void_known: whether void pixels count as known, without a class.

    Raises:
        UsageError: for a share or a seed that cannot be.
    """

    dataset: Dataset
    outlines: Outlines
    seed: int = 0
    smallest: float = SMALLEST
    void_known: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.smallest <= 1:
            raise UsageError(
                f"pasting: expected the smallest share of an image in [0, 1], got {self.smallest}."
            )
        if self.seed < 0:
            raise UsageError(f"pasting: expected a seed of at least 0, got {self.seed}.")

    @property
    def name(self) -> str:
        """The data set's, with the objects and the seed."""
        return f"{self.dataset.name}+{self.outlines.name}@{self.seed}"

    def with_bands(self, count: int) -> Never:
        """None: cut-outs have red, green and blue only.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            f"pasting: expected a network that takes RGB images, got one of {count} bands, which "
            f"cut-out objects lack. Leave pasting out."
        )

    @property
    def settings(self) -> dict[str, object]:
        """What the draws depend on."""
        objects = hashlib.sha256()
        for outline in self.outlines.outlines:
            objects.update(
                f"{outline.name} {outline.points.shape}".encode("utf-8", "surrogateescape")
            )
            objects.update(outline.points.tobytes())
        return {
            "objects": objects.hexdigest(),
            "seed": self.seed,
            "smallest": self.smallest,
            "void_known": self.void_known,
        }

    def placed(self, name: str, size: tuple[int, int]) -> Placed:
        """The object that goes into an image of this name and size.

        Raises:
            DataError: where no object is suitable.
        """
        digest = hashlib.blake2b(
            f"{self.seed}/{name}".encode("utf-8", "surrogateescape"), digest_size=16
        ).digest()
        random = np.random.default_rng(int.from_bytes(digest, "big"))
        return draw_cut_out(self.outlines, size, random, self.smallest)

    def __getitem__(self, index: int) -> Sample:
        """Read one sample and paste its object.

        Raises:
            DataError: for a sample or an object that cannot be read, or where none is suitable.
        """
        sample = self.dataset[index]
        height, width = sample.image.shape[-2:]
        label = sample.label
        if self.void_known:
            label = torch.where(label == VOID, KNOWN, label)
        image, label = paste(sample.image, label, self.placed(sample.name, (height, width)))
        return Sample(sample.name, image, label)


def pasted_passes(
    dataset: Dataset,
    objects: str,
    class_names: Sequence[str],
    *,
    only: Sequence[str] = (),
    seed: int = 0,
    passes: int = 1,
) -> tuple[list[Pasted], list[str]]:
    """The passes of the pasting protocol: a data set with objects that a network does not know.

    The halves `train` and `test` of the objects do not depend on `seed`, so that what a network
    saw as a negative in training is in no pass.

    Args:
        dataset: any.
        objects: `PATH`, `PATH:train` or `PATH:test`.
        class_names: the network's, or those that it is tested on where it has no names.
        only: classes of objects; default: all that the network does not know.
        seed: of the first pass; the next ones have the next seeds.
        passes: at least 1.

    Returns:
        The data sets, and sentences for the user.

    Raises:
        UsageError: for a half, a class or a number that cannot be.
        DataError: where there are no objects.
    """
    if passes < 1:
        raise UsageError(f"pasting: expected at least 1 pass, got {passes}. Give --repeats 5.")
    found = open_outlines(objects)
    if only:
        found, notes = found.only(only), []
        known = found.known_to(class_names)
        if known:
            notes.append(
                f"{found.name}: objects that the network knows ({', '.join(known)}) are pasted as "
                "unknown because you asked."
            )
    else:
        found, note = found.foreign_to(class_names)
        notes = [note] if note else []
    return [Pasted(dataset, found, seed + at) for at in range(passes)], notes


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
    if isinstance(dataset, Part):
        fields = image_fields(dataset.dataset)
        return [fields[index] for index in dataset.indices] if fields else ()
    if isinstance(dataset, Corrupted | Pasted):
        return image_fields(dataset.dataset)
    return getattr(dataset, "fields", ())
