"""The main job: a network, a data set, some scores; out come figures that hold up.

Read it from top to bottom. Pixels are tallied in one pass over the images. A second look, at maps
that the pass has kept, finds components at the threshold that it gave; a third is at a few telling
images.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from doubtmap.datasets.dataset import Dataset
from doubtmap.datasets.fingerprints import about_files
from doubtmap.datasets.reading import none_left
from doubtmap.engine.journal import Journal, going_on, journalled
from doubtmap.engine.run import Progress, Run
from doubtmap.engine.shelf import Shelf
from doubtmap.errors import DataError
from doubtmap.evaluation.asking import PLAIN, Asked, Options, asked_of
from doubtmap.evaluation.components import find_components
from doubtmap.evaluation.examples import pick_examples
from doubtmap.evaluation.figures import summarise
from doubtmap.evaluation.first_look import components_elsewhere, tally_pixels
from doubtmap.evaluation.keeping import TAKEN, check_outside, note_files
from doubtmap.evaluation.open_set import refused_figures, sentence, take_thresholds
from doubtmap.evaluation.results import Results
from doubtmap.evaluation.score_figures import measure_scores
from doubtmap.evaluation.tally import Observation, Tally
from doubtmap.files import alone
from doubtmap.files.naming import score_folders
from doubtmap.prediction import Score, Segmenter
from doubtmap.segments import MetaModel
from doubtmap.segments.look_first import look_first


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
    start = time.perf_counter()
    options.place.begin()
    folder = Path(out) / ".progress" if out else None
    options = replace(options, place=going_on(options.place, folder if resume else None))
    asked = asked_of(
        segmenter,
        dataset,
        scores,
        unknown=unknown,
        open_set=open_set,
        skip_bad=skip_bad,
        seed=seed,
        replicates=replicates,
        options=options,
        progress=progress,
    )
    run = asked.run
    taken = take_thresholds(run, open_set) if open_set is not None else []
    settings = asked.settings if out else {}
    if options.maps is not None:
        check_outside(options.maps, run)
    if options.cases is not None:
        options.cases.begin(run)
    with (
        options.place.alike(),
        journalled(folder, settings, resume) as journal,
        ExitStack() as closed,
    ):
        if options.maps is not None:
            note_files(options.maps, run, resume=resume)
        tally, held, shelf = tally_pixels(asked, journal)
        closed.callback(shelf.close)
        if run.matching is None and tally.images:  # a resumed run that had seen all images
            run.predict(run.dataset[tally.images[0]["index"]])
        results = figures_of(asked, tally, about_files(run.dataset), held, journal, shelf)
        if options.maps is not None:
            results.figures["maps"] = score_folders(run.scores, taken=TAKEN)
        if open_set is not None:
            opened = refused_figures(run, open_set, taken, replicates=replicates, seed=seed)
            results.figures["open_set"] = opened
            results.figures["notes"].append(sentence(opened))
        if options.cases is not None:
            results.figures["by"] = options.cases.finish(run)
        if options.yours is not None:
            images = [int(row["index"]) for row in tally.images]
            results.figures["metrics"] = options.yours.finish(run, images)
        if options.segments is not None:
            results = _reviewed(run, results, options.segments)
        run.seconds["total"] = time.perf_counter() - start
        results.figures.update(command=options.command, seed=seed, seconds=run.seconds)
        if options.save:
            options.save(results)
    return results


def figures_of(
    asked: Asked,
    tally: Tally,
    files: Mapping[str, Any],
    held: Sequence[Observation],
    journal: Journal | None,
    shelf: Shelf,
) -> Results:
    """What follows from the sums, with the second look and the third.

    Args:
        asked: what was asked for.
        tally: of all images.
        files: what the results say of the data set's files.
        held: components that were found already.
        journal: of a run that can be killed.
        shelf: what the first look has kept.

    Raises:
        DataError: where no image could be used.
    """
    run, sizes = asked.run, asked.sizes
    if not tally.images:
        lost = run.skipped.reasons if run.skipped else None
        raise DataError(f"{run.dataset.name}: {none_left(len(run.dataset), lost)}")
    measured = measure_scores(tally)
    best = {name: one.best for name, one in measured.items()}
    components = find_components(
        *(run, tally, best, sizes, journal, asked.given, held, shelf),
        elsewhere=components_elsewhere(asked, shelf),
    )
    picked = list(pick_examples(run, tally, asked.options.examples, shelf))
    results = summarise(run, tally, measured, components, sizes, files)
    if asked.reference is not None:
        asked.reference.hold(results.figures)
    results.examples.extend(picked)
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
