"""DUDES: how a student follows its teachers, and what its map is worth, on CamVid.

    python benchmarks/dudes.py --plain FOLDER --students NAME=FOLDER,... [--shared ../shared] \
        [--stages maps,parts,borders,time]
    python benchmarks/dudes.py [--students NAME=FOLDER+FOLDER+...,...] --stages seeds,domain

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
layers whole images` is trained as `student` and as `layers`, and `plain whole images` as `plain`,
with `--no-augment --crop 360x480`). Writes `benchmarks/results/dudes.json`; a stage that is run
again replaces its rows.

Stage `seeds`: networks that differ by `--seed` alone, in means over them, `NAME_runs` of each;
every 4th image, and `doubt` of each (`doubt:FILE` is fitted on 14 images of train). A network
without a head may be among the students: the control. Stage `domain`: the same on RoadAnomaly21 and
every 3rd image of Fishyscapes Static, and every 8th of CamVid test beside them; `image_auroc` tells
the images of the one from those of CamVid by the mean of their map.

Pearson, Spearman and RMSE are over all pixels, pooled, against the teachers' spread; those of
`target.` against what a student of another target learnt. Spearman is that of the maps rounded to
sixteenths of octaves, ties at their average rank; its replicates are of half octaves. Differences
are paired: of mIoU to `plain`, of AUPRC to the same network's entropy. Stages: `maps`, `parts` (how
two teachers follow the other three), `borders` (within 4 pixels of another labelled class, and
elsewhere), `time` (processor time of one thread, all ways in turn). Intervals: 95 %, by resampling
the images; all maps share weights.
"""

from __future__ import annotations

import math
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
from doubtmap.datasets.dataset import UNKNOWN, VOID
from doubtmap.datasets.labels import match_labels
from doubtmap.metrics import Confusion, boundary_band
from doubtmap.metrics.bootstrap import BootstrapSums, Weights, interval
from doubtmap.metrics.removal import Answers, Removal
from doubtmap.metrics.risk import Keeping
from doubtmap.models.distilled import head_of
from doubtmap.models.ensemble import MemberSums
from doubtmap.prediction import Prediction
from doubtmap.scoring import prepared

OF_ENSEMBLE = "member_spread", "mutual_information", "entropy"
FROZEN = "frozen"
"""How names of students begin whose network is `camvid9`'s."""
OCTAVES, STEPS, BINS = (-30, 2), 16, 16 * 32
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
        return moments(sums) | {"spearman": spearman(counts)}

    def replicates(self) -> Row:
        """`(R,)` of each figure over all pixels."""
        rank = self.drawn.figures(lambda state: spearman(state["counts"]))
        found = [moments(state["sums"]) for state in self.drawn.each()]
        keys = ("pearson", "rmse")
        return {key: np.array([one[key] for one in found]) for key in keys} | {"spearman": rank}


def moments(sums: Any) -> dict[str, float]:
    """Means, Pearson's correlation and RMSE of `(n, x, y, xx, yy, xy)`."""
    n, x, y, xx, yy, xy = sums
    deviation = np.sqrt((xx / n - (x / n) ** 2) * (yy / n - (y / n) ** 2))
    found = {"pearson": (xy / n - x * y / n**2) / deviation, "mean": x / n}
    found |= {"mean_of_ensemble": y / n, "rmse": np.sqrt(max(xx - 2 * xy + yy, 0) / n)}
    return {key: float(value) for key, value in found.items()}


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
    removal: Removal = field(default_factory=Removal)
    confusion: Any = 0
    by_class: Any = 0
    drawn: BootstrapSums = field(default_factory=lambda: BootstrapSums(REPLICATES))
    means: list[float] = field(default_factory=list)

    def update(self, doubt: Tensor, predicted: Tensor, label: Tensor, weights: Any) -> None:
        """Take one image, and how often it counts in each replicate."""
        known, wrong = label >= 0, (label >= 0) & (predicted != label)
        for kind, truth, valid in (
            ("unknown", label == UNKNOWN, label != VOID),
            ("wrong", wrong, known),
        ):
            positive = truth[valid].numpy().astype(np.int64)
            self.found[kind].update(doubt[valid].numpy(), positive, weights)
        group, values, truth = (each.flatten().numpy() for each in (predicted, doubt, label))
        self.means.append(float(values.mean(dtype=float)))
        at, out = (np.flatnonzero(each) for each in (wrong, ~known))
        answers = Answers.of(group, at, truth[at], out, self.classes)
        self.removal.take(values, answers)
        image = Confusion.empty(self.classes)
        image.update(predicted, label, known)
        self.confusion = self.confusion + image.counts
        self.drawn.add({"confusion": image.counts}, weights)
        means = [np.bincount(group, part, self.classes) for part in (None, values)]
        self.by_class = self.by_class + np.stack(means)

    @property
    def kinds(self) -> list[str]:
        """What the labels tell: the unknown, and the wrong where they are classes."""
        return ["unknown", "wrong"] if self.confusion.any() else ["unknown"]

    def figures(self, names: tuple[str, ...]) -> Row:
        """A row of the results."""
        mean = self.by_class[1] / np.maximum(self.by_class[0], 1)
        row: Row = {"mean_by_predicted_class": dict(zip(names, mean.tolist()))}
        row["mean_of_classes"] = float(mean[self.by_class[0] > 0].mean())
        for kind in self.kinds:
            values = stages.figures_of(self.found[kind].pixels.view())
            row |= {f"{kind}.{figure}": value for figure, value in zip(stages.FIGURES, values)}
        if "wrong" not in self.kinds:
            return row
        total, pixels = Confusion(self.confusion), self.found["wrong"].pixels.view().counts
        row |= {"miou": total.miou, "accuracy": total.accuracy}
        row["wrong.aurc"] = Keeping(pixels.sum(0), pixels[1]).area_under_risk()
        removed = np.arange(10) / 10
        miou, risk, classes = self.removal.remaining(removed, range(self.classes))
        for key, values in (("", removed), ("miou_of_the_rest", miou), ("risk_of_the_rest", risk)):
            row[key or "removed"] = values.tolist()
        right, missed, taken = self.removal.left(removed[-1:])[:, 0]
        row["classes_of_the_rest"] = classes.tolist()
        row["labelled_of_the_rest"] = dict(zip(names, (right + missed).tolist()))
        iou = right / np.maximum(right + missed + taken, 1)
        return row | {"iou_of_the_rest": dict(zip(names, iou.tolist()))}

    def replicates(self) -> Row:
        """`(R,)` of each figure that has an interval."""
        drawn = {
            f"{kind}.{figure}": values
            for kind in self.kinds
            for figure, values in zip(
                stages.FIGURES, self.found[kind].replicates.figures(stages.figures_of).T
            )
        }
        if "wrong" not in self.kinds:
            return drawn
        miou = self.drawn.figures(lambda state: Confusion(state["confusion"]).miou)
        return drawn | {"miou": miou}


def taught(theirs: Prediction, members: int, classes: int) -> dict[str, Tensor]:
    """`(H, W)` of each target of a second head, as a student learns it."""
    scales = 1.0, math.log(min(members, classes)), math.log(classes)
    found = (getattr(dm.scores, kind)(theirs)[0] / by for kind, by in zip(OF_ENSEMBLE, scales))
    return dict(zip(("spread", *OF_ENSEMBLE[1:]), found))


def images_of(given: Namespace, split: str = "test") -> Any:
    """A split of CamVid."""
    return dm.open_dataset(f"camvid:{given.shared}/data/camvid:{split}")


def teachers_of(given: Namespace) -> list[str]:
    """The folders of the five."""
    return [f"{given.shared}/models/camvid9-ensemble/{number}" for number in range(1, 6)]


def maps(given: Namespace) -> list[Row]:
    """One pass over the images with all networks."""
    return judged(given, {f"camvid {given.split}": images_of(given, given.split)})[0]


def seeds(given: Namespace) -> list[Row]:
    """The same, in means over seeds, and `doubt` of each network."""
    few = Some(images_of(given, given.split), 4)
    return judged(given, {f"camvid {given.split}, every 4th image": few}, fitted=True)[0]


def domain(given: Namespace) -> list[Row]:
    """The same on images of other places, whose labels tell the unknown alone."""
    data = given.shared / "data"
    others = {
        "roadanomaly21": dm.open_dataset(f"smiyc:{data}/roadanomaly21"),
        "fishyscapes static": Some(dm.open_dataset(f"fishyscapes:{data}/fishyscapes_static"), 3),
        "camvid test, every 8th image": Some(images_of(given), 8),
    }
    rows, means = judged(given, others, fitted=True)
    home = list(others)[-1]
    for row in rows:
        pairs = zip(means[row["set"], row["name"]], means[home, row["name"]])
        aurocs = [float(np.mean(np.subtract.outer(there, here) > 0)) for there, here in pairs]
        row |= {"image_auroc": float(np.mean(aurocs))} if row["set"] != home else {}
    return rows


Means = dict[tuple[str, str], list[list[float]]]


def judged(given: Namespace, sets: dict[str, Any], fitted: bool = False) -> tuple[list[Row], Means]:
    """One pass over each set, with `doubt` of each network if fitted; and all images' means."""
    teachers, camvid9 = teachers_of(given), given.shared / "models" / "camvid9"
    ensemble, folders = dm.load(",".join(teachers)), {"camvid9": camvid9} | students_of(given)
    folders = ({"plain": given.plain} if given.plain else {}) | folders
    networks: dict[str, Any] = {name: dm.load(folder) for name, folder in folders.items()}
    scores = {"ensemble": {kind: getattr(dm.scores, kind) for kind in OF_ENSEMBLE}}
    targets = {}
    for name, one in networks.items():
        scores[name] = {} if name.startswith(FROZEN) else {"entropy": dm.scores.entropy}
        if (head := head_of(one.source.backend.module)) is not None:
            scores[name]["distilled"] = dm.scores.distilled
            targets[name] = str(head.about["target"])
        if fitted:
            fits = both_doubts(one, images_of(given, "train"))
            networks[name], scores[name] = prepared(one, fits), scores[name] | fits
    names = ensemble.class_names
    rows: list[Row] = []
    means: Means = {}
    for called, data in sets.items():
        matching = match_labels(data.class_names, names, HELD_OUT if data.class_names else ())
        worth: dict[str, Worth] = {}
        following: dict[str, Following] = {}
        for index in range(len(data)):
            sample, weights = data[index], Weights(REPLICATES)(index)
            label, image = matching.apply(sample.label), sample.image[None]
            theirs = ensemble(image)
            asked = taught(theirs, len(teachers), len(names))
            said = {"ensemble": theirs} | {name: one(image) for name, one in networks.items()}
            doubts = {
                f"{name}: {kind}": (score(said[name])[0], said[name].classes[0])
                for name, own in scores.items()
                for kind, score in own.items()
            }
            for name, target in targets.items():
                if target != "spread":
                    follow = following.setdefault(f"{name}: target", Following(len(names)))
                    own = doubts[f"{name}: distilled"][0]
                    follow.update(own, asked[target], theirs.classes[0], weights)
            for name, (doubt, predicted) in doubts.items():
                worth.setdefault(name, Worth(len(names))).update(doubt, predicted, label, weights)
                follow = following.setdefault(name, Following(len(names)))
                follow.update(doubt, asked["spread"], theirs.classes[0], weights)
            show(called, index + 1, len(data))
        rows += rows_of(worth, following, names, called)
        for name, found in worth.items():
            means.setdefault((called, stages.without_seed(name)), []).append(found.means)
    return rows, means


def rows_of(
    worth: dict[str, Worth], following: dict[str, Following], names: tuple[str, ...], called: str
) -> list[Row]:
    """Figures of every map, with intervals and paired differences; of several seeds the means."""
    spread = worth["ensemble: member_spread"].figures(names)["mean_by_predicted_class"]
    found: dict[str, tuple[Row, Row]] = {}
    for name, one in worth.items():
        network, _, score = name.partition(": ")
        follow = following[name]
        row = {"name": name, "set": called} | one.figures(names) | follow.figures()
        row["by_class_of_ensemble"] = {
            c: follow.figures(k) for k, c in enumerate(names) if follow.sums[k, 0]
        }
        replicates = one.replicates() | follow.replicates()
        if target := following.get(f"{network}: target") if score == "distilled" else None:
            row |= {f"target.{key}": value for key, value in target.figures().items()}
            replicates |= {f"target.{key}": own for key, own in target.replicates().items()}
        elif score == "distilled":  # the paper's error
            own = row["mean_by_predicted_class"]
            row["classwise_error"] = float(np.mean([abs(own[c] - spread[c]) for c in names]))
        found[name] = row, replicates
    means = stages.over_seeds(found)
    rows, drawn = ({name: each[part] for name, each in means.items()} for part in (0, 1))
    with_intervals(rows, drawn)
    return list(rows.values())


def with_intervals(rows: dict[str, Row], drawn: dict[str, Row]) -> None:
    """Add to rows, by the map's name, their intervals and how they differ from others."""
    for name, row in rows.items():
        network, _, score = name.partition(": ")
        plain = "plain whole images" if "whole images" in network else "plain"
        base = plain if f"{plain}: entropy" in rows and network != plain else "camvid9"
        own = "camvid9" if network.startswith(FROZEN) else network
        against = []
        if own == network and network not in ("ensemble", "plain", "camvid9"):
            against.append(("miou", base, base))
        if score == "distilled":
            against += [(f"{kind}.auprc", own, "entropy") for kind in ("wrong", "unknown")]
            against.append(("unknown.fpr95", own, "entropy"))
        for key, values in drawn[name].items():
            limits = (-1, 1) if key.endswith(("pearson", "spearman")) else (0, 1)
            row[f"{key}_interval"] = interval(row[key], values, limits)
        for key, other, called in against:
            at = f"{other}: entropy"
            if key in row:
                difference = row[f"{key}_minus_{called}"] = row[key] - rows[at][key]
                replicates = drawn[name][key] - drawn[at][key]
                row[f"{key}_minus_{called}_interval"] = interval(difference, replicates, (-1, 1))


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


def borders(given: Namespace) -> list[Row]:
    """Mean of the maps at borders between classes and away from them."""
    data, networks = images_of(given), {"ensemble": dm.load(",".join(teachers_of(given)))}
    networks |= {name: dm.load(folder) for name, folder in students_of(given).items()}
    matching = match_labels(data.class_names, networks["ensemble"].class_names)
    sums = dict.fromkeys(networks, np.zeros((2, 2)))
    for sample in (data[index] for index in range(0, len(data), 8)):
        label = matching.apply(sample.label)
        known, near = label >= 0, boundary_band(label[None], 4)[0]
        for name, network in networks.items():
            score = dm.scores.member_spread if name == "ensemble" else dm.scores.distilled
            doubt = score(network(sample.image[None]))[0]
            places = doubt[known & near], doubt[known & ~near]
            sums[name] = sums[name] + [[float(p.sum()), p.numel()] for p in places]
    found: dict[str, tuple[Row, Row]] = {}
    for name, (near, far) in sums.items():
        row: Row = {"name": f"{name}: ", "set": "camvid test, every eighth image"}
        row |= {"share_at_border": near[1] / (near[1] + far[1])}
        row |= {"mean_at_border": near[0] / near[1], "mean_elsewhere": far[0] / far[1]}
        found[row["name"]] = row, {}
    return [row | {"name": name[:-2]} for name, (row, _) in stages.over_seeds(found).items()]


def times(given: Namespace) -> list[Row]:
    """Milliseconds for an image, and the ratio to the plain network."""
    data = images_of(given)
    given.conditions["threads of time"] = torch.get_num_threads()
    one, several = dm.load(given.plain), dm.load(",".join(teachers_of(given)))

    def both(segmenter: Any, score: Any = lambda prediction: None) -> Callable[[Tensor], object]:
        return lambda x: (lambda said: (said.classes, score(said)))(segmenter(x))

    ways = {
        "plain": both(one),
        "plain again": both(one),
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
    "domain": Stage(TOPIC, domain),
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
