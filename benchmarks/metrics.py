"""What figures cost: ranking against scikit-learn, components against a loop over components.

    python benchmarks/metrics.py

Each pair runs in turns in one process, on one thread, and the best round counts. Adds its rows to
`benchmarks/results/speed.json`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

import doubtmap as dm
from doubtmap.metrics.components import EIGHT_NEIGHBOURS, component_figures

COMMAND = "python benchmarks/metrics.py"
RESULTS = Path(__file__).parent / "results" / "speed.json"
PIXELS = 8_000_000


def best_of(rounds: int, **work: Callable[[], object]) -> dict[str, float]:
    """Seconds of the best round of each, taken in turns."""
    seconds = dict.fromkeys(work, float("inf"))
    for _ in range(rounds):
        for name, call in work.items():
            start = time.perf_counter()
            call()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def ranking() -> list[dict[str, Any]]:
    """Three ranking figures of one set of scores."""
    generator = np.random.default_rng(0)
    positive = generator.random(PIXELS) < 0.01
    score = (generator.exponential(size=PIXELS) + positive).astype(np.float32)
    accumulated = dm.metrics.Ranking()
    accumulated.update(score, positive)

    def ours() -> None:
        found = dm.metrics.Ranking()
        found.update(score, positive)
        found.average_precision(), found.auroc(), found.fpr_at_tpr()

    def theirs() -> None:
        average_precision_score(positive, score), roc_auc_score(positive, score)

    seconds = best_of(
        3,
        update=lambda: accumulated.update(score, positive),
        doubtmap=ours,
        scikit_learn=theirs,
    )
    rate = PIXELS / seconds["update"] / 1e6
    state = sum(array.nbytes for array in accumulated.state().values())
    return [
        {"name": "ranking, update", "set": f"{PIXELS:,} pixels", "megapixels_per_second": rate},
        {"name": "ranking, state", "set": f"{PIXELS:,} pixels", "megabytes": state / 1e6},
        {
            "name": "ranking, update and figures",
            "set": f"{PIXELS:,} pixels",
            "seconds": seconds["doubtmap"],
            "speedup_over_scikit_learn": seconds["scikit_learn"] / seconds["doubtmap"],
        },
    ]


def loop_filter(mask: NDArray[np.bool_], smallest: int) -> NDArray[np.int32]:
    """Drop small components one after the other, as the benchmark's own code does."""
    labels, count = ndimage.label(mask, EIGHT_NEIGHBOURS)
    for component in range(1, count + 1):
        if np.count_nonzero(labels == component) < smallest:
            labels[labels == component] = 0
    return np.asarray(labels)


def components() -> list[dict[str, Any]]:
    """One 2-megapixel frame with about 10,000 raw components."""
    generator = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(generator.normal(size=(1024, 2048)), 1.8)
    predicted = noise > 1.4 * noise.std()
    unknown = ndimage.gaussian_filter(generator.normal(size=(1024, 2048)), 20) > 0.03
    valid = np.ones_like(unknown)
    raw = int(ndimage.label(predicted, EIGHT_NEIGHBOURS)[1])
    ours = best_of(5, doubtmap=lambda: component_figures(predicted, unknown, valid, 50, 10))
    loop = best_of(1, loop=lambda: loop_filter(predicted, 50))
    return [
        {
            "name": "components of a frame",
            "set": f"1024 x 2048, {raw:,} raw components",
            "seconds": ours["doubtmap"],
            "speedup_over_loop": loop["loop"] / ours["doubtmap"],
        }
    ]


def main() -> None:
    torch.set_num_threads(1)
    old = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"conditions": {}, "rows": []}
    rows = [row | {"command": COMMAND} for row in (*ranking(), *components())]
    kept = [row for row in old["rows"] if row.get("command") != COMMAND]
    conditions = {"cores": os.cpu_count(), "threads": 1, "numpy": np.__version__}
    result = old | {
        "command": old.get("command", COMMAND),
        "version": dm.__version__,
        "conditions": old["conditions"] | {COMMAND: conditions},
        "rows": kept + rows,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
