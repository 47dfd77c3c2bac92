"""The recipes: each makes of a network what the loop trains."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from doubtmap.datasets import Dataset
from doubtmap.errors import UsageError
from doubtmap.models import load
from doubtmap.models.preprocessing import ImageSize
from doubtmap.training.batches import Batches
from doubtmap.training.dudes import HEAD_RATE, MeanProbability, SecondHead
from doubtmap.training.folds import Folds, check_unseen, grouped
from doubtmap.training.networks import Start
from doubtmap.training.optimizing import Processes
from doubtmap.training.recipe import CrossEntropy, Job, Objective, Recipe, Work
from doubtmap.training.settings import DudesOptions, SpectralOptions
from doubtmap.training.spectral import bound, fold, settle
from doubtmap.training.teachers import Cache, Teachers, Told, check_target, teacher_fingerprints
from doubtmap.version import __version__


@dataclass(frozen=True)
class Plain(Recipe):
    """Cross entropy of every pixel that is not void."""

    name: str = "plain"

    def __call__(
        self, start: Start, class_weights: Tensor | None, processes: Processes
    ) -> Objective:
        """What is trained: the network as it is."""
        return CrossEntropy(start, class_weights, processes)


@dataclass(frozen=True)
class Spectral(SpectralOptions, Recipe):
    """Cross entropy, with the norm of every convolution bounded.

    Args:
        coefficient: the largest norm allowed.
        batch_norm: whether to bound batch norms too.

    Reference:
        Deep Deterministic Uncertainty: A New Simple Baseline (Mukhoti, Kirsch, van Amersfoort,
        Torr, Gal, 2021), https://arxiv.org/abs/2102.11582: coefficient 3. Departure: dilated,
        grouped and strided convolutions are bounded too, whatever the image's size.
    """

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
class Dudes(DudesOptions, Recipe):
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
        layers: inner layers of the network that the hidden layer hears too; published: none.
        folds: from 2 on, `teachers` are that many groups of equal size: the first was trained
            without fold 1 of the images and is asked about it, and so on, so that no teacher is
            asked about what it was trained on; published: 1, all are asked about all.

    Raises:
        UsageError: for values that make no sense, or do not go together.

    Reference:
        DUDES: Deep Uncertainty Distillation using Ensembles for Semantic Segmentation (Landgraf
        et al., 2024), https://arxiv.org/abs/2303.09843
    """

    name: str = "dudes"

    def __post_init__(self) -> None:
        check_target(self.target)
        if self.hidden < 0:
            raise UsageError(
                f"--hidden: expected a number of channels, or 0 for no hidden layer, got "
                f"{self.hidden}. Give --hidden 64."
            )
        if self.target == "mean" and (self.freeze or self.hidden):
            option = "--freeze" if self.freeze else "--hidden"
            raise UsageError(
                f"{option}: expected a target that a second head learns, got mean, for which the "
                f"network itself is trained. Leave {option} out, or choose --target spread."
            )
        if self.layers and not self.hidden:
            raise UsageError(
                f"--layers: expected a hidden layer of the second head that hears "
                f"{', '.join(self.layers)}, got none. Give --hidden 64 too, or leave --layers out."
            )
        if self.folds < 1 or (self.folds > 1 and self.cache is None):
            raise UsageError(
                f"--folds: expected a number of folds from 2 on, and --cache for what the teachers "
                f"of each say, got {self.folds} and {self.cache or 'no --cache'}. Give --folds 2 "
                f"--cache DIR."
            )
        grouped(self.teachers, self.folds)

    @property
    def learns_labels(self) -> bool:
        """Whether the network is trained, too."""
        return not self.freeze

    def check(self, job: Job) -> None:
        """Refuse what has no effect where the head is trained alone.

        Raises:
            UsageError: for settings of a network that stays as it is.
        """
        settings = job.settings
        for option, given, why in (
            (
                "--validation",
                job.validation is not None,
                "the frozen network's mIoU does not change",
            ),
            ("--class-weights", settings.class_weights, "nothing is learnt from labels"),
            ("--dropout-rate", settings.dropout is not None, "the network is not in training"),
        ):
            if self.freeze and given:
                raise UsageError(
                    f"--freeze: expected no {option}, since {why}. Leave {option} out."
                )

    def materials(self, job: Job) -> dict[str, Any]:
        """What the teachers are now."""
        return {"teachers": teacher_fingerprints(self.teachers)}

    def rate(self, start: Start) -> float:
        """The largest learning rate where none is given: the network's, or of a head alone its."""
        if self.freeze:
            return HEAD_RATE[self.hidden > 0]
        return super().rate(start)

    def __call__(
        self, start: Start, class_weights: Tensor | None, processes: Processes
    ) -> Objective:
        """What is trained: the student, with a second head unless `target` is `mean`.

        Raises:
            UsageError: for teachers that do not fit each other or the student, or a network that
                cannot be frozen since it was not trained for these classes.
            ModelError: for a student whose classifier cannot be found.
        """
        unknown = start.maker.startswith("python:")  # its function decides on the weights
        if self.freeze and (start.notes or not (start.trained or unknown)):
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
        about = {"target": self.target, "teachers": list(self.teachers), "folds": self.folds}
        about["doubtmap"] = __version__
        return SecondHead(
            start,
            teachers,
            class_weights,
            processes,
            mask_void=mask,
            hidden=self.hidden,
            frozen=self.freeze,
            about=about,
            layers=self.layers,
        )

    def prepared(self, work: Work) -> tuple[Recipe, Batches, tuple[str, ...]]:
        """Ask the teachers about all images, where their answers are kept."""
        told = work.report.teachers
        carried = self.carried(work.job.dataset, work.start, work.processes, work.device, told)
        notes = (*(carried.notes if carried else ()), *self._resizing(work.job.model))
        return self, replace(work.batches, carried=carried), notes

    def _resizing(self, model: str) -> tuple[str, ...]:
        """What to say of a frozen network that no longer sees images at the size it used to."""
        if not self.freeze:
            return ()
        size = load(model).description["input_size"]
        if size == ImageSize().describe():
            return ()
        return (
            f"{model} resizes images ({size}) before it sees them, the student takes them as they "
            f"are, and so may segment differently. Compare them with --input-size HxW.",
        )

    def carried(
        self,
        dataset: Dataset,
        start: Start,
        processes: Processes,
        device: torch.device,
        told: Told,
    ) -> Folds | None:
        """What images are to carry: the teachers' targets from a cache, which is filled first.

        Raises:
            UsageError: for teachers that do not fit, or cannot be recognised, or saw their fold.
            DataError: for a folder that cannot be written, or more folds than images.
        """
        if self.cache is None:
            return None
        caches, notes = [], []
        for number, names in enumerate(grouped(self.teachers, self.folds), 1):
            for name in names if self.folds > 1 else ():
                notes.append(check_unseen(name, dataset, number, self.folds))
            teachers = Teachers(names, self.target, start.class_names)
            caches.append(Cache(Path(self.cache), teachers))
        folds = Folds(dataset, caches, tuple(note for note in notes if note))
        folds.fill(device, part=(processes.rank, processes.count), told=told)
        processes.wait()
        return folds
