"""A watch over images that come without labels: are they still like those of the promise?

```python
from doubtmap.watching import Watch

watch = Watch.begin(segmenter, "threshold.json", reference)
verdict = watch.update(images)  # a data set, with or without labels
if verdict.alarm: ...
watch.save("state.json")
watch = Watch.resume("state.json", segmenter)
```
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from time import monotonic

from doubtmap.datasets import fingerprints
from doubtmap.datasets.dataset import Dataset
from doubtmap.datasets.reading import none_left
from doubtmap.engine.run import Pairs, Progress, Skipped, check_request
from doubtmap.engine.seen import cause, images_seen, notes_of_seen, notes_of_training
from doubtmap.engine.settings import origin_of, with_bands_of
from doubtmap.engine.spread import looked_at
from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.files import Origin
from doubtmap.prediction import Segmenter
from doubtmap.scoring import probe_logits, same_network
from doubtmap.shown import Shown
from doubtmap.watching.judging import Verdict, judged
from doubtmap.watching.looking import Glance, Look, Marked
from doubtmap.watching.promise import Promise, open_promise
from doubtmap.watching.state import State

FEWEST = 20
"""Blocks of images that a reference must have: half of them say what is usual."""
SECONDS = 2.0
"""After which a state is written again, at the least, while images come."""


@dataclass
class Watch(Shown):
    """A promise, a reference of images it was made for, and all images that came since.

    Args:
        promise: see `open_promise`.
        state: what has been seen.
        notes: sentences for the user.
        again: images of the last update that had been seen before, and were left out.
    """

    promise: Promise
    state: State
    notes: list[str] = field(default_factory=list)
    again: int = 0
    _due: float = field(default=0.0, init=False, repr=False)

    def _facts(self) -> Mapping[str, object]:
        return self.state._facts()

    @classmethod
    def begin(
        cls,
        segmenter: Segmenter,
        promise: str | Path,
        reference: Dataset,
        *,
        rate: float = 0.05,
        block: int = 1,
        seed: int = 0,
        skipped: Skipped | None = None,
        command: str = "",
        progress: Progress | None = None,
    ) -> Watch:
        """Look at the reference.

        Args:
            segmenter: the network.
            promise: a file of `doubtmap threshold` by `risk`, `risks` or `sets`, of `fit wrong` or
                of `calibrate`.
            reference: images for which the promise was made, best those that a threshold was
                chosen on; a probability must not have learnt from them. Labels are not used.
            rate: probability of ever raising a false alarm, in (0, 1).
            block: so many consecutive images count as one, for images that come as a film does.
            seed: of ties, permutations and intervals.
            skipped: takes the images that cannot be used; without it the first ends the run.
            command: what to write into the state as its origin.
            progress: told after each image.

        Raises:
            UsageError, DataError, ModelError: each with one sentence that says what to do.
        """
        if not 0 < rate < 1:
            raise UsageError(f"rate: expected a rate of false alarms between 0 and 1, got {rate}.")
        if block < 1:
            raise UsageError(f"block: expected 1 image or more, got {block}.")
        check_request(segmenter, reference, ())
        _enough(len(reference), block)
        opened = open_promise(segmenter, promise)
        seen = {what: images_seen(part) for what, part in opened.fitted.items()}
        found = [*notes_of_seen(seen, reference), *notes_of_training(opened.network, reference)]
        notes = [_flattered(note) for note in found]
        looks = [*filter(None, _looks(opened, reference, None, skipped, progress, "reference"))]
        _enough(len(looks), block)
        if len({one.mark for one in looks}) < len(looks):
            notes.append("The reference holds an image twice, which makes it look less varied.")
        probe = probe_logits(opened.segmenter)
        origin = origin_of(opened.segmenter, reference, probe, command, indices=())
        origin = replace(origin, images=tuple(one.mark for one in looks))
        state = State.begun(opened, looks, origin, rate=rate, block=block, seed=seed)
        return cls(opened, state, notes)

    @classmethod
    def resume(
        cls, path: str | Path, segmenter: Segmenter, promise: str | Path | None = None
    ) -> Watch:
        """Go on from a state.

        Args:
            path: a file that `save` wrote.
            segmenter: the network that it is of.
            promise: its file, where it is not at its old place.

        Raises:
            DataError: where the state, or the promise, cannot be read.
            UsageError: for another promise.
            ModelError: for another network.
        """
        state = State.load(path)
        opened = open_promise(segmenter, promise or state.promise)
        if opened.digest != state.digest:
            raise UsageError(
                f"{path}: expected the promise that it watches, {state.promise} as it was, got "
                f"another. Give that file, or begin anew in another --out."
            )
        if not same_network(probe_logits(opened.segmenter), _Of(state)):
            raise ModelError(
                f"{path}: expected the network that it watches, with the same --input-size, but "
                f"this one's logits differ. Give that one, or begin anew in another --out."
            )
        return cls(opened, state)

    def update(
        self,
        images: Dataset,
        *,
        skipped: Skipped | None = None,
        place: str | Path | None = None,
        progress: Progress | None = None,
    ) -> Verdict:
        """Look at new images, in their order; those that were seen before are left out.

        Each counts at once: what ends the run, an image that cannot be used or a hand, leaves those
        before it seen, and the same call goes on after them, to the same evidence.

        Args:
            images: labels are not used.
            skipped: takes the images that cannot be used; without it the first ends the run.
            place: where the state is written while images come, and where the run ends.
            progress: told after each image.

        Returns:
            What is to be said of all images that have come.

        Raises:
            DataError: for an image that cannot be used, unless `skipped` takes it, or where none
                can.
        """
        self.again, fresh, looks = 0, 0, self.state.looks + 1
        with self._kept(place):
            for one in _looks(self.promise, images, self.state.marks, skipped, progress, "watch"):
                if one is None:
                    self.again += 1
                    continue
                fresh += 1
                self.state = replace(self.state.with_new([one]), looks=looks)
                self._keep(place)
        if skipped is not None and not (self.again or fresh) and len(images):
            raise DataError(none_left(len(images), skipped.reasons))
        return self.verdict

    def check(
        self,
        labelled: Dataset,
        *,
        place: str | Path | None = None,
        progress: Progress | None = None,
    ) -> Verdict:
        """Hold the promise to labelled images, drawn without regard to how they look.

        They take part in the bound of the risk alone, not in the test without labels.

        Args:
            labelled: images that the promise has not learnt from; those seen before with their
                labels are left out.
            place: as of `update`.
            progress: told after each image.

        Returns:
            What is to be said of all images that have come.

        Raises:
            UsageError: for images that the promise was made on, or label sets by place.
            DataError: for labels that cannot be meant, or where no image has anything to lose.
        """
        if not self.promise.limits:
            raise UsageError(
                "watch: expected no labelled images with label sets by place, whose promises are "
                "too many to be held to a few labels. Leave --labelled out."
            )
        check_request(self.promise.segmenter, labelled, self.promise.unknown)
        self._refuse_own(labelled)
        known = {mark for mark, _ in self.state.losses}
        marks = fingerprints(labelled)
        fresh = [at for at, mark in enumerate(marks) if mark not in known]
        pairs = Pairs(
            self.promise.segmenter, labelled, self.promise.unknown, fresh, "labels", progress
        )
        before = len(self.state.losses)
        with self._kept(place):
            for at, (prediction, label) in zip(fresh, pairs):
                if lost := self.promise.losses(prediction, label):
                    self.state = self.state.with_losses([(marks[at], lost)])
                    self._keep(place)
        if fresh and len(self.state.losses) == before:
            raise DataError(
                f"{labelled.name}: expected labelled images with something to lose, found none. "
                f"Give images that hold pixels of the kind that the promise is about."
            )
        return self.verdict

    @property
    def verdict(self) -> Verdict:
        """What is to be said of all images that have come."""
        return judged(self.state)

    def save(self, path: str | Path) -> None:
        """Write the state as JSON; the file is whole or not there.

        Raises:
            DataError: where it cannot be written.
        """
        self.state.save(path)

    @contextmanager
    def _kept(self, place: str | Path | None) -> Iterator[None]:
        """What has come is written in the end, whatever ends it."""
        try:
            yield
        finally:
            if place is not None:
                self.save(place)

    def _keep(self, place: str | Path | None) -> None:
        """Write the state, but not so often that it takes a twentieth of the time."""
        if place is None or monotonic() < self._due:
            return
        start = monotonic()
        self.save(place)
        self._due = monotonic() + max(SECONDS, 20 * (monotonic() - start))

    def _refuse_own(self, labelled: Dataset) -> None:
        own = self.promise.fitted | self.promise.chosen
        seen = {what: images_seen(part) for what, part in own.items()}
        found = notes_of_seen(seen, labelled), notes_of_training(self.promise.network, labelled)
        for note in chain(*found):
            raise UsageError(
                f"watch: expected labelled images that neither the promise nor the network has "
                f"learnt from, but {cause(note)}. Give others."
            )


@dataclass(frozen=True)
class _Of:
    """A state as something that was fitted to a network."""

    state: State

    @property
    def origin(self) -> Origin:
        """Of the reference, with the network's fingerprint."""
        return self.state.origin


def _looks(
    promise: Promise,
    dataset: Dataset,
    seen: set[str] | None,
    skipped: Skipped | None,
    progress: Progress | None,
    stage: str,
) -> Iterator[Look | None]:
    """What is kept of each image, in order; None of one that was seen before.

    Without `seen`, all are new.
    """
    dataset = with_bands_of(promise.network, dataset)

    def skip(index: int, error: DataError) -> None:
        assert skipped is not None
        skipped.reasons[dataset.sample_name(index)] = str(error)

    glance = Glance(promise.name, promise.score, promise.wrong, promise.calibrator)
    read, known = Marked(dataset, frozenset(seen or ())), set(seen or ())
    leave_out = None if skipped is None else skip
    found = looked_at(promise.network, range(len(dataset)), read, glance, leave_out)
    for done, one in enumerate(found, 1):
        again = one is None or (seen is not None and one.mark in known)
        yield None if again else one
        known |= set() if one is None else {one.mark}
        if progress:
            progress(stage, done, len(dataset))


def _enough(count: int, block: int) -> None:
    if count // block < FEWEST:
        blocks = f" in blocks of {block}" if block > 1 else ""
        raise DataError(
            f"watch: expected a reference of at least {FEWEST * block} images{blocks}, got "
            f"{count}. Give more; a hundred blocks see most shifts within ten."
        )


def _flattered(note: str) -> str:
    """What it means for a watch that something has learnt from images of the reference."""
    return (
        f"{note.partition(', so')[0]}: its doubt there is smaller than on other images, so a false "
        f"alarm is likelier than said. Take a reference that it has not learnt from."
    )
