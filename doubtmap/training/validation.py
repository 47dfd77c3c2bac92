"""How well a network segments a data set, during training: mIoU over the data set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from doubtmap.datasets import Dataset
from doubtmap.errors import DataError
from doubtmap.metrics import Confusion
from doubtmap.models import load
from doubtmap.training.batches import read_ahead
from doubtmap.training.labels import Targets
from doubtmap.training.networks import Start
from doubtmap.training.processes import ALONE, Processes


@dataclass(frozen=True)
class Validation:
    """`validation(network)`: mIoU over the pixels of a data set that are not void.

    Args:
        dataset: labelled images; each is predicted at its own size.
        start: classes and normalisation of the network.
        processes: each takes its part of the images.
        workers: reading threads.

    Raises:
        UsageError: for a data set that has no class of the network.
    """

    dataset: Dataset
    start: Start
    processes: Processes = ALONE
    workers: int = 2

    def __post_init__(self) -> None:
        Targets.of(self.dataset, self.start.class_names)

    def __call__(self, network: nn.Module) -> float:
        """Pooled mIoU in [0, 1], over the classes that are labelled or predicted anywhere.

        Raises:
            DataError: where no pixel is labelled with a class of the network.
        """
        names = self.start.class_names
        segmenter = load(network, classes=names, mean=self.start.mean, std=self.start.std)
        targets, confusion = Targets.of(self.dataset, names), Confusion.empty(len(names))
        mine = range(self.processes.rank, len(self.dataset), self.processes.count)
        for sample in read_ahead(self.dataset.__getitem__, mine, self.workers):
            label = targets(sample)
            classes = segmenter(sample.image[None]).classes[0].cpu()
            confusion.update(classes, label, label >= 0)
        counts = torch.from_numpy(confusion.counts).to(next(network.parameters()).device)
        confusion = Confusion(self.processes.total(counts).cpu().numpy())
        if not confusion.counts.any():
            raise DataError(
                f"{self.dataset.name}: expected labelled pixels to validate on, found none. Choose "
                f"another --validation."
            )
        return confusion.miou
