"""The batches of an epoch: which images, how they are varied, read ahead of their use.

Views differ from the image in scale, flip, colour and crop. Images are resized with blending,
labels never (nearest); what a crop adds beyond the image is void.

Random numbers depend on the seed, the epoch and the image only. Hence a resumed run, another number
of reading threads and another number of processes draw the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.datasets import VOID, Dataset, Sample
from doubtmap.datasets.reading import read_ahead
from doubtmap.errors import UsageError
from doubtmap.training.labels import Targets
from doubtmap.training.optimizing import ALONE, Processes


def mixed(*parts: int) -> int:
    """A seed out of several numbers of at least 0, as good as independent of its neighbours."""
    low, high = (int(word) for word in np.random.SeedSequence(parts).generate_state(2))
    return high % 2**31 << 32 | low


def generator(*parts: int) -> torch.Generator:
    """A generator on the CPU for `mixed(*parts)`."""
    return torch.Generator().manual_seed(mixed(*parts))


def order(count: int, seed: int, epoch: int) -> list[int]:
    """The images of an epoch: all of them, shuffled."""
    shuffled: list[int] = torch.randperm(count, generator=generator(seed, epoch)).tolist()
    return shuffled


COUNTED = 1000
"""Images whose labels are counted for the weights of the classes."""


LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""


@dataclass(frozen=True)
class Augmentation:
    """How far views may differ from the image.

    Args:
        scale: smallest and largest factor of the image's sides, drawn evenly in the logarithm.
        flip: probability of left for right.
        colour: brightness, contrast and saturation are each multiplied with a factor within
            `1 - colour` and `1 + colour`.
    """

    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    colour: float = 0.2


USUAL = Augmentation()
NONE = Augmentation(scale=(1.0, 1.0), flip=0.0, colour=0.0)
"""Only the crop."""


def view(
    image: Tensor,
    label: Tensor,
    crop: tuple[int, int],
    augmentation: Augmentation,
    generator: torch.Generator,
    *,
    void: int,
    fill: tuple[float, ...],
    carried: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw one view.

    Args:
        image: `(3, H, W)` uint8 RGB.
        label: `(H, W)`, integers.
        crop: height and width of the view, in pixels; smaller images are padded at the bottom
            and on the right.
        augmentation: how far the view may differ.
        generator: of everything random; the same draws whatever the image's size.
        void: label of the padding.
        fill: colour of the padding, in [0, 1].
        carried: `(K, h', w')` float32, maps that stand for the image's area and go where its
            pixels go: they become further channels, resized with blending, NaN in the padding.

    Returns:
        `(3 + K, h, w)` float32, the first three in [0, 1], and `(h, w)` int64.
    """
    size, flip, *rest = torch.rand(7, generator=generator).tolist()
    place, colour = rest[:2], rest[2:]
    low, high = augmentation.scale
    image = image.float() / 255
    if carried is not None:
        size_of_image = image.shape[-2:]
        carried = F.interpolate(carried[None], size_of_image, mode="bilinear")[0]
        image, fill = torch.cat([image, carried]), (*fill, *[math.nan] * len(carried))
    image, label = resized(image, label.long(), low * (high / low) ** size)
    image, label = cropped(image, label, crop, (place[0], place[1]), void, fill)
    if flip < augmentation.flip:
        image, label = image.flip(-1), label.flip(-1)
    if augmentation.colour:
        factors = (1 + augmentation.colour * (2 * c - 1) for c in colour)
        image = torch.cat([recoloured(image[:3], *factors), image[3:]])
    return image, label


def resized(image: Tensor, label: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """Multiply both sides with a factor: the image bilinear, the label nearest.

    Args:
        image: `(3, H, W)` float.
        label: `(H, W)`.
        factor: above 0.
    """
    height, width = image.shape[-2:]
    size = max(1, round(height * factor)), max(1, round(width * factor))
    if size == (height, width):
        return image, label
    bigger = F.interpolate(image[None], size, mode="bilinear", antialias=factor < 1)[0]
    rows, columns = (nearest(old, new) for old, new in zip((height, width), size))
    return bigger, label[rows][:, columns]


def nearest(old: int, new: int) -> Tensor:
    """`(new,)` indices into `old` samples, by their centres."""
    return ((torch.arange(new) + 0.5) * (old / new)).long().clamp(max=old - 1)


def cropped(
    image: Tensor,
    label: Tensor,
    crop: tuple[int, int],
    place: tuple[float, float],
    void: int,
    fill: tuple[float, ...],
) -> tuple[Tensor, Tensor]:
    """Cut out a window, `place` in [0, 1) saying where, and pad what is missing."""
    height, width = crop
    top, left = (int(p * (max(0, s - c) + 1)) for p, s, c in zip(place, label.shape, crop))
    image = image[:, top : top + height, left : left + width]
    label = label[top : top + height, left : left + width]
    if tuple(label.shape) == crop:
        return image, label
    colour = torch.tensor(fill, dtype=image.dtype).view(-1, 1, 1)
    canvas, blank = colour.repeat(1, height, width), label.new_full(crop, void)
    canvas[:, : label.shape[0], : label.shape[1]] = image
    blank[: label.shape[0], : label.shape[1]] = label
    return canvas, blank


def recoloured(image: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Multiply brightness, the distance to the mean grey, and the distance to each pixel's grey.

    Args:
        image: `(3, H, W)` in [0, 1].
        brightness: factor, as the others; 1 leaves the image as it is.
        contrast: factor.
        saturation: factor.

    Returns:
        The same shape, in [0, 1].
    """
    image = image * brightness
    weights = torch.tensor(LUMA).view(3, 1, 1)
    grey = (image * weights).sum(0, keepdim=True)
    image = grey + saturation * (image - grey)
    middle = grey.mean()
    return (middle + contrast * (image - middle)).clamp(0, 1)


@dataclass(frozen=True)
class Batches:
    """The training images, batch by batch; a batch depends on seed, epoch and step alone.

    Args:
        dataset: labelled images.
        targets: what its labels mean to the network.
        size: images in a batch, over all processes; an incomplete last batch is left out.
        crop: height and width of the views, in pixels.
        seed: of order and augmentation.
        augmentation: how far views differ from their image.
        fill: colour in [0, 1] beyond the image.
        workers: reading threads.
        processes: each takes its part of every batch.
        carried: maps `(K, h, w)` of a sample that its views carry as further channels.

    Raises:
        UsageError: for fewer images than a batch, or a batch that cannot be shared evenly.
    """

    dataset: Dataset
    targets: Targets
    size: int
    crop: tuple[int, int]
    seed: int = 0
    augmentation: Augmentation = USUAL
    fill: tuple[float, ...] = (0.5, 0.5, 0.5)
    workers: int = 2
    processes: Processes = ALONE
    carried: Callable[[Sample], Tensor] | None = None

    def __post_init__(self) -> None:
        if len(self.dataset) < self.size:
            raise UsageError(
                f"train: expected at least as many images as a batch holds, {self.size}, got "
                f"{len(self.dataset)} in {self.dataset.name}. Lower --batch."
            )
        if self.size % self.processes.count:
            raise UsageError(
                f"train: expected a batch that {self.processes.count} processes can share evenly, "
                f"got {self.size}. Give --batch a multiple of {self.processes.count}."
            )

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.dataset) // self.size

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's part of each batch of one epoch.

        Yields:
            Images `(B, 3, h, w)` float32 RGB in [0, 1], with what they carry as further channels,
            and labels `(B, h, w)` int64, below 0
            where void.

        Raises:
            DataError: for an image or label that cannot be used.
        """
        rank, count = self.processes.rank, self.processes.count
        chosen = order(len(self.dataset), self.seed, number)[: len(self) * self.size]
        views = read_ahead(lambda i: self.view(number, i), chosen[rank::count], self.workers)
        while batch := list(islice(views, self.size // count)):
            images, labels = zip(*batch)
            yield torch.stack(images), torch.stack(labels)

    def view(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        """The view of one image that an epoch shows."""
        sample = self.dataset[index]
        return view(
            sample.image,
            self.targets(sample),
            self.crop,
            self.augmentation,
            generator(self.seed, epoch, index),
            void=VOID,
            fill=self.fill,
            carried=None if self.carried is None else self.carried(sample),
        )


def count_labels(
    dataset: Dataset, targets: Targets, classes: int, seed: int = 0, workers: int = 2
) -> Tensor:
    """Count the pixels of each class, in a sample of the images where they are many.

    Where a class is missing from the sample, all images are counted.

    Args:
        dataset: labelled images.
        targets: what its labels mean to the network.
        classes: number of the network's classes.
        seed: of the sample.
        workers: reading threads.

    Returns:
        `(C,)` int64; void counts for nothing.
    """

    def count(index: int) -> Tensor:
        label = targets(dataset[index])
        return torch.bincount(label[label >= 0].long(), minlength=classes)

    images = order(len(dataset), seed, 0)
    total = torch.zeros(classes, dtype=torch.int64)
    for part in (images[:COUNTED], images[COUNTED:]):
        if not bool(total.all()):
            total = sum(read_ahead(count, part, workers), total)
    return total
