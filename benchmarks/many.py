"""What evaluating on many machines costs: workers, the driver, the merge, and a forecast.

    python benchmarks/many.py [--images 48] [--parts 1000] [--stages workers,batch,driver,merge]

All stages write `benchmarks/results/many.json`. `workers`: CamVid's validation images, `camvid9`,
by this process alone and by 1 and 2 workers, all of one thread of PyTorch: by the clock, which says
something where the machine is quiet (`load_average`: processes that wanted a processor), and
processor time of all processes, that of importing for the workers apart; `batch`: the network's
pass over 12 of them, 1 to 8 at once, and how far its logits move; the rest is processor time of one
thread, since the machine may be shared. `driver`: made-up images, small, into the sums as of one
process: what each costs, and resident memory as they become more. `merge`: the sums of parts of
made-up images as they lie in files, held to their digests, read and added: what each costs, to so
many small parts, and to a hundred of full size. `forecast`: from these rows, 64 GPUs and 10 million
images; see docs/measured/many_machines.md.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import safetensors.numpy
import torch
import transformers
from evaluate import first, made
from numpy.typing import NDArray
from stages import HELD_OUT, RESULTS, Row, Stage, Topic, run

import doubtmap as dm
from doubtmap.engine import Pairs
from doubtmap.engine.parts import hashes_of
from doubtmap.engine.places import Place
from doubtmap.engine.spread import Spread
from doubtmap.evaluation.asking import Options
from doubtmap.evaluation.parts import SUMS, sums_of
from doubtmap.evaluation.tally import Tally, observe
from doubtmap.memory import give_back
from doubtmap.scores.parsing import parse_scores
from doubtmap.scoring import score_maps

SCORES = "max_softmax,entropy,max_logit,gradient"
TOPIC = Topic("many", "python benchmarks/many.py")
BATCHED = 12
"""Images that go through the network in batches."""
GPUS, MILLIONS = 64, 10
PER_GPU = 20.0
"""Images a second of one GPU that the forecast takes for granted."""


def by_workers(given: Namespace) -> Iterator[Row]:
    """Images a second by one process, and by workers."""
    segmenter = dm.load(str(given.shared / "models/camvid9"))
    dataset = first(f"camvid:{given.shared}/data/camvid:val", given.images)
    for workers in (0, 1, 2):
        start, own, load = time.perf_counter(), time.process_time(), os.getloadavg()[0]
        place = Place(workers=workers, threads=1)
        found = dm.evaluate(
            *(segmenter, dataset, SCORES),
            unknown=HELD_OUT,
            replicates=100,
            options=Options(place=place, examples=0),
        )
        seconds, own = time.perf_counter() - start, time.process_time() - own
        imported, forked = of_forks()
        yield {
            "set": "CamVid",
            "name": f"{workers} workers" if workers else "this process",
            "workers": workers,
            "images": len(dataset),
            "seconds": seconds,
            "images_a_second": len(dataset) / seconds,
            "load_average": max(load, os.getloadavg()[0]),
            "processor_seconds_of_all": own + forked,
            "importing_seconds": imported if workers else 0.0,
            "miou": found.figures["segmentation"]["miou"],
        }


def of_forks() -> tuple[float, float]:
    """Processor seconds of the process that workers are forked from, and of these; it ends then."""
    server: Any = forkserver._forkserver  # type: ignore[attr-defined]
    if server._forkserver_pid is None:
        return 0.0, 0.0
    said = Path(f"/proc/{server._forkserver_pid}/stat").read_text().rpartition(")")[2].split()
    user, system, *of_children = (int(said[at]) / os.sysconf("SC_CLK_TCK") for at in range(11, 15))
    server._stop()
    return user + system, sum(of_children)


def by_batches(given: Namespace) -> Iterator[Row]:
    """Images a second with several at once in the network, and how far logits move."""
    torch.manual_seed(0)
    config = transformers.SegformerConfig(num_labels=11)
    attending = transformers.SegformerForSemanticSegmentation(config).eval()
    networks = {
        "camvid9": (dm.load(str(given.shared / "models/camvid9")), (1, 2, 4, 8)),
        "SegFormer": (dm.load(attending, mean=(0, 0, 0), std=(1, 1, 1)), (1, 4)),
    }
    dataset = first(f"camvid:{given.shared}/data/camvid:val", BATCHED)
    images = torch.stack([dataset[index].image for index in range(len(dataset))])
    for name, (segmenter, batches) in networks.items():
        alone = torch.cat([segmenter(image[None]).native_logits for image in images])
        for batch in batches:
            begun = time.perf_counter(), time.process_time()
            pairs = Pairs(Spread(segmenter, Place(batch=batch)), dataset)
            found = torch.cat([prediction.native_logits for prediction, _ in pairs])
            seconds, processor = time.perf_counter() - begun[0], time.process_time() - begun[1]
            yield {
                "set": "batch",
                "name": f"{name}, {batch}",
                "batch": batch,
                "images": len(dataset),
                "images_a_second": len(dataset) / seconds,
                "processor_seconds_an_image": processor / len(dataset),
                "largest_logit": alone.abs().max().item(),
                "apart": (found - alone).abs().max().item(),
            }


def resident() -> float:
    """Megabytes that this process holds."""
    give_back()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def by_the_driver(given: Namespace) -> Iterator[Row]:
    """What a small image costs the process that sums it, as images become more."""
    prediction, label = made(48, 64)
    maps = score_maps(prediction, parse_scores("max_softmax,entropy"))
    tally, begun = Tally(list(maps), 20), time.process_time()
    seen = observe(0, "image", prediction, label, maps)
    for index in range(10_000):
        seen.meta["index"] = index
        tally.take(seen)
        if index + 1 in (1_000, 5_000, 10_000):
            taken = (time.process_time() - begun) / (index + 1)
            rows = len(json.dumps(tally.images)) / 1e6
            yield {
                "set": "driver",
                "name": f"{index + 1} images",
                "images": index + 1,
                "seconds_an_image": taken,
                "resident_mb": resident(),
                "rows_mb": rows,
            }


SIZED = (
    ("small parts", 48, 64, 1, 20, "entropy"),
    *(
        (f"{len(names.split(','))} scores", 360, 480, 8, 300, names)
        for names in ("entropy", SCORES.removesuffix(",gradient"))
    ),
)
"""Parts by name: height and width of their images, how many, replicates, and scores."""
OTHERS = 4
"""Parts that differ, which are taken in turn."""
LARGE = 100
"""Parts of full size that are merged at most; of small ones as many as were asked for."""


def summed(
    height: int, width: int, images: int, replicates: int, names: str, seed: int
) -> dict[str, NDArray[Any]]:
    """The sums of a part, of one image made so many times."""
    prediction, label = made(height, width, seed=seed)
    maps = score_maps(prediction, parse_scores(names))
    part = Tally(list(maps), replicates)
    for index in range(images):
        part.take(observe(index, "image", prediction, label, maps))
    return part.state()


def by_the_merge(given: Namespace) -> Iterator[Row]:
    """What a part costs the merge."""
    for name, height, width, images, replicates, names in SIZED:
        parts = []
        for seed in range(OTHERS):
            folder = Path(tempfile.mkdtemp())
            atexit.register(shutil.rmtree, folder)
            sums = summed(height, width, images, replicates, names, seed)
            safetensors.numpy.save_file(sums, folder / SUMS)
            parts.append((folder, hashes_of(folder, [SUMS])))
        whole = Tally(names.split(","), replicates)
        begun = time.process_time()
        for count in range(1, (given.parts if height < 100 else min(LARGE, given.parts)) + 1):
            part = parts[count % OTHERS]
            whole.absorb(sums_of(part))
            whole.images.clear()
            if count in (1, 10, 20, 100, 1000):
                yield {
                    "set": "merge",
                    "name": f"{name}, {count} parts",
                    "of": name,
                    "scores": len(whole.scores),
                    "parts": count,
                    "megabytes_a_part": (part[0] / SUMS).stat().st_size / 1e6,
                    "seconds_a_part": (time.process_time() - begun) / count,
                    "resident_mb": resident(),
                }


def foreseen(given: Namespace) -> Iterator[Row]:
    """64 GPUs and 10 million images, from the rows that were measured."""
    rows = json.loads((RESULTS / "many.json").read_text())["rows"]
    merged = [row for row in rows if row["set"] == "merge"]
    driver = max(row["images"] for row in rows if row["set"] == "driver")
    per_image = next(r["rows_mb"] for r in rows if r.get("images") == driver) / driver
    part = max(merged, key=lambda row: (row["scores"], row["parts"]))
    images = MILLIONS * 1_000_000
    run_seconds = images / (GPUS * PER_GPU)
    for parts in (GPUS, 1_000):
        merge = parts * part["seconds_a_part"]
        yield {
            "set": "forecast",
            "name": f"{parts} parts",
            "gpus": GPUS,
            "images": images,
            "images_a_second_and_gpu": PER_GPU,
            "parts": parts,
            "run_seconds": run_seconds,
            "merge_seconds": merge,
            "merge_share": merge / run_seconds,
            "sums_gb": parts * part["megabytes_a_part"] / 1e3,
            "rows_of_images_gb": images * per_image / 1e3,
        }


STAGES = {
    "workers": Stage(TOPIC, by_workers, threads=1),
    "batch": Stage(TOPIC, by_batches),
    "driver": Stage(TOPIC, by_the_driver, threads=1),
    "merge": Stage(TOPIC, by_the_merge, threads=1),
    "forecast": Stage(TOPIC, foreseen, threads=1),
}
OPTIONS = {
    "--images": {"type": int, "default": 48, "help": "of CamVid"},
    "--parts": {"type": int, "default": 1000, "help": "that are merged"},
}

if __name__ == "__main__":
    torch.set_grad_enabled(False)
    run(__doc__, STAGES, OPTIONS)
