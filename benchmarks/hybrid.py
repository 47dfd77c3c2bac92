"""Does a head of its own pay beside negatives? DenseHybrid's score against the divergence.

    python benchmarks/hybrid.py --work DIR [--shared ../shared] [--seeds 1,2]

Trains `camvid9` as `benchmarks/nflowjs.py` does, with a flow that learns along, and a second head
(1x1 convolutions with 64 hidden channels on the classifier's features) that tells pasted pixels
from known ones. Two losses: `published`, cross entropy + 0.03 mean logsumexp of pasted pixels + 0.3
binary cross entropy of the head; `with divergence`, the Jensen-Shannon divergence to uniform with
weight 1 in place of the logsumexp. Writes `benchmarks/results/hybrid.json`: on CamVid val with
pedestrian and bicyclist unknown, and with objects pasted in, the divergence of these networks, the
head alone, and the hybrid score `log sigmoid(head) - logsumexp`.

Reference:
    DenseHybrid: Hybrid Anomaly Detection for Dense Open-set Recognition (Grcic, Bevandic, Segvic,
    2022), https://arxiv.org/abs/2207.02606. Departures: a small network, two epochs, negatives of a
    flow; the head has one hidden layer without batch norm.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nflowjs_figures
import torch
import torch.nn.functional as F
from nflowjs_figures import Measured, measured, rows_of
from nflowjs_sets import HELD_OUT, val_sets
from torch import Tensor

import doubtmap as dm
from doubtmap.datasets import VOID, open_dataset
from doubtmap.models.distilled import Head, attach, said_by
from doubtmap.prediction import Prediction
from doubtmap.training import train
from doubtmap.training.dudes import classifier_of
from doubtmap.training.flow_training import cut, places
from doubtmap.training.negative_learning import NegativeLearning, drawn_size, paste, pulled
from doubtmap.training.networks import Start
from doubtmap.training.nflowjs import NFlowJS
from doubtmap.training.optimizing import Processes
from doubtmap.training.recipe import Objective, cross_entropy
from doubtmap.training.settings import Settings

RESULTS = Path(__file__).parent / "results" / "hybrid.json"
HIDDEN, HEAD_RATE = 64, 0.006
LOSSES = {"published": (0.03, 0.0, 0.3), "with divergence": (0.0, 1.0, 0.3)}
"""Weights of logsumexp, divergence and the head's cross entropy."""


class HybridLearning(NegativeLearning):
    """`NegativeLearning` with a head that tells pasted pixels from known ones."""

    weights: tuple[float, float, float]

    @classmethod
    def on(cls, objective: NegativeLearning, start: Start, loss: str) -> HybridLearning:
        """The same objective, with a head."""
        classifier, channels, _ = classifier_of(start)
        head = Head(classifier, channels, HIDDEN, {"target": "pasted"})
        attach(objective.network, head)
        objective.__class__ = cls
        assert isinstance(objective, cls)
        objective.weights, objective.mine = LOSSES[loss], f"network.{head.layer}."
        return objective

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms of the loss; those of weight 0 are left out."""
        size = drawn_size(self.sides)
        corners, clean = places(labels, size)
        content = cut(images, corners, size).detach()
        patches, shapes = self.source(content, clean)
        mixed, pasted = paste(images, pulled(patches, self.pull), shapes, corners)
        with said_by(self.network) as said:
            logits = self.logits(mixed)
        size = (labels.shape[-2], labels.shape[-1])
        logits, head = (F.interpolate(maps, size, mode="bilinear") for maps in (logits, said[-1]))
        head = head[:, 0]
        known = labels.masked_fill(pasted, VOID)
        counts = pasted | (known >= 0)
        terms = {
            "cross_entropy": cross_entropy(logits, known, self.class_weights, self.processes),
            "logsumexp": logits.logsumexp(1)[pasted].mean(),
            "divergence": self._divergence(logits, pasted),
            "head": F.binary_cross_entropy_with_logits(head[counts], pasted[counts].float()),
        }
        for name, weight in zip(("logsumexp", "divergence", "head"), self.weights):
            terms[name] = weight * terms[name]
        assert self.flow is not None
        return terms | {"bits": self._bits(self.flow, content, clean)}

    def rate_of(self, name: str, rate: float) -> float:
        """The head has a rate of its own, too."""
        return HEAD_RATE if name.startswith(self.mine) else super().rate_of(name, rate)


@dataclass(frozen=True)
class Hybrid(NFlowJS):
    """The recipe."""

    loss: str = "published"

    def __call__(
        self, start: Start, class_weights: Tensor | None, processes: Processes
    ) -> Objective:
        """What is trained."""
        objective = super().__call__(start, class_weights, processes)
        assert isinstance(objective, NegativeLearning)
        return HybridLearning.on(objective, start, self.loss)


def hybrid(prediction: Prediction) -> Tensor:
    """`log sigmoid(head) - logsumexp`: log of how likely pasted, minus the log density of known."""
    pasted = dm.scores.distilled(prediction).clamp(min=torch.finfo(torch.float32).tiny)
    return pasted.log() + dm.scores.energy(prediction)


def trained(shared: Path, folder: Path, loss: str, seed: int, flow: Path | None) -> None:
    """One network, as `benchmarks/nflowjs.py` has it."""
    train(
        open_dataset(f"camvid:{shared}/data/camvid:train"),
        folder,
        recipe=Hybrid(loss=loss, flow=flow),
        model=f"{shared}/models/camvid9",
        hold_out=HELD_OUT,
        settings=Settings(
            epochs=2, batch=4, crop=(288, 384), rate=3e-4, class_weights=0.25, seed=seed, workers=1
        ),
        device="cpu",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--work", type=Path, required=True, help="Folder for the networks.")
    parser.add_argument("--flow", type=Path, help="A trained flow; default: the first run's.")
    parser.add_argument("--seeds", default="1,2")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    nflowjs_figures.SCORES = {
        "divergence": dm.scores.divergence,
        "head": dm.scores.distilled,
        "hybrid": hybrid,
    }
    flow, rows = arguments.flow, list[dict[str, Any]]()
    for loss in LOSSES:
        found: dict[str, list[Measured]] = {}
        for number, seed in enumerate(map(int, arguments.seeds.split(","))):
            folder = arguments.work / f"{loss.replace(' ', '-')}-{seed}"
            if not (folder / "model.safetensors").exists():
                trained(arguments.shared, folder, loss, seed, flow)
            flow = flow or folder / "training" / "flow.safetensors"
            for title, chosen in val_sets(arguments.shared, number).items():
                found.setdefault(title, []).append(measured(dm.load(folder), *chosen))
        for title, runs in found.items():
            rows += [{"set": title} | row for row in rows_of(loss, runs, ())]
    content = {
        "command": "python benchmarks/hybrid.py --work DIR",
        "version": dm.__version__,
        "conditions": {"unknown": list(HELD_OUT), "seeds": arguments.seeds},
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
