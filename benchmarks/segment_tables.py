"""What the benchmarks of segments share: tables of segments found once, figures with intervals."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

import doubtmap as dm
from doubtmap.fitting import fit_score
from doubtmap.scores.parsing import parse_scores
from doubtmap.segments import MetaModel, SegmentTable, judge
from doubtmap.segments.fitting import LabelledSegments, labelled_segments

UNKNOWN_CLASSES = ("pedestrian", "bicyclist")
ORDERS = ("0.1", "0.3", "0.5", "1", "2")
PREDICTED = [f"gradient(p={p})" for p in ORDERS]
UNIFORM = [f"gradient(p={p},label=uniform)" for p in ORDERS]
PLAIN = ["max_softmax", "entropy", "margin"]
SCORES = [*PLAIN, *PREDICTED, *UNIFORM]
REPLICATES = 300


def extracted(
    work: Path, name: str, model: Path | str, data: str, scores: list[str], unknown: Sequence[str]
) -> LabelledSegments:
    """Segments of a data set, found once and kept in `work`."""
    asked = hashlib.sha256(f"{model} {data} {scores} {unknown}".encode()).hexdigest()[:8]
    file = work / f"segments-{name}-{asked}.npz"
    if not file.exists():
        found = labelled_segments(
            dm.load(str(model)),
            dm.open_dataset(data),
            parse_scores(scores),
            unknown=unknown,
            progress=lambda stage, done, total: print(f"\r{name} {done}/{total} ", end=""),
        )
        print()
        images = {"wrong": found.wrong, "labelled": found.labelled, "miou": found.miou}
        np.savez(file, **images, **vars(found.table))
    kept = np.load(file)
    texts = {k: tuple(kept[k].tolist()) for k in ("names", "class_names", "image_names")}
    arrays = {k: kept[k] for k in ("features", "segment", "classes", "boxes", "image", "iou")}
    table = SegmentTable(**texts, **arrays)
    return LabelledSegments(table, kept["wrong"], kept["labelled"], kept["miou"])


def density(work: Path, shared: Path) -> Path:
    """The density of CamVid train, fitted once."""
    file = work / "density.safetensors"
    if not file.exists():
        train = dm.open_dataset(f"camvid:{shared}/data/camvid:train")
        fit_score("density", dm.load(str(shared / "models" / "camvid9")), train, out=file)
    return file


def camvid(work: Path, shared: Path, split: str, unknown: Sequence[str]) -> LabelledSegments:
    """Segments of a split with all scores."""
    name = f"camvid-{split}{'-unknown' if unknown else ''}"
    scores = [*SCORES, f"density:{density(work, shared)}"]
    data = f"camvid:{shared}/data/camvid:{split}"
    return extracted(work, name, shared / "models" / "camvid9", data, scores, unknown)


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


def judged(model: MetaModel, table: SegmentTable) -> dict[str, Any]:
    """Figures on labelled segments, with intervals over images."""
    seen = table.take(np.isfinite(table.iou))
    iou, p, e = seen.iou, model.probability(seen), model.expected_iou(seen)
    row: dict[str, Any] = dict(vars(judge(p, e, iou)))
    row["auroc_interval"] = interval(lambda r: roc_auc_score(iou[r] > 0, p[r]), seen.image)
    row["r2_interval"] = interval(
        lambda r: 1 - ((e[r] - iou[r]) ** 2).mean() / iou[r].var(), seen.image
    )
    return row
