"""Every score on real road scenes: CamVid (test and val), RoadAnomaly21, Fishyscapes Static.

    python benchmarks/main_job.py [--shared ../shared] [--sets camvid,...]

Writes `benchmarks/results/main_job.json`; a set that is run again replaces its rows.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

import doubtmap as dm
from doubtmap.scores import STATELESS

RESULTS = Path(__file__).parent / "results" / "main_job.json"
ORDERS = (0.1, 0.3, 0.5, 1, 2)
SCORES = [name for name in STATELESS if name != "gradient"] + [
    f"gradient(p={p},label={label},variant={variant})"
    for variant in ("exact", "published")
    for label in ("predicted", "uniform")
    for p in ORDERS
]
SETS: dict[str, dict[str, Any]] = {
    "camvid": {"data": "camvid:{}/camvid:test", "unknown": ["pedestrian", "bicyclist"]},
    "camvid val": {"data": "camvid:{}/camvid:val", "unknown": ["pedestrian", "bicyclist"]},
    "roadanomaly21": {"data": "smiyc:{}/roadanomaly21"},
    "roadanomaly21 at 360x640": {"data": "smiyc:{}/roadanomaly21", "input_size": (360, 640)},
    "fishyscapes static": {"data": "fishyscapes:{}/fishyscapes_static"},
    "fishyscapes static at 360x720": {
        "data": "fishyscapes:{}/fishyscapes_static",
        "input_size": (360, 720),
    },
}


def rows_of(name: str, shared: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run one set; its rows and its conditions."""
    settings = SETS[name]
    segmenter = dm.load(shared / "models" / "camvid9", input_size=settings.get("input_size"))
    dataset = dm.open_dataset(settings["data"].format(shared / "data"))

    def show(stage: str, done: int, total: int) -> None:
        print(f"\r{name}: {stage} {done}/{total}", end="", flush=True)

    start = time.time()
    results = dm.evaluate(
        segmenter, dataset, SCORES, unknown=settings.get("unknown", ()), progress=show
    )
    print(f", {time.time() - start:.0f} s")
    figures = results.figures
    rows = [
        {"name": score, "set": name}
        | {
            f"{kind}.{key}": value
            for kind in ("unknown", "wrong")
            for key, value in found[kind].items()
        }
        for score, found in figures["scores"].items()
    ]
    network = {
        f"{group}.{key}": value
        for group in ("segmentation", "calibration")
        for key, value in figures[group].items()
        if key != "iou"
    }
    rows.append({"name": "network", "set": name} | network)
    conditions = {key: figures[key] for key in ("data", "model", "seconds", "notes")}
    conditions["model"]["source"] = "models/camvid9"
    widest = max(
        row[key][1] - row[key][0]
        for row in rows
        for key in row
        if key.endswith("_bounds") and row[key]
    )
    conditions["widest_bounds"] = widest
    conditions["differences"] = [
        row for row in figures["differences"] if "entropy" in row["scores"]
    ]
    return rows, conditions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--sets", default=",".join(SETS))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    content: dict[str, Any] = {"command": "", "version": "", "conditions": {}, "rows": []}
    if RESULTS.exists():
        content = json.loads(RESULTS.read_text())
    content["command"] = "python benchmarks/main_job.py"
    content["version"] = dm.__version__
    for name in arguments.sets.split(","):
        rows, conditions = rows_of(name, arguments.shared)
        content["conditions"][name] = conditions
        content["rows"] = [row for row in content["rows"] if row["set"] != name] + rows
        RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
