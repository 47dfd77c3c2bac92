"""How cost grows: with images, pixels, classes and scores.

    python benchmarks/growth.py [--rounds 7] [--images 1,10,100,1000]

Pixels, classes and scores: the scores of one frame from quarter-size logits, on one thread, all
sizes taking turns in one process; the best round's processor time counts. Images: `evaluate` with
the demo network on synthetic streets, each count in a process of its own, whose peak memory is
read at its end. Writes `benchmarks/results/growth.json`; `scripts/draw_growth.py` draws it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from kernels import conditions

import doubtmap as dm
from doubtmap.prediction import Prediction
from doubtmap.scores import STATELESS
from doubtmap.scores.parsing import parse_scores
from doubtmap.scoring import score_maps
from doubtmap.streets.synthetic import SyntheticStreets

COMMAND = "python benchmarks/growth.py"
RESULTS = Path(__file__).parent / "results" / "growth.json"
FRAMES = [(224, 448), (512, 1024), (1024, 2048), (2048, 4096), (4096, 8192)]
CLASSES = (2, 5, 10, 19, 50, 100, 200)
OF_LOGITS = tuple(name for name in STATELESS if name != "gradient")
STREET = (96, 192)
Row = dict[str, Any]


def work_on(
    classes: int, size: tuple[int, int], names: tuple[str, ...], features: int = 0
) -> Callable[[], object]:
    """Scoring one frame whose network predicted at a quarter of its size."""
    native = (size[0] // 4, size[1] // 4)
    logits = torch.randn(1, classes, *native) * 4
    inner = torch.randn(1, features, *native) if features else None
    scores = parse_scores(",".join(names))
    return lambda: score_maps(Prediction(logits, size=size, features=inner), scores)


def best_of(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Processor seconds of the best round of each, all taking turns."""
    best = dict.fromkeys(work, float("inf"))
    for _ in range(rounds):
        for name, call in work.items():
            start = time.process_time()
            call()
            best[name] = min(best[name], time.process_time() - start)
    return best


def of_frames(rounds: int) -> list[Row]:
    """Pixels, classes and scores."""
    sets = {
        "pixels": {h * w: work_on(19, (h, w), OF_LOGITS) for h, w in FRAMES},
        "classes": {c: work_on(c, (512, 1024), OF_LOGITS) for c in CLASSES},
        "scores": {
            n: work_on(19, (1024, 2048), STATELESS[:n], 256 if n == len(STATELESS) else 0)
            for n in range(1, len(STATELESS) + 1)
        },
    }
    work = {f"{axis} {at}": call for axis, calls in sets.items() for at, call in calls.items()}
    seconds = best_of(work, rounds)
    rows = []
    for axis, calls in sets.items():
        for at in calls:
            taken = seconds[f"{axis} {at}"]
            row: Row = {"name": axis, "set": f"{axis} {at}", axis: at, "seconds": taken}
            if axis == "pixels":
                row["nanoseconds_per_pixel"] = 1e9 * taken / at
            if axis == "classes":
                row["nanoseconds_per_pixel_and_class"] = 1e9 * taken / (at * 512 * 1024)
            rows.append(row)
    return rows


def of_images(count: int) -> Row:
    """What `evaluate` takes; run in a process of its own."""
    segmenter, streets = dm.load("demo"), SyntheticStreets(count, size=STREET)
    segmenter(streets[0].image[None])
    start = time.process_time()
    dm.evaluate(segmenter, streets, "entropy,max_logit")
    seconds = time.process_time() - start
    status = Path("/proc/self/status").read_text()
    peak = 1024 * int(status.split("VmHWM:")[1].split()[0])
    return {
        "name": "images",
        "set": f"images {count}",
        "images": count,
        "seconds": seconds,
        "seconds_per_image": seconds / count,
        "peak_megabytes": peak / 1e6,
    }


def in_a_process(count: int) -> Row:
    done = subprocess.run(
        [sys.executable, __file__, "--one", str(count)], capture_output=True, text=True, check=True
    )
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", default="1,10,100,1000")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.one is not None:
        print(json.dumps(of_images(options.one)))
        return
    seen = conditions(options.rounds) | {"street": f"{STREET[0]} x {STREET[1]}"}
    rows = of_frames(options.rounds)
    rows += [in_a_process(int(count)) for count in options.images.split(",")]
    for row in rows:
        print(row)
    result = {"command": COMMAND, "version": dm.__version__, "conditions": seen, "rows": rows}
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
