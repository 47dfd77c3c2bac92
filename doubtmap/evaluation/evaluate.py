"""The main job: a network, a data set, some scores; out come figures that hold up.

Read it from top to bottom. Pixels are tallied in one pass over the images, the sums of one image
beside the network's run on the next. A second look, at maps that the pass has kept, finds
components at the threshold that it gave; a third is at a few telling images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from doubtmap.datasets import open_dataset
from doubtmap.datasets.dataset import ComponentSizes, Dataset, Sample, notes_of
from doubtmap.datasets.fingerprints import sample_marks
from doubtmap.datasets.reading import none_left
from doubtmap.decisions.file import Threshold, thresholds_by_score
from doubtmap.engine.journal import Journal, journalled, understood
from doubtmap.engine.run import Progress, Run, Skipped, check_request, read_ahead
from doubtmap.engine.seen import who_has_seen
from doubtmap.engine.settings import with_bands_of
from doubtmap.engine.shelf import Shelf
from doubtmap.errors import DataError, within_memory
from doubtmap.evaluation.asking import scores_asked
from doubtmap.evaluation.components import DEFAULT_SIZES, find_components
from doubtmap.evaluation.examples import pick_examples
from doubtmap.evaluation.figures import summarise
from doubtmap.evaluation.keeping import Keeping
from doubtmap.evaluation.open_set import check_open_set, refused_figures, sentence, take_thresholds
from doubtmap.evaluation.results import Results
from doubtmap.evaluation.score_figures import measure_scores
from doubtmap.evaluation.tally import VERSION, Observation, Tally, join_states, observe, sub_state
from doubtmap.files import alone
from doubtmap.prediction import Prediction, Score, Segmenter
from doubtmap.scoring import is_probability, prepared, score_maps
from doubtmap.segments import MetaModel
from doubtmap.segments.look_first import look_first
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
        command: what to write into the results as their origin.
        maps: folder in which to keep classes, labels and doubt maps, for `doubtmap view`.
        save: called with the results before the journal is removed, to write them.
    """

    bins: int = 15
    component_sizes: ComponentSizes | None = None
    examples: int = 3
    thresholds: Sequence[Threshold] = ()
    segments: MetaModel | None = None
    notes: Iterable[str] = ()
    command: str = ""
    maps: Path | None = None
    save: Callable[[Results], None] | None = None


PLAIN = Options()


@alone
def evaluate(
    segmenter: Segmenter,
    dataset: Any,
    scores: str | Iterable[str | Score] | Mapping[str, Score],
    *,
    unknown: str | Sequence[str] = (),
    open_set: Dataset | str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    skip_bad: bool = False,
    seed: int = 0,
    replicates: int = 300,
    options: Options = PLAIN,
    progress: Progress | None = None,
) -> Results:
    """Measure scores of a network on a data set.

    Memory does not grow with the number of images, but for a few numbers per image, and with
    `segments` a few per segment; then the network also runs once more over the images.

    Args:
        segmenter: the network, as `doubtmap.load` gives it.
        dataset: a `Dataset`, or what `doubtmap.open_dataset` makes one of, such as `"camvid:PATH"`
            or pairs of image and mask, whose numbers are then the segmenter's classes.
        scores: names such as `"entropy,gradient(p=1)"`, functions, or a mapping of names to them;
            `"all"` is every score without fitting that this network can give; others may
            follow, as in `"all,density:FILE"`.
        unknown: label class, or classes, that count as unknown objects; `rest` is all that the
            model lacks.
        open_set: other images with unknown objects. The threshold at which a score finds 95 % of
            their pixels is what it refuses by in the open-set segmentation of `dataset`. Or a field
            of its images' paths, such as `town`: each part then has the threshold of the others.
        out: folder for the journal of an interrupted run; without it nothing is kept on disk.
        resume: go on with the run in `out`, if there is one.
        skip_bad: leave out images that cannot be read, and count them, instead of stopping.
        seed: of the bootstrap.
        replicates: of the bootstrap over images, from which the 95 % intervals come.
        options: what few evaluations ask for.
        progress: told after each image.

    Returns:
        `Results`; `.figures` is the content of `results.json`.

    Raises:
        UsageError, DataError, ModelError: each with one sentence that says what to do.
    """
    unknown = (unknown,) if isinstance(unknown, str) else tuple(unknown)
    if isinstance(segmenter, Segmenter):
        dataset = open_dataset(dataset, seed=seed, classes=segmenter.class_names)
    check_request(segmenter, dataset, unknown)
    dataset = with_bands_of(segmenter, dataset)
    if open_set is not None:
        check_open_set(segmenter, dataset, open_set, unknown)
    start = time.perf_counter()
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
    sizes = options.component_sizes or dataset.component_sizes or DEFAULT_SIZES
    claims = [name for name, score in run.scores.items() if is_probability(score)]
    asked = {
        "version of the sums": VERSION,
        "maps": options.maps is not None,
        "seed": seed,
        "replicates": replicates,
        "bins": options.bins,
        "claims": claims,
        "component_sizes": [sizes.predicted, sizes.labelled],
        "thresholds": {name: threshold.threshold for name, threshold in given.items()},
    }
    taken = take_thresholds(run, open_set) if open_set is not None else []
    folder = Path(out) / ".progress" if out else None
    settings = run.settings | asked if out else {}
    with closing(Shelf()) as shelf, journalled(folder, settings, resume) as journal:
        tally = Tally(list(run.scores), replicates, seed, options.bins, claims)
        keeping = Keeping.into(options.maps, dataset, [*run.scores]) if options.maps else None
        tally, held = tally_pixels(run, tally, journal, shelf, keeping)
        if not tally.images:
            lost = run.skipped.reasons if run.skipped else None
            raise DataError(f"{dataset.name}: {none_left(len(dataset), lost)}")
        measured = measure_scores(tally)
        best = {name: one.best for name, one in measured.items()}
        components = find_components(run, tally, best, sizes, journal, given, held, shelf)
        picked = list(pick_examples(run, tally, options.examples, shelf))
        results = summarise(run, tally, measured, components, sizes)
        results.examples.extend(picked)
        if keeping is not None:
            results.figures["maps"] = dict(keeping.folders)
        if open_set is not None:
            opened = refused_figures(run, open_set, taken, replicates=replicates, seed=seed)
            results.figures["open_set"] = opened
            results.figures["notes"].append(sentence(opened))
        if options.segments is not None:
            results = _reviewed(run, results, options.segments)
        run.seconds["total"] = time.perf_counter() - start
        results.figures.update(command=options.command, seed=seed, seconds=run.seconds)
        if options.save:
            options.save(results)
    return results


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


def tally_pixels(
    run: Run,
    tally: Tally,
    journal: Journal | None,
    shelf: Shelf | None = None,
    keeping: Keeping | None = None,
) -> tuple[Tally, list[Observation]]:
    """First pass: every pixel of every image into the sums.

    Returns:
        The sums, and the components that a killed run had found already.
    """
    held: list[Observation] = []
    if journal:
        with understood(journal.folder):
            tally, held = _replay(run, tally, journal)
        journal.hold(sample_marks(run.dataset), [row["image"] for row in tally.images])
    done = {row["index"] for row in tally.images}
    todo = [index for index in range(len(run.dataset)) if index not in done]
    run.tell("pixels", len(done))
    with ThreadPoolExecutor(1, thread_name_prefix="doubtmap-sums") as beside:
        summing: Future[None] | None = None
        for index, sample in read_ahead(run.dataset, todo, run.skipped):
            told = run.attempt(sample)
            if told is None:
                continue
            try:
                enough = within_memory(sample.image.shape[-2:], sample.name)
                with enough, run.timed("scores"):
                    maps = score_maps(told[0], run.scores)
            except DataError as error:
                run.leave_out(sample, error)
                continue
            if summing is not None:
                summing.result()
            look = _Look(index, sample, *told, maps)
            summing = beside.submit(_sum, run, tally, look, journal, shelf, keeping)
            del told, maps, look
        if summing is not None:
            summing.result()
    return tally, held


@dataclass(frozen=True, eq=False)
class _Look:
    """One image as the network and the scores left it."""

    index: int
    sample: Sample
    prediction: Prediction
    label: Tensor
    maps: dict[str, Tensor]


def _sum(
    run: Run,
    tally: Tally,
    look: _Look,
    journal: Journal | None,
    shelf: Shelf | None,
    keeping: Keeping | None,
) -> None:
    """Take an image into the sums, and keep what later passes look at."""
    with run.timed("metrics"), torch.inference_mode():
        prediction, label, maps = look.prediction, look.label, look.maps
        if keeping is not None:  # before the journal, which says that the image is done
            keeping.keep(look.index, look.sample, prediction, label, maps)
        seen = observe(look.index, look.sample.name, prediction, label, maps, tally.bins)
        if journal:
            journal.append(seen.to_bytes())
        if shelf is not None:
            shelf.put(look.index, label, prediction.classes[0], maps)
        tally.take(seen)
        if journal and journal.full:
            journal.save(join_states(tally=tally.state()))
    run.tell("pixels", len(tally.images))


def _replay(run: Run, tally: Tally, journal: Journal) -> tuple[Tally, list[Observation]]:
    """The tally as a killed run left it, and the components that it had found."""
    components = []
    saved = journal.checkpoint()
    if saved is not None:
        tally = Tally.from_state(sub_state(saved, "tally"))
    for row in tally.images:
        _check_image(run, row["index"], row["image"])
    held = {row["index"] for row in tally.images}
    for record in journal.records():
        seen = Observation.from_bytes(record)
        _check_image(run, seen.meta["index"], seen.meta["name"])
        if seen.meta["stage"] == "components":
            components.append(seen)
        elif seen.meta["index"] not in held:
            tally.take(seen)
    return tally, components


def _check_image(run: Run, index: int, name: str) -> None:
    if not 0 <= index < len(run.dataset) or run.dataset.sample_name(index) != name:
        raise ValueError(f"{name[:60]} is not image {index} of {run.dataset.name}")


def _reviewed(run: Run, results: Results, segments: MetaModel) -> Results:
    """The results with what a review would have shown first, of the images that could be read."""
    indices = [int(row["index"]) for row in results.figures["images"]]
    found = look_first(
        run.segmenter,
        run.dataset,
        segments,
        unknown=run.unknown,
        indices=indices,
        progress=run.progress,
    )
    if found is None:
        results.figures["notes"].append(
            "review: left out, since no image has labels with classes, or no pixel is wrong."
        )
        return results
    results.figures["review"] = found.figures
    return replace(results, look_first=found)
