"""The main job: a network, a data set, some scores; out come figures that hold up.

Read it from top to bottom. Pixels are tallied in one pass over the images; a second pass finds
components at the threshold that the first one gave; a third looks at a few telling images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from doubtmap.datasets.dataset import ComponentSizes, Dataset, Sample
from doubtmap.datasets.matching import Matching, match_labels
from doubtmap.engine import figures as fig
from doubtmap.engine.journal import Journal
from doubtmap.engine.observation import (
    Observation,
    observe,
    observe_components,
    score_maps,
)
from doubtmap.engine.reading import Skipped, read_ahead
from doubtmap.engine.results import Example, Results
from doubtmap.engine.tally import Tally, join_states, sub_state, unknown_curve
from doubtmap.errors import DataError
from doubtmap.metrics import Components
from doubtmap.metrics.accumulator import Array
from doubtmap.metrics.bootstrap import BootstrapSums
from doubtmap.prediction import Prediction, Score, Segmenter
from doubtmap.scores import STATELESS
from doubtmap.scores.parsing import parse_scores
from doubtmap.version import __version__

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, the images done and the images in all."""
DEFAULT_SIZES = ComponentSizes(predicted=50, labelled=10)
"""Of data sets without published ones: those of SegmentMeIfYouCan's obstacle track."""


def evaluate(
    segmenter: Segmenter,
    dataset: Dataset,
    scores: str | Iterable[str | Score] | Mapping[str, Score],
    *,
    unknown: Sequence[str] = (),
    out: Path | None = None,
    resume: bool = False,
    skip_bad: bool = False,
    seed: int = 0,
    replicates: int = 300,
    bins: int = 15,
    component_sizes: ComponentSizes | None = None,
    examples: int = 3,
    command: str = "",
    progress: Progress | None = None,
) -> Results:
    """Measure scores of a network on a data set.

    Memory does not grow with the number of images, but for a few numbers per image.

    Args:
        segmenter: the network, as `doubtmap.load` gives it.
        dataset: as `doubtmap.open_dataset` gives it.
        scores: names such as `"entropy,gradient(p=1)"`, functions, or a mapping of names to them;
            `"all"` is every score without fitting that this network can give.
        unknown: label classes that count as unknown objects; `rest` is all that the model lacks.
        out: folder for the journal of an interrupted run; without it nothing is kept on disk.
        resume: go on with the run in `out`, if there is one.
        skip_bad: leave out images that cannot be read, and count them, instead of stopping.
        seed: of the bootstrap.
        replicates: of the bootstrap over images, from which the 95 % intervals come.
        bins: of the reliability diagram.
        component_sizes: smallest components that count; default: the data set's published ones.
        examples: how many images of most doubt, and as many of most missed pixels, to keep.
        command: what to write into the results as their origin.
        progress: told after each image.

    Returns:
        `Results`; `.figures` is the content of `results.json`.

    Raises:
        UsageError, DataError, ModelError: each with one sentence that says what to do.
    """
    if not len(dataset):
        raise DataError(f"{dataset.name}: expected images, found none.")
    run = Run(segmenter, dataset, {}, tuple(unknown), progress)
    run.skipped = Skipped() if skip_bad else None
    run.scores = possible_scores(run) if scores == "all" else parse_scores(scores)
    start = time.perf_counter()
    settings = run.settings | {"seed": seed, "replicates": replicates, "bins": bins}
    journal = Journal(out / ".progress", settings, resume) if out else None
    try:
        tally = tally_pixels(run, Tally(list(run.scores), replicates, seed, bins), journal)
        if not tally.images:
            raise DataError(f"{dataset.name}: none of the {len(dataset)} images could be read.")
        sizes = component_sizes or dataset.component_sizes or DEFAULT_SIZES
        components = find_components(run, tally, sizes, journal)
        results = summarise(run, tally, components, sizes)
        results.examples.extend(pick_examples(run, tally, examples))
    except BaseException:
        if journal:
            journal.close()
        raise
    run.seconds["total"] = time.perf_counter() - start
    results.figures.update(command=command, seed=seed, seconds=run.seconds)
    if journal:
        journal.finish()
    return results


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
    components: dict[int, Observation] = field(default_factory=dict)
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("forward", "scores", "metrics", "total"), 0.0)
    )

    @property
    def settings(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        model = self.segmenter.description
        return {
            "doubtmap": __version__,
            "model": {key: model.get(key) for key in ("source", "sha256", "input_size")},
            "data": [self.dataset.name, len(self.dataset)],
            "scores": list(self.scores),
            "unknown": list(self.unknown),
        }

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


def possible_scores(run: Run) -> dict[str, Score]:
    """All scores without fitting, but for those that need features where there are none."""
    scores = parse_scores(",".join(STATELESS))
    for _, sample in read_ahead(run.dataset, range(len(run.dataset)), run.skipped):
        prediction, _ = run.predict(sample)
        if prediction.features is None:
            del scores["gradient"]
            run.notes.append(
                f"gradient: left out, since it needs the network's features, but "
                f"{prediction.features_missing}."
            )
        break
    return scores


def tally_pixels(run: Run, tally: Tally, journal: Journal | None) -> Tally:
    """First pass: every pixel of every image into the sums."""
    if journal:
        tally = _replay(run, tally, journal)
    done = {row["index"] for row in tally.images}
    todo = [index for index in range(len(run.dataset)) if index not in done]
    run.tell("pixels", len(done))
    for index, sample in read_ahead(run.dataset, todo, run.skipped):
        prediction, label = run.predict(sample)
        with run.timed("scores"):
            maps = score_maps(prediction, run.scores)
        with run.timed("metrics"):
            seen = observe(index, sample.name, prediction, label, maps, tally.bins)
            if journal:
                journal.append(seen.to_bytes())
            tally.take(seen)
            if journal and journal.full:
                journal.save(join_states(tally=tally.state()))
        run.tell("pixels", len(tally.images))
    return tally


def _replay(run: Run, tally: Tally, journal: Journal) -> Tally:
    """The tally as a killed run left it; components that it had found go to `run`."""
    saved = journal.checkpoint()
    if saved is not None:
        tally = Tally.from_state(sub_state(saved, "tally"))
    held = {row["index"] for row in tally.images}
    for record in journal.records():
        seen = Observation.from_bytes(record)
        if seen.meta["stage"] == "components":
            run.components[seen.meta["index"]] = seen
        elif seen.meta["index"] not in held:
            tally.take(seen)
    return tally


@dataclass
class ComponentTally:
    """The components of one score at one threshold, and their replicates."""

    threshold: float
    components: Components
    replicates: BootstrapSums

    def take(self, frame: Components, weights: Array) -> None:
        """Take an image."""
        self.components += frame
        self.replicates.add(frame.state(), weights)


def find_components(
    run: Run, tally: Tally, sizes: ComponentSizes, journal: Journal | None
) -> dict[str, ComponentTally]:
    """Second pass: unknown objects as components, where the data have any.

    The threshold is the one of the best pixel F1 on the same images, as the benchmark has it.
    """
    found = {}
    for name, score in tally.scores.items():
        curve = unknown_curve(score.pixels.view())
        if curve.defined:
            replicates = BootstrapSums(tally.weights.replicates)
            found[name] = ComponentTally(curve.best_f1()[1], Components(), replicates)
    if not found:
        return found
    if journal and not run.components:
        journal.save(join_states(tally=tally.state()))
    order = sorted(row["index"] for row in tally.images)
    todo = [index for index in order if index not in run.components]
    thresholds = {name: tallied.threshold for name, tallied in found.items()}
    for index, sample in read_ahead(run.dataset, todo):
        prediction, label = run.predict(sample)
        with run.timed("scores"):
            maps = score_maps(prediction, {name: run.scores[name] for name in found})
        with run.timed("metrics"):
            seen = observe_components(index, sample.name, label, maps, thresholds, sizes)
            if journal:
                journal.append(seen.to_bytes())
            run.components[index] = seen
        run.tell("components", len(run.components))
    for index in order:
        for name, tallied in found.items():
            frame = Components(**sub_state(run.components[index].arrays, name))
            tallied.take(frame, tally.weights(index))
    return found


def summarise(
    run: Run, tally: Tally, components: dict[str, ComponentTally], sizes: ComponentSizes
) -> Results:
    """Figures and curves from the sums."""
    names = run.segmenter.class_names
    tally.images.sort(key=lambda row: int(row["index"]))
    scores, differences = fig.score_figures(tally)
    for name, figures in scores.items():
        blank: dict[str, Any] = dict.fromkeys(("siou", "ppv", "f1"))
        if name in components:
            found = components[name]
            blank = fig.component_figures(found.components, found.replicates)
            blank["threshold"] = found.threshold
        figures["unknown"] |= blank
    right, wrong, known_only, unknown = (int(count) for count in tally.kinds)
    known = right + wrong + known_only
    figures = {
        "doubtmap": __version__,
        "command": "",
        "seed": 0,
        "model": run.segmenter.description,
        "data": {
            "name": run.dataset.name,
            "images": len(tally.images),
            "pixels": {"known": known, "unknown": unknown, "void": tally.void},
        },
        "segmentation": fig.segmentation_figures(tally, names),
        "calibration": fig.calibration_figures(tally),
        "scores": scores,
        "differences": differences,
        "images": tally.images,
        "seconds": {},
        "notes": list(_notes(run, tally, components, sizes)),
    }
    if run.skipped:
        figures["data"]["skipped"] = run.skipped.reasons
    return Results(figures, fig.curves(tally), names, [])


def _notes(
    run: Run, tally: Tally, components: dict[str, ComponentTally], sizes: ComponentSizes
) -> Iterator[str]:
    """What a reader of the figures must know."""
    yield from run.notes
    if run.matching:
        yield from run.matching.notes
    right, wrong, _, unknown = tally.kinds
    if not unknown:
        yield "unknown: no pixel is labelled unknown, so these figures are null."
    if right + wrong == 0:
        yield (
            "segmentation, calibration, wrong: labels only tell known from unknown, so these "
            "figures are null."
        )
    elif wrong == 0 or right == 0:
        yield "wrong: all pixels are right, or all are wrong, so ranking figures are null."
    if components:
        origin = "published" if run.dataset.component_sizes == sizes else "chosen"
        yield (
            f"Components: {origin} sizes, at least {sizes.predicted} predicted and "
            f"{sizes.labelled} labelled pixels, at the threshold of the best pixel F1 on these "
            f"same images."
        )
    if run.skipped and run.skipped.reasons:
        yield f"{len(run.skipped.reasons)} images could not be read and were skipped."


def pick_examples(run: Run, tally: Tally, count: int) -> Iterator[Example]:
    """Third pass: the images with the most doubt, and those with the most missed pixels."""
    score = "entropy" if "entropy" in run.scores else next(iter(run.scores))
    taken: set[int] = set()
    for key, reason, detail in (
        ("mean", "most doubt", "mean {score} {value:.3g}"),
        (
            "missed",
            "most missed",
            "{value:.1%} of the pixels are bad and outside the most doubtful fifth by {score}",
        ),
    ):
        rows = [row for row in tally.images if row["scores"][score].get(key) is not None]
        rows.sort(key=lambda row, key=key: -float(row["scores"][score][key]))  # type: ignore[misc]
        picked = [row for row in rows if row["index"] not in taken][:count]
        taken |= {row["index"] for row in picked}
        for row in picked:
            text = detail.format(score=score, value=row["scores"][score][key])
            yield _example(run, row["index"], score, reason, text)


def _example(run: Run, index: int, score: str, reason: str, detail: str) -> Example:
    sample = run.dataset[index]
    prediction, label = run.predict(sample)
    doubt = score_maps(prediction, {score: run.scores[score]})[score]
    return Example(
        name=sample.name,
        reason=reason,
        detail=detail,
        image=sample.image.permute(1, 2, 0).numpy(),
        label=label.cpu().numpy(),
        predicted=prediction.classes[0].cpu().numpy().astype(np.int16),
        doubt=doubt.cpu().numpy().astype(np.float32),
        score=score,
    )
