"""The probability that a pixel is wrong, and the promise of risk control.

    python benchmarks/wrong.py [--shared ../shared] [--work DIR] [--stages table,risk,picture]
    python benchmarks/wrong.py --stages elsewhere [--vessels FOLDER]

The network is `camvid9`; pedestrian and bicyclist are unknown, and count for nothing among the
wrong. Density is fitted on train, everything else on val (the drive 0016E5), all is reported on
test: another drive by day (Seq05VD), one at dusk (0001TP), and all of test in fog (strength 3).
Writes `benchmarks/results/wrong.json` and `docs/pictures/wrong_*.svg`. What was measured of each
image is kept in DIR.

Stage `elsewhere`, on other images than CamVid's. Fishyscapes Static and RoadAnomaly21: thresholds
for unknown objects by entropy, calibrated on halves of the set itself, and on CamVid test. CHASE:
`FOLDER` is the network of `benchmarks/segments.py`; the fusion is fitted to persons 9 and 10 and
reported on 11 to 14.
"""

from __future__ import annotations

import pickle
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from segments import chase, vessel_network
from stages import HELD_OUT, Row, Stage, Topic, run, show

import doubtmap as dm
from doubtmap.datasets.corruptions import Corrupted
from doubtmap.datasets.dataset import Dataset
from doubtmap.decisions.threshold import pixels_of
from doubtmap.engine import Pairs
from doubtmap.fitting import fit_score
from doubtmap.metrics import Keeping, RankingCurve
from doubtmap.metrics.accumulator import Array
from doubtmap.metrics.bootstrap import interval
from doubtmap.metrics.histogram import Bins
from doubtmap.metrics.missed import Missed
from doubtmap.reports.charts import reliability_chart
from doubtmap.scores.parsing import parse_scores
from doubtmap.scoring import prepared
from doubtmap.studies.risk_splits import MissedByImage, risk_over_splits, transferred

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
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


def measured(work: Path, shared: Path, name: str) -> Row:
    """Of each image of a set: pixels by step of each score, and each probability's losses."""
    kept = work / f"measured_{name}.pickle"
    if kept.exists():
        return pickle.loads(kept.read_bytes())
    texts = fitted(work, shared)
    scores = dict(zip(texts, parse_scores(list(texts.values())).values()))
    data: Dataset = dm.open_dataset(f"camvid:{shared}/data/camvid:test")
    data = data if name == "clean" else Corrupted(data, name, 3)
    segmenter = prepared(dm.load(shared / "models" / "camvid9"), scores)
    found: Row = {"wrong": {}, "unknown": {}, "losses": {}}
    found["images"] = [data.sample_name(index) for index in range(len(data))]
    for done, (prediction, label) in enumerate(Pairs(segmenter, data, HELD_OUT), 1):
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
        show(name, done, len(data))
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


def figures_of(found: Row, title: str, weights: Array) -> dict[str, Array]:
    """`(R,)` each: figures of one score where images count as often as `weights` `(R, n)` has."""
    _, positives, negatives = found["wrong"][title].tables()
    single = np.zeros(positives.shape[1], bool)
    rows = []
    for wrong, right in zip(weights @ positives, weights @ negatives):
        up = np.arange(len(wrong), dtype=np.float32)
        curve = RankingCurve.from_bins(Bins(np.stack([right, wrong]), up, single), wrong, right)
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


def sets_of(work: Path, shared: Path) -> dict[str, tuple[Row, Array]]:
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


def table(given: Namespace) -> list[Row]:
    """Figures of every score on every set, and what the fusions gain over the best single one."""
    rows = []
    for name, (found, images) in sets_of(given.work, given.shared).items():
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


def gain(figures: dict[str, dict[str, Array]], fusion: str, name: str) -> Row:
    """A fusion's figures minus those of the single score that is best in each of them."""
    singles = [title for title in figures if title not in (PLAIN, FUSION)]
    row: Row = {"stage": "gain", "name": fusion, "set": name}
    for key, values in figures[fusion].items():
        best = max if key in ("wrong.auprc", "wrong.auroc") else min
        able = [title for title in singles if key in figures[title]]
        against = best(able, key=lambda title, key=key: figures[title][key][0])
        row |= _with_intervals({key: values - figures[against][key]})
        row[f"{key}_against"] = against
    return row


def _with_intervals(figures: dict[str, Array]) -> Row:
    row: Row = {}
    for key, values in figures.items():
        row[key] = float(values[0])
        row[f"{key}_interval"] = interval(row[key], values[1:])
    return row


def risk(given: Namespace) -> list[Row]:
    """Measured missed share where the images are exchangeable, and where they are not."""
    sets = sets_of(given.work, given.shared)
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


def _told(splits: list[Any]) -> Row:
    missed = np.array([split.missed for split in splits])
    row: Row = {"missed": float(missed.mean()), "splits": len(missed)}
    row["missed_range"] = [float(x) for x in np.percentile(missed, [2.5, 97.5])]
    return row | {"flagged": float(np.mean([split.flagged for split in splits]))}


def picture(given: Namespace) -> list[Row]:
    """The reliability diagrams of the fusion: confidence is one minus the probability of wrong."""
    for name, (found, images) in sets_of(given.work, given.shared).items():
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


RANKED = ("auprc", "auroc", "aurc")


def by_image(model: str, data: str, unknown: tuple[str, ...], of: str) -> MissedByImage:
    """Entropy of every image's pixels, by step."""
    found = MissedByImage()
    for prediction, label in Pairs(dm.load(model), dm.open_dataset(data), unknown):
        image = Missed.empty()
        image.update(dm.scores.entropy(prediction)[0], *pixels_of(prediction, label, of))
        found.take(image)
    return found


def unknown_rows(shared: Path) -> Iterator[Row]:
    """Halves of two sets, and thresholds from CamVid test on them."""
    model = str(shared / "models" / "camvid9")
    camvid = by_image(model, f"camvid:{shared}/data/camvid:test", HELD_OUT, "unknown")
    for name, layout in (("fishyscapes_static", "fishyscapes"), ("roadanomaly21", "smiyc")):
        found = by_image(model, f"{layout}:{shared}/data/{name}", (), "unknown")
        both = MissedByImage([*camvid.rows, *found.rows])
        _, positives, negatives = both.tables()
        count = len(camvid.rows)
        here = np.arange(count, len(both.rows))
        for alpha in (0.1, 0.2):
            row = {"stage": "elsewhere", "name": f"entropy, alpha {alpha}", "alpha": alpha}
            if alpha == 0.2:  # half of these sets is too few for less
                halves = risk_over_splits(found, alpha, splits=SPLITS)
                yield row | {"set": f"{name}, halves at random"} | _told(halves)
            moved = transferred(positives, negatives, np.arange(count), here, alpha)
            yield row | {"set": f"{name}, from CamVid test"} | _told([moved])


def vessel_rows(shared: Path, work: Path, vessels: Path) -> Iterator[Row]:
    """Wrong pixels of retina vessels: ranking, and halves of the eight images."""
    folder, network = chase(work, shared), vessel_network(vessels)
    segmenter, file = dm.load(network), work / "wrong_chase.safetensors"
    names = ",".join(STATELESS)
    fit_score("wrong", segmenter, dm.open_dataset(f"folder:{folder}:val"), scores=names, out=file)
    test = dm.open_dataset(f"folder:{folder}:test")
    results = dm.evaluate(segmenter, test, f"{names},wrong:{file}")
    for name, found in results.figures["scores"].items():
        row: Row = {"stage": "elsewhere", "name": name, "set": "chase"}
        for key in RANKED:
            row[f"wrong.{key}"] = found["wrong"][key]
            row[f"wrong.{key}_interval"] = found["wrong"].get(f"{key}_interval")
        yield row
    split = risk_over_splits(
        by_image(network, f"folder:{folder}:test", (), "wrong"), 0.2, splits=SPLITS
    )
    start = {"stage": "elsewhere", "name": "entropy, alpha 0.2", "alpha": 0.2}
    yield start | {"set": "chase, halves at random"} | _told(split)


def elsewhere(given: Namespace) -> Iterator[Row]:
    """Both, vessels where their network is there."""
    if given.vessels is not None:
        yield from vessel_rows(given.shared, given.work, given.vessels)
    yield from unknown_rows(given.shared)


TOPIC = Topic(
    "wrong",
    "python benchmarks/wrong.py --stages table,risk,picture,elsewhere --vessels FOLDER",
    ("stage", "set"),
    {"unknown": HELD_OUT, "splits": SPLITS, "images to a block": BLOCK},
)
STAGES = {
    "table": Stage(TOPIC, table),
    "risk": Stage(TOPIC, risk),
    "picture": Stage(TOPIC, picture),
    "elsewhere": Stage(TOPIC, elsewhere),
}
OPTIONS = {"--vessels": {"type": Path, "help": "of `elsewhere`: a folder, see above"}}

if __name__ == "__main__":
    run(__doc__, STAGES, OPTIONS, default="table,risk,picture")
