"""NFlowJS: robust learning on synthetic negatives, and its predecessors, as one recipe."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from doubtmap.datasets.fingerprints import fingerprint_of
from doubtmap.errors import UsageError
from doubtmap.names import plain_name
from doubtmap.training.batches import Batches
from doubtmap.training.flow import Flow
from doubtmap.training.flow_training import FlowTraining, pretrain, read_flow, write_flow
from doubtmap.training.labels import trained_classes
from doubtmap.training.negative_learning import DIVERGENCES, FlowLearning, NegativeLearning
from doubtmap.training.negatives import (
    REAL,
    FlowSamples,
    fingerprints_of,
    open_real,
    open_source,
    parse_negatives,
    things_of,
)
from doubtmap.training.networks import Start
from doubtmap.training.optimizing import Processes
from doubtmap.training.recipe import CrossEntropy, Job, Objective, Recipe, Work
from doubtmap.training.settings import NFlowJSOptions
from doubtmap.training.trust import TrustRegion

SMALLEST, SHARE = 16, 0.28
"""Default sides of patches: from the first, in pixels, to that share of the crop's shorter side."""
OF_LEARNING = ("flow_rate", "flow_weight", "flow_trust", "flow_replay")
OF_FLOWS = ("flow", "freeze_flow", "flow_steps", *OF_LEARNING)
OF_NEGATIVES = ("divergence", "weight", "patch", "negative_class")
"""Arguments that say nothing where no flow learns, without a flow, and without negatives."""
OPTIONS = {"weight": "--divergence-weight"}
"""What the command line calls them, where that is not their name."""
SIDE = 64
"""Of the patches that a flow is pre-trained on, where negatives can be as large."""


@dataclass(frozen=True)
class NFlowJS(NFlowJSOptions, Recipe):
    """A network that is taught to be uniform on pasted negatives; the flow learns with it.

    Args:
        negatives: `flow`, `real:FOLDER`, `noise`, `shuffled`, several separated by commas, or
            `none`, which is the recipe `plain`.
        divergence: what is made small on pasted pixels: `jsd`, as published, `kl` (uniform to
            prediction, as outlier exposure has it) or `reverse-kl`.
        weight: of the divergence; published: 0.03.
        flow_weight: of the divergence where it pulls at the flow; None: the same, as published.
            Held back at 0.03, samples stay close to what is known, and nothing was gained.
        negative_class: teach a second head the logit of one more class, that of what is pasted.
        flow: file of a trained flow; None: one is trained first, on the same images.
        freeze_flow: leave the flow as it is while the network learns.
        patch: smallest and largest side of patches, divisible by 8; None: 16 to 0.28 of the
            crop's shorter side.
        flow_steps: of the flow's own training.
        flow_rate: the flow's largest learning rate beside the network; published: 1e-5.
        flow_trust: how much rarer a patch may be than at the start, in bits per dimension that the
            flow needed then; infinite: as rare as the flow likes, as published.
        flow_replay: draw each patch from the flow as it is or as it was after one of the epochs;
            published: as it is.
        held_out: classes that are not learnt, and so are no negatives either; `train` knows them.

    Raises:
        UsageError: for values that make no sense.

    Reference:
        Dense Out-of-Distribution Detection by Robust Learning on Synthetic Negative Data
        (Grcić et al., 2021), https://arxiv.org/abs/2112.12833. Departures: a weight of 1,
        since in the few epochs that a CPU can train 0.03 moves nothing; so the flow would run away,
        and is held and replayed (docs/nflowjs.md).

        Outlier detection by ensembling uncertainty with negative objectness (Delić, Grcić, Šegvić,
        2024), https://arxiv.org/abs/2402.15374, for `negative_class`. Departures: one class more
        beside each pixel's classes, where the paper has masks; the divergence weighs as without.
    """

    held_out: tuple[str, ...] = ()
    name: str = "nflowjs"

    def __post_init__(self) -> None:
        if self.divergence not in DIVERGENCES:
            raise UsageError(
                f"--divergence: expected one of {', '.join(DIVERGENCES)}, got {self.divergence}."
            )
        for option, value in (
            ("--divergence-weight", self.weight),
            ("--flow-rate", self.flow_rate),
            ("--flow-weight", self.weight if self.flow_weight is None else self.flow_weight),
        ):
            if not 0 < value < math.inf:
                raise UsageError(f"{option}: expected a finite number above 0, got {value}.")
        if not self.flow_trust > 0:
            raise UsageError(f"--flow-trust: expected bits above 0, or inf, got {self.flow_trust}.")
        if self.flow_steps < 1:
            raise UsageError(f"--flow-steps: expected at least 1, got {self.flow_steps}.")
        for option, what in self._without_effect():
            raise UsageError(f"{option}: has no effect {what}. Leave it out.")
        if self.patch is not None:
            check_patch(self.patch)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of negatives."""
        return parse_negatives(self.negatives)

    @property
    def has_flow(self) -> bool:
        """Whether a flow's samples are among the negatives."""
        return "flow" in self.kinds

    def _without_effect(self) -> Iterator[tuple[str, str]]:
        """Options that were given in vain, and why."""
        options = {field.name: field.default for field in fields(self)}
        given = {name for name, default in options.items() if getattr(self, name) != default}
        for names, vain, why in (
            (OF_FLOWS, not self.has_flow, f"where no flow is among the negatives {self.negatives}"),
            (OF_NEGATIVES, not self.kinds, "without negatives"),
            (("flow_steps",), self.flow is not None, "with --flow, a flow that is trained"),
            (OF_LEARNING, self.freeze_flow, "with --freeze-flow"),
        ):
            for name in names:
                if vain and name in given:
                    yield OPTIONS.get(name, f"--{name.replace('_', '-')}"), why

    def __call__(
        self, start: Start, class_weights: Tensor | None, processes: Processes
    ) -> Objective:
        """What is trained; `prepared` has seen to the flow and to the patches' sizes.

        Raises:
            DataError: for a flow or a folder that cannot be used.
        """
        if not self.kinds:
            return CrossEntropy(start, class_weights, processes)
        flow, about = read_flow(self.flow) if self.flow is not None else (None, {})
        samples, learning = self._samples(flow, processes)
        source, notes = open_source(self.kinds, samples, start.class_names, self.held_out)
        return NegativeLearning(
            start,
            source,
            self.patch or (SMALLEST, SMALLEST),
            class_weights,
            processes,
            divergence=self.divergence,
            weight=self.weight,
            flow=flow,
            learning=learning,
            negative_class=self.negative_class,
            notes=(*self._about_flow(about), *notes, *about_start(start)),
        )

    def _samples(
        self, flow: Flow | None, processes: Processes
    ) -> tuple[FlowSamples | None, FlowLearning]:
        """What is drawn of a flow, and how it learns."""
        how = self.flow_weight, self.flow_rate, self.freeze_flow
        if flow is None or self.freeze_flow:
            return None if flow is None else FlowSamples(flow), FlowLearning(*how)
        region, past = None, list[Flow]()
        if math.isfinite(self.flow_trust):
            region = TrustRegion(flow, self.flow_trust, processes)
        learning = FlowLearning(*how, region, past if self.flow_replay else None)
        return FlowSamples(flow, past, region), learning

    def materials(self, job: Job) -> dict[str, Any]:
        """Hashes of the photographs and of the flow that negatives are made of."""
        classes = trained_classes(job.dataset, job.hold_out)
        real = [kind.removeprefix(REAL) for kind in self.kinds if kind.startswith(REAL)]
        opened = [open_real(text, classes, job.hold_out) for text in real]
        images = {mark for source in opened for mark in fingerprints_of(source)}
        flow = None if self.flow is None else fingerprint_of(Path(self.flow))
        things = [thing for source in opened for thing in things_of(source)]
        order = hashlib.blake2b(
            "\n".join(things).encode("utf-8", "surrogateescape"), digest_size=8
        ).hexdigest()
        return {"negatives": {"images": sorted(images), "things": order, "flow": flow}}

    def fitted(self, job: Job, start: Start, crop: tuple[int, int]) -> NFlowJS:
        """The recipe with sizes that fit the crop, and the held-out classes.

        Raises:
            UsageError: for patches larger than the crop, an optimiser that does not suit, or a flow
                that has seen a held-out class.
            DataError: for a flow that cannot be used.
        """
        if not self.kinds:
            return self
        optimizer = job.settings.optimizer
        if self.has_flow and not self.freeze_flow and optimizer != "adamw":
            raise UsageError(
                f"--optimizer: expected adamw, with which a flow learns, got {optimizer}. Give "
                f"--freeze-flow, or --optimizer adamw."
            )
        if self.flow is not None:
            check_objects_unseen(self.flow, job.hold_out)
        return replace(self, patch=fitted_patch(self.patch, crop), held_out=job.hold_out)

    def prepared(self, work: Work) -> tuple[NFlowJS, Batches, tuple[str, ...]]:
        """Train a flow if none was given; each process does so, the first one's is taken.

        Raises:
            DataError, ModelError: as `pretrain`.
        """
        path, first = work.folder / "flow.safetensors", work.processes.first
        if first and not work.resume:
            self._clear(work.folder)
        work.processes.wait()
        if not self.has_flow or self.flow is not None:
            return self, work.batches, ()
        assert self.patch is not None
        side, seed = min(SIDE, self.patch[1]), work.job.settings.seed
        pretrain(
            work.batches,
            FlowTraining(self.flow_steps, side=side, seed=seed),
            path,
            device=work.device,
            classes=work.start.class_names,
            writes=first,
            told=work.report.flow,
        )
        work.processes.wait()
        return replace(self, flow=path, flow_steps=NFlowJSOptions.flow_steps), work.batches, ()

    def _clear(self, folder: Path) -> None:
        """Remove what another run left of its flows, but never the flow that is given."""
        given = None if self.flow is None else Path(self.flow).resolve()
        for left in folder.glob("flow*"):
            if left.name.partition(".")[0] in ("flow", "flow-joint") and left.resolve() != given:
                left.unlink(missing_ok=True)

    def keep(self, objective: Objective, folder: Path) -> None:
        """Write the flow that learnt beside the network, as it is now."""
        flow: Flow | None = getattr(objective, "held", None)
        if isinstance(objective, NegativeLearning) and flow is not None and not objective.frozen:
            before = read_flow(self.flow)[1].get("classes", ()) if self.flow else ()
            about: dict[str, Any] = {
                "classes": list(dict.fromkeys([*before, *objective.class_names]))
            }
            if (region := objective.region) is not None:
                distance = region.distance(flow, objective.sides[1])
                about["steps_back"] = int(region.steps_back)
                about["distance"] = distance if math.isfinite(distance) else None
            write_flow(folder / "flow-joint.safetensors", flow, **about)

    def _about_flow(self, about: Mapping[str, Any]) -> tuple[str, ...]:
        """What the flow's file says of its fit."""
        if not {"bits", "patches"} <= about.keys():
            return ()
        alone = about.get("judged_on_its_own")
        on = "the image that it learnt from" if alone else f"{about['patches']} held-out patches"
        return (f"The flow {self.flow} needs {about['bits']:.3f} bits per dimension on {on}.",)


def check_objects_unseen(path: str | Path, held_out: Sequence[str]) -> None:
    """Refuse a flow that has learnt what the network is to be tested on.

    Raises:
        UsageError: for a flow that learnt from a held-out class.
        DataError: for a file that is no flow.
    """
    learnt = {plain_name(name) for name in read_flow(path)[1].get("classes", ())}
    if both := [name for name in held_out if plain_name(name) in learnt]:
        raise UsageError(
            f"--flow: expected a flow that has not seen the held-out {', '.join(both)}, but {path} "
            f"learnt from it. Leave --flow out to train one without."
        )


def check_patch(patch: tuple[int, int]) -> None:
    """Refuse sides that make no sense.

    Raises:
        UsageError: for others than two multiples of 8 of at least 8, the first not larger.
    """
    low, high = patch
    if low < 8 or low % 8 or high % 8 or high < low:
        raise UsageError(
            f"--patch: expected MIN-MAX, both multiples of 8 such as 16-80, got {low}-{high}."
        )


def fitted_patch(patch: tuple[int, int] | None, crop: tuple[int, int]) -> tuple[int, int]:
    """The sides of patches for a crop: those asked for, or the default.

    Raises:
        UsageError: for patches that the crop cannot hold.

    Example:
        >>> fitted_patch(None, (288, 384))
        (16, 80)
    """
    most = min(crop)
    low, high = patch or (SMALLEST, max(SMALLEST, int(SHARE * most) // 8 * 8))
    if high > most:
        raise UsageError(
            f"--patch: expected patches that fit into the crop of {crop[0]}x{crop[1]} pixels, got "
            f"sides of {low} to {high}. Give --patch MIN-MAX with at most {most // 8 * 8}, or a "
            f"larger --crop."
        )
    return low, high


def about_start(start: Start) -> tuple[str, ...]:
    """What to say of a network that has not learnt its task yet."""
    if start.trained or start.maker.startswith("python:"):  # which decides on its weights
        return ()
    return (
        "The network starts with random weights, but negatives are for one that knows its task: "
        "train it with --recipe plain first, and name it with --model.",
    )
