"""The main job: a network, a data set, some scores; out come figures that hold up.

Read it from top to bottom. Pixels are tallied in one pass over the images; a second pass finds
components at the threshold that the first one gave; a third looks at a few telling images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from doubtmap.datasets import fingerprints, open_dataset
from doubtmap.datasets.dataset import ComponentSizes, Dataset, notes_of
from doubtmap.datasets.fingerprints import about_files
from doubtmap.decisions.file import Threshold, thresholds_by_score
from doubtmap.engine.journal import Journal
from doubtmap.engine.run import Progress, Run, Skipped, check_request, read_ahead
from doubtmap.engine.seen import (
    learnt_as_unknown,
    note_of_negatives,
    note_of_overlap,
    notes_of_seen,
)
from doubtmap.errors import DataError
from doubtmap.evaluation import figures as fig
from doubtmap.evaluation.examples import pick_examples
from doubtmap.evaluation.open_set import check_open_set, refused_figures, sentence, take_thresholds
from doubtmap.evaluation.results import Results
from doubtmap.evaluation.tally import (
    Observation,
    Tally,
    join_states,
    observe,
    observe_components,
    sub_state,
    unknown_curve,
)
from doubtmap.metrics import Components
from doubtmap.metrics.accumulator import Array
from doubtmap.metrics.bootstrap import BootstrapSums
from doubtmap.prediction import Prediction, Score, Segmenter
from doubtmap.scores import OF_MEMBERS, OF_STUDENTS, STATELESS
from doubtmap.scores.members import said_by_head
from doubtmap.scores.parsing import parse_scores
from doubtmap.scoring import is_probability, prepared, score_maps
from doubtmap.segments import MetaModel
from doubtmap.segments.look_first import look_first
from doubtmap.segments.review import check_network
from doubtmap.version import __version__

DEFAULT_SIZES = ComponentSizes(predicted=50, labelled=10)
"""Of data sets without published ones: those of SegmentMeIfYouCan's obstacle track."""


def evaluate(
    segmenter: Segmenter,
    dataset: Any,
    scores: str | Iterable[str | Score] | Mapping[str, Score],
    *,
    unknown: str | Sequence[str] = (),
    out: str | Path | None = None,
    resume: bool = False,
    skip_bad: bool = False,
    seed: int = 0,
    replicates: int = 300,
    bins: int = 15,
    component_sizes: ComponentSizes | None = None,
    examples: int = 3,
    open_set: Dataset | str | None = None,
    thresholds: Sequence[Threshold] = (),
    segments: MetaModel | None = None,
    notes: Iterable[str] = (),
    command: str = "",
    save: Callable[[Results], None] | None = None,
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
            `"all"` is every score without fitting that this network can give.
        unknown: label class, or classes, that count as unknown objects; `rest` is all that the
            model lacks.
        out: folder for the journal of an interrupted run; without it nothing is kept on disk.
        resume: go on with the run in `out`, if there is one.
        skip_bad: leave out images that cannot be read, and count them, instead of stopping.
        seed: of the bootstrap.
        replicates: of the bootstrap over images, from which the 95 % intervals come.
        bins: of the reliability diagrams: of the softmax, and of each score that claims to be the
            probability that a pixel is wrong, by an attribute `probability_of_wrong`.
        component_sizes: smallest components that count; default: the data set's published ones.
        examples: how many images of most doubt, and as many of most missed pixels, to keep.
        open_set: other images with unknown objects. The threshold at which a score finds 95 % of
            their pixels is what it refuses by in the open-set segmentation of `dataset`. Or a field
            of its images' paths, such as `town`: each part then has the threshold of the others.
        thresholds: of unknown objects, chosen on other images, for the component figures of their
            scores; without one a score's threshold is that of the best pixel F1 on these images.
        segments: of `fit_segments` on other images: adds what a review without labels would have
            shown first, and how well it foresaw the images.
        notes: what to write into the results, before all other notes.
        command: what to write into the results as their origin.
        save: called with the results before the journal is removed, to write them.
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
    if open_set is not None:
        check_open_set(segmenter, dataset, open_set, unknown)
    start = time.perf_counter()
    run = Run(segmenter, dataset, {}, unknown, progress)
    run.skipped = Skipped() if skip_bad else None
    run.notes.extend(notes)
    run.notes.extend(notes_of(dataset))
    overlaps = [note_of_overlap(segmenter, dataset), note_of_negatives(segmenter, dataset)]
    run.notes.extend(filter(None, overlaps))
    run.scores = possible_scores(run) if scores == "all" else parse_scores(scores)
    run.segmenter = prepared(segmenter, run.scores)
    given = thresholds_by_score(thresholds, run.scores, segmenter)
    if segments is not None:
        check_network(run.segmenter, segments)
    run.notes.extend(
        f"{name}: its threshold was chosen with {', '.join(threshold.unknown) or 'no class'} "
        f"unknown, here {', '.join(unknown) or 'none'} is."
        for name, threshold in given.items()
        if set(threshold.unknown) != set(unknown)
    )
    seen = _seen(run.scores, given, segments)
    seen["negatives in the network's training"] = learnt_as_unknown(segmenter)
    if open_set is not None and not isinstance(open_set, str):
        seen["the thresholds of the open set"] = list(fingerprints(open_set))
    run.notes.extend(notes_of_seen(seen, dataset))
    sizes = component_sizes or dataset.component_sizes or DEFAULT_SIZES
    claims = [name for name, score in run.scores.items() if is_probability(score)]
    settings = run.settings | {
        "seed": seed,
        "replicates": replicates,
        "bins": bins,
        "claims": claims,
        "component_sizes": [sizes.predicted, sizes.labelled],
        "thresholds": {name: threshold.threshold for name, threshold in given.items()},
    }
    taken = take_thresholds(run, open_set) if open_set is not None else []
    journal = Journal(Path(out) / ".progress", settings, resume) if out else None
    try:
        tally = Tally(list(run.scores), replicates, seed, bins, claims)
        tally, held = tally_pixels(run, tally, journal)
        if not tally.images:
            raise DataError(f"{dataset.name}: none of the {len(dataset)} images could be read.")
        components = find_components(run, tally, sizes, journal, given, held)
        picked = list(pick_examples(run, tally, examples))
        results = summarise(run, tally, components, sizes)
        results.examples.extend(picked)
        if open_set is not None:
            opened = refused_figures(run, open_set, taken, replicates=replicates, seed=seed)
            results.figures["open_set"] = opened
            results.figures["notes"].append(sentence(opened))
        if segments is not None:
            results = _reviewed(run, results, segments)
        run.seconds["total"] = time.perf_counter() - start
        results.figures.update(command=command, seed=seed, seconds=run.seconds)
        if save:
            save(results)
    except BaseException:
        if journal:
            journal.close()
        raise
    if journal:
        journal.finish()
    return results


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


def _seen(
    scores: Mapping[str, Score], given: Mapping[str, Threshold], segments: MetaModel | None
) -> dict[str, list[str]]:
    """Fingerprints of the images that thresholds, fusions and meta models have seen."""
    seen = {f"the threshold of {name}": list(found.seen) for name, found in given.items()}
    learnt = {name: getattr(score, "about", {}).get("seen", ()) for name, score in scores.items()}
    if segments is not None:
        learnt["segments"] = segments.about.get("seen", ())
    return seen | {f"the fit of {name}": list(images) for name, images in learnt.items()}


def tally_pixels(
    run: Run, tally: Tally, journal: Journal | None
) -> tuple[Tally, list[Observation]]:
    """First pass: every pixel of every image into the sums.

    Returns:
        The sums, and the components that a killed run had found already.
    """
    held: list[Observation] = []
    if journal:
        tally, held = _replay(tally, journal)
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
    return tally, held


def _replay(tally: Tally, journal: Journal) -> tuple[Tally, list[Observation]]:
    """The tally as a killed run left it, and the components that it had found."""
    components = []
    saved = journal.checkpoint()
    if saved is not None:
        tally = Tally.from_state(sub_state(saved, "tally"))
    held = {row["index"] for row in tally.images}
    for record in journal.records():
        seen = Observation.from_bytes(record)
        if seen.meta["stage"] == "components":
            components.append(seen)
        elif seen.meta["index"] not in held:
            tally.take(seen)
    return tally, components


@dataclass
class ComponentTally:
    """The components of one score at one threshold, `oracle` or `given`, and their replicates."""

    threshold: float
    mode: str
    components: Components
    replicates: BootstrapSums

    def take(self, frame: Components, weights: Array) -> None:
        """Take an image."""
        self.components += frame
        self.replicates.add(frame.state(), weights)


def find_components(
    run: Run,
    tally: Tally,
    sizes: ComponentSizes,
    journal: Journal | None,
    given: Mapping[str, Threshold],
    held: Sequence[Observation] = (),
) -> dict[str, ComponentTally]:
    """Second pass: unknown objects as components, where the data have any.

    The threshold is the given one, or that of the best pixel F1 on the same images, as the
    benchmark has it: an oracle's.
    """
    found = {}
    for name, score in tally.scores.items():
        curve = unknown_curve(score.pixels.view())
        if curve.defined:
            replicates = BootstrapSums(tally.weights.replicates)
            own = given[name].threshold if name in given else curve.best_f1()[1]
            mode = "given" if name in given else "oracle"
            found[name] = ComponentTally(own, mode, Components(), replicates)
    if not found:
        return found
    if journal and not held:
        journal.save(join_states(tally=tally.state()))

    def take(seen: Observation) -> None:
        for name, tallied in found.items():
            frame = Components(**sub_state(seen.arrays, name))
            tallied.take(frame, tally.weights(seen.meta["index"]))

    done = {seen.meta["index"] for seen in held}
    for seen in held:
        take(seen)
    todo = sorted(row["index"] for row in tally.images if row["index"] not in done)
    thresholds = {name: tallied.threshold for name, tallied in found.items()}
    for index, sample in read_ahead(run.dataset, todo):
        prediction, label = run.predict(sample)
        with run.timed("scores"):
            maps = score_maps(prediction, {name: run.scores[name] for name in found})
        with run.timed("metrics"):
            seen = observe_components(index, sample.name, label, maps, thresholds, sizes)
            if journal:
                journal.append(seen.to_bytes())
            take(seen)
        done.add(index)
        run.tell("components", len(done))
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
            blank |= {"threshold": found.threshold, "threshold_mode": found.mode}
        figures["unknown"] |= blank
    if run.matching is None:  # a resumed run that had seen all images
        run.predict(run.dataset[tally.images[0]["index"]])
    labelled = sorted({c for c in run.matching.targets if c >= 0} if run.matching else set())
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
            "images_with_both": with_both(tally),
            "pixels": {"known": known, "unknown": unknown, "void": tally.void},
            **about_files(run.dataset),
        },
        "segmentation": fig.segmentation_figures(tally, names, labelled),
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


def with_both(tally: Tally) -> int:
    """Images with unknown and known pixels, over which the unknown's per-image figures are."""
    return sum(any("unknown" in s for s in row["scores"].values()) for row in tally.images)


def _notes(
    run: Run, tally: Tally, components: dict[str, ComponentTally], sizes: ComponentSizes
) -> Iterator[str]:
    """What a reader of the figures must know."""
    yield from run.notes
    if run.matching:
        yield from run.matching.notes
    right, wrong, _, unknown = tally.kinds
    if unknown and with_both(tally) < len(tally.images):
        yield (
            f"unknown, per image: means over the {with_both(tally)} of {len(tally.images)} images "
            f"that have both unknown and known pixels."
        )
    if not unknown:
        yield "unknown: no pixel is labelled unknown, so these figures are null."
    if right + wrong == 0:
        yield "segmentation, calibration, wrong: no pixel has a class, so these figures are null."
    elif wrong == 0 or right == 0:
        yield "wrong: all pixels are right, or all are wrong, so ranking figures are null."
    if components:
        origin = "the data set's" if run.dataset.component_sizes == sizes else "chosen"
        given = [name for name, found in components.items() if found.mode == "given"]
        oracle = len(given) < len(components)
        at = ["the threshold of the best pixel F1 on these same images"] if oracle else []
        at += [f"the threshold given for {', '.join(given)}"] if given else []
        yield (
            f"Components: {origin} sizes, at least {sizes.predicted} predicted and "
            f"{sizes.labelled} labelled pixels, at {', or at '.join(at)}."
        )
    if run.skipped and run.skipped.reasons:
        yield f"{len(run.skipped.reasons)} images could not be read and were skipped."


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
