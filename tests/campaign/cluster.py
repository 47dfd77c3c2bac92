"""An evaluation and doubt maps on a Ray cluster of two nodes, one of which is killed midway.

    python tests/campaign/cluster.py [--images 101] [--times 5] [--only score]

The nodes are processes of this machine, of one thread each as Ray has them; so one process has one
thread here, too. What `evaluate` says must be, but for times, what it says in one process, to the
last bit, and, of all of CamVid's validation images, what `benchmarks/results/main_job.json` has.
The maps of `--photographs` must be, byte for byte, those of one process. Runs and kills go into
`tests/campaign/results.json`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import record

import doubtmap as dm
from doubtmap.datasets import open_dataset
from doubtmap.datasets.pasting import Part
from doubtmap.engine.places import Place
from doubtmap.engine.spread import Spread
from doubtmap.evaluation.asking import Options
from doubtmap.evaluation.results import strict_figures
from doubtmap.images import write_scores
from doubtmap.scores.parsing import parse_scores

HELD_OUT = ("pedestrian", "bicyclist")
SCORES = "max_softmax,entropy,max_logit,divergence"
MAIN_JOB = Path(__file__).parents[2] / "benchmarks/results/main_job.json"
SET, WHOLE = "camvid val", 101
"""Of the main job: a set, and how many images it has."""
NEAR = 1e-3
"""How far figures may lie from the main job's. It ran on two threads, by which the last bits of
logits are others, and so may be a threshold and the components at it."""

ALONE = Place(threads=1)
"""One process."""

Kill = Callable[[str, int, int], None]


@contextmanager
def two_nodes() -> Iterator[tuple[Place, Kill, list[int]]]:
    """A cluster, what kills one of its nodes after a quarter of the images, and when it did."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    killed: list[int] = []

    def kill(stage: str, done: int, total: int) -> None:
        if stage in ("pixels", "score") and done >= total // 4 and not killed:
            killed.append(done)
            try:
                cluster.remove_node(nodes[1], allow_graceful=False)
            except ValueError:  # it is the one through which this process speaks to the cluster
                cluster.remove_node(nodes[0], allow_graceful=False)
            print(f"node killed after {done} of {total} images", flush=True)

    try:
        yield Place(engine=f"ray:{cluster.address}", workers=2, threads=1), kill, killed
        assert killed, "the run ended before a node could be killed"
    finally:
        ray.shutdown()
        cluster.shutdown()


def differing(one: object, other: object, name: str = "") -> list[str]:
    """Names of figures that are not the same; times are passed over."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = dict.fromkeys([*one, *other])
        keys.pop("seconds", None)
        pairs = [(f"{name}.{key}", one.get(key), other.get(key)) for key in keys]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(f"{name}[{at}]", *both) for at, both in enumerate(zip(one, other))]
    else:
        return [] if json.dumps(one) == json.dumps(other) else [f"{name}: {one} and {other}"]
    return [told for key, a, b in pairs for told in differing(a, b, key)]


def evaluated(given: Namespace) -> int:
    """Evaluate in one process and, as often as asked for, on two nodes; how often it differed."""
    segmenter, dataset = dm.load(given.model), open_dataset(given.data)
    if given.images < len(dataset):
        dataset = Part(dataset, range(given.images), dataset.name)
    unknown = [name for name in HELD_OUT if name in dataset.class_names]

    def run(place: Place, progress: Kill | None = None) -> dict[str, Any]:
        start, options = time.monotonic(), Options(place=place)
        found = dm.evaluate(
            *(segmenter, dataset, SCORES), unknown=unknown, options=options, progress=progress
        )
        where = "two nodes" if place.elsewhere else "one process"
        print(f"evaluate, {where}: {time.monotonic() - start:.0f} s", flush=True)
        return found.figures

    one, apart = run(ALONE), 0
    for _ in range(given.times):
        with two_nodes() as (place, kill, _):
            found = run(place, kill)
        differ = differing(strict_figures(one), strict_figures(found))
        apart += bool(differ)
        print(f"{len(differ)} figures differ {differ[:5]}", flush=True)
    if given.data.endswith("camvid:val") and len(dataset) == WHOLE:
        count, far = from_main_job(one)
        print(f"{count} figures of main_job.json, at most {far:.2g} apart", flush=True)
        assert far <= NEAR
    return apart


def from_main_job(figures: dict[str, Any]) -> tuple[int, float]:
    """How many numbers the main job has of these scores, and how far from its they lie at most."""
    rows = [row for row in json.loads(MAIN_JOB.read_text())["rows"] if row["set"] == SET]
    apart = []
    for row in rows:
        of = figures["scores"].get(row["name"], figures if row["name"] == "network" else None)
        for key, value in row.items() if of else ():
            kind, _, name = key.partition(".")
            if isinstance(value, float):
                apart.append(abs(of[kind][name] - value))
    return len(apart), max(apart)


def scored(given: Namespace) -> int:
    """Maps by one process and, as often as asked for, on two nodes; how often they differed."""
    segmenter, paths = dm.load(given.model), sorted(Path(given.photographs).iterdir())
    apart = 0
    with tempfile.TemporaryDirectory() as folder:
        asked = paths, parse_scores("entropy,energy")
        start = time.monotonic()
        with ALONE.alike():
            write_scores(segmenter, *asked, Path(folder, "one"))
        print(f"score, one process: {time.monotonic() - start:.0f} s", flush=True)
        one = written(Path(folder, "one"))
        for _ in range(given.times):
            with two_nodes() as (place, kill, _):
                start = time.monotonic()
                write_scores(Spread(segmenter, place), *asked, Path(folder, "two"), progress=kill)
                print(f"score, two nodes: {time.monotonic() - start:.0f} s", flush=True)
            two = written(Path(folder, "two"))
            shutil.rmtree(Path(folder, "two"))
            differ = [name for name in one | two if one.get(name) != two.get(name)]
            apart += bool(differ)
            print(f"{len(differ)} of {len(one)} files differ {differ[:5]}", flush=True)
    return apart


def written(folder: Path) -> dict[str, bytes]:
    """All files by their names."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


RUNS = {"evaluate": evaluated, "score": scored}


def main() -> None:
    """Evaluate and score on two nodes, of each of which one is killed."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--model", default="../shared/models/camvid9")
    asked.add_argument("--data", default="camvid:../shared/data/camvid:val")
    asked.add_argument("--images", type=int, default=WHOLE)
    asked.add_argument("--photographs", default="../shared/data/dubai_aerial/images")
    asked.add_argument("--times", type=int, default=1)
    asked.add_argument("--only", choices=list(RUNS))
    given = asked.parse_args()
    rows = []
    for name in [given.only] if given.only else RUNS:
        failed = RUNS[name](given)
        same = given.times - failed
        counts = {"runs": given.times, "kills": given.times, "same": same, "failed": failed}
        rows.append({"name": f"{name}, Ray cluster", **counts})
    command = f"python tests/campaign/cluster.py --times {given.times}"
    command += f" --only {given.only}" if given.only else ""
    record.write("kill", command, rows, whole=False)
    sys.exit(any(row["failed"] for row in rows))


if __name__ == "__main__":
    main()
