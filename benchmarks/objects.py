"""Unknown objects as things on real road scenes, at a threshold from other images and at the best.

    python benchmarks/objects.py [--shared ../shared]
    python benchmarks/objects.py --speed       # milliseconds, on an idle machine, no images needed

Thresholds: `chosen` is the best pixel F1 on CamVid val, which is what a user can have; `oracle` the
best pixel F1 on the very images that are measured, as the published figures have it. Labelled
components of fewer pixels than the set's size are void; an object counts as right, and a labelled
component as found, from a PPV or sIoU of .25 on. Writes `benchmarks/results/objects.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import timeit
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

import doubtmap as dm
from doubtmap.datasets import UNKNOWN, VOID, ComponentSizes, Dataset
from doubtmap.decisions.threshold import choose_threshold
from doubtmap.engine import Pairs
from doubtmap.metrics import Components, Ranking
from doubtmap.metrics.accumulator import Array, State
from doubtmap.metrics.bootstrap import BootstrapSums, Weights, interval
from doubtmap.metrics.components import EIGHT_NEIGHBOURS
from doubtmap.objects import ObjectRule, find_objects, outlines
from doubtmap.objects.find import class_indices
from doubtmap.prediction import Segmenter
from doubtmap.scores.parsing import parse_scores

RESULTS = Path(__file__).parent / "results" / "objects.json"
HELD_OUT = ("pedestrian", "bicyclist")
SCORES = parse_scores("entropy,divergence,gradient(p=0.3),gradient(p=0.5,label=uniform)")
GROUND = ("road", "pavement")
GROUND_SHARES = {"on the ground": 0.2, "amid the ground": 0.5}
SETS: dict[str, dict[str, Any]] = {
    "camvid": {"data": "camvid:{}/camvid:test", "unknown": HELD_OUT, "sizes": (50, 50)},
    "roadanomaly21": {"data": "smiyc:{}/roadanomaly21", "unknown": (), "sizes": (500, 100)},
}
FIGURES: dict[str, Callable[[State], float]] = {
    "objects_per_image": lambda s: ratio(s["objects"][0], s["images"][0]),
    "recall": lambda s: ratio(s["found"][0], s["labelled"][0]),
    "precision": lambda s: 1 - ratio(s["spurious"][0], s["predicted"][0]),
    "siou": lambda s: components(s).siou,
    "ppv": lambda s: components(s).ppv,
    "f1": lambda s: components(s).f1,
}


def ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan


def components(state: State) -> Components:
    return Components(**{name: state[name] for name in Components().state()})


@dataclass
class Measured:
    """The sums of one way to find objects, over images, and their replicates."""

    rule: ObjectRule
    sums: State = field(default_factory=dict)
    replicates: BootstrapSums = field(default_factory=lambda: BootstrapSums(300))

    def take(
        self, score: Array, classes: Array, label: Array, labelled: int, weights: Array
    ) -> None:
        """Take an image."""
        things = find_objects(score, classes, self.rule)
        flagged = torch.zeros(label.shape, dtype=torch.bool).numpy()
        for thing in things:
            flagged |= thing.on_image(label.shape)
        frame = Components()
        smallest = self.rule.smallest, labelled
        frame.update(flagged, label == UNKNOWN, label != VOID, *smallest)
        state = frame.state() | {
            "objects": torch.tensor([float(len(things))]).numpy(),
            "images": torch.ones(1).numpy(),
        }
        self.sums = {name: self.sums.get(name, 0) + array for name, array in state.items()}
        self.replicates.add(state, weights)

    def row(self) -> dict[str, Any]:
        """Figures and intervals."""
        row: dict[str, Any] = {}
        for name, figure in FIGURES.items():
            value = figure(self.sums)
            row[name] = None if math.isnan(value) else value
            row[f"{name}_interval"] = interval(row[name], self.replicates.figures(figure), (0, 1e9))
        return row


def show(stage: str, done: int, total: int) -> None:
    print(f"\r{stage} {done}/{total}   ", end="\n" if done == total else "", flush=True)


def frames(
    segmenter: Segmenter, data: Dataset, unknown: tuple[str, ...], stage: str
) -> Iterator[tuple[dict[str, Array], Array, Array]]:
    """Score maps, classes and labels of each image."""
    for prediction, label in Pairs(segmenter, data, unknown, stage=stage, progress=show):
        maps = {name: score(prediction)[0].numpy() for name, score in SCORES.items()}
        yield maps, prediction.classes[0].numpy(), label[0].numpy()


def oracles(segmenter: Segmenter, data: Dataset, unknown: tuple[str, ...]) -> dict[str, float]:
    """The threshold of the best pixel F1 on these images, by score."""
    rankings = {name: Ranking(1 << 19) for name in SCORES}
    for maps, _, label in frames(segmenter, data, unknown, "oracle"):
        for name, values in maps.items():
            rankings[name].update(values, label == UNKNOWN, label != VOID)
    return {name: ranking.curve.best_f1()[1] for name, ranking in rankings.items()}


def rows_of(
    name: str, segmenter: Segmenter, chosen: dict[str, float], shared: Path
) -> list[dict[str, Any]]:
    settings = SETS[name]
    data = dm.open_dataset(settings["data"].format(shared / "data"))
    sizes = ComponentSizes(*settings["sizes"])
    best = oracles(segmenter, data, settings["unknown"])
    ground = class_indices(GROUND, segmenter.class_names)
    ways: dict[tuple[str, str], Measured] = {}
    for score in SCORES:
        limit, small = chosen[score], sizes.predicted
        ways[score, "chosen"] = Measured(ObjectRule(limit, small))
        for word, share in GROUND_SHARES.items():
            rule = ObjectRule(limit, small, on=ground, on_share=share)
            ways[score, f"chosen, {word}"] = Measured(rule)
        ways[score, "oracle"] = Measured(ObjectRule(best[score], small))
    weights = Weights()
    for index, frame in enumerate(frames(segmenter, data, settings["unknown"], name)):
        maps, classes, label = frame
        for (score, _), way in ways.items():
            way.take(maps[score], classes, label, sizes.labelled, weights(index))
    return [
        {"name": f"{score}, {way}", "set": name, "stage": "objects", "threshold": m.rule.threshold}
        | m.row()
        for (score, way), m in ways.items()
    ]


def speed() -> None:
    """Print the best of five times for a frame of 2 megapixels with 10,000 components."""
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(2, 1024, 2048)).astype(np.float32)
    score = ndimage.gaussian_filter(noise[0], 1.9)
    classes = (ndimage.gaussian_filter(noise[1], 20) > 0).astype(np.int64)
    rule = ObjectRule(float(np.quantile(score, 0.9)))
    _, raw = ndimage.label(score > rule.threshold, EIGHT_NEIGHBOURS)
    things = find_objects(score, classes, rule)
    print(f"{raw} components, {len(things)} of at least {rule.smallest} pixels")
    ways: dict[str, Callable[[], object]] = {
        "find": lambda: find_objects(score, classes, rule),
        "find, holes filled": lambda: find_objects(score, classes, replace(rule, fill_holes=True)),
        "find, on a class": lambda: find_objects(score, classes, replace(rule, on=(1,))),
        "outlines": lambda: [outlines(thing.mask, thing.box[:2]) for thing in things],
    }
    for name, way in ways.items():
        print(f"{name}: {1000 * min(timeit.repeat(way, number=1, repeat=5)):.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--speed", action="store_true")
    arguments = parser.parse_args()
    if arguments.speed:
        speed()
        return
    shared = arguments.shared
    segmenter = dm.load(shared / "models" / "camvid9")
    val = dm.open_dataset(f"camvid:{shared}/data/camvid:val")
    chosen = {
        name: choose_threshold(
            segmenter, val, name, of="unknown", by="f1", unknown=HELD_OUT, progress=show
        ).threshold
        for name in SCORES
    }
    content = {
        "command": "python benchmarks/objects.py",
        "version": dm.__version__,
        "conditions": {
            "model": "models/camvid9",
            "chosen on": "camvid:val",
            "sizes": {name: settings["sizes"] for name, settings in SETS.items()},
            "right from": 0.25,
            "ground": {"classes": GROUND, "share of the ring": GROUND_SHARES},
            "replicates": 300,
        },
        "rows": [row for name in SETS for row in rows_of(name, segmenter, chosen, shared)],
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
