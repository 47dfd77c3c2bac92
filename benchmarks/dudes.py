"""DUDES: how a student follows its teachers, and what its map is worth, on CamVid.

    python benchmarks/dudes.py --plain FOLDER --students NAME=FOLDER,... [--shared ../shared] \
        [--stages maps,parts,borders,time]

Unknown: pedestrian and bicyclist. Teachers: the five networks of `camvid9-ensemble`. The folders
are what these wrote (networks under ../shared/models, `DATA` is
camvid:../shared/data/camvid:train):

    doubtmap train DATA --model camvid9 --hold-out pedestrian,bicyclist --batch 4 --crop 288x384 \
        --seed 1 [--recipe dudes --teachers TEACHERS --cache CACHE] [--freeze] [--target ...]

with `--epochs 4 --rate 3e-4 --class-weights 0.25` where the network is trained (`mean`: with
`--target mean`), and `--freeze --epochs 3 --hidden 64` where the head alone is (2 epochs without a
hidden layer, 11 on the 101 images of val; `layers`: with
`--layers backbone.encoder.stages.2,backbone.encoder.stages.3`; `unaugmented`: `--no-augment`;
`whole images`: with `--no-augment --crop 360x480 --batch 2 --rate 3e-3 --epochs 4`).
Names of frozen students start with `frozen`. Writes `benchmarks/results/dudes.json`; a stage that
is run again replaces its rows. The head's learning rate and the hidden layer were chosen on eight
images of val (among those that `frozen hidden on val` learns from); `--layers` and what `whole
images` differs in on 26, with heads fitted to stored features, after a look at what such heads
reach on test; the epochs by the time that a CPU needs. The joint row with a hidden layer was added
after a first look at test, its width of 32 chosen by timing alone.

Pearson, Spearman and RMSE are over all pixels of the test images, pooled, against the teachers'
spread; those of `target.` against what a student of another target learnt. Spearman is that of the
maps rounded to sixteenths of octaves, with average ranks for ties; its replicates are of half
octaves. Differences are paired: of mIoU to `plain`, of AUPRC to the same network's entropy.
Stages: `maps`, `parts` (how
two teachers follow the other three), `borders` (within 4 pixels of another labelled class, and
elsewhere), `time` (processor time of one thread, all ways in turn,
in another order for each image).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dudes_figures import Following, Worth, with_intervals
from torch import Tensor

import doubtmap as dm
from doubtmap.datasets.labels import match_labels
from doubtmap.models.distilled import HEAD, head_of
from doubtmap.models.ensemble import MemberSums
from doubtmap.prediction import Prediction
from doubtmap.scores.members import said_by_head

RESULTS = Path(__file__).parent / "results" / "dudes.json"
HELD_OUT = ["pedestrian", "bicyclist"]


def target_of(network: Any) -> str | None:
    """What the second head of a network learnt, where it has one."""
    head = head_of(network.source.backend.module)
    return None if head is None else str(head.about["target"])


def heads_of(base: Any, frozen: dict[str, Any]) -> dict[str, Any]:
    """The heads of frozen students, after a look that the network below is the same."""
    weights, heads = base.source.backend.module.state_dict(), {}
    for name, student in frozen.items():
        own = student.source.backend.module.state_dict()
        assert all(torch.equal(part, own[key]) for key, part in weights.items()), name
        heads[name] = head_of(student.source.backend.module)
    return heads


def with_heads(prediction: Prediction, heads: dict[str, Any]) -> dict[str, Prediction]:
    """The prediction of a frozen network with each head that was trained on it."""
    assert prediction.features is not None
    with torch.no_grad():
        said = {
            name: head.say(prediction.features, prediction.layers) for name, head in heads.items()
        }
    return {name: replace(prediction, layers={HEAD: layer}) for name, layer in said.items()}


def taught(theirs: Prediction, members: int, classes: int) -> dict[str, Tensor]:
    """`(H, W)` of each target of a second head, as a student learns it."""
    return {
        "spread": dm.scores.member_spread(theirs)[0],
        "mutual_information": dm.scores.mutual_information(theirs)[0]
        / math.log(min(members, classes)),
        "entropy": dm.scores.entropy(theirs)[0] / math.log(classes),
    }


def maps(shared: Path, plain: Path, students: dict[str, Path], split: str) -> list[Any]:
    """One pass over the images with all networks."""
    data = dm.open_dataset(f"camvid:{shared}/data/camvid:{split}")
    teachers = [shared / "models" / "camvid9-ensemble" / str(i) for i in range(1, 6)]
    ensemble = dm.load(",".join(map(str, teachers)))
    networks: dict[str, Any] = {"plain": dm.load(plain)}
    networks["camvid9"] = dm.load(shared / "models" / "camvid9")
    loaded = {name: dm.load(folder) for name, folder in students.items()}
    frozen = {name: one for name, one in loaded.items() if name.startswith("frozen")}
    networks |= {name: one for name, one in loaded.items() if name not in frozen}
    heads = heads_of(networks["camvid9"], frozen)
    heard = {layer for head in heads.values() for layer in head.layers}
    networks["camvid9"] = networks["camvid9"].listening(sorted(heard))
    targets = {name: target_of(one) for name, one in loaded.items()}
    names = ensemble.class_names
    matching = match_labels(data.class_names, names, HELD_OUT)
    worth: dict[str, Worth] = {}
    following: dict[str, Following] = {}
    for index in range(len(data)):
        sample = data[index]
        label, image = matching.apply(sample.label), sample.image[None]
        theirs = ensemble(image)
        asked = taught(theirs, len(teachers), len(names))
        doubts = {
            f"ensemble: {score}": (getattr(dm.scores, score)(theirs)[0], theirs.classes[0])
            for score in ("member_spread", "mutual_information", "entropy")
        }
        predictions = {name: network(image) for name, network in networks.items()}
        predictions |= with_heads(predictions["camvid9"], heads)
        for name, prediction in predictions.items():
            if name not in frozen:
                entropy = dm.scores.entropy(prediction)[0]
                doubts[f"{name}: entropy"] = entropy, prediction.classes[0]
            if said_by_head(prediction) is not None:
                own = dm.scores.distilled(prediction)[0]
                doubts[f"{name}: distilled"] = own, prediction.classes[0]
                if targets[name] != "spread":
                    follow = following.setdefault(f"{name}: target", Following(len(names)))
                    follow.update(own, asked[str(targets[name])], theirs.classes[0])
        for name, (doubt, predicted) in doubts.items():
            worth.setdefault(name, Worth(len(names))).update(doubt, predicted, label)
            follow = following.setdefault(name, Following(len(names)))
            follow.update(doubt, asked["spread"], theirs.classes[0])
        print(f"\r{split}: {index + 1}/{len(data)}   ", end="", flush=True)
    print()
    return rows_of(worth, following, names, split, set(frozen))


def rows_of(
    worth: dict[str, Worth],
    following: dict[str, Following],
    names: tuple[str, ...],
    split: str,
    frozen: set[str],
) -> list[Any]:
    """Figures of every map, with intervals and paired differences."""
    rows: dict[str, dict[str, Any]] = {}
    against = []
    for name, own in worth.items():
        network, _, score = name.partition(": ")
        follow = following[name]
        row = {"name": name, "set": f"camvid {split}"} | own.figures(names)
        row |= follow.figures() | follow.intervals()
        row["by_class_of_ensemble"] = {c: follow.figures(k) for k, c in enumerate(names)}
        if target := following.get(f"{network}: target") if score == "distilled" else None:
            both = target.figures() | target.intervals()
            row |= {f"target.{key}": value for key, value in both.items()}
        if network not in {"ensemble", "plain", "camvid9", *frozen}:
            against.append((name, "miou", "plain: entropy", "plain"))
        if score == "distilled":
            below = "camvid9" if network in frozen else network
            against.append((name, "wrong.auprc", f"{below}: entropy", "entropy"))
            against.append((name, "unknown.auprc", f"{below}: entropy", "entropy"))
        rows[name] = row
    with_intervals(rows, {name: own.replicates() for name, own in worth.items()}, against)
    for name, row in rows.items():
        shown = ("miou", "wrong.auprc", "unknown.auprc", "pearson", "spearman", "rmse")
        print(name, *[f"{key} {row[key]:.4f}" for key in shown])
    return list(rows.values())


def parts(shared: Path) -> list[Any]:
    """How two of the teachers follow the other three: how noisy the spread itself is."""
    data = dm.open_dataset(f"camvid:{shared}/data/camvid:test")
    members = [dm.load(shared / "models" / "camvid9-ensemble" / str(i)) for i in range(1, 6)]
    follow = Following(len(members[0].class_names))
    for index in range(0, len(data), 8):
        sums = MemberSums(), MemberSums()
        for number, member in enumerate(members):
            sums[number < 2].add(member(data[index].image[None]))
        three, two = (part.prediction() for part in sums)
        follow.update(
            dm.scores.member_spread(two)[0], dm.scores.member_spread(three)[0], three.classes[0]
        )
    name = "spread of two teachers, against that of the other three"
    row = {"name": name, "set": "camvid test, every eighth image"} | follow.figures()
    print(row)
    return [row]


def at_border(label: Tensor, reach: int = 4) -> Tensor:
    """`(H, W)` bool, pixels within `reach` of another known class."""
    edge = torch.zeros(label.shape)
    for axis in (0, 1):
        one, other = (
            label.narrow(axis, 1, label.shape[axis] - 1),
            label.narrow(axis, 0, label.shape[axis] - 1),
        )
        differs = ((one != other) & (one >= 0) & (other >= 0)).float()
        edge.narrow(axis, 0, label.shape[axis] - 1).add_(differs)
    near = torch.nn.functional.max_pool2d(edge[None], 2 * reach + 1, 1, reach)[0]
    return near > 0


def borders(shared: Path, students: dict[str, Path]) -> list[Any]:
    """Mean of the maps at borders between classes and away from them."""
    data = dm.open_dataset(f"camvid:{shared}/data/camvid:test")
    teachers = [shared / "models" / "camvid9-ensemble" / str(i) for i in range(1, 6)]
    networks = {"ensemble": dm.load(",".join(map(str, teachers)))}
    networks |= {name: dm.load(folder) for name, folder in students.items()}
    matching = match_labels(data.class_names, networks["ensemble"].class_names)
    sums = {name: np.zeros((2, 2)) for name in networks}
    for index in range(0, len(data), 8):
        sample = data[index]
        label = matching.apply(sample.label)
        near, known = at_border(label), label >= 0
        for name, network in networks.items():
            score = dm.scores.member_spread if name == "ensemble" else dm.scores.distilled
            doubt = score(network(sample.image[None]))[0]
            for place, part in enumerate((near & known, ~near & known)):
                sums[name][place] += float(doubt[part].sum()), int(part.sum())
    rows = []
    for name, ((near_sum, near_count), (far_sum, far_count)) in sums.items():
        row = {"name": name, "set": "camvid test, every eighth image"}
        row |= {"share_at_border": near_count / (near_count + far_count)}
        row |= {"mean_at_border": near_sum / near_count, "mean_elsewhere": far_sum / far_count}
        rows.append(row)
        print(row)
    return rows


def times(shared: Path, plain: Path, students: dict[str, Path]) -> list[Any]:
    """Milliseconds for an image, all ways in turn, and the ratio to the plain network."""
    data = dm.open_dataset(f"camvid:{shared}/data/camvid:test")
    images = [data[index].image[None] for index in range(0, 230, 10)]
    teachers = [shared / "models" / "camvid9-ensemble" / str(i) for i in range(1, 6)]
    one = dm.load(plain)
    several = dm.load(",".join(map(str, teachers)))

    def both(segmenter: Any, score: Any) -> Callable[[Tensor], object]:
        def run(x: Tensor) -> object:
            prediction = segmenter(x)
            return prediction.classes, None if score is None else score(prediction)

        return run

    ways = {
        "plain": both(one, None),
        "plain again": both(one, None),
        "plain with entropy": both(one, dm.scores.entropy),
        "ensemble of 5 with spread": both(several, dm.scores.member_spread),
    }
    for name, folder in students.items():
        ways[f"{name} with distilled"] = both(dm.load(folder), dm.scores.distilled)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    orders = np.random.default_rng(0)
    for image in images[:1] + images:
        for name in orders.permutation(
            list(ways)
        ):  # whoever follows the ensemble finds cold caches
            start = time.process_time()
            ways[name](image)
            seconds[name].append(time.process_time() - start)
    rows = []
    for name, values in seconds.items():
        ratios = [own / base for own, base in zip(values[1:], seconds["plain"][1:])]
        row = {"name": name, "set": "camvid test, 480x360"}
        row |= {"milliseconds": 1000 * statistics.median(values[1:])}  # type: ignore[dict-item]
        row |= {"ratio": statistics.median(ratios)}  # type: ignore[dict-item]
        rows.append(row)
        print(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--plain", type=Path, required=True)
    parser.add_argument("--students", required=True)
    parser.add_argument("--stages", default="maps,parts,borders,time")
    parser.add_argument("--split", default="test")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shared, plain = arguments.shared, arguments.plain
    pairs = [part.partition("=") for part in arguments.students.split(",")]
    students = {name: Path(folder) for name, _, folder in pairs}
    stages: dict[str, Callable[[], list[Any]]] = {
        "maps": lambda: maps(shared, plain, students, arguments.split),
        "parts": lambda: parts(shared),
        "borders": lambda: borders(shared, students),
        "time": lambda: times(shared, plain, students),
    }
    content: dict[str, Any] = {"command": "", "version": "", "conditions": {}, "rows": []}
    if RESULTS.exists():
        content = json.loads(RESULTS.read_text())
    for stage in arguments.stages.split(","):
        rows = [{"stage": stage} | row for row in stages[stage]()]
        content["rows"] = [row for row in content["rows"] if row["stage"] != stage] + rows
        content["command"] = "python benchmarks/dudes.py --plain FOLDER --students NAME=FOLDER,..."
        content["version"] = dm.__version__
        content["conditions"]["unknown"] = HELD_OUT
        content["conditions"][f"threads of {stage}"] = torch.get_num_threads()
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
