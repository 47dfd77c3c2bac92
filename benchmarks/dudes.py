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
`whole images`: with `--no-augment --crop 360x480 --batch 2 --rate 3e-3 --epochs 4`; `student
layers whole images` is trained as `student` and as `layers`, with `--no-augment --crop 360x480`).
Writes `benchmarks/results/dudes.json`; a stage
that is run again replaces its rows. The head's learning rate and the hidden layer were chosen on
eight images of val (among those that `frozen hidden on val` learns from); `--layers` and what
`whole images` differs in on 26, with heads fitted to stored features, after a look at what such
heads reach on test; the epochs by the time that a CPU needs. The joint row with a hidden layer was
added after a first look at test, its width of 32 chosen by timing alone.

Stage `seeds`: networks that differ by `--seed` alone, in means over them, `NAME_runs` of each;
every 4th image, and `doubt` of each (`doubt:FILE` is fitted on 14 images of train).

Pearson, Spearman and RMSE are over all pixels of the test images, pooled, against the teachers'
spread; those of `target.` against what a student of another target learnt. Spearman is that of the
maps rounded to sixteenths of octaves, with average ranks for ties; its replicates are of half
octaves. Differences are paired: of mIoU to `plain`, of AUPRC to the same network's entropy.
Stages: `maps`, `parts` (how two teachers follow the other three), `borders` (within 4 pixels of
another labelled class, and elsewhere), `time` (processor time of one thread, all ways in turn).

Intervals: 95 %, by resampling the images (`doubtmap.metrics.bootstrap`); all maps share the
weights, so differences between maps are paired.
"""

from __future__ import annotations

import math
import re
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import stages
import torch
from doubt import Some, both_doubts
from stages import HELD_OUT, REPLICATES, Found, Row, Stage, Topic, show
from torch import Tensor

import doubtmap as dm
from doubtmap.datasets.dataset import UNKNOWN
from doubtmap.datasets.labels import match_labels
from doubtmap.metrics import Confusion
from doubtmap.metrics.bootstrap import BootstrapSums, Weights, interval
from doubtmap.metrics.risk import Keeping
from doubtmap.models.distilled import head_of
from doubtmap.models.ensemble import MemberSums
from doubtmap.prediction import Prediction, Score
from doubtmap.scores.members import said_by_head
from doubtmap.scoring import prepared

FROZEN = "frozen"
"""How names of students begin whose network is `camvid9`'s."""
OCTAVES, STEPS = (-30, 2), 16
BINS = (OCTAVES[1] - OCTAVES[0]) * STEPS
"""Of doubt, evenly in its logarithm."""
COARSER = 8
"""Bins that are one where Spearman is resampled: half an octave."""


def binned(doubt: Tensor) -> Any:
    """`(N,)` bins of a map, ascending with it."""
    octave = np.log2(np.maximum(doubt.flatten().double().numpy(), 2.0 ** OCTAVES[0]))
    return ((octave - OCTAVES[0]) * STEPS).astype(np.int64).clip(0, BINS - 1)


@dataclass
class Following:
    """How a map follows another, by the class that the ensemble predicts."""

    classes: int
    sums: Any = 0
    counts: Any = 0
    drawn: BootstrapSums = field(default_factory=lambda: BootstrapSums(REPLICATES))

    def update(self, own: Tensor, theirs: Tensor, chosen: Tensor, weights: Any) -> None:
        """Take one image's maps, the ensemble's classes, and how often the image counts."""
        x, y = own.flatten().double().numpy(), theirs.flatten().double().numpy()
        group, mine, others = chosen.flatten().numpy(), binned(own), binned(theirs)
        parts = (np.ones_like(x), x, y, x * x, y * y, x * y)
        sums = np.stack([np.bincount(group, part, self.classes) for part in parts], 1)
        self.sums = self.sums + sums
        place, shape = (group * BINS + mine) * BINS + others, (self.classes, BINS, BINS)
        self.counts = self.counts + np.bincount(place, minlength=math.prod(shape)).reshape(shape)
        few = BINS // COARSER
        coarse = np.bincount(mine // COARSER * few + others // COARSER, minlength=few**2)
        self.drawn.add({"sums": sums.sum(0), "counts": coarse.reshape(few, few)}, weights)

    def figures(self, group: int | None = None) -> dict[str, float]:
        """Over all pixels, or those of one class."""
        sums = self.sums.sum(0) if group is None else self.sums[group]
        counts = self.counts.sum(0) if group is None else self.counts[group]
        found = {"pearson": pearson(sums), "spearman": spearman(counts), "rmse": rmse(sums)}
        return found | {"mean": sums[1] / sums[0], "mean_of_ensemble": sums[2] / sums[0]}

    def intervals(self) -> Row:
        """Of the figures over all pixels."""
        found, each = self.figures(), {"pearson": pearson, "rmse": rmse, "spearman": spearman}
        drawn = {
            k: self.drawn.figures(lambda s, of=of: of(s["counts" if of is spearman else "sums"]))
            for k, of in each.items()
        }
        return {f"{k}_interval": interval(found[k], drawn[k], (-1, 1)) for k in each}


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


@dataclass
class Worth:
    """What a map is worth: unknown and wrong pixels, and what remains without the doubtful."""

    classes: int
    found: dict[str, Found] = field(default_factory=lambda: {"unknown": Found(), "wrong": Found()})
    confusion: Any = 0
    by_class: Any = 0
    drawn: BootstrapSums = field(default_factory=lambda: BootstrapSums(REPLICATES))

    def update(self, doubt: Tensor, predicted: Tensor, label: Tensor, weights: Any) -> None:
        """Take one image, and how often it counts in each replicate."""
        known = label >= 0
        for kind, truth, valid in (
            ("unknown", label == UNKNOWN, known | (label == UNKNOWN)),
            ("wrong", predicted != label, known),
        ):
            positive = truth[valid].numpy().astype(np.int64)
            self.found[kind].update(doubt[valid].numpy(), positive, weights)
        pair = label[known].numpy().astype(np.int64) * self.classes + predicted[known].numpy()
        place = binned(doubt[known]) * self.classes**2 + pair
        shape = (BINS, self.classes, self.classes)
        confusion = np.bincount(place, minlength=math.prod(shape)).reshape(shape)
        self.confusion = self.confusion + confusion
        self.drawn.add({"confusion": confusion.sum(0)}, weights)
        group, values = predicted.flatten().numpy(), doubt.flatten().double().numpy()
        means = [np.bincount(group, part, self.classes) for part in (None, values)]
        self.by_class = self.by_class + np.stack(means)

    def figures(self, names: tuple[str, ...]) -> Row:
        """A row of the results."""
        mean = self.by_class[1] / np.maximum(self.by_class[0], 1)
        total, pixels = Confusion(self.confusion.sum(0)), self.confusion.sum((1, 2))
        keeping = Keeping(pixels, pixels - np.trace(self.confusion, axis1=1, axis2=2))
        removed = np.arange(10) / 10
        row: Row = {"miou": total.miou, "accuracy": total.accuracy}
        for kind, found in self.found.items():
            values = stages.figures_of(found.pixels.view())
            row |= {f"{kind}.{figure}": value for figure, value in zip(stages.FIGURES, values)}
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
        drawn = {
            f"{kind}.auprc": found.replicates.figures(stages.figures_of)[:, 0]
            for kind, found in self.found.items()
        }
        miou = self.drawn.figures(lambda state: Confusion(state["confusion"]).miou)
        return drawn | {"miou": miou}


def with_intervals(
    rows: dict[str, Row], drawn: dict[str, Row], against: list[tuple[str, str, str, str]]
) -> None:
    """Add to rows, by the map's name, their intervals and how they differ from others.

    In `against` stand map, figure, the map that it is compared with, and what to call that.
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


def maps(given: Namespace, fitted: bool = False) -> list[Row]:
    """One pass over the images with all networks; with `doubt` of each, where that is fitted."""
    data, teachers = images_of(given, given.split), teachers_of(given)
    if fitted:
        data = Some(data, 4)
    ensemble, camvid9 = dm.load(",".join(teachers)), given.shared / "models" / "camvid9"
    folders = {"plain": given.plain} if given.plain else {}
    folders |= {"camvid9": camvid9} | students_of(given)
    networks: dict[str, Any] = {name: dm.load(folder) for name, folder in folders.items()}
    targets = {name: target_of(one) for name, one in networks.items()}
    fits: dict[str, dict[str, Score]] = {}
    for name in networks if fitted else ():
        fits[name] = both_doubts(networks[name], images_of(given, "train"))
        networks[name] = prepared(networks[name], fits[name])
    names = ensemble.class_names
    matching = match_labels(data.class_names, names, HELD_OUT)
    worth: dict[str, Worth] = {}
    following: dict[str, Following] = {}
    for index in range(len(data)):
        sample = data[index]
        label, image = matching.apply(sample.label), sample.image[None]
        theirs, weights = ensemble(image), Weights(REPLICATES)(index)
        asked = taught(theirs, len(teachers), len(names))
        doubts = {
            f"ensemble: {score}": (getattr(dm.scores, score)(theirs)[0], theirs.classes[0])
            for score in ("member_spread", "mutual_information", "entropy")
        }
        predictions = {name: network(image) for name, network in networks.items()}
        for name, prediction in predictions.items():
            if not name.startswith(FROZEN):
                entropy = dm.scores.entropy(prediction)[0]
                doubts[f"{name}: entropy"] = entropy, prediction.classes[0]
            if said_by_head(prediction) is not None:
                own = dm.scores.distilled(prediction)[0]
                doubts[f"{name}: distilled"] = own, prediction.classes[0]
                if targets[name] != "spread":
                    follow = following.setdefault(f"{name}: target", Following(len(names)))
                    follow.update(own, asked[str(targets[name])], theirs.classes[0], weights)
        for name, scores in fits.items():
            chosen = predictions[name].classes[0]
            for kind, score in scores.items():
                doubts[f"{name}: {kind}"] = score(predictions[name])[0], chosen
        for name, (doubt, predicted) in doubts.items():
            worth.setdefault(name, Worth(len(names))).update(doubt, predicted, label, weights)
            follow = following.setdefault(name, Following(len(names)))
            follow.update(doubt, asked["spread"], theirs.classes[0], weights)
        show(given.split, index + 1, len(data))
    return rows_of(worth, following, names, given.split)


def seeds(given: Namespace) -> list[Row]:
    """Rows of `maps`, those of networks that differ by their seed alone as one: their mean."""
    groups: dict[str, list[Row]] = {}
    for row in maps(given, fitted=True):
        network, _, score = row["name"].partition(": ")
        groups.setdefault(f"{re.sub(r' [0-9]+$', '', network)}: {score}", []).append(row)
    means = [r[0] if len(r) == 1 else stages.mean_of(name, r) for name, r in groups.items()]
    return [row | {"set": f"{row['set']}, every 4th image"} for row in means]


def rows_of(
    worth: dict[str, Worth], following: dict[str, Following], names: tuple[str, ...], split: str
) -> list[Row]:
    """Figures of every map, with intervals and paired differences."""
    rows: dict[str, dict[str, Any]] = {}
    against = []
    for name, found in worth.items():
        network, _, score = name.partition(": ")
        follow = following[name]
        row = {"name": name, "set": f"camvid {split}"} | found.figures(names)
        row |= follow.figures() | follow.intervals()
        row["by_class_of_ensemble"] = {c: follow.figures(k) for k, c in enumerate(names)}
        if target := following.get(f"{network}: target") if score == "distilled" else None:
            both = target.figures() | target.intervals()
            row |= {f"target.{key}": value for key, value in both.items()}
        if network not in ("ensemble", "plain", "camvid9") and not network.startswith(FROZEN):
            base = "plain" if "plain: entropy" in worth else "camvid9"
            against.append((name, "miou", f"{base}: entropy", base))
        if score == "distilled":
            below = "camvid9" if network.startswith(FROZEN) else network
            against.append((name, "wrong.auprc", f"{below}: entropy", "entropy"))
            against.append((name, "unknown.auprc", f"{below}: entropy", "entropy"))
        rows[name] = row
    theirs = rows["ensemble: member_spread"]["mean_by_predicted_class"]
    for name, row in rows.items():
        if name.endswith(": distilled") and "target.pearson" not in row:  # the paper's error
            own = row["mean_by_predicted_class"]
            row["classwise_error"] = float(np.mean([abs(own[c] - theirs[c]) for c in names]))
    with_intervals(rows, {name: own.replicates() for name, own in worth.items()}, against)
    return list(rows.values())


def parts(given: Namespace) -> list[Row]:
    """How two of the teachers follow the other three: how noisy the spread itself is."""
    data, members = images_of(given), [dm.load(folder) for folder in teachers_of(given)]
    follow = Following(len(members[0].class_names))
    for index in range(0, len(data), 8):
        sums = MemberSums(), MemberSums()
        for number, member in enumerate(members):
            sums[number < 2].add(member(data[index].image[None]))
        three, two = (part.prediction() for part in sums)
        own, others = (dm.scores.member_spread(part)[0] for part in (two, three))
        follow.update(own, others, three.classes[0], Weights(REPLICATES)(index))
    name = "spread of two teachers, against that of the other three"
    return [{"name": name, "set": "camvid test, every eighth image"} | follow.figures()]


def at_border(label: Tensor, reach: int = 4) -> Tensor:
    """`(H, W)` bool, pixels within `reach` of another known class."""
    edge = torch.zeros(label.shape)
    for axis in (0, 1):
        length = label.shape[axis] - 1
        here, there = (label.narrow(axis, start, length) for start in (0, 1))
        edge.narrow(axis, 0, length).add_((here != there) & (here >= 0) & (there >= 0))
    return torch.nn.functional.max_pool2d(edge[None], 2 * reach + 1, 1, reach)[0] > 0


def borders(given: Namespace) -> list[Row]:
    """Mean of the maps at borders between classes and away from them."""
    data, networks = images_of(given), {"ensemble": dm.load(",".join(teachers_of(given)))}
    networks |= {name: dm.load(folder) for name, folder in students_of(given).items()}
    matching = match_labels(data.class_names, networks["ensemble"].class_names)
    sums = {name: np.zeros((2, 2)) for name in networks}
    for index in range(0, len(data), 8):
        sample = data[index]
        label = matching.apply(sample.label)
        known, near = label >= 0, at_border(label)
        for name, network in networks.items():
            score = dm.scores.member_spread if name == "ensemble" else dm.scores.distilled
            doubt = score(network(sample.image[None]))[0]
            places = doubt[known & near], doubt[known & ~near]
            sums[name] += [[float(place.sum()), place.numel()] for place in places]
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
    for name, folder in students_of(given).items():
        ways[f"{name} with distilled"] = both(dm.load(folder), dm.scores.distilled)
    rows = stages.in_turns(ways, [data[index].image[None] for index in range(0, 230, 10)])
    return [row | {"set": "camvid test, 480x360"} for row in rows]


def students_of(given: Namespace) -> dict[str, Path]:
    """The students by name, those that differ by their seed alone as `NAME 1`, `NAME 2`."""
    return {
        f"{name} {number}" if len(folders) > 1 else name: folder
        for name, folders in given.students.items()
        for number, folder in enumerate(folders, 1)
    }


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
    "--students": {"type": stages.networks_of, "default": {}, "help": "NAME=FOLDER,..."},
    "--split": {"default": "test", "help": "of `maps`"},
}

if __name__ == "__main__":
    stages.run(__doc__, STAGES, OPTIONS, default="maps,parts,borders,time")
