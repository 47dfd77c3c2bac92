"""Which segments and which images to distrust, on CamVid, RoadAnomaly21, Fishyscapes and CHASE.

    python benchmarks/segments.py [--shared ../shared] [--work DIR] [--vessels FOLDER]
        [--stages segments,runs,reliability,importance,images,anomalies,vessels,time]

Writes `benchmarks/results/segments.json`. `reliability`: P(touches its class) from three scores, as
fitted and calibrated on left-out images. On CamVid, meta models are fitted to val and judged on
test (`segments`), and, as published but with images parted instead of segments, in five runs on
test (`runs`); beside it by segment, as published, and by sequence. Tables of segments are kept in
DIR. `FOLDER` is what this wrote, from data that `--stages vessels` prepares under DIR, persons 1 to
8 to train, 9 and 10 to fit, 11 to 14 to test:

    doubtmap train folder:DIR/chase:train --model python:benchmarks/segments.py:vessel_net \
        --batch 6 --crop 192x192 --epochs 200 --rate 2e-3 --class-weights 0.5 --seed 1 --out FOLDER
"""

from __future__ import annotations

import hashlib
import pickle
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score
from stages import HELD_OUT, Row, Stage, Topic, run, show
from torch import Tensor, nn

import doubtmap as dm
from doubtmap.datasets.dataset import UNKNOWN, VOID
from doubtmap.engine import Pairs
from doubtmap.engine.splitting import folds_of
from doubtmap.fitting import fit_score
from doubtmap.metrics.events import event_reliability
from doubtmap.scores.parsing import parse_scores
from doubtmap.scoring import prepared, score_maps
from doubtmap.segments import (
    MetaModel,
    Partition,
    SegmentTable,
    cross_judge,
    expected_figures,
    judge,
    segment_table,
)
from doubtmap.segments.estimators import rescaled
from doubtmap.segments.fitting import LabelledSegments, labelled_segments
from doubtmap.segments.judging import cross_calibrated, platt
from doubtmap.segments.look_first import area, share_found

ORDERS = ("0.1", "0.3", "0.5", "1", "2")
PREDICTED = [f"gradient(p={p})" for p in ORDERS]
UNIFORM = [f"gradient(p={p},label=uniform)" for p in ORDERS]
PLAIN = ["max_softmax", "entropy", "margin"]
SCORES = [*PLAIN, *PREDICTED, *UNIFORM]
REPLICATES = 300


def extracted(
    given: Namespace,
    name: str,
    model: Path | str,
    data: str,
    scores: list[str],
    unknown: Sequence[str],
) -> LabelledSegments:
    """Segments of a data set, found once and kept in `work`."""
    asked = hashlib.sha256(f"{model} {data} {scores} {unknown}".encode()).hexdigest()[:8]
    file = given.work / f"segments-{name}-{asked}.pickle"
    if not file.exists():
        segmenter, dataset = dm.load(str(model)), dm.open_dataset(data)
        asked_of = parse_scores(scores)
        found = labelled_segments(segmenter, dataset, asked_of, unknown=unknown, progress=show)
        file.write_bytes(pickle.dumps(found))
    kept: LabelledSegments = pickle.loads(file.read_bytes())
    return kept


def density(given: Namespace) -> Path:
    """The density of CamVid train, fitted once."""
    file = given.work / "density.safetensors"
    if not file.exists():
        train = dm.open_dataset(f"camvid:{given.shared}/data/camvid:train")
        fit_score("density", dm.load(str(given.shared / "models" / "camvid9")), train, out=file)
    return file


def camvid(given: Namespace, split: str, unknown: Sequence[str]) -> LabelledSegments:
    """Segments of a split with all scores."""
    name = f"camvid-{split}{'-unknown' if unknown else ''}"
    scores = [*SCORES, f"density:{density(given)}"]
    data = f"camvid:{given.shared}/data/camvid:{split}"
    return extracted(given, name, given.shared / "models" / "camvid9", data, scores, unknown)


def interval(
    figure: Callable[[np.ndarray], float], images: np.ndarray, seed: int = 0
) -> list[float]:
    """95 % over images drawn with replacement; `figure` takes rows."""
    random = np.random.default_rng(seed)
    rows = [np.flatnonzero(images == image) for image in np.unique(images)]
    values = []
    for _ in range(REPLICATES):
        drawn = random.integers(0, len(rows), len(rows))
        values.append(figure(np.concatenate([rows[k] for k in drawn])))
    return [float(v) for v in np.nanquantile(values, [0.025, 0.975])]


def judged(model: MetaModel, table: SegmentTable) -> Row:
    """Figures on labelled segments, with intervals over images."""
    seen = table.take(np.isfinite(table.iou))
    iou, p, e = seen.iou, model.probability(seen), model.expected_iou(seen)
    row: Row = dict(vars(judge(p, e, iou)))
    row["auroc_interval"] = interval(lambda r: roc_auc_score(iou[r] > 0, p[r]), seen.image)
    row["r2_interval"] = interval(
        lambda r: 1 - ((e[r] - iou[r]) ** 2).mean() / iou[r].var(), seen.image
    )
    return row


def of_scores(table: SegmentTable, scores: Sequence[str]) -> tuple[str, ...]:
    """Names of all features of some scores."""
    return tuple(n for n in table.names if n.rpartition(":")[0] in scores)


def feature_sets(table: SegmentTable) -> dict[str, tuple[str, ...]]:
    """Those that the paper compares, each named."""
    plain = tuple(n for n in table.names if ":" not in n or n.startswith("probability:"))
    sets = {f"{name} (mean)": (f"{name}:mean",) for name in ("max_softmax", "entropy")}
    sets |= {name: of_scores(table, [name]) for name in (*PREDICTED, *UNIFORM)}
    sets["gradients, predicted label"] = of_scores(table, PREDICTED)
    sets["gradients, uniform label"] = of_scores(table, UNIFORM)
    sets["gradients"] = of_scores(table, PREDICTED + UNIFORM)
    if of_scores(table, ["density"]):
        sets["density"] = of_scores(table, ["density"])
    sets["sizes and probabilities"] = plain
    sets["MetaSeg"] = of_scores(table, ["entropy", "margin"]) + plain
    sets["all"] = table.names
    return sets


def segments(given: Namespace) -> Iterator[Row]:
    """Fitted to val, judged on test; the dusk sequence apart."""
    for title, unknown in (("", ()), (" with unknown", HELD_OUT)):
        val, test = (camvid(given, split, unknown) for split in ("val", "test"))
        dusk = np.array([Path(n).name.startswith("0001TP") for n in test.table.image_names])
        at_dusk = dusk[test.table.image]
        parts = {
            f"camvid test{title}": test.table,
            f"camvid test{title}, day": test.table.take(~at_dusk),
            f"camvid test{title}, dusk": test.table.take(at_dusk),
        }
        for features, names in feature_sets(val.table).items():
            for kind in ("linear", "boosting"):
                model = MetaModel.fit(val.table, kind, names=names)
                for name, table in parts.items():
                    if name == f"camvid test{title}" or features in ("MetaSeg", "all"):
                        row = {"name": f"{features}: {kind}", "set": grouped(name, features)}
                        yield row | judged(model, table)


def reliability(given: Namespace) -> Iterator[Row]:
    """P(touches its class): on left-out images of val, and of a fit to val on test."""
    network, data = given.shared / "models" / "camvid9", f"camvid:{given.shared}/data/camvid"
    val, test = (
        extracted(given, "reliability", network, f"{data}:{split}", PLAIN, ()).table
        for split in ("val", "test")
    )
    folds, _ = folds_of(val.image_names, 5)
    for kind in ("linear", "boosting"):
        cross, plain = cross_judge(val, folds, kind), MetaModel.fit(val, kind)
        judged = np.isfinite(val.iou) & np.isfinite(cross.probability)
        slope, shift = platt(cross.probability[judged], val.iou[judged] > 0)
        fitted = replace(plain, touches=rescaled(plain.touches, slope, shift))
        said = {
            "val, left-out images, as fitted": (val, cross.probability),
            "val, left-out images, calibrated": (val, cross_calibrated(cross, val, folds)),
            "test, as fitted": (test, plain.probability(test)),
            "test, calibrated": (test, fitted.probability(test)),
        }
        for place, (table, p) in said.items():
            there = np.isfinite(table.iou) & np.isfinite(p)
            told = event_reliability(p[there], table.iou[there] > 0, table.image[there]).told()
            del told["diagram"]
            yield {"name": f"{kind}: {place}", "set": "camvid"} | told


def runs(given: Namespace) -> Iterator[Row]:
    """Five runs on test, a fifth of the images held out in each; mean and deviation."""
    found = camvid(given, "test", ())
    folds, _ = folds_of(found.table.image_names, 5)
    dusk = [Path(n).name.startswith("0001TP") for n in found.table.image_names]
    sequences = [np.flatnonzero(np.array(dusk) == side) for side in (True, False)]
    mixed = np.random.default_rng(0).permutation(len(found.table))
    leaking = replace(found.table, image=mixed % 5, image_names=tuple(map(str, range(5))))
    for features, names in feature_sets(found.table).items():
        for kind in ("linear", "boosting"):
            runs = cross_judge(found.table, folds, kind, names).runs
            name = grouped("camvid test, by image", features)
            yield {"name": f"{features}: {kind}", "set": name, **spread(runs)}
            if features in ("max_softmax (mean)", "MetaSeg", "all"):
                runs = cross_judge(found.table, sequences, kind, names).runs
                row = {"name": f"{features}: {kind}", "set": "camvid test, by sequence"}
                yield row | spread(runs)
                runs = cross_judge(leaking, [[k] for k in range(5)], kind, names).runs
                row = {"name": f"{features}: {kind}", "set": "camvid test, by segment"}
                yield row | spread(runs)


def grouped(name: str, features: str) -> str:
    """The set of a row; single gradient norms have tables of their own."""
    return f"{name}, single gradients" if features.startswith("gradient(") else name


def spread(runs: Sequence[Any]) -> dict[str, float]:
    """Mean and standard deviation over runs of every figure."""
    row = {}
    for key in vars(runs[0]):
        values = [getattr(run, key) for run in runs]
        row |= {key: float(np.mean(values)), f"{key}_deviation": float(np.std(values, ddof=1))}
    return row


def importance(given: Namespace) -> Iterator[Row]:
    """Which features carry the model of all: gains of boosting by group and one by one."""
    table = camvid(given, "val", ()).table
    model = MetaModel.fit(table, "boosting")
    for task in ("touches", "iou"):
        shares = getattr(model, task).importance
        groups: dict[str, float] = {}
        for name, share in zip(model.names, shares):
            group = "sizes" if ":" not in name else name.rpartition(":")[0]
            groups[group] = groups.get(group, 0.0) + float(share)
        top = np.argsort(-shares)[:12]
        row: Row = {"name": task, "set": "camvid val"}
        row["groups"] = dict(sorted(groups.items(), key=lambda item: -item[1]))
        yield row | {"features": {model.names[k]: float(shares[k]) for k in top}}


def anomalies(given: Namespace) -> Iterator[Row]:
    """Do the meta models, fitted to CamVid val, distrust segments that lie on unknown objects?"""
    val = camvid(given, "val", ()).table
    model = MetaModel.fit(val, "boosting")
    sets = {
        "roadanomaly21": f"smiyc:{given.shared}/data/roadanomaly21",
        "fishyscapes_static": f"fishyscapes:{given.shared}/data/fishyscapes_static",
    }
    for name, data in sets.items():
        file = given.work / f"anomalies-{name}.npz"
        if not file.exists():
            np.savez(file, **on_anomalies(given, data, model))
        kept = np.load(file)
        there, image, size = kept["share"] > 0.5, kept["image"], kept["size"]
        for score in ("touches nothing", "1 - expected IoU", *PLAIN, "density"):
            values = kept[score]
            row: Row = {"name": score, "set": name, "segments": len(there)}
            row |= {"on unknown": int(there.sum()), "auroc": float(roc_auc_score(there, values))}
            row["auroc_interval"] = interval(partial(auroc, there, values), image)
            row["auprc"] = float(average_precision_score(there, values))
            by_pixels = average_precision_score(there, values, sample_weight=size)
            yield row | {"auprc_by_pixels": float(by_pixels), "prevalence": float(there.mean())}


def auroc(positive: np.ndarray, values: np.ndarray, rows: np.ndarray) -> float:
    """Of some rows; NaN where there is one kind only."""
    if positive[rows].all() or not positive[rows].any():
        return float("nan")
    return float(roc_auc_score(positive[rows], values[rows]))


def on_anomalies(given: Namespace, data: str, model: MetaModel) -> dict[str, np.ndarray]:
    """For each segment with labelled pixels, its share on unknown objects, and what scores say."""
    texts = [*SCORES, f"density:{density(given)}"]
    scores = parse_scores(texts)
    segmenter = prepared(dm.load(str(given.shared / "models" / "camvid9")), scores)
    rows: dict[str, list[np.ndarray]] = {}
    for image, (prediction, label) in enumerate(Pairs(segmenter, dm.open_dataset(data))):
        partition = Partition.of(prediction.classes[0])
        table = segment_table(prediction, score_maps(prediction, scores), partition)
        labels = partition.labels.numpy().reshape(-1)
        truth = label[0].numpy().reshape(-1)
        known = truth != VOID
        total = np.bincount(labels[known], minlength=len(table))
        unknown = np.bincount(labels[truth == UNKNOWN], minlength=len(table))
        keep = total > 0
        found = {
            "share": unknown / np.maximum(total, 1),
            "image": np.full(len(table), image),
            "size": total.astype(float),
            "touches nothing": 1 - model.probability(table),
            "1 - expected IoU": 1 - model.expected_iou(table),
        } | {name: table[f"{name}:mean"] for name in (*PLAIN, "density")}
        for key, column in found.items():
            rows.setdefault(key, []).append(column[keep])
    return {key: np.concatenate(columns) for key, columns in rows.items()}


def seconds(_: Namespace) -> Iterator[Row]:
    """Features of a 2-megapixel frame of 19 classes with several thousand segments, one core."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    coarse = 4 * torch.randn(1, 19, 40, 80, generator=generator)
    logits = torch.nn.functional.interpolate(coarse, (256, 512), mode="bicubic")
    logits = logits + 0.45 * torch.randn(1, 19, 256, 512, generator=generator)
    features = torch.rand(1, 64, 256, 512, generator=generator)
    for scores in (PLAIN, SCORES):
        prediction = dm.Prediction(logits, (1024, 2048), features=features)
        maps = {name: score(prediction)[0] for name, score in parse_scores(scores).items()}
        seconds = []
        for _ in range(5):
            start = time.process_time()
            table = segment_table(prediction, maps)
            seconds.append(time.process_time() - start)
        row: Row = {"name": f"{len(maps)} scores", "set": "19 x 1024 x 2048"}
        row |= {"segments": len(table), "features": len(table.names)}
        yield row | {"seconds": float(np.median(seconds))}


def images(given: Namespace) -> Iterator[Row]:
    """Expected figures of images of test, and what a ranking by them finds.

    By a meta model fitted to val, another sequence, and, as `by image`, by models of the other
    four fifths of test. For comparison: lines from mean scores, and from the same two expectations
    and mean confidence (`review, lines`), fitted to the images of val; `by image`, lines from mean
    scores of the other four fifths.
    """
    for title, unknown in (("", ()), (" with unknown", HELD_OUT)):
        val, test = (camvid(given, split, unknown) for split in ("val", "test"))
        model = MetaModel.fit(val.table, "boosting")
        said = {"review": expected_figures(test.table, model.expected_iou(test.table))}
        within = {"review": expected_figures(test.table, cross_expected(test))}
        both = np.column_stack(expected_figures(val.table, cross_expected(val)))
        said["review, lines"] = lines(both, val, np.column_stack(said["review"]))
        for score in ("max_softmax", "entropy", "margin", "density"):
            means = [mean_score(found.table, score) for found in (val, test)]
            said[f"mean {score}"] = lines(means[0][:, None], val, means[1][:, None])
            within[f"mean {score}"] = by_folds(test, means[1][:, None])
        for where, guesses in (("", said), (", by image", within)):
            for guess, (miou, wrong) in guesses.items():
                row: Row = {"name": guess, "set": f"camvid test{title}{where}"}
                row |= compared("miou", miou, test.miou)
                row |= compared("wrong", wrong, test.wrong_share)
                yield row | found_early(wrong, test.wrong)
        miou, wrong = (
            float(np.abs(getattr(test, of) - getattr(val, of).mean()).mean())
            for of in ("miou", "wrong_share")
        )
        start = {"name": "mean of val", "set": f"camvid test{title}"}
        yield start | {"miou_mae": miou, "wrong_mae": wrong}
        orders = np.random.default_rng(0).random((200, len(test.wrong)))
        by_chance = np.mean([area(share_found(order, test.wrong)) for order in orders])
        for where in ("", ", by image"):
            name = f"camvid test{title}{where}"
            yield {"name": "random order", "set": name, "found_area": float(by_chance)}
            best = found_early(test.wrong, test.wrong)
            yield {"name": "oracle", "set": name, **best}


def cross_expected(found: LabelledSegments) -> np.ndarray:
    """IoU that models of the other folds expect of each segment."""
    folds, _ = folds_of(found.table.image_names, 5)
    return cross_judge(found.table, folds, "boosting").expected_iou


def lines(
    seen: np.ndarray, found: LabelledSegments, other: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Least squares from columns to mIoU and share of wrong pixels, applied to other images."""
    design, at = (np.column_stack([np.ones(len(x)), x]) for x in (seen, other))
    targets = np.column_stack([found.miou, found.wrong_share])
    said = at @ np.linalg.lstsq(design, targets, rcond=1e-6)[0]
    return said[:, 0], said[:, 1]


def by_folds(found: LabelledSegments, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same, of images of other folds."""
    said = np.zeros((2, len(seen)))
    for fold in folds_of(found.table.image_names, 5)[0]:
        others = np.setdiff1d(np.arange(len(seen)), fold)
        taken = {name: getattr(found, name)[others] for name in ("miou", "wrong", "labelled")}
        part = replace(found, **taken)
        said[:, fold] = lines(seen[others], part, seen[fold])
    return said[0], said[1]


def mean_score(table: SegmentTable, score: str) -> np.ndarray:
    """Mean of a score over the pixels of each image."""
    size = table["size"]
    total = np.bincount(table.image, size * table[f"{score}:mean"])
    return total / np.bincount(table.image, size)


def compared(what: str, expected: np.ndarray, true: np.ndarray) -> Row:
    """How expected figures of images follow the true ones."""

    def pearson(rows: np.ndarray) -> float:
        return float(np.corrcoef(expected[rows], true[rows])[0, 1])

    rows = np.arange(len(true))
    row: Row = {
        f"{what}_pearson": pearson(rows),
        f"{what}_pearson_interval": interval(pearson, rows),
    }
    row[f"{what}_spearman"] = float(spearmanr(expected, true)[0])
    row[f"{what}_mae"] = float(np.abs(expected - true).mean())
    return row | {f"{what}_mae_of_mean": float(np.abs(true - true.mean()).mean())}


def found_early(order_by: np.ndarray, wrong: np.ndarray) -> Row:
    """Area of the curve, its value after a tenth and a fifth of the images, and the curve."""
    points = share_found(order_by, wrong).tolist()
    at = np.linspace(0, len(points) - 1, 51).round().astype(int)
    rows = np.arange(len(wrong))
    return {
        "found_area": area(np.array(points)),
        "found_area_interval": interval(lambda r: area(share_found(order_by[r], wrong[r])), rows),
        "found_in_tenth": points[round(len(wrong) * 0.1)],
        "found_in_fifth": points[round(len(wrong) * 0.2)],
        "found_curve": [round(points[k], 4) for k in at],
    }


def vessels(given: Namespace) -> Iterator[Row]:
    """Retina vessels: meta models, images, and whether doubt follows the two annotators."""
    folder = chase(given.work, given.shared)
    if given.vessels is None:
        print(f"vessels: left out; train a network on folder:{folder}:train, then --vessels FOLDER")
        return
    val, test = (
        extracted(
            given,
            f"chase-{split}",
            vessel_network(given.vessels),
            f"folder:{folder}:{split}",
            PLAIN,
            (),
        )
        for split in ("val", "test")
    )
    overlap = test.wrong.sum() / test.labelled.sum()
    for kind in ("linear", "boosting"):
        model = MetaModel.fit(val.table, kind)
        row = {"name": f"all: {kind}", "set": "chase test", "wrong_share": float(overlap)}
        yield row | judged(model, test.table)
    yield from disagreement(folder, given.vessels)


def vessel_network(vessels: Path) -> str:
    """The trained vessel network, with the code that makes it."""
    return f"python:{Path(__file__)}:vessel_net@{vessels}"


def disagreement(folder: Path, vessels: Path) -> Iterator[Row]:
    """How scores rank the pixels about which two annotators disagree."""
    segmenter, data = dm.load(vessel_network(vessels)), dm.open_dataset(f"folder:{folder}:test")
    scores = parse_scores(PLAIN)
    seen: dict[str, list[np.ndarray]] = {}
    for index, (prediction, label) in enumerate(Pairs(segmenter, data)):
        other = np.asarray(Image.open(second_label(folder, data.sample_name(index)))) > 0
        first = label[0].numpy() == 1
        wrong = prediction.classes[0].numpy() != label[0].numpy()
        maps = score_maps(prediction, scores)
        seen.setdefault("disagree", []).append(first != other)
        seen.setdefault("both wrong", []).append(wrong & (first == other))
        for name, values in maps.items():
            seen.setdefault(name, []).append(values.numpy())
    for name in PLAIN:
        for what in ("disagree", "both wrong"):
            truth = np.concatenate([x.reshape(-1) for x in seen[what]])
            values = np.concatenate([x.reshape(-1) for x in seen[name]])
            means = [[float(x.mean()) for x in seen[key]] for key in (what, name)]
            title = "annotators disagree" if what == "disagree" else "both say it is wrong"
            row: Row = {"name": f"{name}: {title}", "set": "chase test"}
            row |= {"share": float(truth.mean()), "auroc": float(roc_auc_score(truth, values))}
            row["auprc"] = float(average_precision_score(truth, values))
            yield row | {"images_spearman": float(spearmanr(*means)[0]), "images": len(means[0])}


def second_label(folder: Path, name: str) -> Path:
    """The second annotator's file of an image of the test split."""
    return folder / "labels2" / "test" / f"{Path(name).stem}.png"


def chase(work: Path, shared: Path) -> Path:
    """CHASE as a folder with splits by person, of links."""
    folder, source = (work / "chase").resolve(), (shared / "data" / "chasedb1").resolve()
    for person in range(1, 15):
        split = "train" if person <= 8 else "val" if person <= 10 else "test"
        for side in "LR":
            frame = f"Image_{person:02d}{side}"
            for to, origin, suffix in (
                ("images", "images", "jpg"),
                ("labels", "labels_annotator1", "png"),
                ("labels2", "labels_annotator2", "png"),
            ):
                link = folder / to / split / f"{frame}.{suffix}"
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.exists():
                    link.symlink_to(source / origin / f"{frame}.{suffix}")
    (folder / "doubtmap.toml").write_text(
        'name = "chase"\nimages = "images/{split}/{frame}.jpg"\n'
        'labels = "labels/{split}/{frame}.png"\nsplit = "test"\n'
        "[classes]\nbackground = 0\nvessel = 1\n"
    )
    return folder


WIDTHS = (16, 32, 64, 96)


class VesselNet(nn.Module):
    """Images `(B, 3, H, W)` in, logits `(B, 2, H, W)` out; any sides."""

    def __init__(self) -> None:
        super().__init__()
        before = (3, *WIDTHS[:-1])
        self.down = nn.ModuleList(_pair(a, b) for a, b in zip(before, WIDTHS))
        self.up = nn.ModuleList(
            _pair(low + high, high) for low, high in zip(WIDTHS[:0:-1], WIDTHS[-2::-1])
        )
        self.classifier = nn.Conv2d(WIDTHS[0], 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        kept, x = [], images
        for level, pair in enumerate(self.down):
            x = pair(x if level == 0 else F.max_pool2d(x, 2, ceil_mode=True))
            kept.append(x)
        for pair, skip in zip(self.up, kept[-2::-1]):
            resized = F.interpolate(x, skip.shape[-2:], mode="bilinear", align_corners=False)
            x = pair(torch.cat([resized, skip], 1))
        logits: Tensor = self.classifier(x)
        return logits


def vessel_net() -> nn.Module:
    """The network, untrained."""
    return VesselNet()


def _pair(channels: int, out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (channels, out):
        layers += [nn.Conv2d(before, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*layers)


TOPIC = Topic(
    "segments",
    "python benchmarks/segments.py --vessels FOLDER",
    conditions={
        "unknown": list(HELD_OUT),
        "fitted to": "camvid val; chase persons 9 and 10",
        "intervals": f"{REPLICATES} bootstrap replicates over images",
        "runs": "stages were run apart and merged",
    },
)
STAGES = {
    "segments": Stage(TOPIC, segments, None),
    "runs": Stage(TOPIC, runs, None),
    "reliability": Stage(TOPIC, reliability, None),
    "importance": Stage(TOPIC, importance, None),
    "images": Stage(TOPIC, images, None),
    "anomalies": Stage(TOPIC, anomalies, None),
    "vessels": Stage(TOPIC, vessels, None),
    "time": Stage(TOPIC, seconds),
}
OPTIONS = {"--vessels": {"type": Path, "help": "of `vessels`: a folder, see above"}}

if __name__ == "__main__":
    run(__doc__, STAGES, OPTIONS)
