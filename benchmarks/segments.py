"""Which segments and which images to distrust, on CamVid, RoadAnomaly21, Fishyscapes and CHASE.

    python benchmarks/segments.py [--shared ../shared] [--work DIR] [--vessels FOLDER]
        [--stages segments,runs,importance,images,anomalies,vessels,time]

Writes `benchmarks/results/segments.json`; a stage that is run again replaces its rows. On CamVid,
meta models are fitted to val and judged on test (`segments`), and, as published but with images
parted instead of segments, in five runs on test (`runs`); beside it by
segment, as published, and by sequence. `FOLDER` is what this wrote, from data
that `--stages vessels` prepares under DIR, persons 1 to 8 to train, 9 and 10 to fit, 11 to 14 to
test:

    doubtmap train folder:DIR/chase:train --model python:benchmarks/vessel_net.py:vessel_net \
        --batch 6 --crop 192x192 --epochs 200 --rate 2e-3 --class-weights 0.5 --seed 1 --out FOLDER
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from segment_images import images_stage
from segment_tables import (
    PLAIN,
    PREDICTED,
    REPLICATES,
    SCORES,
    UNIFORM,
    UNKNOWN_CLASSES,
    camvid,
    density,
    interval,
    judged,
)
from segment_vessels import vessels_stage
from sklearn.metrics import average_precision_score, roc_auc_score

import doubtmap as dm
from doubtmap.datasets.dataset import UNKNOWN, VOID
from doubtmap.engine import Pairs
from doubtmap.engine.splitting import folds_of
from doubtmap.scores.parsing import parse_scores
from doubtmap.scoring import prepared, score_maps
from doubtmap.segments import MetaModel, Partition, SegmentTable, cross_judge, segment_table

RESULTS = Path(__file__).parent / "results" / "segments.json"


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


def segments_stage(work: Path, shared: Path, _: Path | None) -> Iterator[dict[str, Any]]:
    """Fitted to val, judged on test; the dusk sequence apart."""
    for title, unknown in (("", ()), (" with unknown", UNKNOWN_CLASSES)):
        val, test = (camvid(work, shared, split, unknown) for split in ("val", "test"))
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


def runs_stage(work: Path, shared: Path, _: Path | None) -> Iterator[dict[str, Any]]:
    """Five runs on test, a fifth of the images held out in each; mean and deviation."""
    found = camvid(work, shared, "test", ())
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


def importance_stage(work: Path, shared: Path, _: Path | None) -> Iterator[dict[str, Any]]:
    """Which features carry the model of all: gains of boosting by group and one by one."""
    table = camvid(work, shared, "val", ()).table
    model = MetaModel.fit(table, "boosting")
    for task in ("touches", "iou"):
        shares = getattr(model, task).importance
        groups: dict[str, float] = {}
        for name, share in zip(model.names, shares):
            group = "sizes" if ":" not in name else name.rpartition(":")[0]
            groups[group] = groups.get(group, 0.0) + float(share)
        top = np.argsort(-shares)[:12]
        yield {
            "name": task,
            "set": "camvid val",
            "groups": dict(sorted(groups.items(), key=lambda item: -item[1])),
            "features": {model.names[k]: float(shares[k]) for k in top},
        }


def anomalies_stage(work: Path, shared: Path, _: Path | None) -> Iterator[dict[str, Any]]:
    """Do the meta models, fitted to CamVid val, distrust segments that lie on unknown objects?"""
    val = camvid(work, shared, "val", ()).table
    model = MetaModel.fit(val, "boosting")
    sets = {
        "roadanomaly21": f"smiyc:{shared}/data/roadanomaly21",
        "fishyscapes_static": f"fishyscapes:{shared}/data/fishyscapes_static",
    }
    for name, data in sets.items():
        file = work / f"anomalies-{name}.npz"
        if not file.exists():
            np.savez(file, **on_anomalies(work, shared, data, model))
        kept = np.load(file)
        there, image, size = kept["share"] > 0.5, kept["image"], kept["size"]
        for score in ("touches nothing", "1 - expected IoU", *PLAIN, "density"):
            values = kept[score]
            yield {
                "name": score,
                "set": name,
                "segments": len(there),
                "on unknown": int(there.sum()),
                "auroc": float(roc_auc_score(there, values)),
                "auroc_interval": interval(partial(auroc, there, values), image),
                "auprc": float(average_precision_score(there, values)),
                "auprc_by_pixels": float(
                    average_precision_score(there, values, sample_weight=size)
                ),
                "prevalence": float(there.mean()),
            }


def auroc(positive: np.ndarray, values: np.ndarray, rows: np.ndarray) -> float:
    """Of some rows; NaN where there is one kind only."""
    if positive[rows].all() or not positive[rows].any():
        return float("nan")
    return float(roc_auc_score(positive[rows], values[rows]))


def on_anomalies(work: Path, shared: Path, data: str, model: MetaModel) -> dict[str, np.ndarray]:
    """For each segment with labelled pixels, its share on unknown objects, and what scores say."""
    texts = [*SCORES, f"density:{density(work, shared)}"]
    scores = parse_scores(texts)
    segmenter = prepared(dm.load(str(shared / "models" / "camvid9")), scores)
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


def time_stage(_: Path, __: Path, ___: Path | None) -> Iterator[dict[str, Any]]:
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
        yield {
            "name": f"{len(maps)} scores",
            "set": "19 x 1024 x 2048",
            "segments": len(table),
            "features": len(table.names),
            "seconds": float(np.median(seconds)),
        }


STAGES = {
    "segments": segments_stage,
    "runs": runs_stage,
    "importance": importance_stage,
    "images": images_stage,
    "anomalies": anomalies_stage,
    "vessels": vessels_stage,
    "time": time_stage,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/segments"))
    parser.add_argument("--vessels", type=Path)
    parser.add_argument("--stages", default=",".join(STAGES))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    kept = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    for stage in given.stages.split(","):
        made = []
        for row in STAGES[stage](given.work, given.shared, given.vessels):
            made.append({"stage": stage, **row})
            shown = {k: v for k, v in row.items() if isinstance(v, float | int | str)}
            print(stage, {k: round(v, 3) if isinstance(v, float) else v for k, v in shown.items()})
        kept = [row for row in kept if row["stage"] != stage or not made] + made
        results = {
            "command": "python benchmarks/segments.py --vessels FOLDER",
            "version": dm.__version__,
            "conditions": {
                "unknown": list(UNKNOWN_CLASSES),
                "fitted to": "camvid val; chase persons 9 and 10",
                "intervals": f"{REPLICATES} bootstrap replicates over images",
                "runs": "stages were run apart and merged",
            },
            "rows": sorted(kept, key=lambda row: list(STAGES).index(row["stage"])),
        }
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
