"""The promise of risk control, and the probability of wrong, on other images than CamVid's.

    python benchmarks/wrong_elsewhere.py [--shared ../shared] [--work DIR] [--vessels FOLDER]

Fishyscapes Static and RoadAnomaly21: thresholds for unknown objects by entropy of `camvid9`,
calibrated on halves of the set itself, and on CamVid test. CHASE: `FOLDER` is the network of
`benchmarks/segments.py`, and DIR its work folder; the fusion is fitted to persons 9 and 10 and
reported on 11 to 14. Adds rows of stage `elsewhere` to `benchmarks/results/wrong.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from segment_vessels import network_of, prepare_chase
from wrong import RESULTS, SPLITS, STATELESS, UNKNOWN, _told

import doubtmap as dm
from doubtmap.decisions.threshold import pixels_of
from doubtmap.engine import Pairs
from doubtmap.fitting import fit_score
from doubtmap.metrics.missed import Missed
from doubtmap.studies.risk_splits import MissedByImage, risk_over_splits, transferred

FIGURES = ("auprc", "auroc", "aurc")


def by_image(model: str, data: str, unknown: tuple[str, ...], of: str) -> MissedByImage:
    """Entropy of every image's pixels, by step."""
    found = MissedByImage()
    for prediction, label in Pairs(dm.load(model), dm.open_dataset(data), unknown):
        image = Missed.empty()
        image.update(dm.scores.entropy(prediction)[0], *pixels_of(prediction, label, of))
        found.take(image)
    return found


def unknown_rows(shared: Path) -> Iterator[dict[str, Any]]:
    """Halves of two sets, and thresholds from CamVid test on them."""
    model = str(shared / "models" / "camvid9")
    camvid = by_image(model, f"camvid:{shared}/data/camvid:test", UNKNOWN, "unknown")
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


def vessel_rows(shared: Path, work: Path, vessels: Path) -> Iterator[dict[str, Any]]:
    """Wrong pixels of retina vessels: ranking, and halves of the eight images."""
    folder, network = prepare_chase(work, shared), network_of(vessels)
    segmenter, file = dm.load(network), work / "wrong_chase.safetensors"
    names = ",".join(STATELESS)
    fit_score("wrong", segmenter, dm.open_dataset(f"folder:{folder}:val"), scores=names, out=file)
    test = dm.open_dataset(f"folder:{folder}:test")
    results = dm.evaluate(segmenter, test, f"{names},wrong:{file}")
    for name, found in results.figures["scores"].items():
        row: dict[str, Any] = {"stage": "elsewhere", "name": name, "set": "chase"}
        for key in FIGURES:
            row[f"wrong.{key}"] = found["wrong"][key]
            row[f"wrong.{key}_interval"] = found["wrong"].get(f"{key}_interval")
        yield row
    split = risk_over_splits(
        by_image(network, f"folder:{folder}:test", (), "wrong"), 0.2, splits=SPLITS
    )
    start = {"stage": "elsewhere", "name": "entropy, alpha 0.2", "alpha": 0.2}
    yield start | {"set": "chase, halves at random"} | _told(split)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/segments"))
    parser.add_argument("--vessels", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.vessels is not None:
        write([*vessel_rows(given.shared, given.work, given.vessels)])
    write([*unknown_rows(given.shared)])


def write(rows: list[dict[str, Any]]) -> None:
    """Put rows into the results, in place of older ones of the same sets."""
    content = json.loads(RESULTS.read_text())
    replaced = {row["set"] for row in rows}
    kept = [r for r in content["rows"] if r["stage"] != "elsewhere" or r["set"] not in replaced]
    content["rows"] = kept + [{"command": "python benchmarks/wrong_elsewhere.py"} | r for r in rows]
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
