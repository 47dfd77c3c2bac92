"""The second look of an evaluation: unknown objects as components, where the data have any."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from doubtmap.datasets.dataset import UNKNOWN, VOID, ComponentSizes
from doubtmap.engine.journal import Journal, understood
from doubtmap.engine.run import Run, read_ahead
from doubtmap.engine.shelf import Shelf
from doubtmap.evaluation.tally import Observation, Tally, threads_for
from doubtmap.metrics import Components
from doubtmap.metrics.accumulator import Array, State, join_states, sub_state, to_numpy
from doubtmap.metrics.bootstrap import BootstrapSums
from doubtmap.metrics.components import labelled_things, meeting
from doubtmap.scoring import score_maps

DEFAULT_SIZES = ComponentSizes(predicted=50, labelled=10)
"""Of data sets without published ones: those of SegmentMeIfYouCan's obstacle track."""

Elsewhere = Callable[[Sequence[int], Mapping[str, float]], Iterator[Observation]]
"""Looks at images by their numbers, for components at a threshold of each score."""


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
    best: Mapping[str, float | None],
    sizes: ComponentSizes,
    journal: Journal | None,
    given: Mapping[str, float],
    held: Sequence[Observation] = (),
    shelf: Shelf | None = None,
    keep: Callable[[Observation], None] | None = None,
    elsewhere: Elsewhere | None = None,
) -> dict[str, ComponentTally]:
    """Second look: unknown objects as components, where the data have any.

    The threshold is the given one, or the best one of `measure_scores`, that of the best pixel F1
    on the same images, as the benchmark has it: an oracle's. `keep` is told of each image; where
    there is an `elsewhere`, that is where they are looked at.
    """
    found = {}
    for name, oracle in best.items():
        if oracle is not None:
            replicates = BootstrapSums(tally.weights.replicates)
            own = given.get(name, oracle)
            mode = "given" if name in given else "oracle"
            found[name] = ComponentTally(own, mode, Components(), replicates)
    if not found:
        return found

    def take(seen: Observation) -> None:
        if keep:
            keep(seen)
        for name, tallied in found.items():
            frame = Components(**sub_state(seen.arrays, name))
            tallied.take(frame, tally.weights(seen.meta["index"]))

    thresholds = {name: tallied.threshold for name, tallied in found.items()}
    done = set()
    with understood(journal.folder if journal else Path("components")):
        for seen in held:
            if missing := [n for n in found if f"{n}/labelled" not in seen.arrays]:
                raise KeyError(missing[0])
            if seen.meta["at"] == thresholds:  # else an image came that was left out before
                done.add(seen.meta["index"])
                take(seen)
    rows = sorted(tally.images, key=lambda row: int(row["index"]))
    todo = {int(row["index"]): str(row["image"]) for row in rows if row["index"] not in done}
    if elsewhere:
        for seen in elsewhere([*todo], thresholds):
            if journal:
                journal.append(seen.to_bytes())
            take(seen)
            del todo[seen.meta["index"]]
            done.add(seen.meta["index"])
            run.tell("components", len(done))
    looked = _second_look(run, list(todo), list(found), shelf)
    with threads_for(found) as each:
        for index, label, maps in looked:
            with run.timed("metrics"):
                about = index, todo[index]
                seen = observe_components(*about, label, maps, thresholds, sizes, each.map)
                if journal:
                    journal.append(seen.to_bytes())
                take(seen)
            done.add(index)
            run.tell("components", len(done))
    return found


def _second_look(
    run: Run, todo: Sequence[int], names: Sequence[str], shelf: Shelf | None
) -> Iterator[tuple[int, Tensor, dict[str, Tensor]]]:
    """Number, label and score maps of images, made anew where they were not kept."""
    made = read_ahead(run.dataset, [index for index in todo if not shelf or index not in shelf])
    for index in todo:
        if shelf and index in shelf:
            looked = shelf.get(index)
            yield index, looked.label, {name: looked.maps[name] for name in names}
            continue
        prediction, label = run.predict(next(made)[1])
        with run.timed("scores"):
            maps = score_maps(prediction, {name: run.scores[name] for name in names})
        yield index, label, maps


def observe_components(
    index: int,
    name: str,
    label: Tensor,
    maps: dict[str, Tensor],
    thresholds: dict[str, float],
    sizes: ComponentSizes,
    each: Callable[..., Iterable[State]] = map,
) -> Observation:
    """Find the components of unknown objects in one image, for each score at its threshold."""
    valid = to_numpy(label != VOID)
    things = labelled_things(to_numpy(label == UNKNOWN), sizes.labelled)

    def found(score: str) -> State:
        above = to_numpy(maps[score] > thresholds[score])
        frame = Components()
        frame.add(*meeting(things, above & valid, sizes.predicted))
        return frame.state()

    arrays = join_states(**dict(zip(maps, each(found, list(maps)))))
    about = {"stage": "components", "index": index, "name": name, "void": 0}
    return Observation(about | {"at": dict(thresholds)}, arrays)
