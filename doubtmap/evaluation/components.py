"""The second pass of an evaluation: unknown objects as components, where the data have any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from doubtmap.datasets.dataset import UNKNOWN, VOID, ComponentSizes
from doubtmap.decisions.file import Threshold
from doubtmap.engine.journal import Journal
from doubtmap.engine.run import Run, read_ahead
from doubtmap.evaluation.tally import Observation, Tally, sub_state, unknown_curve
from doubtmap.metrics import Components
from doubtmap.metrics.accumulator import Array
from doubtmap.metrics.bootstrap import BootstrapSums
from doubtmap.scoring import score_maps

DEFAULT_SIZES = ComponentSizes(predicted=50, labelled=10)
"""Of data sets without published ones: those of SegmentMeIfYouCan's obstacle track."""


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


def observe_components(
    index: int,
    name: str,
    label: Tensor,
    maps: dict[str, Tensor],
    thresholds: dict[str, float],
    sizes: ComponentSizes,
) -> Observation:
    """Find the components of unknown objects in one image, for each score at its threshold."""
    arrays: dict[str, Array] = {}
    for score, values in maps.items():
        frame = Components()
        above = values > thresholds[score]
        frame.update(above, label == UNKNOWN, label != VOID, sizes.predicted, sizes.labelled)
        arrays |= {f"{score}/{key}": array for key, array in frame.state().items()}
    return Observation({"stage": "components", "index": index, "name": name, "void": 0}, arrays)
