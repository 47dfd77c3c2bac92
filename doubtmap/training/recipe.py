"""What a recipe is: it makes of a network what the loop trains, and says what that needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from doubtmap.datasets import Dataset
from doubtmap.training.batches import Batches
from doubtmap.training.fit import Reporter
from doubtmap.training.folder import photographs_learnt
from doubtmap.training.folds import identity
from doubtmap.training.networks import Start
from doubtmap.training.objective import Objective
from doubtmap.training.processes import Processes
from doubtmap.training.settings import Settings
from doubtmap.version import __version__


@dataclass(frozen=True)
class Job:
    """All that one network's training is asked; see `train`."""

    dataset: Dataset
    validation: Dataset | None
    recipe: Recipe
    model: str
    from_scratch: bool
    hold_out: tuple[str, ...]
    settings: Settings

    def described(self, processes: Processes) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        asked = asdict(self.settings)
        del asked["workers"]
        return asked | {
            "doubtmap": __version__,
            "data": identity(self.dataset),
            "validation": identity(self.validation) if self.validation else None,
            "recipe": {"name": self.recipe.name} | vars(self.recipe),
            "model": self.model,
            "from_scratch": self.from_scratch,
            "hold_out": list(self.hold_out),
            "processes": processes.count,
            **self._materials(),
        }

    def _materials(self) -> dict[str, Any]:
        """The recipe's, with the photographs that its network learnt as unknown before."""
        found = self.recipe.materials(self)
        if before := photographs_learnt(self.model):
            now = found.get("negatives", {})
            found["negatives"] = now | {"images": sorted({*before, *now.get("images", ())})}
        return found


@dataclass(frozen=True)
class Work:
    """A training that is about to begin.

    Args:
        job: what was asked.
        start: the network, which is changed in place.
        batches: of the training.
        folder: for files of the training.
        processes: those that share it.
        device: where to compute.
        resume: go on with what lies in the folder; otherwise that is of another run.
        report: who is told, in the first process.
    """

    job: Job
    start: Start
    batches: Batches
    folder: Path
    processes: Processes
    device: torch.device
    resume: bool
    report: Reporter


class Recipe:
    """`objective = recipe(start, class_weights, processes)`.

    Recipes are frozen dataclasses: their fields are what a resumed run must have in common. All but
    the call itself has a default.
    """

    name: str
    """How the command line and `doubtmap.json` call it."""

    def __call__(
        self, start: Start, class_weights: Tensor | None, processes: Processes
    ) -> Objective:
        """What is trained, on a network that is changed in place."""
        raise NotImplementedError

    @property
    def learns_labels(self) -> bool:
        """Whether classes are learnt, and so may have weights."""
        return True

    def rate(self, start: Start) -> float:
        """The largest learning rate where none is asked for."""
        return 1e-4 if start.trained else 1e-3

    def check(self, job: Job) -> None:
        """Refuse what makes no sense together, before anything is opened.

        Raises:
            UsageError: for settings that do not suit.
        """

    def materials(self, job: Job) -> dict[str, Any]:
        """What else must be the same for a run to go on: hashes of what is learnt from.

        Raises:
            UsageError, DataError, ModelError: for what cannot be used.
        """
        return {}

    def fitted(self, job: Job, start: Start, crop: tuple[int, int]) -> Recipe:
        """The recipe for this network and what a step sees; refuses before any work.

        Raises:
            UsageError, DataError: for what does not suit.
        """
        return self

    def prepared(self, work: Work) -> tuple[Recipe, Batches, tuple[str, ...]]:
        """Do what comes before the training.

        Returns:
            The recipe to be called, the batches, and what the user should know.

        Raises:
            UsageError, DataError, ModelError: where that cannot be done.
        """
        return self, work.batches, ()

    def keep(self, objective: Objective, folder: Path) -> None:
        """Write what belongs beside the network that has just been written."""
