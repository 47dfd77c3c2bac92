"""Negatives in training: what they are worth on unknown objects, on roads and from the air.

    python benchmarks/nflowjs.py --networks NAME=FOLDER,... [--shared ../shared] \
        [--stages road,time]
    python benchmarks/nflowjs.py --halved DIR --stages halve
    python benchmarks/nflowjs.py --halved DIR --stages aerial --networks CLASS/NAME=FOLDER,...

Writes `benchmarks/results/nflowjs.json`; rows that are measured again replace their older state.
Networks of the road start from `camvid9`, which never learnt pedestrian and bicyclist, and are
fine-tuned equally but for the negatives (`DATA` is camvid:../shared/data/camvid:train):

    doubtmap train DATA --model ../shared/models/camvid9 --hold-out pedestrian,bicyclist \
        --batch 4 --crop 288x384 --epochs 2 --rate 3e-4 --class-weights 0.25 --seed 1 \
        --recipe nflowjs --negatives none|noise|shuffled|real:../shared/data/coco128:train|flow \
        [--freeze-flow] [--divergence-weight 0.3] --out FOLDER

Sets of stage `road`: CamVid test with the two held-out classes unknown; CamVid test with one COCO
object pasted into each image, unscaled, of the half of `coco128` that no training saw, people and
known things left out (pedestrians and bicyclists of CamVid itself are void there); CamVid test with
a window of known content of another image in each, called unknown, a control: an AUROC above one
half is a score that finds seams; RoadAnomaly21; Fishyscapes Static. Stage `val` is the first of
these on CamVid val, on which choices were made. Stage `aerial`: `dubai_aerial` at half size, test
tiles, the network's held-out CLASS unknown; a base network learns the other classes for 6 epochs
from `camvid9` (`--crop 256x256 --batch 4 --class-weights 0.25 --rate 1e-3 --seed 1`), and goes on
for 6 with `--recipe nflowjs --rate 3e-4` (`--flow-steps 400`).

Pixels are pooled, void left out. Intervals are 95 % percentiles of 300 bootstrap replicates over
images; `time` is the processor time of one thread, all networks in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import doubtmap as dm
from doubtmap.datasets import (
    UNKNOWN,
    VOID,
    Dataset,
    Pasted,
    Sample,
    open_dataset,
    open_outlines,
)
from doubtmap.engine import Pairs
from doubtmap.metrics import Confusion, Histogram, RankingCurve
from doubtmap.metrics.bootstrap import BootstrapHistogram, Weights, interval
from doubtmap.metrics.histogram import Bins
from doubtmap.prediction import Prediction, Segmenter

RESULTS = Path(__file__).parent / "results" / "nflowjs.json"
HELD_OUT = ("pedestrian", "bicyclist")
SCORES: dict[str, Callable[[Prediction], Tensor]] = {
    "max_softmax": dm.scores.max_softmax,
    "entropy": dm.scores.entropy,
    "max_logit": dm.scores.max_logit,
    "divergence": dm.scores.divergence,
}
FIGURES = ("auprc", "auroc", "fpr95")
REPLICATES = 300
FEW = 20
OTHER = ", other scores"


def figures_of(bins: Bins) -> list[float]:
    """AUPRC, AUROC and FPR95 of unknown (channel 1) against known pixels (channel 0)."""
    curve = RankingCurve.from_bins(bins, bins.counts[1], bins.counts[0])
    if not curve.defined:
        return [float("nan")] * len(FIGURES)
    found = (curve.average_precision(), curve.auroc(), curve.fpr_at_tpr(0.95))
    return [float(figure) for figure in found]


@dataclass
class Found:
    """Known and unknown pixels by the value of one score, and their bootstrap replicates."""

    pixels: Histogram = field(default_factory=lambda: Histogram(1 << 19, shape=(2,)))
    replicates: BootstrapHistogram = field(
        default_factory=lambda: BootstrapHistogram(REPLICATES, channels=2)
    )

    def update(self, values: Any, unknown: Any, weights: Any) -> None:
        """Take one image: `(N,)` values, and which pixels are unknown."""
        self.pixels.update(values, unknown)
        image = Histogram(1 << 15, shape=(2,))
        image.add(image.locate(values), unknown)
        self.replicates.add(image, weights)

    def figures(self) -> dict[str, Any]:
        """Figures by name, each with its interval."""
        drawn, row = self.replicates.figures(figures_of), dict[str, Any]()
        for at, (name, value) in enumerate(zip(FIGURES, figures_of(self.pixels.view()))):
            row[f"unknown.{name}"] = value
            row[f"unknown.{name}_interval"] = interval(value, drawn[:, at], (0.0, 1.0))
        return row


def measured(
    segmenter: Segmenter, dataset: Dataset, unknown: tuple[str, ...], every: int = 1
) -> list[Any]:
    """A row for each score, in one pass over every so many-th image."""
    indices = range(0, len(dataset), every)
    found = {name: Found() for name in SCORES}
    weights, confusion = Weights(REPLICATES), Confusion.empty(len(segmenter.class_names))
    for index, (prediction, label) in enumerate(Pairs(segmenter, dataset, unknown, indices)):
        confusion.update(prediction.classes, label, label >= 0)
        counts = label != -2
        is_unknown = (label[counts] == -1).numpy().astype(np.int64)
        for name, score in SCORES.items():
            values = score(prediction)[counts].numpy()
            found[name].update(values, is_unknown, weights(index))
        print(f"\r{dataset.name}: {index + 1}/{len(indices)}   ", end="", flush=True)
    print()
    miou = confusion.miou if confusion.counts.any() else None
    about = {"miou": miou, "images": len(indices)}
    return [{"score": name} | about | found[name].figures() for name in SCORES]


@dataclass(frozen=True, eq=False)
class Seams:
    """Known content pasted into known content: a window of another image, at its own place.

    The window is labelled unknown, so that its figures tell how far a score takes a seam for an
    unknown object: an AUROC of one half is right, more is an error. Implements `Dataset`.
    """

    whole: Dataset
    side: int = 64

    name = "camvid:test with seams"
    component_sizes = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The whole's."""
        return self.whole.class_names

    def __len__(self) -> int:
        return len(self.whole)

    def sample_name(self, index: int) -> str:
        """Name of a sample, without reading it."""
        return self.whole.sample_name(index)

    def __getitem__(self, index: int) -> Sample:
        """Read one sample, and paste the window."""
        own = self.whole[index]
        other = self.whole[(index + len(self) // 2) % len(self)]
        height, width = own.label.shape
        random = np.random.default_rng([0, index])
        top, left = (int(random.integers(s - self.side + 1)) for s in (height, width))
        window = (slice(top, top + self.side), slice(left, left + self.side))
        image, label = own.image.clone(), own.label.clone()
        image[(slice(None), *window)] = other.image[(slice(None), *window)]
        known = other.label[window] >= 0
        known &= (other.label[window][..., None] != held_out(self.class_names)).all(-1)
        label[window] = torch.where(known, UNKNOWN, VOID).to(label.dtype)
        return Sample(own.name, image, label)


def held_out(names: tuple[str, ...]) -> Tensor:
    """Indices of the classes that no network learnt."""
    return torch.tensor([names.index(name) for name in HELD_OUT])


def road_sets(shared: Path, classes: tuple[str, ...]) -> dict[str, tuple[Dataset, tuple[str, ...]]]:
    """The sets of stage `road`, each with its unknown classes."""
    camvid = open_dataset(f"camvid:{shared}/data/camvid:test")
    objects, _ = open_outlines(f"{shared}/data/coco128:test").foreign_to((*classes, *HELD_OUT))
    return {
        "camvid test": (camvid, HELD_OUT),
        "camvid test with objects": (Pasted(camvid, objects, seed=0), ()),
        "camvid test with seams": (Seams(camvid), ()),
        "roadanomaly21": (open_dataset(f"smiyc:{shared}/data/roadanomaly21"), ()),
        "fishyscapes static": (open_dataset(f"fishyscapes:{shared}/data/fishyscapes_static"), ()),
    }


def road(shared: Path, name: str, folder: Path, every: int) -> list[Any]:
    """All sets of the road with one network; of sets with few images, all."""
    segmenter = dm.load(folder)
    rows = []
    for title, (dataset, unknown) in road_sets(shared, segmenter.class_names).items():
        step = every if len(dataset) > FEW else 1
        rows += titled(name, title, measured(segmenter, dataset, unknown, step))
    return rows


def val(shared: Path, name: str, folder: Path) -> list[Any]:
    """CamVid val, where choices are made."""
    dataset = open_dataset(f"camvid:{shared}/data/camvid:val")
    return titled(name, "camvid val", measured(dm.load(folder), dataset, HELD_OUT))


def halve(shared: Path, to: Path) -> None:
    """Write `dubai_aerial` at half its size, labels by the nearest pixel."""
    for part, how in (("images", Image.Resampling.LANCZOS), ("labels", Image.Resampling.NEAREST)):
        (to / part).mkdir(parents=True, exist_ok=True)
        for file in sorted((shared / "data" / "dubai_aerial" / part).iterdir()):
            picture = Image.open(file)
            half = picture.resize((picture.width // 2, picture.height // 2), how)
            half.save(to / part / file.name, quality=95)


def aerial(halved: Path, name: str, folder: Path) -> list[Any]:
    """The test tiles, at half size, with a network that never learnt the class in its name."""
    held_out, _, title = name.partition("/")
    dataset = open_dataset(f"dubai:{halved}:test")
    rows = measured(dm.load(folder), dataset, (held_out,))
    return titled(title, f"dubai test, {held_out} unknown", rows)


def titled(name: str, dataset: str, rows: list[Any]) -> list[Any]:
    """Rows with their names, which are also told."""
    named = []
    for row in rows:
        score = row.pop("score")
        named.append({"name": f"{name}: {score}", "set": dataset} | row)
        told = {k: round(row[f"unknown.{k}"], 4) for k in FIGURES}
        print(f"{dataset}: {name}: {score}: mIoU {row['miou']} {told}")
    return named


def times(shared: Path, networks: dict[str, Path]) -> list[Any]:
    """Milliseconds for an image, and the ratio to the first network's."""
    data = open_dataset(f"camvid:{shared}/data/camvid:test")
    images = [data[index].image[None] for index in range(0, 230, 6)]
    loaded = {name: dm.load(folder) for name, folder in networks.items()}
    loaded |= {f"{next(iter(networks))} again": dm.load(next(iter(networks.values())))}
    seconds: dict[str, list[float]] = {name: [] for name in loaded}
    orders = np.random.default_rng(0)
    for number, image in enumerate([images[0], *images]):
        for place in orders.permutation(len(loaded)):
            name = list(loaded)[place]
            start = time.process_time()
            dm.scores.divergence(loaded[name](image))
            if number:  # the first image warms up
                seconds[name].append(time.process_time() - start)
    base = next(iter(seconds.values()))
    rows = []
    for name, own in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(own, base))
        middle = 1000 * statistics.median(own)
        row: dict[str, Any] = {"name": f"{name}: divergence", "set": "camvid test, 480x360"}
        rows.append(row | {"milliseconds": middle, "ratio": ratio})
        print(f"{name}: {middle:.0f} ms, {ratio:.3f} x")
    return rows


def merged(before: list[Any], after: list[Any]) -> list[Any]:
    """Rows in their old order, those that were measured anew in their new state."""
    rows = {(row["stage"], row["set"], row["name"]): row for row in before}
    rows |= {(row["stage"], row["set"], row["name"]): row for row in after}
    return list(rows.values())


def is_other(name: str) -> bool:
    """Whether a row is left out of the tables of the docs: some scores of all but `plain`."""
    network, _, score = name.partition(": ")
    return not network.startswith("plain") and score in ("max_softmax", "entropy")


def write(stage: str, rows: list[Any]) -> None:
    """Put rows into the results."""
    content: dict[str, Any] = {"command": "", "version": "", "conditions": {}, "rows": []}
    if RESULTS.exists():
        content = json.loads(RESULTS.read_text())
    staged = [{"stage": stage + (OTHER if is_other(row["name"]) else "")} | row for row in rows]
    content["rows"] = merged(content["rows"], staged)
    content["command"] = "python benchmarks/nflowjs.py --networks NAME=FOLDER,..."
    content["version"] = dm.__version__
    content["conditions"] = {"unknown": list(HELD_OUT), "threads": torch.get_num_threads()}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default="", help="NAME=FOLDER,...")
    parser.add_argument("--every", type=int, default=1, help="Of road: take every so many-th.")
    parser.add_argument("--halved", type=Path, help="Folder for dubai_aerial at half its size.")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--stages", default="road,time")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pairs = (pair.split("=", 1) for pair in arguments.networks.split(",") if pair)
    networks = {name: Path(folder) for name, folder in pairs}
    shared, halved = arguments.shared, arguments.halved
    for stage in arguments.stages.split(","):
        if stage == "halve":
            halve(shared, halved)
        elif stage == "time":
            write(stage, times(shared, networks))
        for name, folder in networks.items():
            if stage == "road":
                write(stage, road(shared, name, folder, arguments.every))
            elif stage == "val":
                write(stage, val(shared, name, folder))
            elif stage == "aerial":
                write(stage, aerial(halved, name, folder))


if __name__ == "__main__":
    main()
