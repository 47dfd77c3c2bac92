"""The first look of an evaluation: every pixel of every image into the sums.

The sums of one image are made beside the network's run on the next.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from doubtmap.datasets.fingerprints import sample_marks
from doubtmap.datasets.pasting import Part
from doubtmap.engine.journal import Journal, understood
from doubtmap.engine.run import Run, read_ahead
from doubtmap.engine.shelf import Shelf
from doubtmap.errors import DataError, within_memory
from doubtmap.evaluation.tally import Observation, Tally, join_states, observe, sub_state
from doubtmap.prediction import Prediction
from doubtmap.scoring import score_maps


def tally_pixels(
    run: Run,
    tally: Tally,
    journal: Journal | None,
    shelf: Shelf | None = None,
    numbers: Iterable[int] | None = None,
) -> tuple[Tally, list[Observation]]:
    """First pass: every pixel of every image into the sums.

    Args:
        run: network, images and scores.
        tally: takes the images.
        journal: of a run that can be killed.
        shelf: takes what later passes look at.
        numbers: of the images; default: all.

    Returns:
        The sums, and the components that a killed run had found already.
    """
    held: list[Observation] = []
    own = range(len(run.dataset)) if numbers is None else numbers
    if journal:
        with understood(journal.folder):
            tally, held = _replay(run, tally, journal)
        own = list(own)
        marks = sample_marks(Part(run.dataset, own, run.dataset.name))
        journal.hold(marks, [row["image"] for row in tally.images])
    done = {row["index"] for row in tally.images}
    todo = [index for index in own if index not in done]
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
            look = _Look(index, sample.name, *told, maps)
            summing = beside.submit(_sum, run, tally, look, journal, shelf)
            del told, maps, look
        if summing is not None:
            summing.result()
    if run.skipped and run.skipped.reasons:
        names = (run.dataset.sample_name(index) for index in range(len(run.dataset)))
        reasons = run.skipped.reasons
        run.skipped.reasons = {name: reasons[name] for name in names if name in reasons}
    return tally, held


@dataclass(frozen=True, eq=False)
class _Look:
    """One image as the network and the scores left it."""

    index: int
    name: str
    prediction: Prediction
    label: Tensor
    maps: dict[str, Tensor]


def _sum(run: Run, tally: Tally, look: _Look, journal: Journal | None, shelf: Shelf | None) -> None:
    """Take an image into the sums, and keep what later passes look at."""
    with run.timed("metrics"), torch.inference_mode():
        prediction, label, maps = look.prediction, look.label, look.maps
        seen = observe(look.index, look.name, prediction, label, maps, tally.bins)
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
