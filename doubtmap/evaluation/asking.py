"""What an evaluation was asked for, checked before anything is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from doubtmap.datasets import open_dataset
from doubtmap.datasets.dataset import UNKNOWN, ComponentSizes, Dataset, notes_of
from doubtmap.datasets.fingerprints import beneath
from doubtmap.datasets.labelled_folder import LabelledFolder
from doubtmap.datasets.pasting import Pasted
from doubtmap.decisions.file import Threshold, thresholds_by_score
from doubtmap.engine.places import HERE, Place
from doubtmap.engine.run import Progress, Run, Skipped, check_request, read_ahead
from doubtmap.engine.seen import who_has_seen
from doubtmap.engine.settings import with_bands_of
from doubtmap.errors import UsageError
from doubtmap.evaluation.cases import Cases
from doubtmap.evaluation.components import DEFAULT_SIZES
from doubtmap.evaluation.open_set import check_open_set
from doubtmap.evaluation.results import Reference, Results
from doubtmap.evaluation.tally import VERSION, Tally
from doubtmap.evaluation.yours import Metrics, Yours, named_metrics
from doubtmap.prediction import Prediction, Score, Segmenter
from doubtmap.scores.parsing import parse_asked
from doubtmap.scoring import is_probability, prepared
from doubtmap.segments import MetaModel
from doubtmap.segments.review import check_network


@dataclass(frozen=True)
class Options:
    """What few evaluations ask for.

    Args:
        bins: of the reliability diagrams: of the softmax, and of each score that claims to be the
            probability that a pixel is wrong, by an attribute `probability_of_wrong`.
        component_sizes: smallest components that count; default: the data set's published ones.
        examples: how many images of most doubt, and as many of most missed pixels, to keep.
        thresholds: of unknown objects, chosen on other images, for the component figures of their
            scores; without one a score's threshold is that of the best pixel F1 on these images.
        segments: of `fit_segments` on other images: adds what a review without labels would have
            shown first, and how well it foresaw the images.
        notes: what to write into the results, before all other notes.
        cases: groups of images whose figures are given one by one.
        metrics: the user's own, see `doubtmap.evaluation.yours`: by name, or objects, or text; what
            they give is in the results' `metrics`.
        against: folder of another evaluation of the same images, or `FOLDER:SCORE`: the means by
            predicted class are held against it; see `doubtmap.evaluation.results.Reference`.
        command: what to write into the results as their origin.
        maps: folder in which to keep classes, labels and doubt maps, for `doubtmap view`.
        save: called with the results before the journal is removed, to write them.
        place: where the images are looked at.
    """

    bins: int = 15
    component_sizes: ComponentSizes | None = None
    examples: int = 3
    thresholds: Sequence[Threshold] = ()
    segments: MetaModel | None = None
    notes: Iterable[str] = ()
    cases: Cases | None = None
    metrics: Metrics = ()
    against: str = ""
    command: str = ""
    maps: Path | None = None
    save: Callable[[Results], None] | None = None
    place: Place = HERE

    @cached_property
    def yours(self) -> Yours | None:
        """The user's metrics; None where there are none."""
        found = named_metrics(self.metrics)
        return Yours(found) if found else None

    @property
    def beside(self) -> list[Taker]:
        """Who takes images beside our own sums."""
        return [each for each in (self.cases, self.yours) if each is not None]


class Taker(Protocol):
    """Whoever takes images beside our own sums."""

    def take(
        self, index: int, prediction: Prediction, label: Tensor, maps: Mapping[str, Tensor]
    ) -> None:
        """Take an image."""
        ...


PLAIN = Options()


@dataclass(frozen=True, eq=False)
class Asked:
    """An evaluation as it was asked for.

    Args:
        run: network, images, scores and what is unknown.
        given: thresholds of unknown objects, by score.
        sizes: smallest components that count.
        replicates: of the bootstrap over images.
        seed: of the bootstrap.
        options: the rest.
        reference: another evaluation that the means by predicted class are held against.
    """

    run: Run
    given: dict[str, float]
    sizes: ComponentSizes
    replicates: int
    seed: int
    options: Options
    reference: Reference | None = None

    @property
    def claims(self) -> list[str]:
        """Scores that claim to be the probability that a pixel is wrong."""
        return [name for name, score in self.run.scores.items() if is_probability(score)]

    @property
    def settings(self) -> dict[str, Any]:
        """What must be the same for a run to go on, or for parts to belong together."""
        return self.run.settings | {
            "maps": self.options.maps is not None,
            "version of the sums": VERSION,
            "threads": self.options.place.threads or torch.get_num_threads(),
            "seed": self.seed,
            "replicates": self.replicates,
            "bins": self.options.bins,
            "claims": self.claims,
            "component_sizes": [self.sizes.predicted, self.sizes.labelled],
            "thresholds": self.given,
        }

    def tally(self) -> Tally:
        """The sums before the first image."""
        names = list(self.run.scores)
        return Tally(names, self.replicates, self.seed, self.options.bins, self.claims)


def asked_of(
    segmenter: Segmenter,
    dataset: Any,
    scores: str | Iterable[str | Score] | Mapping[str, Score],
    *,
    unknown: str | Sequence[str] = (),
    open_set: Dataset | str | None = None,
    skip_bad: bool = False,
    seed: int = 0,
    replicates: int = 300,
    options: Options = PLAIN,
    progress: Progress | None = None,
) -> Asked:
    """What `evaluate` is asked for by its arguments.

    Raises:
        UsageError, DataError, ModelError: for what cannot work.
    """
    unknown = (unknown,) if isinstance(unknown, str) else tuple(unknown)
    if replicates < 1:
        raise UsageError(
            f"evaluate: expected replicates from 1 on, since intervals come from them, got "
            f"{replicates}. Pass 20 where they do not matter, 300 where they do."
        )
    if options.yours is not None and (options.place.part or options.place.elsewhere):
        raise UsageError(
            "metrics: expected one process, which gives them all images, got parts or workers. "
            "Leave one of them out."
        )
    if options.against and options.place.part:
        raise UsageError("against: expected all images, got a part of them. Leave one of them out.")
    if isinstance(segmenter, Segmenter):
        dataset = open_dataset(dataset, seed=seed, classes=segmenter.class_names)
    check_request(segmenter, dataset, unknown)
    dataset = with_bands_of(segmenter, dataset)
    if open_set is not None:
        check_open_set(segmenter, dataset, open_set, unknown)
    run = Run(segmenter, dataset, {}, unknown, progress, Skipped() if skip_bad else None)
    run.notes.extend(options.notes)
    run.notes.extend(notes_of(dataset))
    run.scores = scores_asked(run, scores)
    run.segmenter = prepared(segmenter, run.scores)
    given = thresholds_by_score(options.thresholds, run.scores, segmenter)
    if options.segments is not None:
        check_network(run.segmenter, options.segments)
    run.notes.extend(_other_unknown(given, unknown))
    parts = _parts(run.scores, given, options.segments, open_set)
    run.notes.extend(who_has_seen(dataset, segmenter, parts))
    reference = None
    if options.against:
        names = segmenter.class_names
        reference = Reference.read(options.against, run.scores, names, len(dataset))
    sizes = options.component_sizes or dataset.component_sizes or DEFAULT_SIZES
    chosen = {name: threshold.threshold for name, threshold in given.items()}
    return Asked(run, chosen, sizes, replicates, seed, options, reference)


def _parts(
    scores: Mapping[str, Score],
    given: Mapping[str, Threshold],
    segments: MetaModel | None,
    open_set: Dataset | str | None,
) -> dict[str, object]:
    """What takes part in an evaluation beside the network, by what a note calls it."""
    learnt: dict[str, object] = {**scores, "segments": segments}
    return {
        **{f"the threshold of {name}": threshold for name, threshold in given.items()},
        **{f"the fit of {name}": part for name, part in learnt.items()},
        "the thresholds of the open set": open_set,
    }


def _other_unknown(given: Mapping[str, Threshold], unknown: tuple[str, ...]) -> Iterator[str]:
    """A sentence for each threshold that was chosen with other unknown classes."""
    for name, threshold in given.items():
        if set(threshold.unknown) != set(unknown):
            there, here = ", ".join(threshold.unknown), ", ".join(unknown)
            yield (
                f"{name}: its threshold was chosen with {there or 'no class'} unknown, here "
                f"{here or 'none'} is."
            )


def scores_asked(
    run: Run, scores: str | Iterable[str | Score] | Mapping[str, Score]
) -> dict[str, Score]:
    """The scores of a request, in which `all` stands for every one without fitting."""
    found, notes = parse_asked(scores, lambda: first_prediction(run))
    run.notes.extend(notes)
    return found


def first_prediction(run: Run) -> Prediction | None:
    """Of the first image that can be read; None where none can."""
    for _, sample in read_ahead(run.dataset, range(len(run.dataset)), run.skipped):
        told = run.attempt(sample)
        if told is not None:
            return told[0]
    return None


def may_be_unknown(run: Run) -> bool:
    """Whether any pixel may count as unknown, as far as the meaning of the labels says."""
    folder = beneath(run.dataset)
    if run.unknown or not run.dataset.class_names or not isinstance(folder, LabelledFolder):
        return bool(run.unknown or not run.dataset.class_names or not hasattr(folder, "settings"))
    dataset, values = run.dataset, folder.layout.values
    while dataset is not folder and not isinstance(dataset, Pasted):
        dataset = dataset.dataset  # type: ignore[attr-defined]
    return isinstance(dataset, Pasted) or bool(values.unknown) or values.other == UNKNOWN
