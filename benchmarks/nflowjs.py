"""Negatives in training: what they are worth on unknown objects, on roads and from the air.

    python benchmarks/nflowjs.py --networks NAME=FOLDER+FOLDER+...,... [--shared ../shared] \
        [--stages road,short,val,time,flows] [--work DIR]
    python benchmarks/nflowjs.py --halved DIR --stages halve
    python benchmarks/nflowjs.py --halved DIR --stages aerial --networks CLASS/NAME=FOLDER,...

Writes `benchmarks/results/nflowjs.json`: the rows of the stages that are asked for, all networks
at once. What was measured is kept in `--work`, and taken from there for the same weights and set.
Folders of one name are networks that differ by `--seed` alone; one name is `plain`, which the
others are compared with. Networks of the road start from `camvid9`, which never learnt pedestrian
and bicyclist, and differ only by what is pasted (`DATA` is camvid:../shared/data/camvid:train).
Those of stage `road` have the defaults, ten epochs:

    doubtmap train DATA --model ../shared/models/camvid9 --hold-out pedestrian,bicyclist \
        --recipe nflowjs --negatives none|noise|real:../shared/data/coco128:train|flow \
        [--flow-weight 0.03] --out FOLDER

Those of stage `short` are trained for two (FLOW is the file that the first run trains):

    doubtmap train DATA --model ../shared/models/camvid9 --hold-out pedestrian,bicyclist \
        --batch 4 --crop 288x384 --epochs 2 --rate 3e-4 --class-weights 0.25 --seed SEED \
        --recipe nflowjs --negatives none|shuffled|flow [--flow FLOW] \
        [--freeze-flow] [--divergence kl] --out FOLDER

Sets of both: CamVid test with the two held-out classes unknown; CamVid test with one COCO object
pasted into each image, unscaled, of the half of `coco128` that no training saw, people and known
things left out (pedestrians and bicyclists of CamVid itself are void there), the first networks of
all names with one pasting, the second with another, and so on; every fourth image of CamVid test
with a window of known content of another image in it, called unknown, a control: an AUROC above one
half is a score that finds seams; RoadAnomaly21; of `road` Fishyscapes Static. Stage `val`, on which
choices are made: CamVid val, and with objects of the half that `real` has seen. Stage `aerial`:
`dubai_aerial` at half size, test tiles, the network's held-out CLASS unknown; a base network learns
the other classes for 8 epochs from `camvid9` (`--crop 256x256 --batch 4 --class-weights 0.25
--rate 1e-3 --seed 1`), and goes on for 8 with `--recipe nflowjs --rate 1e-4` (`--flow-steps 400`).

Pixels are pooled, void left out. Intervals are the 2.5 and 97.5 % percentiles, moved to the figure,
of 300 bootstrap replicates over images, frames of a drive in blocks of ten; they do not know how
networks of other seeds differ. Stage `time` is the processor time of one thread, all networks in
turn; `flows` tells how far the samples of the flows are from what they drew before they learnt
beside a network.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nflowjs_figures import FIGURES, Measured, measured, rows_of
from nflowjs_sets import HELD_OUT, Chosen, aerial_set, halve, road_sets, val_sets

import doubtmap as dm
from doubtmap.datasets import open_dataset
from doubtmap.training.flow_training import read_flow

RESULTS = Path(__file__).parent / "results" / "nflowjs.json"
WORK = Path(__file__).parent / "work" / "nflowjs"
PLAIN = "plain"
OTHER, BEST = ", other scores", ", best"
"""Ends of stages: rows that the docs leave out, and a row for each network and set."""

SHORT = ("camvid test", "camvid test with objects", "camvid test with seams", "roadanomaly21")
"""Sets of stage `short`."""

Networks = dict[str, list[Path]]


def compared(stage: str, networks: Networks, arguments: argparse.Namespace) -> list[Any]:
    """Rows of all networks on all sets of a stage, set by set."""
    found: dict[str, dict[str, list[Measured]]] = {}
    for name, folders in networks.items():
        for seed, folder in enumerate(folders):
            for title, chosen in sets_of(stage, name, seed, arguments).items():
                one = remembered(folder, title, seed, chosen, arguments.work)
                found.setdefault(title, {}).setdefault(name.split("/")[-1], []).append(one)
    rows = []
    for title, by_name in found.items():
        for name, runs in by_name.items():
            new = rows_of(name, runs, by_name.get(PLAIN, ()) if name != PLAIN else ())
            rows += [{"set": title} | row for row in new]
            for row in new:
                told = {k: round(row[f"unknown.{k}"], 4) for k in FIGURES}
                print(f"{title}: {row['name']}: mIoU {row['miou']} {told}")
    return rows


def sets_of(stage: str, name: str, seed: int, arguments: argparse.Namespace) -> dict[str, Chosen]:
    """The sets of a stage."""
    if stage == "aerial":
        return aerial_set(arguments.halved, name.split("/")[0])
    if stage == "val":
        return val_sets(arguments.shared, seed)
    sets = road_sets(arguments.shared, seed)
    return sets if stage == "road" else {title: sets[title] for title in SHORT}


def remembered(folder: Path, title: str, seed: int, chosen: Chosen, work: Path) -> Measured:
    """What one network does on one set, from `work` if it was measured before."""
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]
    path = work / title / f"{weights}-{seed}{f'-blocks-{chosen[-1]}' if chosen[-1] > 1 else ''}.npz"
    if not path.exists():
        print(f"{folder}:")
        measured(dm.load(folder), *chosen).save(path)
    return Measured.load(path)


def times(shared: Path, networks: Networks) -> list[Any]:
    """Milliseconds for an image, and the ratio to the first network's."""
    data = open_dataset(f"camvid:{shared}/data/camvid:test")
    images = [data[index].image[None] for index in range(0, 230, 6)]
    loaded = {name: dm.load(folders[0]) for name, folders in networks.items()}
    loaded |= {f"{next(iter(networks))} again": dm.load(next(iter(networks.values()))[0])}
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


def flows(networks: Networks) -> list[Any]:
    """What flows draw, before and after they learnt beside a network: how likely it was before.

    Bits per dimension, under the flow before, of 64 samples of 64x64, by the flow that drew them.
    """
    rows = []
    for name, folders in networks.items():
        inner = folders[0] / "training"
        asked = json.loads((inner / "settings.json").read_text())["recipe"]
        first = Path(asked["flow"] or inner / "flow.safetensors")
        if not (inner / "flow-joint.safetensors").exists():
            continue
        before, _ = read_flow(first)
        for kind, path in (("before", first), ("after", inner / "flow-joint.safetensors")):
            random = torch.Generator().manual_seed(0)
            with torch.no_grad():
                drawn = read_flow(path)[0].sample(64, (64, 64), random)
                bits = before.bits(drawn, torch.Generator().manual_seed(1)).mean()
            rows.append({"name": f"{name}: {kind}", "set": "samples", "bits": float(bits)})
            print(rows[-1])
    return rows


def is_other(row: dict[str, Any], rows: Sequence[Any]) -> bool:
    """Whether a row is left out of the tables of the docs.

    Of `plain` all scores are shown, of the others the divergence and the best by AUPRC.
    """
    network, _, score = row["name"].partition(": ")
    if network == PLAIN or score == "divergence" or "unknown.auprc" not in row:
        return False
    own = [r for r in rows if r["set"] == row["set"] and r["name"].startswith(f"{network}: ")]
    return row is not max(own, key=lambda r: float(r["unknown.auprc"]))


def best_of(rows: Sequence[Any]) -> list[Any]:
    """Of all sets the plain networks' best score and the others' divergence, as rows of one set."""
    found = []
    for title in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == title]
        plain = [row for row in own if row["name"].startswith(f"{PLAIN}: ")]
        shown = [max(plain, key=lambda row: float(row["unknown.auprc"]))] if plain else []
        shown += [r for r in own if r not in plain and r["name"].endswith(": divergence")]
        found += [row | {"name": f"{title}: {row['name']}", "set": "all"} for row in shown]
    return found


def write(stage: str, rows: Sequence[Any]) -> None:
    """Put the rows of a stage in place of those that were there."""
    content: dict[str, Any] = {"command": "", "version": "", "conditions": {}, "rows": []}
    if RESULTS.exists():
        content = json.loads(RESULTS.read_text())
    content["rows"] = [row for row in content["rows"] if row["stage"].split(", ")[0] != stage]
    content["rows"] += [
        {"stage": stage + (OTHER if is_other(row, rows) else "")} | row for row in rows
    ]
    if stage not in ("time", "flows"):
        content["rows"] += [{"stage": stage + BEST} | row for row in best_of(rows)]
    content["command"] = "python benchmarks/nflowjs.py --networks NAME=FOLDER+FOLDER+...,..."
    content["version"] = dm.__version__
    content["conditions"] = {"unknown": list(HELD_OUT), "threads": torch.get_num_threads()}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default="", help="NAME=FOLDER+FOLDER+...,...")
    parser.add_argument("--halved", type=Path, help="Folder for dubai_aerial at half its size.")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--stages", default="road,time")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pairs = (pair.split("=", 1) for pair in arguments.networks.split(",") if pair)
    networks = {name: [Path(folder) for folder in text.split("+")] for name, text in pairs}
    for stage in arguments.stages.split(","):
        if stage == "halve":
            halve(arguments.shared, arguments.halved)
        elif stage == "time":
            write(stage, times(arguments.shared, networks))
        elif stage == "flows":
            write(stage, flows(networks))
        else:
            write(stage, compared(stage, networks, arguments))


if __name__ == "__main__":
    main()
