"""The batches of an epoch: which images, how they are varied, read ahead of their use.

Random numbers depend on the seed, the epoch and the image only. Hence a resumed run, another number
of reading threads and another number of processes draw the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from doubtmap.datasets import VOID, Dataset, Sample
from doubtmap.datasets.reading import read_ahead
from doubtmap.errors import UsageError
from doubtmap.training.augment import USUAL, Augmentation, view
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
