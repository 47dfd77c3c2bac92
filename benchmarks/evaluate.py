"""What `evaluate` costs beside the network's forward pass, how it grows, and what others take.

    python benchmarks/evaluate.py [--images 101 --rounds 3] [--stages ratio,growth,others]
    python benchmarks/evaluate.py --stages objects    # milliseconds, on an idle machine

All other stages write `benchmarks/results/evaluate.json`. Everything of a row runs in turns in one
process, after one run to warm up; each time is the least of the rounds, since the machine may be
shared, by wall clock and by processor.

`ratio`: CamVid's validation images, `camvid9`, pedestrian and bicyclist unknown, seven scores, 300
replicates: the whole of `evaluate`, from files to figures and curves, against the network alone.
`growth`: of a single step of it, one image into the sums, with the size of the image and with the
scores, and of the last step, the figures, with the replicates. Made-up maps, one thread. `others`:
AUPRC, AUROC, FPR at 95 % TPR and ECE of one score by plain scikit-learn and by TorchMetrics where
it is installed, against doubtmap's sums; made-up pixels, one thread. `objects` prints what finding
objects takes for a made-up frame of 2 megapixels with 10,000 components.

`same FILE`, in place of stages: writes the figures of a few runs to FILE, all digits of them, or
says what differs where FILE is there already: what a faster version is held to.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from stages import HELD_OUT, Row, Stage, Topic, Work, best_of, run

import doubtmap as dm
from doubtmap.datasets import open_dataset
from doubtmap.datasets.dataset import Dataset
from doubtmap.datasets.pasting import Part
from doubtmap.evaluation.score_figures import measure_scores
from doubtmap.evaluation.tally import Tally, observe
from doubtmap.metrics import Ranking, Reliability
from doubtmap.metrics.components import EIGHT_NEIGHBOURS
from doubtmap.objects import ObjectRule, find_objects, outlines
from doubtmap.prediction import Prediction
from doubtmap.scores.parsing import parse_scores
from doubtmap.scoring import score_maps

SCORES = "max_softmax,margin,entropy,max_logit,energy,divergence,gradient"
TOPIC = Topic("evaluate", "python benchmarks/evaluate.py")


def first(spec: str, count: int) -> Dataset:
    """The first images of a data set."""
    dataset = open_dataset(spec)
    return Part(dataset, range(min(count, len(dataset))), dataset.name)


def least(work: Work, rounds: int) -> tuple[Row, Row]:
    """Least wall and processor seconds of each, all taking turns."""
    clock: Row = dict.fromkeys(work, float("inf"))
    cpu = dict(clock)
    for _ in range(rounds):
        for name, call in work.items():
            wall, used = time.perf_counter(), time.process_time()
            call()
            clock[name] = min(clock[name], time.perf_counter() - wall)
            cpu[name] = min(cpu[name], time.process_time() - used)
    return clock, cpu


def against_forward(given: Namespace) -> Iterator[Row]:
    """`evaluate` against the network alone, on the same images."""
    segmenter = dm.load(str(given.shared / "models/camvid9"))
    dataset = first(f"camvid:{given.shared}/data/camvid:val", given.images)
    images = [dataset[i].image[None] for i in range(len(dataset))]
    segmenter(images[0])

    def forward() -> None:
        for image in images:
            segmenter(image)

    wall, cpu = least(
        {
            "forward": forward,
            "evaluate": lambda: dm.evaluate(segmenter, dataset, SCORES, unknown=HELD_OUT),
        },
        given.rounds,
    )
    given.conditions |= {"threads": torch.get_num_threads(), "rounds": given.rounds}
    for clock, seconds in (("wall", wall), ("processor", cpu)):
        ratio = seconds["evaluate"] / seconds["forward"]
        yield {"set": "CamVid", "name": clock, "images": len(images), **seconds, "ratio": ratio}


def made(
    height: int, width: int, classes: int = 11, seed: int = 0
) -> tuple[Prediction, torch.Tensor]:
    """A prediction and its labels, smooth as a network's are."""
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(1, classes, height // 4, width // 4, generator=generator)
    prediction = Prediction(logits, size=(height, width))
    label = torch.where(
        torch.rand(height, width, generator=generator) < 0.8, prediction.classes[0], 0
    )
    label[: height // 10] = -2
    return prediction, label


def into_sums(names: str, height: int, width: int, rounds: int) -> float:
    """Least seconds of one image into the sums."""
    prediction, label = made(height, width)
    maps = score_maps(prediction, parse_scores(names))
    tally = Tally(list(maps), 300)
    indices = iter(range(10**6))

    def take() -> None:
        tally.take(observe(next(indices), "image", prediction, label, maps))

    take()
    return float(best_of({"take": take}, rounds, time.process_time)["take"])


def growth(given: Namespace) -> Iterator[Row]:
    """Seconds of processor time against scores, pixels and replicates."""
    names = SCORES.removesuffix(",gradient").split(",")
    for count in (1, 2, 4, 6):
        taken = into_sums(",".join(names[:count]), 360, 480, given.rounds)
        yield {"set": "growth", "name": "scores", "scores": count, "seconds": taken}
    for height, width in ((180, 240), (360, 480), (720, 960), (1024, 2048)):
        taken = into_sums("entropy", height, width, given.rounds)
        yield {"set": "growth", "name": "pixels", "pixels": height * width, "seconds": taken}
    prediction, label = made(360, 480)
    maps = score_maps(prediction, parse_scores("entropy"))
    for replicates in (20, 100, 300, 1000):
        tally = Tally(list(maps), replicates)
        for index in range(4):
            tally.take(observe(index, "image", prediction, label, maps))
        work: Work = {"figures": lambda tally=tally: measure_scores(tally)}  # type: ignore[misc]
        taken = best_of(work, given.rounds, time.process_time)["figures"]
        yield {"set": "growth", "name": "replicates", "replicates": replicates, "seconds": taken}


def others(given: Namespace) -> Iterator[Row]:
    """The same figures by other libraries."""
    rng = np.random.default_rng(0)
    positive = rng.random(10 * 360 * 480) < 0.1
    score = (rng.normal(size=positive.size) + positive).astype(np.float32)
    logits = torch.from_numpy(rng.normal(size=(1, 2, 1200, 1440)).astype(np.float32))
    label = torch.from_numpy(positive[: 1200 * 1440].reshape(1, 1200, 1440).astype(np.int64))

    def ours() -> list[float]:
        ranking, reliability = Ranking(), Reliability(2)
        ranking.update(score, positive)
        reliability.update(logits, label)
        curve = ranking.curve
        ranked = (curve.average_precision(), curve.auroc(), curve.fpr_at_tpr())
        return [*map(float, ranked), reliability.ece]

    def plain() -> list[float]:
        fpr, tpr, _ = roc_curve(positive, score, drop_intermediate=False)
        p, truth = logits.softmax(1).movedim(1, -1).reshape(-1, 2).numpy(), label.reshape(-1)
        at = np.ceil(p.max(1) * 15).astype(int) - 1
        gap = np.bincount(at, (p.argmax(1) == truth.numpy()) - p.max(1).astype(float), 15)
        return [
            *(average_precision_score(positive, score), roc_auc_score(positive, score)),
            *(float(fpr[np.searchsorted(tpr, 0.95)]), float(np.abs(gap).sum() / len(p))),
        ]

    work: dict[str, Callable[[], list[float]]] = {"doubtmap": ours, "scikit-learn": plain}
    try:
        from torchmetrics import functional as tm
    except ImportError:
        print("torchmetrics: left out, since it is not installed")
    else:

        def torchmetrics() -> list[float]:
            s, y = torch.from_numpy(score), torch.from_numpy(positive).long()
            fpr, tpr, _ = tm.roc(s.sigmoid(), y, task="binary")
            p = logits.softmax(1).movedim(1, -1).reshape(-1, 2)
            kind: Any = {"task": "multiclass", "num_classes": 2, "n_bins": 15}
            found = (
                tm.average_precision(s.sigmoid(), y, task="binary"),
                tm.auroc(s.sigmoid(), y, task="binary"),
                fpr[torch.searchsorted(tpr, 0.95)],
                tm.calibration_error(p, label.reshape(-1), **kind),
            )
            return [float(figure) for figure in found]

        work["torchmetrics"] = torchmetrics
    wall, cpu = least(dict(work), given.rounds)
    for name, call in work.items():
        figures = dict(zip(("auprc", "auroc", "fpr95", "ece"), call()))
        ratio = cpu[name] / cpu["doubtmap"]
        yield {
            "set": "drawn",
            "name": name,
            "wall": wall[name],
            "processor": cpu[name],
            "ratio": ratio,
            **figures,
        }


def objects(given: Namespace) -> list[Row]:
    """Print the best times for a frame of 2 megapixels with 10,000 components."""
    noise = np.random.default_rng(0).normal(size=(2, 1024, 2048)).astype(np.float32)
    score = ndimage.gaussian_filter(noise[0], 1.9)
    classes = (ndimage.gaussian_filter(noise[1], 20) > 0).astype(np.int64)
    rule = ObjectRule(float(np.quantile(score, 0.9)))
    _, raw = ndimage.label(score > rule.threshold, EIGHT_NEIGHBOURS)
    things = find_objects(score, classes, rule)
    print(f"{raw} components, {len(things)} of at least {rule.smallest} pixels")
    ways: Work = {
        "find": lambda: find_objects(score, classes, rule),
        "find, holes filled": lambda: find_objects(score, classes, replace(rule, fill_holes=True)),
        "find, on a class": lambda: find_objects(score, classes, replace(rule, on=(1,))),
        "outlines": lambda: [outlines(thing.mask, thing.box[:2]) for thing in things],
    }
    for name, seconds in best_of(ways, given.rounds).items():
        print(f"{name}: {1000 * seconds:.0f} ms")
    return []


def same(file: Path, shared: Path = Path("../shared"), count: int = 6) -> None:
    """Write the figures of a few runs, or hold them to those in the file."""
    camvid = dm.load(str(shared / "models/camvid9"))
    val, test = (f"camvid:{shared}/data/camvid:{split}" for split in ("val", "test"))
    runs = {
        "unknown": dm.evaluate(camvid, first(val, count), "all", unknown=HELD_OUT),
        "closed": dm.evaluate(camvid, first(test, count), "all", replicates=50),
        "open set": dm.evaluate(
            *(camvid, first(val, count), "entropy,max_softmax"),
            unknown=HELD_OUT,
            open_set=first(test, count),
        ),
    }
    told = {
        f"{name}: {part}": json.dumps(value, default=str)
        for name, found in runs.items()
        for part, value in {**found.figures, "curves": found.curves}.items()
        if part != "seconds"
    }
    if not file.exists():
        file.write_text(json.dumps(told, indent=1))
        return
    before = json.loads(file.read_text())
    other = [name for name in before | told if before.get(name) != told.get(name)]
    print(f"differ: {', '.join(other)}" if other else "the same to the last digit")


STAGES = {
    "ratio": Stage(TOPIC, against_forward, threads=None),
    "growth": Stage(TOPIC, growth),
    "others": Stage(TOPIC, others),
    "objects": Stage(TOPIC, objects),
}
OPTIONS = {
    "--images": {"type": int, "default": 101, "help": "of CamVid's validation set"},
    "--rounds": {"type": int, "default": 3, "help": "of which the least time counts"},
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["same"]:
        torch.set_num_threads(1)
        same(Path(sys.argv[2]))
    else:
        run(__doc__, STAGES, OPTIONS, default="ratio,growth,others")
