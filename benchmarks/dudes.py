"""DUDES: how a student follows its teachers, and what its map is worth, on CamVid.

    python benchmarks/dudes.py --plain FOLDER --students NAME=FOLDER,... [--shared ../shared] \
        [--stages maps,parts,borders,time]
    python benchmarks/dudes.py [--students NAME=FOLDER+FOLDER+...,...] --stages seeds

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

Stage `seeds`: networks that differ by `--seed` alone, in means over them, `NAME_runs` of each;
every 4th image, and `doubt` of each (`doubt:FILE` is fitted on 14 images of train). Its rows were
made without `--students`: the teachers, and `camvid9`.

Pearson, Spearman and RMSE are over all pixels of the test images, pooled, against the teachers'
spread; those of `target.` against what a student of another target learnt. Spearman is that of the
maps rounded to sixteenths of octaves, with average ranks for ties; its replicates are of half
octaves. Differences are paired: of mIoU to `plain`, of AUPRC to the same network's entropy.
Stages: `maps`, `parts` (how
two teachers follow the other three), `borders` (within 4 pixels of another labelled class, and
elsewhere), `time` (processor time of one thread, all ways in turn,
in another order for each image).

Intervals: 95 %, by resampling the images (`doubtmap.metrics.bootstrap`); all maps share the
weights, so differences between maps are paired.
"""

from __future__ import annotations

import math
import re
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from doubt import Some
from stages import HELD_OUT, Row, Stage, Topic, in_turns, mean_of, run, show
from torch import Tensor

import doubtmap as dm
from doubtmap.datasets.dataset import UNKNOWN
from doubtmap.datasets.labels import match_labels
from doubtmap.fitting import fit_score
from doubtmap.metrics import Confusion, Ranking, RankingCurve
from doubtmap.metrics.bootstrap import Weights, interval
from doubtmap.metrics.histogram import Bins
from doubtmap.metrics.risk import Keeping
from doubtmap.models.distilled import HEAD, head_of
from doubtmap.models.ensemble import MemberSums
from doubtmap.prediction import Prediction, Score
from doubtmap.scores.members import said_by_head
from doubtmap.scoring import prepared

KINDS = ("unknown", "wrong")
OCTAVES, STEPS = (-30, 2), 16
BINS = (OCTAVES[1] - OCTAVES[0]) * STEPS
"""Of doubt, evenly in its logarithm."""
COARSER = 8
"""Bins that are one where Spearman is resampled: half an octave."""
REPLICATES, SEED = 300, 0


def binned(doubt: Tensor) -> Any:
    """`(N,)` bins of a map, ascending with it."""
    octave = np.log2(np.maximum(doubt.flatten().double().numpy(), 2.0 ** OCTAVES[0]))
    return ((octave - OCTAVES[0]) * STEPS).astype(np.int64).clip(0, BINS - 1)


@cache
def weights(images: int) -> Any:
    """`(R, images)`, how often each counts in each replicate."""
    return np.stack([Weights(REPLICATES, SEED)(image) for image in range(images)], 1)


def resampled(states: list[Any], figure: Callable[[Any], float]) -> Any:
    """`(R,)`: a figure of every replicate of the sum of the images' states."""
    stacked = np.stack(states).reshape(len(states), -1)
    sums = weights(len(states)) @ stacked
    return np.array([figure(part.reshape(states[0].shape)) for part in sums])


@dataclass
class Following:
    """How a map follows another, by the class that the ensemble predicts."""

    classes: int
    sums: Any = field(init=False)
    counts: Any = field(init=False)
    images: dict[str, list[Any]] = field(default_factory=lambda: {"sums": [], "counts": []})

    def __post_init__(self) -> None:
        self.sums = np.zeros((self.classes, 6))
        self.counts = np.zeros((self.classes, BINS, BINS), np.int64)

    def update(self, own: Tensor, theirs: Tensor, chosen: Tensor) -> None:
        """Take one image's maps and the ensemble's classes."""
        x, y = own.flatten().double().numpy(), theirs.flatten().double().numpy()
        group, mine, others = chosen.flatten().numpy(), binned(own), binned(theirs)
        parts = (np.ones_like(x), x, y, x * x, y * y, x * y)
        sums = np.stack([np.bincount(group, part, self.classes) for part in parts], 1)
        self.sums += sums
        place = (group * BINS + mine) * BINS + others
        self.counts += np.bincount(place, minlength=self.counts.size).reshape(self.counts.shape)
        few = BINS // COARSER
        coarse = np.bincount(mine // COARSER * few + others // COARSER, minlength=few**2)
        self.images["sums"].append(sums.sum(0))
        self.images["counts"].append(coarse.reshape(few, few).astype(np.float32))

    def figures(self, group: int | None = None) -> dict[str, float]:
        """Over all pixels, or those of one class."""
        sums = self.sums.sum(0) if group is None else self.sums[group]
        counts = self.counts.sum(0) if group is None else self.counts[group]
        found = {"pearson": pearson(sums), "spearman": spearman(counts), "rmse": rmse(sums)}
        return found | {"mean": sums[1] / sums[0], "mean_of_ensemble": sums[2] / sums[0]}

    def intervals(self) -> Row:
        """Of the figures over all pixels."""
        found, sums = self.figures(), self.images["sums"]
        drawn = {"pearson": resampled(sums, pearson), "rmse": resampled(sums, rmse)}
        drawn["spearman"] = resampled(self.images["counts"], spearman)
        return {f"{name}_interval": interval(found[name], drawn[name], (-1, 1)) for name in drawn}


def pearson(sums: Any) -> float:
    """Of `(n, x, y, xx, yy, xy)`."""
    n, x, y, xx, yy, xy = sums
    deviation = np.sqrt((xx / n - (x / n) ** 2) * (yy / n - (y / n) ** 2))
    return float((xy / n - x * y / n**2) / deviation)


def rmse(sums: Any) -> float:
    """Of `(n, x, y, xx, yy, xy)`."""
    n, _, _, xx, yy, xy = sums
    return float(np.sqrt(max(xx - 2 * xy + yy, 0) / n))


def spearman(counts: Any) -> float:
    """Correlation of the ranks of a table of counts, ties at their average."""
    ranks = [np.cumsum(m) - (m - 1) / 2.0 for m in (counts.sum(1), counts.sum(0))]
    shares = counts / counts.sum()
    row, column = (r - (shares.sum(1 - axis) * r).sum() for axis, r in enumerate(ranks))
    covariance = row @ shares @ column
    return float(
        covariance / np.sqrt((shares.sum(1) * row**2).sum() * (shares.sum(0) * column**2).sum())
    )


def precision(counts: Any) -> float:
    """Average precision of `(2, BINS)`: negatives and positives by bin."""
    bins = Bins(
        counts, np.arange(counts.shape[1], dtype=np.float32), np.ones(counts.shape[1], bool)
    )
    return float(RankingCurve.from_bins(bins, counts[1], counts[0]).average_precision())


def miou(counts: Any) -> float:
    """Of `(C, C)` counts."""
    return Confusion(counts).miou


@dataclass
class Worth:
    """What a map is worth: unknown and wrong pixels, and what remains without the doubtful."""

    classes: int
    unknown: Ranking = field(default_factory=Ranking)
    wrong: Ranking = field(default_factory=Ranking)
    confusion: Any = None
    by_class: Any = None
    images: dict[str, list[Any]] = field(
        default_factory=lambda: {"unknown": [], "wrong": [], "confusion": []}
    )

    def __post_init__(self) -> None:
        self.confusion = np.zeros((BINS, self.classes, self.classes), np.int64)
        self.by_class = np.zeros((2, self.classes))

    def update(self, doubt: Tensor, predicted: Tensor, label: Tensor) -> None:
        """Take one image."""
        known, at = label >= 0, binned(doubt)
        either = known | (label == UNKNOWN)
        self.unknown.update(doubt, label == UNKNOWN, either)
        self.wrong.update(doubt, predicted != label, known)
        for kind, truth, valid in (
            ("unknown", label == UNKNOWN, either),
            ("wrong", predicted != label, known),
        ):
            place = (at + BINS * truth.flatten().numpy())[valid.flatten().numpy()]
            counts = np.bincount(place, minlength=2 * BINS).reshape(2, BINS)
            self.images[kind].append(counts.astype(np.float32))
        pair = label[known].numpy().astype(np.int64) * self.classes + predicted[known].numpy()
        place = at[known.flatten().numpy()] * self.classes**2 + pair
        confusion = np.bincount(place, minlength=self.confusion.size)
        confusion = confusion.reshape(self.confusion.shape)
        self.confusion += confusion
        self.images["confusion"].append(confusion.sum(0).astype(np.float64))
        group = predicted.flatten().numpy()
        self.by_class[0] += np.bincount(group, minlength=self.classes)
        self.by_class[1] += np.bincount(group, doubt.flatten().double().numpy(), self.classes)

    def figures(self, names: tuple[str, ...]) -> Row:
        """A row of the results."""
        mean = self.by_class[1] / np.maximum(self.by_class[0], 1)
        total = Confusion(self.confusion.sum(0))
        pixels = self.confusion.sum((1, 2))
        errors = pixels - np.trace(self.confusion, axis1=1, axis2=2)
        keeping = Keeping(pixels, errors)
        removed = np.arange(10) / 10
        row: Row = {"miou": total.miou, "accuracy": total.accuracy}
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

    def replicates(self) -> Row:
        """`(R,)` of each figure that has an interval."""
        drawn = {f"{kind}.auprc": resampled(self.images[kind], precision) for kind in KINDS}
        return drawn | {"miou": resampled(self.images["confusion"], miou)}


def with_intervals(
    rows: dict[str, Row],
    drawn: dict[str, Row],
    against: list[tuple[str, str, str, str]],
) -> None:
    """Add to rows their intervals, and how they differ from others.

    Args:
        rows: figures by the map's name, changed in place.
        drawn: of each map, the replicates of some figures.
        against: map, figure, the map that it is compared with, and what to call that.
    """
    for name, replicates in drawn.items():
        for key, values in replicates.items():
            rows[name][f"{key}_interval"] = interval(rows[name][key], values, (0, 1))
    for name, key, other, called in against:
        difference = rows[name][key] - rows[other][key]
        rows[name][f"{key}_minus_{called}"] = difference
        rows[name][f"{key}_minus_{called}_interval"] = interval(
            difference, drawn[name][key] - drawn[other][key], (-1, 1)
        )


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


def with_heads(prediction: Prediction, heads: Row) -> dict[str, Prediction]:
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


def images_of(given: Namespace, split: str = "test") -> Any:
    """A split of CamVid."""
    return dm.open_dataset(f"camvid:{given.shared}/data/camvid:{split}")


def teachers_of(given: Namespace) -> list[str]:
    """The folders of the five."""
    return [f"{given.shared}/models/camvid9-ensemble/{number}" for number in range(1, 6)]


def with_doubt(network: Any, train: Any) -> dict[str, Score]:
    """`doubt`, and the same fitted on a few images."""
    few = Some(train, len(train) // 14, 14)
    return {"doubt": dm.scores.doubt, "doubt:FILE": fit_score("doubt", network, few)}


def maps(given: Namespace, fitted: bool = False) -> list[Row]:
    """One pass over the images with all networks; with `doubt` of each, where that is fitted."""
    data, teachers = images_of(given, given.split), teachers_of(given)
    if fitted:
        data = Some(data, 4)
    ensemble = dm.load(",".join(teachers))
    networks: dict[str, Any] = {"plain": dm.load(given.plain)} if given.plain else {}
    networks["camvid9"] = dm.load(given.shared / "models" / "camvid9")
    loaded = {name: dm.load(folder) for name, folder in given.students.items()}
    frozen = {name: one for name, one in loaded.items() if name.startswith("frozen")}
    networks |= {name: one for name, one in loaded.items() if name not in frozen}
    heads = heads_of(networks["camvid9"], frozen)
    heard = {layer for head in heads.values() for layer in head.layers}
    networks["camvid9"] = networks["camvid9"].listening(sorted(heard))
    targets = {name: target_of(one) for name, one in loaded.items()}
    fits: dict[str, dict[str, Score]] = {}
    for name in networks if fitted else ():
        fits[name] = with_doubt(networks[name], images_of(given, "train"))
        networks[name] = prepared(networks[name], fits[name])
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
        for name, scores in fits.items():
            chosen = predictions[name].classes[0]
            for kind, score in scores.items():
                doubts[f"{name}: {kind}"] = score(predictions[name])[0], chosen
        for name, (doubt, predicted) in doubts.items():
            worth.setdefault(name, Worth(len(names))).update(doubt, predicted, label)
            follow = following.setdefault(name, Following(len(names)))
            follow.update(doubt, asked["spread"], theirs.classes[0])
        show(given.split, index + 1, len(data))
    return rows_of(worth, following, names, given.split, set(frozen))


def seeds(given: Namespace) -> list[Row]:
    """Rows of `maps`, those of networks that differ by their seed alone as one: their mean."""
    groups: dict[str, list[Row]] = {}
    for row in maps(given, fitted=True):
        network, _, score = row["name"].partition(": ")
        groups.setdefault(f"{re.sub(r' [0-9]+$', '', network)}: {score}", []).append(row)
    means = [rows[0] if len(rows) == 1 else mean_of(name, rows) for name, rows in groups.items()]
    return [row | {"set": f"{row['set']}, every 4th image"} for row in means]


def rows_of(
    worth: dict[str, Worth],
    following: dict[str, Following],
    names: tuple[str, ...],
    split: str,
    frozen: set[str],
) -> list[Row]:
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
            base = "plain" if "plain: entropy" in worth else "camvid9"
            against.append((name, "miou", f"{base}: entropy", base))
        if score == "distilled":
            below = "camvid9" if network in frozen else network
            against.append((name, "wrong.auprc", f"{below}: entropy", "entropy"))
            against.append((name, "unknown.auprc", f"{below}: entropy", "entropy"))
        rows[name] = row
    with_class_errors(list(rows.values()))
    with_intervals(rows, {name: own.replicates() for name, own in worth.items()}, against)
    return list(rows.values())


def with_class_errors(rows: list[Row]) -> None:
    """Give rows that guess the spread the paper's error of it.

    The mean over classes of the gap between the mean doubt of pixels that the student takes for
    the class and the mean spread of those that the teachers take for it; from the rows alone.
    """
    (spread,) = (row for row in rows if row["name"] == "ensemble: member_spread")
    theirs = spread["mean_by_predicted_class"]
    for row in rows:
        if row["name"].endswith(": distilled") and "target.pearson" not in row:
            own = row["mean_by_predicted_class"]
            row["classwise_error"] = float(np.mean([abs(own[c] - theirs[c]) for c in theirs]))


def parts(given: Namespace) -> list[Row]:
    """How two of the teachers follow the other three: how noisy the spread itself is."""
    data, members = images_of(given), [dm.load(folder) for folder in teachers_of(given)]
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
    return [{"name": name, "set": "camvid test, every eighth image"} | follow.figures()]


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


def borders(given: Namespace) -> list[Row]:
    """Mean of the maps at borders between classes and away from them."""
    data, networks = images_of(given), {"ensemble": dm.load(",".join(teachers_of(given)))}
    networks |= {name: dm.load(folder) for name, folder in given.students.items()}
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
    return rows


def times(given: Namespace) -> list[Row]:
    """Milliseconds for an image, and the ratio to the plain network."""
    data = images_of(given)
    given.conditions["threads of time"] = torch.get_num_threads()
    one, several = dm.load(given.plain), dm.load(",".join(teachers_of(given)))

    def both(segmenter: Any, score: Any) -> Callable[[Tensor], object]:
        def work(x: Tensor) -> object:
            prediction = segmenter(x)
            return prediction.classes, None if score is None else score(prediction)

        return work

    ways = {
        "plain": both(one, None),
        "plain again": both(one, None),
        "plain with entropy": both(one, dm.scores.entropy),
        "ensemble of 5 with spread": both(several, dm.scores.member_spread),
    }
    for name, folder in given.students.items():
        ways[f"{name} with distilled"] = both(dm.load(folder), dm.scores.distilled)
    rows = in_turns(ways, [data[index].image[None] for index in range(0, 230, 10)])
    return [row | {"set": "camvid test, 480x360"} for row in rows]


def students_of(text: str) -> dict[str, Path]:
    """`NAME=FOLDER,...` of the command line; of `NAME=FOLDER+FOLDER` `NAME 1`, `NAME 2`."""
    found = {}
    for name, _, folders in (part.partition("=") for part in text.split(",") if part):
        several = folders.split("+")
        for number, folder in enumerate(several, 1):
            found[f"{name} {number}" if len(several) > 1 else name] = Path(folder)
    return found


TOPIC = Topic(
    "dudes",
    "python benchmarks/dudes.py --plain FOLDER --students NAME=FOLDER,...",
    conditions={"unknown": list(HELD_OUT)},
)
STAGES = {
    "maps": Stage(TOPIC, maps),
    "seeds": Stage(TOPIC, seeds),
    "parts": Stage(TOPIC, parts),
    "borders": Stage(TOPIC, borders),
    "time": Stage(TOPIC, times),
}
OPTIONS = {
    "--plain": {"type": Path, "help": "the network trained without teachers"},
    "--students": {"type": students_of, "default": {}, "help": "NAME=FOLDER,..."},
    "--split": {"default": "test", "help": "of `maps`"},
}

if __name__ == "__main__":
    run(__doc__, STAGES, OPTIONS, default="maps,parts,borders,time")
