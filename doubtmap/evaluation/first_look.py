"""The first look of an evaluation: every pixel of every image into the sums.

The sums of one image are made beside the network's run on the next.
"""

from __future__ import annotations

import atexit
import copy
import functools
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from doubtmap.datasets.dataset import Sample
from doubtmap.datasets.fingerprints import sample_marks
from doubtmap.datasets.pasting import Part
from doubtmap.engine.batches import in_batches
from doubtmap.engine.journal import Journal, understood
from doubtmap.engine.places import Place
from doubtmap.engine.pool import Done, Looker
from doubtmap.engine.run import Run, Skipped, read_ahead
from doubtmap.engine.shelf import ENOUGH, MOST, Shelf, Shelves
from doubtmap.errors import DataError, within_memory
from doubtmap.evaluation.asking import Asked, Options, Taker
from doubtmap.evaluation.components import Elsewhere, observe_components
from doubtmap.evaluation.keeping import Keeping
from doubtmap.evaluation.tally import Observation, Tally, observe, threads_for
from doubtmap.files import writing_to
from doubtmap.metrics.accumulator import join_states, sub_state
from doubtmap.prediction import Prediction, Segmenter
from doubtmap.scoring import prepared, score_maps


def tally_pixels(
    asked: Asked,
    journal: Journal | None,
    shelf: Path | None = None,
    numbers: Sequence[int] | None = None,
) -> tuple[Tally, list[Observation], Shelf]:
    """First pass: every pixel of every image into the sums, here or by workers.

    Args:
        asked: network, images, scores, and where the images are looked at.
        journal: of a run that can be killed.
        shelf: folder for what later passes look at; without it that goes with the process.
        numbers: of the images; default: all.

    Returns:
        The sums, the components that a killed run had found already, and what later passes look at.
    """
    run, place, tally = asked.run, asked.options.place, asked.tally()
    held: list[Observation] = []
    own = range(len(run.dataset)) if numbers is None else numbers
    if journal:
        with understood(journal.folder):
            for each in (journal, *_of_workers(journal.folder)):
                _replay(run, tally, held, each)
        marks = sample_marks(Part(run.dataset, own, run.dataset.name))
        journal.hold(marks, [row["image"] for row in tally.images])
    done = {row["index"] for row in tally.images}
    todo = [index for index in own if index not in done]
    run.tell("pixels", len(done))
    kept: Shelf
    if place.elsewhere:
        kept = _by_workers(asked, tally, journal, shelf, todo, done)
    else:
        kept = Shelf() if shelf is None else Shelf(ENOUGH, shelf / "0")
        with ExitStack() as failing:
            failing.callback(kept.close)
            more = asked.options.beside, Keeping.of(asked.options.maps, run), place.batch
            look(run, tally, todo, journal, kept, _told(run, tally), *more)
            failing.pop_all()
    if run.skipped and run.skipped.reasons:
        names = (run.dataset.sample_name(index) for index in range(len(run.dataset)))
        reasons = run.skipped.reasons
        run.skipped.reasons = {name: reasons[name] for name in names if name in reasons}
    return tally, held, kept


def _told(run: Run, tally: Tally) -> Done:
    return lambda number: run.tell("pixels", len(tally.images))


def _of_workers(folder: Path) -> Iterator[Journal]:
    """The journals that workers of a killed run have left."""
    for each in sorted(folder.glob("worker-*")):
        yield Journal(each, {}, resume=True)


def _by_workers(
    asked: Asked,
    tally: Tally,
    journal: Journal | None,
    shelf: Path | None,
    todo: Sequence[int],
    done: set[int],
) -> Shelf:
    """Take what workers have summed; what they keep for later passes lies in files."""
    run, place = asked.run, asked.options.place
    most = MOST // max(1, place.workers) if shelf is None else ENOUGH
    if shelf is None and place.one_machine:
        shelf = _going(journal.folder / "shelf" if journal else None)
    first = 0 if journal is None else len([*journal.folder.glob("worker-*")])
    own = journal.folder if journal and place.one_machine else None
    work = FirstLook(asked, place.opening(run.segmenter), own, first, shelf, most)
    if place.one_machine and todo:  # while the process that they start from imports
        with suppress(DataError):  # which they will tell of
            run.predict(run.dataset[todo[0]])

    def tell(number: int) -> None:
        done.add(number)
        run.tell("pixels", len(done))

    with closing(place.look(work, todo, tell)) as found:
        for _, data in found:
            take_sums(run, tally, Observation.from_bytes(data))
            if journal and own is None:
                journal.append(data)
    return Shelf() if shelf is None else Shelves(shelf)


def _going(folder: Path | None) -> Path:
    """A folder that goes with this process, or with the journal that it lies in."""
    if folder is not None:
        folder.mkdir(exist_ok=True)
        return folder
    with writing_to(Path(tempfile.gettempdir()), "temporary folder with TMPDIR"):
        made = Path(tempfile.mkdtemp(prefix="doubtmap-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def take_sums(run: Run, tally: Tally, sums: Observation) -> None:
    """Take what a worker has summed, its times, and the images that it could not use."""
    tally.absorb(Tally.from_state(sums.arrays))
    for key, taken in sums.meta["seconds"].items():
        run.seconds[key] += taken
    if run.skipped is not None:
        run.skipped.reasons |= sums.meta["skipped"]


@dataclass(frozen=True, eq=False)
class FirstLook:
    """What workers do in the first pass.

    Args:
        asked: network apart.
        network: opens it.
        journals: folder of those of the workers; None: what a worker that dies has summed is lost.
        first: number of the first of them.
        shelf: folder for what later passes look at, or None.
        most: bytes of it that each worker keeps.
    """

    asked: Asked
    network: Callable[[], Segmenter]
    journals: Path | None
    first: int
    shelf: Path | None
    most: int

    def __getstate__(self) -> dict[str, Any]:
        """All but the network, the progress bar, and what is done with the results."""
        run = copy.copy(self.asked.run)
        run.segmenter, run.progress, run.notes = None, None, []  # type: ignore[assignment]
        asked = self.asked.options
        place = Place(batch=asked.place.batch)
        options = Options(bins=asked.bins, maps=asked.maps, place=place)
        return {**vars(self), "asked": replace(self.asked, run=run, options=options)}

    def open(self, worker: int) -> Looker:
        """Open the network."""
        run = self.asked.run
        run = replace(run, segmenter=prepared(self.network(), run.scores))
        return functools.partial(self._look, replace(self.asked, run=run), worker)

    def _look(
        self, asked: Asked, worker: int, numbers: Iterable[int], done: Done
    ) -> Iterator[tuple[list[int], bytes]]:
        run, tally = asked.run, asked.tally()
        run.seconds = dict.fromkeys(run.seconds, 0.0)
        run.skipped = None if run.skipped is None else Skipped()
        given: list[int] = []
        own = self.journals and self.journals / f"worker-{self.first + worker:03d}"
        journal = Journal(own, {}, resume=True) if own else None
        path = self.shelf / str(self.first + worker) if self.shelf else None
        with closing(Shelf(self.most, path) if path else Shelf(0)) as shelf:
            if journal:
                _replay(run, tally, [], journal)
            have = {row["index"] for row in tally.images}

            def missing() -> Iterator[int]:
                for number in numbers:
                    given.append(number)
                    if number not in have:
                        yield number
                    else:
                        done(number)

            more = Keeping.of(asked.options.maps, run), asked.options.place.batch
            look(run, tally, missing(), journal, shelf, done, (), *more)
        if journal:
            journal.close()
        skipped = run.skipped.reasons if run.skipped else {}
        meta = {"stage": "sums", "seconds": run.seconds, "skipped": skipped}
        yield given, Observation(meta, tally.state()).to_bytes()


@dataclass(frozen=True, eq=False)
class SecondLook(FirstLook):
    """What workers do in the second pass: they look at what was kept of the first, or once more.

    Args:
        thresholds: of the components, by score.
    """

    thresholds: Mapping[str, float] = field(default_factory=dict)

    def open(self, worker: int) -> Looker:
        """Open the network where an image asks for it."""
        if self.shelf is None:
            return super().open(worker)
        opening = functools.cache(lambda: super(SecondLook, self).open(worker))
        return functools.partial(self._look_at_kept, self.shelf, opening)

    def _look_at_kept(
        self, folder: Path, opening: Callable[[], Looker], numbers: Iterable[int], done: Done
    ) -> Iterator[tuple[list[int], bytes]]:
        with closing(Shelves(folder)) as shelf:
            for index in numbers:
                if index not in shelf:
                    yield from opening()([index], done)
                else:
                    yield [index], self._found_in(shelf, index).to_bytes()
                    done(index)

    def _found_in(self, shelf: Shelf, index: int) -> Observation:
        looked, at, sizes = shelf.get(index), dict(self.thresholds), self.asked.sizes
        name, maps = self.asked.run.dataset.sample_name(index), looked.maps
        maps = {score: maps[score] for score in at}
        return observe_components(index, name, looked.label, maps, at, sizes)

    def _look(
        self, asked: Asked, worker: int, numbers: Iterable[int], done: Done
    ) -> Iterator[tuple[list[int], bytes]]:
        run, at = asked.run, dict(self.thresholds)
        for index, sample in read_ahead(run.dataset, numbers):
            prediction, label = run.predict(sample)
            maps = score_maps(prediction, {name: run.scores[name] for name in at})
            seen = observe_components(index, sample.name, label, maps, at, asked.sizes)
            yield [index], seen.to_bytes()
            done(index)


def components_elsewhere(asked: Asked, shelf: Shelf) -> Elsewhere | None:
    """The second look by workers; None where there are none, or one that would help nobody.

    Args:
        asked: network, images, scores, and where the images are looked at.
        shelf: what was kept of the first look; of workers on other machines it has nothing.
    """
    run, place = asked.run, asked.options.place
    kept = shelf.folder if isinstance(shelf, Shelves) and place.one_machine else None
    if not place.elsewhere or (place.one_machine and (kept is None or place.workers == 1)):
        return None

    def again(numbers: Sequence[int], thresholds: Mapping[str, float]) -> Iterator[Observation]:
        work = SecondLook(asked, place.opening(run.segmenter), None, 0, kept, 0, thresholds)
        with closing(place.look(work, numbers, lambda _: None)) as found:
            for _, data in found:
                yield Observation.from_bytes(data)

    return again


def look(
    run: Run,
    tally: Tally,
    numbers: Iterable[int],
    journal: Journal | None,
    shelf: Shelf | None,
    done: Done,
    others: Sequence[Taker] = (),
    keeping: Keeping | None = None,
    batch: int = 1,
) -> None:
    """Look at images, one after the other, and take them into the sums."""
    with (
        threads_for(tally.scores) as each,
        ThreadPoolExecutor(1, thread_name_prefix="doubtmap-sums") as beside,
    ):
        summing: Future[None] | None = None
        rest = journal, shelf, done, others, keeping
        read = read_ahead(run.dataset, numbers, run.skipped, batch)
        for network, (index, sample) in in_batches(run.segmenter, read, batch, _image_of):
            told = run.attempt(sample, network)
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
            looked = _Look(index, sample, *told, maps)
            summing = beside.submit(_sum, run, tally, looked, each.map, *rest)
            del told, maps, looked
        if summing is not None:
            summing.result()


def _image_of(found: tuple[int, Sample]) -> Tensor:
    return found[1].image


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
    each: Callable[..., Iterator[Any]],
    journal: Journal | None,
    shelf: Shelf | None,
    done: Done,
    others: Sequence[Taker],
    keeping: Keeping | None,
) -> None:
    """Take an image into the sums, and keep what later passes look at."""
    with run.timed("metrics"), torch.inference_mode():
        prediction, label, maps = look.prediction, look.label, look.maps
        if keeping is not None:  # before the journal, which says that the image is done
            keeping.keep(look.index, look.sample, prediction, label, maps)
        several = run.matching is not None and len(run.matching.unknown) > 1
        raw = look.sample.label if several else None
        seen = observe(look.index, look.sample.name, prediction, label, maps, tally.bins, raw)
        if journal:
            journal.append(seen.to_bytes())
        if shelf is not None:
            shelf.put(look.index, label, prediction.classes[0], maps)
        tally.take(seen, each)
        for taker in others:
            taker.take(look.index, prediction, label, maps)
        if journal and journal.full:
            journal.save(join_states(tally=tally.state()))
    done(look.index)


def _replay(run: Run, tally: Tally, held: list[Observation], journal: Journal) -> None:
    """Take what a killed run left into the tally, and the components that it had found."""
    saved = journal.checkpoint()
    if saved is not None:
        tally.absorb(Tally.from_state(sub_state(saved, "tally")))
    for row in tally.images:
        _check_image(run, row["index"], row["image"])
    have = {row["index"] for row in tally.images}
    for record in journal.records():
        seen = Observation.from_bytes(record)
        if seen.meta["stage"] == "sums":
            take_sums(run, tally, seen)
            continue
        _check_image(run, seen.meta["index"], seen.meta["name"])
        if seen.meta["stage"] == "components":
            held.append(seen)
        elif seen.meta["index"] not in have:
            tally.take(seen)


def _check_image(run: Run, index: int, name: str) -> None:
    if not 0 <= index < len(run.dataset) or run.dataset.sample_name(index) != name:
        raise ValueError(f"{name[:60]} is not image {index} of {run.dataset.name}")
