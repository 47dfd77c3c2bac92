"""Wrong labels found, and what to label next, on CamVid.

    python benchmarks/labels.py [--shared ../shared] [--work DIR]
        [--stages errors,images,looked,review]

Writes `benchmarks/results/labels.json` and `review.json`. Labels of CamVid are spoilt as Rottmann
and Reese (2022, drops) and Lad and Mueller (2023, swaps and shifts) spoil theirs: of the things of
at least `SMALLEST` pixels, a fifth is dropped (filled up from the nearest other labels), given
another class, or moved. All that is fitted or chosen is so on val; test is judged.
"""

from __future__ import annotations

import csv
import pickle
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from segments import auroc, interval
from sklearn.metrics import average_precision_score, roc_auc_score
from stages import Row, Stage, Topic, run, show
from torch import Tensor

import doubtmap as dm
from doubtmap.datasets.dataset import VOID
from doubtmap.engine import Pairs
from doubtmap.kernels import segments_of
from doubtmap.labelling import DenialRule, soft_min
from doubtmap.labelling.find import judge_labels
from doubtmap.prediction import Prediction
from doubtmap.scores.parsing import parse_scores
from doubtmap.scoring import score_maps
from doubtmap.segments import MetaModel, Partition, SegmentTable, adjusted_iou, segment_table
from doubtmap.segments.choosing import unlike
from doubtmap.segments.look_first import area, share_found
from doubtmap.segments.shapes import SHAPES

KINDS = ("drop", "swap", "shift")
THINGS = ("pole", "signsymbol", "fence", "car")
SMALLEST = 100
SHARE = 0.2
MEETS = 0.25
"""IoU with a spoilt thing from which on a part has found it."""
SCORES = parse_scores("max_softmax,entropy,margin")
REPLICATES = 300
RULE = DenialRule(surest=0.0)
DENIED = 0.25
"""Adjusted IoU below which labels deny a whole segment."""


@dataclass(frozen=True, eq=False)
class Seen:
    """One image as the network saw it."""

    name: str
    prediction: Prediction
    label: Tensor
    features: np.ndarray


def seen(given: Namespace, split: str) -> list[Seen]:
    """Predictions of a split, made once and kept in `work`."""
    file = given.work / f"seen-{split}.pickle"
    if not file.exists():
        segmenter = dm.load(str(given.shared / "models" / "camvid9"))
        dataset = dm.open_dataset(f"camvid:{given.shared}/data/camvid:{split}")
        found = []
        for index, (prediction, label) in enumerate(Pairs(segmenter, dataset, progress=show)):
            pooled = prediction.features.mean((0, 2, 3)).numpy()
            plain = replace(prediction, features=None, layers={})
            found.append(Seen(dataset.sample_name(index), plain, label[0], pooled))
        file.write_bytes(pickle.dumps(found))
    kept: list[Seen] = pickle.loads(file.read_bytes())
    return kept


@dataclass(frozen=True, eq=False)
class Spoilt:
    """Labels of one image with things spoilt, and where; `(H, W)` each, error numbers from 0."""

    label: Tensor
    errors: np.ndarray
    count: int


def spoilt(
    label: Tensor,
    names: Sequence[str],
    kind: str,
    random: np.random.Generator,
    things: Sequence[str] = THINGS,
    share: float = SHARE,
) -> Spoilt:
    """Spoil some of the things of an image."""
    values = label.numpy().copy()
    errors = np.full(values.shape, -1)
    parts, number = segments_of(label)[0].numpy(), 0
    wanted = {names.index(name) for name in things}
    for index, box in enumerate(ndimage.find_objects(parts + 1)):
        inside = parts[box] == index
        cls = int(label[box].numpy()[inside][0])
        if cls not in wanted or inside.sum() < SMALLEST or random.random() >= share:
            continue
        mask = parts == index
        if kind == "swap":
            others = [c for c in range(len(names)) if c != cls]
            new = np.where(mask, random.choice(others), values)
        else:
            new = filled(values, mask)
            if kind == "shift":
                new = moved(new, mask, cls, random)
        changed = (new != values) & (values != VOID) & (new != VOID)
        if changed.sum() >= SMALLEST / 2:
            values, errors[changed], number = new, number, number + 1
    return Spoilt(torch.from_numpy(values), errors, number)


def filled(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Labels with a thing overwritten by the nearest others that are not void."""
    away = mask | (values == VOID)
    _, (rows, columns) = ndimage.distance_transform_edt(away, return_indices=True)
    return np.where(mask, values[rows, columns], values)


def moved(
    without: np.ndarray, mask: np.ndarray, cls: int, random: np.random.Generator
) -> np.ndarray:
    """Labels with a thing put back a third of its sides away, in a random direction."""
    rows, columns = np.nonzero(mask)
    sides = np.ptp(rows) + 1, np.ptp(columns) + 1
    angle = random.uniform(0, 2 * np.pi)
    shift = [round(float(s * f) / 3) for s, f in zip(sides, (np.sin(angle), np.cos(angle)))]
    y, x = rows + shift[0], columns + shift[1]
    keep = (y >= 0) & (y < mask.shape[0]) & (x >= 0) & (x < mask.shape[1])
    new = without.copy()
    new[y[keep], x[keep]] = cls
    new[without == VOID] = VOID
    return new


@dataclass(frozen=True, eq=False)
class Candidate:
    """What a method suspects: where, what it says of it, and which error it found, or -1."""

    image: int
    predicted: int
    scores: dict[str, float]
    error: int


def met(place: np.ndarray, spoil: Spoilt) -> int:
    """The error that a mask meets, by the largest IoU of at least `MEETS`; -1 for none."""
    inside = spoil.errors[place]
    best, found = MEETS, -1
    for error in np.unique(inside[inside >= 0]):
        both = int((inside == error).sum())
        iou = both / (place.sum() + (spoil.errors == error).sum() - both)
        if iou >= best:
            best, found = iou, int(error)
    return found


def of_parts(image: int, one: Seen, spoil: Spoilt, model: MetaModel) -> Iterator[Candidate]:
    """Denied parts, as `doubtmap labels` finds them."""
    found, _ = judge_labels(image, one.prediction, spoil.label, model, RULE)
    for part in found:
        left, top, width, height = part.box
        place = np.zeros(spoil.errors.shape, bool)
        place[top : top + height, left : left + width] = part.mask
        right = float(part.probability_right or 0)
        scores = {
            "parts: evidence": part.score,
            "parts: confidence": part.confidence,
            "parts: meta classifier": right,
            "parts: 1 - probability of the label": 1 - part.label_probability,
        }
        yield Candidate(image, part.predicted, scores, met(place, spoil))


def of_segments(image: int, one: Seen, spoil: Spoilt, model: MetaModel) -> Iterator[Candidate]:
    """Whole predicted segments that meet their class with less than `DENIED`, as published."""
    prediction = one.prediction
    partition = Partition.of(prediction.classes[0])
    iou = adjusted_iou(partition, spoil.label, spoil.label >= 0)
    table = segment_table(prediction, score_maps(prediction, SCORES), partition)
    right, sure = model.probability(table), 1 - table["max_softmax:mean"]
    labels = partition.labels.numpy()
    for number in np.flatnonzero((iou < DENIED) & (table["size"] >= RULE.smallest)):
        scores = {
            "segments: meta classifier": float(right[number]),
            "segments: confidence": float(sure[number]),
        }
        yield Candidate(image, int(partition.classes[number]), scores, met(labels == number, spoil))


def meta_model(given: Namespace) -> MetaModel:
    """Fitted to the labels of val as they are."""
    tables = []
    for one in seen(given, "val"):
        partition = Partition.of(one.prediction.classes[0])
        table = segment_table(one.prediction, score_maps(one.prediction, SCORES), partition)
        iou = adjusted_iou(partition, one.label, one.label >= 0)
        tables.append(replace(table, iou=iou, image_names=(one.name,)))
    joined = SegmentTable.join(tables)
    return MetaModel.fit(joined, "boosting", texts=tuple(SCORES), scores=SCORES)


@dataclass(frozen=True, eq=False)
class Ranked:
    """Candidates by descending score: their images, whether they found an error, and anew."""

    images: np.ndarray
    hit: np.ndarray
    first: np.ndarray
    errors: np.ndarray

    @classmethod
    def of(cls, candidates: Sequence[Candidate], score: str, errors: np.ndarray) -> Ranked:
        """Rank candidates; `errors` counts those of each image, which `Candidate.error` numbers."""
        order = np.argsort([-each.scores[score] for each in candidates], kind="stable")
        known: set[tuple[int, int]] = set()
        rows = []
        for each in (candidates[k] for k in order):
            error = (each.image, each.error)
            rows.append((each.image, each.error >= 0, each.error >= 0 and error not in known))
            known.add(error)
        return cls(*np.array(rows).T, errors)

    def figures(self, weights: np.ndarray) -> Row:
        """Average precision, precision at a recall of .7 and .5, and the largest recall.

        Args:
            weights: how often each image counts.
        """
        at = weights[self.images]
        precision = np.cumsum(at * self.hit) / np.maximum(np.cumsum(at), 1)
        recall = np.cumsum(at * self.first) / max((weights * self.errors).sum(), 1)
        steps = np.diff(recall, prepend=0)
        row: Row = {"ap": float((steps * precision).sum()), "recall_reached": float(recall[-1])}
        for wanted in (0.5, 0.7):
            enough = recall >= wanted
            row[f"precision_at_recall_{wanted}"] = (
                float(precision[enough].max()) if enough.any() else None
            )
        return row


def with_intervals(ranked: Ranked) -> Row:
    """The figures, and 95 % over images drawn with replacement where all draws have them."""
    count = len(ranked.errors)
    row, random = ranked.figures(np.ones(count, int)), np.random.default_rng(0)
    drawn = [
        ranked.figures(np.bincount(random.integers(0, count, count), minlength=count))
        for _ in range(REPLICATES)
    ]
    for name in [key for key, value in row.items() if value is not None]:
        values = [each[name] for each in drawn]
        if None not in values:
            row[f"{name}_interval"] = [float(v) for v in np.quantile(values, [0.025, 0.975])]
    return row


def errors(given: Namespace) -> Iterator[Row]:
    """Spoilt things found, by kind of error and by class of the thing."""
    model = meta_model(given)
    for split in ("val", "test"):
        for number, kind in enumerate(KINDS):
            yield from of_kind(seen(given, split), kind, split, number, model)


def of_kind(
    images: Sequence[Seen], kind: str, split: str, number: int, model: MetaModel
) -> Iterator[Row]:
    """All methods on one kind of error."""
    names = images[0].prediction.class_names
    random = np.random.default_rng([number, len(images)])
    spoils = [spoilt(one.label, names, kind, random) for one in images]
    truth = [
        [int(one.label.numpy()[spoil.errors == k][0]) for k in range(spoil.count)]
        for one, spoil in zip(images, spoils)
    ]
    for find in (of_segments, of_parts):
        found = [
            candidate
            for at, (one, spoil) in enumerate(zip(images, spoils))
            for candidate in find(at, one, spoil, model)
        ]
        for title, things in (
            ("car", ("car",)),
            ("car and fence", ("car", "fence")),
            ("all", THINGS),
        ):
            wanted = {names.index(thing) for thing in things}
            count = np.array([sum(c in wanted for c in each) for each in truth])
            own = [one for one in found if _belongs(one, truth, wanted, kind)]
            for method in own[0].scores:
                row: Row = {"name": method, "set": f"camvid {split}, {kind} of {title}"}
                row |= {"errors": int(count.sum()), "places": len(own)}
                yield row | with_intervals(Ranked.of(own, method, count))


def _belongs(one: Candidate, truth: Sequence[list[int]], wanted: set[int], kind: str) -> bool:
    """Whether a candidate is asked about things of some classes: what it sees, or has found, is."""
    if one.error >= 0:
        return truth[one.image][one.error] in wanted
    return one.predicted in wanted or kind == "shift"


def images(given: Namespace) -> Iterator[Row]:
    """Images whose cars are dropped, given another class or moved, among images as they are.

    A throw says which of the images with cars are spoilt, as Lad and Mueller judge whole images.
    """
    for number, kind in enumerate(KINDS):
        test = seen(given, "test")
        names = test[0].prediction.class_names
        random = np.random.default_rng([number, 7])
        rows: dict[str, list[float]] = {}
        wrong = []
        for at, one in enumerate(test):
            spoil = spoilt(one.label, names, kind, random, ("car",), 1.0)
            if not spoil.count:
                continue
            wrong.append(bool(random.random() < 0.5))
            label = spoil.label if wrong[-1] else one.label
            found, own = judge_labels(at, one.prediction, label, None, RULE)
            values = own[label >= 0]
            rows.setdefault("soft minimum", []).append(-soft_min(values))
            rows.setdefault("mean", []).append(-float(values.mean()))
            highest = max((part.score for part in found), default=0.0)
            rows.setdefault("highest evidence", []).append(highest)
        truth = np.array(wrong)
        for name, scores in rows.items():
            row: Row = {"name": name, "set": f"camvid test, images with cars, {kind}"}
            row |= {"images": len(truth), "spoilt": int(truth.sum())}
            row["auroc"] = float(roc_auc_score(truth, scores))
            row["auroc_interval"] = interval(
                partial(auroc, truth, np.array(scores)), np.arange(len(truth))
            )
            yield row | {"ap": float(average_precision_score(truth, scores))}


def review(given: Namespace) -> Iterator[Row]:
    """Images of test, another drive than val, in the order of one number for each doubt map."""
    columns, wrong, share, names, features = {}, {}, {}, {}, {}
    for split in ("val", "test"):
        found = seen(given, split)
        maps = [one.prediction.statistics.max_softmax[0].numpy() for one in found]
        columns[split] = np.array([[shape(one) for shape in SHAPES.values()] for one in maps])
        miss = [(o.prediction.classes[0] != o.label) & (o.label >= 0) for o in found]
        wrong[split] = np.array([int(one.sum()) for one in miss])
        share[split] = wrong[split] / [int((one.label >= 0).sum()) for one in found]
        names[split] = [one.name for one in found]
        features[split] = np.stack([one.features for one in found])
    orders = dict(zip(SHAPES, columns["test"].T))
    orders["fusion, fitted to val"] = fused(columns, share["val"])
    orders["oracle"] = wrong["test"]
    for name, badness in orders.items():
        row: Row = {"name": name, "set": "camvid test, wrong pixels by images looked at"}
        yield row | found_early(badness, wrong["test"])
    means = np.array(orders["mean"])
    scaled = features["test"] / features["test"].std(0)
    for budget in (10, 20, 40):
        ways = {
            "the most doubtful": np.argsort(-means, kind="stable")[:budget],
            "unlike": unlike(means, features["test"], names["test"], budget),
            "evenly in time": np.linspace(0, len(means) - 1, budget).round().astype(int),
        }
        for name, chosen in ways.items():
            away = np.linalg.norm(scaled[:, None] - scaled[chosen][None], axis=2).min(1)
            row = {"name": name, "set": "camvid test, chosen to label", "budget": budget}
            row["found"] = float(wrong["test"][chosen].sum() / wrong["test"].sum())
            row["distance_to_nearest"] = float(away.mean())
            yield row | {"neighbouring_frames": int((np.diff(np.sort(chosen)) == 1).sum())}


def fused(columns: dict[str, np.ndarray], share: np.ndarray, weight: float = 10.0) -> np.ndarray:
    """Ridge regression from all shapes to the share of wrong pixels, fitted to val, on test."""
    centre, scale = columns["val"].mean(0), columns["val"].std(0)
    x, at = ((columns[split] - centre) / scale for split in ("val", "test"))
    weights = np.linalg.solve(x.T @ x + weight * np.eye(x.shape[1]), x.T @ (share - share.mean()))
    return np.asarray(at @ weights)


def found_early(badness: np.ndarray, wrong: np.ndarray) -> Row:
    """Area of the share of mistakes found by images looked at, with its interval."""
    random, values = np.random.default_rng(0), []
    for _ in range(REPLICATES):
        rows = random.integers(0, len(wrong), len(wrong))
        values.append(area(share_found(badness[rows], wrong[rows])))
    found = area(share_found(badness, wrong))
    ends = [float(v) for v in np.quantile(values, [0.025, 0.975])]
    return {"found_area": found, "found_area_interval": ends}


def looked(given: Namespace) -> Iterator[Row]:
    """Verdicts by eye on places that `doubtmap labels` listed, counted; see `looked_at.csv`.

    `dubai`: 18 tiles of test at half size, network of `doubtmap train dubai:HALVED:train --model
    ../shared/models/camvid9 --epochs 14 --crop 224x224 --batch 4 --rate 5e-4`.
    """
    with (Path(__file__).parent / "results" / "looked_at.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in dict.fromkeys(row["set"] for row in rows):
        own = Counter(row["verdict"] for row in rows if row["set"] == name)
        for verdict, places in own.items():
            total = own.total()
            yield {"name": verdict, "set": name, "places": places, "share": places / total}


LABELS = Topic(
    "labels",
    "python benchmarks/labels.py",
    conditions={
        "network": "camvid9, which was trained on the train split",
        "spoilt": f"{SHARE:.0%} of the things of at least {SMALLEST} pixels; see spoilt()",
        "found": f"IoU of at least {MEETS} with the pixels whose label was changed",
        "chosen on": "camvid val: the score of parts, and its meta classifier",
        "intervals": f"{REPLICATES} bootstrap replicates over images",
    },
)
REVIEW = Topic(
    "review",
    "python benchmarks/labels.py --stages review",
    conditions={
        "network": "camvid9, which was trained on the train split",
        "doubt": "1 - largest probability",
        "intervals": f"{REPLICATES} bootstrap replicates over images",
    },
)
STAGES = {
    "errors": Stage(LABELS, errors),
    "images": Stage(LABELS, images),
    "looked": Stage(LABELS, looked),
    "review": Stage(REVIEW, review),
}

if __name__ == "__main__":
    run(__doc__, STAGES)
