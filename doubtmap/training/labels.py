"""What a training does with the labels of a data set: classes, held-out classes, weights.

How well a network segments a data set, during training: mIoU over the data set.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from doubtmap.datasets import Dataset, Sample, match_labels
from doubtmap.datasets.labels import Matching, check_labels
from doubtmap.datasets.reading import read_ahead
from doubtmap.errors import DataError, UsageError
from doubtmap.metrics import Confusion
from doubtmap.models import load
from doubtmap.names import plain_name
from doubtmap.training.networks import Start
from doubtmap.training.optimizing import ALONE, Processes


def trained_classes(dataset: Dataset, hold_out: Sequence[str] = ()) -> tuple[str, ...]:
    """The classes of a data set that are not held out, in its order.

    Args:
        dataset: labelled images.
        hold_out: names of classes that are not to be learnt; their pixels become void.

    Raises:
        UsageError: for a name that the data set lacks, or fewer than two classes left.
    """
    names = dataset.class_names
    if not names:
        raise UsageError(
            f"{dataset.name}: expected labels with classes, but they only tell known from unknown. "
            f"Train on another data set."
        )
    by_name = {plain_name(name): name for name in names}
    for name in hold_out:
        if plain_name(name) not in by_name:
            near = difflib.get_close_matches(plain_name(name), by_name, 1)
            hint = f" Did you mean {by_name[near[0]]}?" if near else ""
            raise UsageError(
                f"hold-out: expected classes among {', '.join(names)}, got {name}.{hint}"
            )
    held = {plain_name(name) for name in hold_out}
    left = tuple(name for name in names if plain_name(name) not in held)
    if len(left) < 2:
        raise UsageError(
            f"hold-out: expected at least two classes to be left, got {len(left)}. Hold out fewer."
        )
    return left


@dataclass(frozen=True)
class Targets:
    """From the labels of a data set to what a network is trained on.

    Args:
        matching: what each label class means to the network.
        classes: number of label classes of the data set.
    """

    matching: Matching
    classes: int

    @classmethod
    def of(cls, dataset: Dataset, class_names: Sequence[str]) -> Targets:
        """The targets of a data set for a network with these classes; the others are void."""
        return cls(match_labels(dataset.class_names, class_names), len(dataset.class_names))

    def __call__(self, sample: Sample) -> Tensor:
        """`(H, W)` int16: index of a class of the network, or below 0 for void.

        Raises:
            DataError: for labels that cannot be meant.
        """
        check_labels(sample, self.classes)
        return self.matching.apply(sample.label)


def weights_of(counts: Tensor, exponent: float) -> Tensor:
    """How much each class weighs in the loss: `w_c = share_c^-exponent`, up to a factor.

    The factor makes the mean weight of a labelled pixel 1, so that the loss keeps its size.

    Args:
        counts: `(C,)` labelled pixels of each class; none counts as one.
        exponent: in [0, 1].

    Returns:
        `(C,)` float32.

    Example:
        >>> import torch
        >>> weights_of(torch.tensor([90, 10]), 0.5)
        tensor([0.8333, 2.5000])
    """
    share = counts.double() / counts.sum()
    weights = share.clamp(min=1 / float(counts.sum())) ** -exponent
    return (weights / (share * weights).sum()).float()


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
