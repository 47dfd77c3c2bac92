"""An evaluation on a Ray cluster of two nodes, one of which is killed midway.

    python tests/campaign/cluster.py [--data camvid:../shared/data/camvid:val --images 48]

The nodes are processes of this machine. What `evaluate` says must be, but for times, what it says
in one process, to the last bit.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import doubtmap as dm
from doubtmap.datasets import open_dataset
from doubtmap.datasets.pasting import Part
from doubtmap.engine.places import Place
from doubtmap.evaluation.asking import Options
from doubtmap.evaluation.results import strict_figures

HELD_OUT = ("pedestrian", "bicyclist")
SCORES = "max_softmax,entropy,max_logit,gradient"


def plain(figures: dict[str, object]) -> str:
    """Figures as text, without times."""
    kept = {key: value for key, value in strict_figures(figures).items() if key != "seconds"}
    return json.dumps(kept)


def main() -> None:
    """Evaluate on two nodes, and kill one."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--model", default="../shared/models/camvid9")
    asked.add_argument("--data", default="camvid:../shared/data/camvid:val")
    asked.add_argument("--images", type=int, default=48)
    given = asked.parse_args()
    import ray
    from ray.cluster_utils import Cluster

    segmenter, dataset = dm.load(given.model), open_dataset(given.data)
    dataset = Part(dataset, range(min(given.images, len(dataset))), dataset.name)
    unknown = [name for name in HELD_OUT if name in dataset.class_names]
    start = time.monotonic()
    one = dm.evaluate(segmenter, dataset, SCORES, unknown=unknown, replicates=100).figures
    print(f"one process: {time.monotonic() - start:.0f} s", flush=True)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    killed = []

    def kill(stage: str, done: int, total: int) -> None:
        if stage == "pixels" and done >= total // 4 and not killed:
            killed.append(done)
            try:
                cluster.remove_node(nodes[1], allow_graceful=False)
            except ValueError:  # it is the one through which this process speaks to the cluster
                cluster.remove_node(nodes[0], allow_graceful=False)
            print(f"node killed after {done} of {total} images", flush=True)

    place = Place(engine=f"ray:{cluster.address}", workers=2)
    start = time.monotonic()
    found = dm.evaluate(
        *(segmenter, dataset, SCORES),
        unknown=unknown,
        replicates=100,
        options=Options(place=place),
        progress=kill,
    ).figures
    print(f"two nodes: {time.monotonic() - start:.0f} s", flush=True)
    ray.shutdown()
    cluster.shutdown()
    assert killed, "the run ended before a node could be killed"
    assert plain(found) == plain(one), "the figures differ"
    print("the same figures to the last bit")
    sys.exit(0)


if __name__ == "__main__":
    main()
