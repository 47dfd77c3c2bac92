"""What all passes of one evaluation share: network, data, the labels' meaning, the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from doubtmap.datasets.dataset import KNOWN, Dataset, Sample
from doubtmap.datasets.matching import Matching, match_labels
from doubtmap.engine.observation import Observation
from doubtmap.engine.reading import Skipped, read_ahead
from doubtmap.engine.settings import data_settings, model_settings, score_settings
from doubtmap.errors import DataError, UsageError
from doubtmap.prediction import Prediction, Score, Segmenter
from doubtmap.scores import OF_MEMBERS, OF_STUDENTS, STATELESS
from doubtmap.scores.distilled import said_by_head
from doubtmap.scores.parsing import parse_scores

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, the images done and the images in all."""


@dataclass
class Run:
    """What all passes of one evaluation share."""

    segmenter: Segmenter
    dataset: Dataset
    scores: dict[str, Score]
    unknown: tuple[str, ...]
    progress: Progress | None
    skipped: Skipped | None = None
    matching: Matching | None = None
    notes: list[str] = field(default_factory=list)
    components: list[Observation] = field(default_factory=list)
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("forward", "scores", "metrics", "total"), 0.0)
    )

    @property
    def settings(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        asked = score_settings(self.scores) | {"unknown": list(self.unknown)}
        return model_settings(self.segmenter) | data_settings(self.dataset) | asked

    def predict(self, sample: Sample) -> tuple[Prediction, Tensor]:
        """The prediction of one image, and its labels in the model's classes."""
        with self.timed("forward"):
            prediction = self.segmenter(sample.image[None])
        if self.matching is None:
            self.matching = match_labels(
                self.dataset.class_names,
                self.segmenter.class_names,
                self.unknown,
                channels=prediction.native_logits.shape[1],
            )
        check_sample(sample, len(self.dataset.class_names))
        return prediction, self.matching.apply(sample.label)

    def tell(self, stage: str, done: int) -> None:
        """Report progress."""
        if self.progress:
            self.progress(stage, done, len(self.dataset))

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the time of a block to `seconds`."""
        start = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - start


def check_request(segmenter: object, dataset: object, unknown: tuple[str, ...]) -> None:
    """Refuse what cannot work before anything is run or removed."""
    if not isinstance(segmenter, Segmenter) or isinstance(segmenter, type):
        raise UsageError(
            f"evaluate: expected a segmenter, got {type(segmenter).__name__}. Make one with "
            f"doubtmap.load(...)."
        )
    if not isinstance(dataset, Dataset):
        raise UsageError(
            f"evaluate: expected a data set, got {type(dataset).__name__}. Open one with "
            f"doubtmap.open_dataset(...)."
        )
    if not len(dataset):
        raise DataError(f"{dataset.name}: expected images, found none.")
    match_labels(dataset.class_names, dataset.class_names, unknown)


def check_sample(sample: Sample, classes: int) -> None:
    """Refuse labels that cannot be meant, by the sample's name."""
    if sample.label.shape != sample.image.shape[-2:]:
        raise DataError(
            f"{sample.name}: expected labels of the image's size {tuple(sample.image.shape[-2:])}, "
            f"got {tuple(sample.label.shape)}."
        )
    lowest, highest = int(sample.label.min()), int(sample.label.max())
    if lowest < KNOWN or highest >= classes:
        raise DataError(
            f"{sample.name}: expected labels below {classes}, KNOWN, UNKNOWN or VOID, got "
            f"{highest if highest >= classes else lowest}."
        )


def possible_scores(run: Run) -> dict[str, Score]:
    """All scores without fitting that this network can give."""
    wanted = [*STATELESS, *OF_MEMBERS]
    for _, sample in read_ahead(run.dataset, range(len(run.dataset)), run.skipped):
        prediction, _ = run.predict(sample)
        if prediction.features is None:
            wanted.remove("gradient")
            run.notes.append(
                f"gradient: left out, since it needs the network's features, but "
                f"{prediction.features_missing}."
            )
        if prediction.members is None:
            wanted = [name for name in wanted if name not in OF_MEMBERS]
            if prediction.members_missing != Prediction.members_missing:
                run.notes.append(
                    f"{', '.join(OF_MEMBERS)}: left out, since {prediction.members_missing}."
                )
        if prediction.members is not None or prediction.energy_missing:
            wanted.remove("energy")
            why = prediction.energy_missing or (
                "the logits of several networks or passes are the logarithm of their mean "
                "probability, whose energy is 0 everywhere"
            )
            run.notes.append(f"energy: left out, since {why}.")
        if said_by_head(prediction) is not None:
            wanted += OF_STUDENTS
        break
    return parse_scores(",".join(wanted))
