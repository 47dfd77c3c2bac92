"""The probability that a pixel is wrong, and the promise of risk control, on CamVid.

    python benchmarks/wrong.py [--shared ../shared] [--work DIR] [--stages table,risk,picture]

The network is `camvid9`; pedestrian and bicyclist are unknown, and count for nothing among the
wrong. Density is fitted on train, everything else on val (the drive 0016E5), all is reported on
test: another drive by day (Seq05VD), one at dusk (0001TP), and all of test in fog (strength 3).

Writes `benchmarks/results/wrong.json` and `docs/pictures/wrong_*.svg`; a stage that is run again
replaces its rows. What was measured of each image is kept in DIR.
"""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import doubtmap as dm
from doubtmap.datasets.corruptions import Corrupted
from doubtmap.datasets.dataset import Dataset
from doubtmap.decisions.threshold import pixels_of
from doubtmap.engine import Pairs
from doubtmap.fitting import fit_score
from doubtmap.metrics import Keeping, RankingCurve
from doubtmap.metrics.accumulator import Array
from doubtmap.metrics.bootstrap import interval
from doubtmap.metrics.missed import Missed
from doubtmap.reports.charts import reliability_chart
from doubtmap.scores.parsing import parse_scores
from doubtmap.scoring import prepared
from doubtmap.studies.risk_splits import MissedByImage, risk_over_splits, transferred

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "wrong.json"
PICTURES = ROOT / "docs" / "pictures"
UNKNOWN = ("pedestrian", "bicyclist")
STATELESS = dm.scores.STATELESS
BINS, REPLICATES, SPLITS, BLOCK = 15, 300, 200, 10
LOSSES = ("ece", "brier", "nll")
ALPHAS = (0.05, 0.1, 0.2)
STYLE = (
    "<style>text{font:12px system-ui,sans-serif;fill:#1c2733}svg{background:#fff}"
    ".grid{stroke:#dfe4ea;fill:none}.tick{fill:#66717d}.accuracy{fill:#c9d6e6}"
    ".guide{stroke:#66717d;fill:none;stroke-dasharray:4 4}.share{fill:#66717d}"
    ".level{stroke:#26547c;stroke-width:2;fill:none}.over{fill:#d1495b;fill-opacity:.5}"
    ".under{fill:#2a9d8f;fill-opacity:.4}</style>"
)
FUSION, PLAIN = "all of them and density", "all stateless"


def fitted(work: Path, shared: Path) -> dict[str, str]:
    """Every row's score as on the command line, fitted where it must be, by title."""
    model, data = shared / "models" / "camvid9", f"camvid:{shared}/data/camvid"
    density = work / "density.safetensors"
    if not density.exists():
        fit_score("density", dm.load(model), dm.open_dataset(f"{data}:train"), out=density)
    singles = {name: name for name in STATELESS} | {"density": f"density:{density}"}
    fusions = {f"{title}, calibrated": text for title, text in singles.items()}
    fusions |= {PLAIN: ",".join(STATELESS), FUSION: ",".join(singles.values())}
    texts = dict(singles)
    for title, scores in fusions.items():
        file = work / f"wrong {title}.safetensors".replace(" ", "_").replace(",", "")
        if not file.exists():
            val = dm.open_dataset(f"{data}:val")
            found = fit_score("wrong", dm.load(model), val, scores=scores, out=file)
            print(title, *found.notes)
        texts[title] = f"wrong:{file}"
    return texts


def measured(work: Path, shared: Path, name: str) -> dict[str, Any]:
    """Of each image of a set: pixels by step of each score, and each probability's losses."""
    kept = work / f"measured_{name}.pickle"
    if kept.exists():
        return pickle.loads(kept.read_bytes())
    texts = fitted(work, shared)
    scores = dict(zip(texts, parse_scores(list(texts.values())).values()))
    data: Dataset = dm.open_dataset(f"camvid:{shared}/data/camvid:test")
    data = data if name == "clean" else Corrupted(data, name, 3)
    segmenter = prepared(dm.load(shared / "models" / "camvid9"), scores)
    found: dict[str, Any] = {"wrong": {}, "unknown": {}, "losses": {}}
    found["images"] = [data.sample_name(index) for index in range(len(data))]
    for done, (prediction, label) in enumerate(Pairs(segmenter, data, UNKNOWN), 1):
        for title, score in scores.items():
            values = score(prediction)[0]
            for of in ("wrong", "unknown") if title in ("entropy", FUSION) else ("wrong",):
                positive, valid = pixels_of(prediction, label, of)
                image = Missed.empty()
                image.update(values, positive, valid)
                found[of].setdefault(title, MissedByImage()).take(image)
            if texts[title].startswith("wrong:") or title == "max_softmax":
                positive, valid = pixels_of(prediction, label, "wrong")
                row = losses(values[valid].numpy(), positive[valid].numpy())
                found["losses"].setdefault(title, []).append(row)
        print(f"\r{name}: {done}/{len(data)}   ", end="", flush=True)
    print()
    kept.write_bytes(pickle.dumps(found))
    return found


def losses(p: Array, wrong: Array) -> Array:
    """`(16, 3)` of one image: by bin pixels, wrong ones and sum of p; then pixels, Brier, NLL."""
    p = p.astype(np.float64)
    at = np.clip(np.ceil(p * BINS).astype(int) - 1, 0, BINS - 1)
    sums = [np.bincount(at, weights, BINS) for weights in (None, wrong, p)]
    likely = np.where(wrong, p, 1 - p).clip(1e-12)
    last = [len(p), float(((p - wrong) ** 2).sum()), float(-np.log(likely).sum())]
    return np.concatenate([np.stack(sums, 1), [last]])


def figures_of(found: dict[str, Any], title: str, weights: Array) -> dict[str, Array]:
    """`(R,)` each: figures of one score where images count as often as `weights` `(R, n)` has."""
    _, positives, negatives = found["wrong"][title].tables()
    single = np.zeros(positives.shape[1], bool)
    rows = []
    for wrong, right in zip(weights @ positives, weights @ negatives):
        up = np.arange(len(wrong), dtype=np.float32)
        held = np.flatnonzero(wrong + right)[::-1]
        curve = RankingCurve(wrong[held], right[held], up[held], single[held])
        risk = Keeping(wrong + right, wrong).area_under_risk()
        rows.append([float(curve.average_precision()), float(curve.auroc()), risk])
    figures = dict(zip(("wrong.auprc", "wrong.auroc", "wrong.aurc"), np.array(rows).T))
    if title in found["losses"]:
        sums = np.tensordot(weights, np.stack(found["losses"][title]), 1)
        pixels = sums[:, BINS, 0]
        gaps = np.abs(sums[:, :BINS, 1] - sums[:, :BINS, 2]).sum(1)
        figures |= {"ece": gaps / pixels, "brier": sums[:, BINS, 1] / pixels}
        figures["nll"] = sums[:, BINS, 2] / pixels
    return figures


def drawn(images: Array, count: int) -> Array:
    """`(1 + R, n)`: every chosen image once, then blocks of ten counted Poisson(1) times each."""
    blocks = -(-len(images) // BLOCK)
    times = np.random.default_rng(0).poisson(1.0, (REPLICATES, blocks))
    weights = np.zeros((1 + REPLICATES, count))
    weights[0, images] = 1
    weights[1:, images] = np.repeat(times, BLOCK, 1)[:, : len(images)]
    return weights


def sets_of(work: Path, shared: Path) -> dict[str, tuple[dict[str, Any], Array]]:
    """What was measured, and which of the images, by set."""
    clean, fog = measured(work, shared, "clean"), measured(work, shared, "fog")
    dusk = np.array([name.startswith("0001TP") for name in clean["images"]])
    every = np.arange(len(dusk))
    return {
        "test": (clean, every),
        "day": (clean, every[~dusk]),
        "dusk": (clean, every[dusk]),
        "fog": (fog, every),
    }


def table(work: Path, shared: Path) -> list[Any]:
    """Figures of every score on every set, and what the fusions gain over the best single one."""
    rows = []
    for name, (found, images) in sets_of(work, shared).items():
        weights = drawn(images, len(found["images"]))
        figures = {title: figures_of(found, title, weights) for title in found["wrong"]}
        for title, each in figures.items():
            kinds = {
                "ranking": {key: x for key, x in each.items() if key not in LOSSES},
                "probability": {key: x for key, x in each.items() if key in LOSSES},
            }
            if title.endswith(", calibrated"):
                del kinds["ranking"]  # but for ties that of the score itself
            for stage, part in kinds.items():
                if part:
                    start = {"stage": stage, "name": title, "set": name}
                    rows.append(start | _with_intervals(part))
        for fusion in (PLAIN, FUSION):
            rows.append(gain(figures, fusion, name))
    return rows


def gain(figures: dict[str, dict[str, Array]], fusion: str, name: str) -> dict[str, Any]:
    """A fusion's figures minus those of the single score that is best in each of them."""
    singles = [title for title in figures if title not in (PLAIN, FUSION)]
    row: dict[str, Any] = {"stage": "gain", "name": fusion, "set": name}
    for key, values in figures[fusion].items():
        best = max if key in ("wrong.auprc", "wrong.auroc") else min
        able = [title for title in singles if key in figures[title]]
        against = best(able, key=lambda title, key=key: figures[title][key][0])
        row |= _with_intervals({key: values - figures[against][key]})
        row[f"{key}_against"] = against
    return row


def _with_intervals(figures: dict[str, Array]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, values in figures.items():
        row[key] = float(values[0])
        row[f"{key}_interval"] = interval(row[key], values[1:])
    return row


def risk(work: Path, shared: Path) -> list[Any]:
    """Measured missed share where the images are exchangeable, and where they are not."""
    sets = sets_of(work, shared)
    (clean, day), (_, dusk), (fog, _) = sets["day"], sets["dusk"], sets["fog"]
    rows = []
    for of in ("wrong", "unknown"):
        for title in ("entropy", FUSION):
            here = clean[of][title]
            merged = MissedByImage([*here.rows, *fog[of][title].rows])
            _, positives, negatives = merged.tables()
            for alpha in ALPHAS:
                start = {"stage": "risk", "name": f"{title}, alpha {alpha}", "alpha": alpha}
                for kind, block in (("halves at random", 1), ("halves of runs of ten", BLOCK)):
                    split = risk_over_splits(here, alpha, splits=SPLITS, block=block)
                    rows.append(start | {"set": f"{of}, {kind}"} | _told(split))
                count = len(here.rows)
                shifts = {
                    "day to dusk": [(day, dusk)],
                    "dusk to day": [(dusk, day)],
                    "clean to fog": [(a, b + count) for a, b in halves(count)],
                    "fog to clean": [(a + count, b) for a, b in halves(count)],
                }
                for kind, parts in shifts.items():
                    found = [transferred(positives, negatives, *part, alpha) for part in parts]
                    rows.append(start | {"set": f"{of}, {kind}"} | _told(found))
    return rows


def halves(count: int) -> list[tuple[Array, Array]]:
    """Random halves of the images, `SPLITS` times."""
    generator = np.random.default_rng(0)
    orders = [generator.permutation(count) for _ in range(SPLITS)]
    return [(np.sort(o[: count // 2]), np.sort(o[count // 2 :])) for o in orders]


def _told(splits: list[Any]) -> dict[str, Any]:
    missed = np.array([split.missed for split in splits])
    row: dict[str, Any] = {"missed": float(missed.mean()), "splits": len(missed)}
    row["missed_range"] = [float(x) for x in np.percentile(missed, [2.5, 97.5])]
    return row | {"flagged": float(np.mean([split.flagged for split in splits]))}


def picture(work: Path, shared: Path) -> list[Any]:
    """The reliability diagrams of the fusion: confidence is one minus the probability of wrong."""
    for name, (found, images) in sets_of(work, shared).items():
        if name == "test":
            continue
        sums = np.stack(found["losses"][FUSION])[images].sum(0)[:BINS][::-1]
        pixels, wrong, p = sums.T
        some = np.where(pixels > 0, pixels, np.nan)
        columns = {"confidence": 1 - p / some, "accuracy": 1 - wrong / some}
        diagram = {key: [float(x) for x in values] for key, values in columns.items()}
        drawing = reliability_chart(diagram | {"share": (pixels / pixels.sum()).tolist()})
        text = str(drawing).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
        (PICTURES / f"wrong_{name}.svg").write_text(text.replace(">", f">{STYLE}", 1) + "\n")
    return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/wrong"))
    parser.add_argument("--stages", default="table,risk,picture")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    stages: dict[str, Callable[[Path, Path], list[Any]]] = {
        "table": table,
        "risk": risk,
        "picture": picture,
    }
    content: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
    for stage in arguments.stages.split(","):
        rows = stages[stage](arguments.work, arguments.shared)
        replaced = {row["stage"] for row in rows}
        kept = [row for row in content["rows"] if row["stage"] not in replaced]
        content = {
            "command": "python benchmarks/wrong.py",
            "version": dm.__version__,
            "conditions": {"unknown": UNKNOWN, "splits": SPLITS, "images to a block": BLOCK},
            "rows": [*kept, *rows],
        }
        RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
