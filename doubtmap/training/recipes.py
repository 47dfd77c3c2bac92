"""The recipes: each makes of a network what the loop trains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from doubtmap.datasets import Dataset
from doubtmap.errors import UsageError
from doubtmap.training.dudes import MeanProbability, SecondHead
from doubtmap.training.networks import Start
from doubtmap.training.objective import CrossEntropy, Objective
from doubtmap.training.processes import Processes
from doubtmap.training.spectral import bound, fold, settle
from doubtmap.training.teachers import Cache, Teachers, Told, check_target
from doubtmap.version import __version__


class Recipe(Protocol):
    """`objective = recipe(start, class_weights, processes)`.

    Recipes are frozen dataclasses: their fields are what a resumed run must have in common.
    """

    @property
    def name(self) -> str:
        """How the command line and `doubtmap.json` call it."""
        ...

    def __call__(
        self, start: Start, class_weights: Tensor | None, processes: Processes
    ) -> Objective:
        """What is trained, on a network that is changed in place."""
        ...


@dataclass(frozen=True)
class Plain:
    """Cross entropy of every pixel that is not void."""

    name: str = "plain"

    def __call__(
        self, start: Start, class_weights: Tensor | None, processes: Processes
    ) -> Objective:
        """What is trained: the network as it is."""
        return CrossEntropy(start, class_weights, processes)


@dataclass(frozen=True)
class Spectral:
    """Cross entropy, with the norm of every convolution bounded.

    Args:
        coefficient: the largest norm allowed.
        batch_norm: whether to bound batch norms too.

    Reference:
        Deep Deterministic Uncertainty: A New Simple Baseline (Mukhoti, Kirsch, van Amersfoort,
        Torr, Gal, 2021), https://arxiv.org/abs/2102.11582: coefficient 3. Departure: dilated,
        grouped and strided convolutions are bounded too, whatever the image's size.
    """

    coefficient: float = 3.0
    batch_norm: bool = False
    name: str = "spectral"

    def __call__(
        self, start: Start, class_weights: Tensor | None, processes: Processes
    ) -> Objective:
        """What is trained: the network with its weights parametrised.

        Raises:
            UsageError: for a coefficient that is none.
            ModelError: for a network without convolutions.
        """
        bound(start.network, self.coefficient, batch_norm=self.batch_norm)
        return BoundedCrossEntropy(start, class_weights, processes)


class BoundedCrossEntropy(CrossEntropy):
    """`CrossEntropy` whose bounds are folded into the weights of what is deployed."""

    def deployed(self) -> nn.Module:
        """The network as it is now, a plain one, with the norms measured to convergence."""
        network = super().deployed()
        settle(network)
        fold(network)
        return network


@dataclass(frozen=True)
class Dudes:
    """A student of several teachers: it learns its task, and what they disagree about.

    Args:
        teachers: networks of the student's classes, two or more, as `doubtmap.load` takes them.
        target: what the second head learns: `spread` (as published), `mutual_information` or
            `entropy`; or `mean`, without a second head: the teachers' mean probability.
        cache: folder for what the teachers say of whole images, so that they run once; None: they
            run on every crop, as published.
        freeze: train the second head alone, on a network that stays as it is.
        mask_void: leave pixels without a label out of the teachers' term; published: not.
        hidden: channels of a hidden layer of the second head; 0: none, as published.

    Raises:
        UsageError: for values that make no sense.

    Reference:
        DUDES: Deep Uncertainty Distillation using Ensembles for Semantic Segmentation (Landgraf
        et al., 2024), https://arxiv.org/abs/2303.09843
    """

    teachers: tuple[str, ...]
    target: str = "spread"
    cache: str | Path | None = None
    freeze: bool = False
    mask_void: bool = False
    hidden: int = 0
    name: str = "dudes"

    def __post_init__(self) -> None:
        check_target(self.target)
        if self.hidden < 0:
            raise UsageError(
                f"--hidden: expected a number of channels, or 0 for no hidden layer, got "
                f"{self.hidden}. Give --hidden 64."
            )
        if self.freeze and self.target == "mean":
            raise UsageError(
                "--freeze: expected a target that a second head learns, got mean, for which the "
                "network itself is trained. Leave --freeze out, or choose --target spread."
            )

    def __call__(
        self, start: Start, class_weights: Tensor | None, processes: Processes
    ) -> Objective:
        """What is trained: the student, with a second head unless `target` is `mean`.

        Raises:
            UsageError: for teachers that do not fit each other or the student, or a network that
                cannot be frozen since it was not trained for these classes.
            ModelError: for a student whose classifier cannot be found.
        """
        if self.freeze and (not start.trained or start.notes):
            raise UsageError(
                f"--freeze: expected a network that was trained for "
                f"{', '.join(start.class_names)}, got one with random weights. Name it with "
                f"--student."
            )
        teachers = (
            Teachers(self.teachers, self.target, start.class_names) if not self.cache else None
        )
        mask = self.mask_void
        if self.target == "mean":
            return MeanProbability(start, teachers, class_weights, processes, mask_void=mask)
        about = {"target": self.target, "teachers": list(self.teachers), "doubtmap": __version__}
        return SecondHead(
            start,
            teachers,
            class_weights,
            processes,
            mask_void=mask,
            hidden=self.hidden,
            frozen=self.freeze,
            about=about,
        )

    def carried(
        self,
        dataset: Dataset,
        start: Start,
        processes: Processes,
        device: torch.device,
        told: Told,
    ) -> Cache | None:
        """What images are to carry: the teachers' targets from a cache, which is filled first.

        Raises:
            UsageError: for teachers that do not fit, or cannot be recognised.
            DataError: for a folder that cannot be written.
        """
        if self.cache is None:
            return None
        cache = Cache(Path(self.cache), Teachers(self.teachers, self.target, start.class_names))
        part = (processes.rank, processes.count)
        cache.fill(dataset, device, part=part, told=told)
        processes.wait()
        return cache
