"""DUDES: how a student follows its teachers, and what its map is worth, on CamVid.

    python benchmarks/dudes.py --plain FOLDER --students NAME=FOLDER,... [--shared ../shared] \
        [--stages maps,parts,borders,time]

Unknown: pedestrian and bicyclist. Teachers: the five networks of `camvid9-ensemble`. The folders
are what these wrote (networks under ../shared/models, `DATA` is
camvid:../shared/data/camvid:train):

    doubtmap train DATA --model camvid9 --hold-out pedestrian,bicyclist --batch 4 --crop 288x384 \
        --seed 1 [--recipe dudes --teachers TEACHERS --cache CACHE] [--freeze] [--target ...]

with `--epochs 4 --rate 3e-4 --class-weights 0.25` where the network is trained, and
`--freeze --epochs 3 --hidden 64` where the head alone is (2 epochs without a hidden layer, 11 on
the 101 images of val).
Names of frozen students start with `frozen`. Writes `benchmarks/results/dudes.json`; a stage that
is run again replaces its rows. The head's learning rate and the hidden layer were chosen on eight
images of val (among those that `frozen hidden on val` learns from), the epochs by the time that a
CPU needs. The joint row with a hidden layer was added after a first look at test, its width of 32
chosen by timing alone.

Pearson, Spearman and RMSE are over all pixels of the test images, pooled. Spearman is that of the
maps rounded to sixteenths of octaves, with average ranks for ties. Stages: `maps`, `parts` (how
two teachers follow the other three), `borders` (within 4 pixels of another labelled class, and
elsewhere), `time` (processor time of one thread, all ways in turn,
in another order for each image).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import doubtmap as dm
from doubtmap.datasets.dataset import UNKNOWN
from doubtmap.datasets.matching import match_labels
from doubtmap.metrics import Confusion, Ranking
from doubtmap.metrics.selective import Keeping
from doubtmap.models.distilled import HEAD, head_of
from doubtmap.models.members import MemberSums
from doubtmap.prediction import Prediction
from doubtmap.scores.distilled import said_by_head

RESULTS = Path(__file__).parent / "results" / "dudes.json"
HELD_OUT = ["pedestrian", "bicyclist"]
OCTAVES, STEPS = (-30, 2), 16
BINS = (OCTAVES[1] - OCTAVES[0]) * STEPS
"""Of doubt, evenly in its logarithm."""


def binned(doubt: Tensor) -> Any:
    """`(N,)` bins of a map, ascending with it."""
    octave = np.log2(np.maximum(doubt.flatten().double().numpy(), 2.0 ** OCTAVES[0]))
    return ((octave - OCTAVES[0]) * STEPS).astype(np.int64).clip(0, BINS - 1)


@dataclass
class Following:
    """How a map follows the ensemble's spread, by the class that the ensemble predicts."""

    classes: int
    sums: Any = field(init=False)
    counts: Any = field(init=False)

    def __post_init__(self) -> None:
        self.sums = np.zeros((self.classes, 6))
        self.counts = np.zeros((self.classes, BINS, BINS), np.int64)

    def update(self, own: Tensor, theirs: Tensor, chosen: Tensor) -> None:
        """Take one image's maps and the ensemble's classes."""
        x, y = own.flatten().double().numpy(), theirs.flatten().double().numpy()
        group = chosen.flatten().numpy()
        for k, part in enumerate((np.ones_like(x), x, y, x * x, y * y, x * y)):
            self.sums[:, k] += np.bincount(group, part, self.classes)
        place = (group * BINS + binned(own)) * BINS + binned(theirs)
        self.counts += np.bincount(place, minlength=self.counts.size).reshape(self.counts.shape)

    def figures(self, group: int | None = None) -> dict[str, float]:
        """Over all pixels, or those of one class."""
        sums = self.sums.sum(0) if group is None else self.sums[group]
        counts = self.counts.sum(0) if group is None else self.counts[group]
        n, x, y, xx, yy, xy = sums
        covariance = xy / n - x * y / n**2
        deviation = np.sqrt((xx / n - (x / n) ** 2) * (yy / n - (y / n) ** 2))
        return {
            "pearson": float(covariance / deviation),
            "spearman": spearman(counts),
            "rmse": float(np.sqrt((xx - 2 * xy + yy) / n)),
            "mean": float(x / n),
            "mean_of_ensemble": float(y / n),
        }


def spearman(counts: Any) -> float:
    """Correlation of the ranks of a table of counts, ties at their average."""
    ranks = [np.cumsum(m) - (m - 1) / 2.0 for m in (counts.sum(1), counts.sum(0))]
    shares = counts / counts.sum()
    row, column = (r - (shares.sum(1 - axis) * r).sum() for axis, r in enumerate(ranks))
    covariance = row @ shares @ column
    return float(
        covariance / np.sqrt((shares.sum(1) * row**2).sum() * (shares.sum(0) * column**2).sum())
    )


@dataclass
class Worth:
    """What a map is worth: unknown and wrong pixels, and what remains without the doubtful."""

    classes: int
    unknown: Ranking = field(default_factory=Ranking)
    wrong: Ranking = field(default_factory=Ranking)
    confusion: Any = None
    by_class: Any = None

    def __post_init__(self) -> None:
        self.confusion = np.zeros((BINS, self.classes, self.classes), np.int64)
        self.by_class = np.zeros((2, self.classes))

    def update(self, doubt: Tensor, predicted: Tensor, label: Tensor) -> None:
        """Take one image."""
        known = label >= 0
        self.unknown.update(doubt, label == UNKNOWN, known | (label == UNKNOWN))
        self.wrong.update(doubt, predicted != label, known)
        place = binned(doubt[known]) * self.classes**2
        place += label[known].numpy().astype(np.int64) * self.classes + predicted[known].numpy()
        counts = np.bincount(place, minlength=self.confusion.size)
        self.confusion += counts.reshape(self.confusion.shape)
        group = predicted.flatten().numpy()
        self.by_class[0] += np.bincount(group, minlength=self.classes)
        self.by_class[1] += np.bincount(group, doubt.flatten().double().numpy(), self.classes)

    def figures(self, names: tuple[str, ...]) -> dict[str, Any]:
        """A row of the results."""
        mean = self.by_class[1] / np.maximum(self.by_class[0], 1)
        total = Confusion(self.confusion.sum(0))
        pixels = self.confusion.sum((1, 2))
        errors = pixels - np.trace(self.confusion, axis1=1, axis2=2)
        keeping = Keeping(pixels, errors)
        removed = np.arange(10) / 10
        row: dict[str, Any] = {"miou": total.miou, "accuracy": total.accuracy}
        for kind, ranking in (("unknown", self.unknown), ("wrong", self.wrong)):
            row[f"{kind}.auprc"] = float(ranking.average_precision())
            row[f"{kind}.auroc"] = float(ranking.auroc())
            row[f"{kind}.fpr95"] = float(ranking.fpr_at_tpr(0.95))
        row["wrong.aurc"] = keeping.area_under_risk()
        row["mean_by_predicted_class"] = dict(zip(names, mean.tolist()))
        row["mean_of_classes"] = float(mean.mean())
        row["removed"] = removed.tolist()
        row["miou_of_the_rest"] = [self.without(share).miou for share in removed]
        row["risk_of_the_rest"] = keeping.risk(1 - removed).tolist()
        return row

    def without(self, share: float) -> Confusion:
        """The confusion when so large a share of the pixels, the most doubtful, is dropped."""
        pixels = self.confusion.sum((1, 2))
        kept = (1 - share) * pixels.sum() - (np.cumsum(pixels) - pixels)
        part = np.clip(kept / np.maximum(pixels, 1), 0, 1)
        return Confusion((self.confusion * part[:, None, None]).sum(0))


def with_heads(prediction: Prediction, heads: dict[str, Any]) -> dict[str, Prediction]:
    """The prediction of a frozen network with each head that was trained on it."""
    assert prediction.features is not None
    with torch.no_grad():
        said = {name: head(prediction.features) for name, head in heads.items()}
    return {name: replace(prediction, layers={HEAD: layer}) for name, layer in said.items()}


def maps(shared: Path, plain: Path, students: dict[str, Path], split: str) -> list[Any]:
    """One pass over the images with all networks."""
    data = dm.open_dataset(f"camvid:{shared}/data/camvid:{split}")
    teachers = [shared / "models" / "camvid9-ensemble" / str(i) for i in range(1, 6)]
    ensemble = dm.load(",".join(map(str, teachers)))
    networks = {"plain": dm.load(plain), "camvid9": dm.load(shared / "models" / "camvid9")}
    networks |= {n: dm.load(f) for n, f in students.items() if not n.startswith("frozen")}
    loaded = {n: dm.load(f) for n, f in students.items() if n.startswith("frozen")}
    heads = {n: head_of(s.source.backend.module) for n, s in loaded.items()}  # type: ignore[attr-defined]
    names = ensemble.class_names
    matching = match_labels(data.class_names, names, HELD_OUT)
    worth: dict[str, Worth] = {}
    following: dict[str, Following] = {}
    for index in range(len(data)):
        sample = data[index]
        label, image = matching.apply(sample.label), sample.image[None]
        theirs = ensemble(image)
        spread = dm.scores.member_spread(theirs)[0]
        doubts = {
            f"ensemble: {score}": (getattr(dm.scores, score)(theirs)[0], theirs.classes[0])
            for score in ("member_spread", "mutual_information", "entropy")
        }
        predictions = {name: network(image) for name, network in networks.items()}
        predictions |= with_heads(predictions["camvid9"], heads)
        for name, prediction in predictions.items():
            if not name.startswith("frozen"):
                entropy = dm.scores.entropy(prediction)[0]
                doubts[f"{name}: entropy"] = entropy, prediction.classes[0]
            if said_by_head(prediction) is not None:
                own = dm.scores.distilled(prediction)[0]
                doubts[f"{name}: distilled"] = own, prediction.classes[0]
        for name, (doubt, predicted) in doubts.items():
            worth.setdefault(name, Worth(len(names))).update(doubt, predicted, label)
            follow = following.setdefault(name, Following(len(names)))
            follow.update(doubt, spread, theirs.classes[0])
        print(f"\r{split}: {index + 1}/{len(data)}   ", end="", flush=True)
    print()
    rows = []
    for name, own in worth.items():
        row = {"name": name, "set": f"camvid {split}"} | own.figures(names)
        follow = following[name]
        row |= follow.figures()
        row["by_class_of_ensemble"] = {c: follow.figures(k) for k, c in enumerate(names)}
        rows.append(row)
        told = {k: round(v, 4) for k, v in follow.figures().items()}
        print(f"{name}: mIoU {row['miou']:.4f} wrong {row['wrong.auprc']:.4f} {told}")
    return rows


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
