"""What all benchmarks share: their options, their stages, and the results that these fill.

A benchmark is a file with a table of stages; each stage makes rows of one topic. Rows made anew
take the place of the old ones, all others stay, so that stages can be run apart. The file of a
topic, `results/TOPIC.json`, is an object of `command`, `version`, `conditions` and `rows`, written
as one condition and one row a line.
"""

from __future__ import annotations

import json
import re
import resource
import statistics
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import doubtmap as dm
from doubtmap.datasets import Dataset
from doubtmap.engine import Pairs
from doubtmap.metrics import Confusion, Histogram, RankingCurve
from doubtmap.metrics.bootstrap import BootstrapHistogram, Weights, interval
from doubtmap.metrics.histogram import Bins
from doubtmap.prediction import Score, Segmenter

HERE = Path(__file__).parent
RESULTS = HERE / "results"
HELD_OUT = ("pedestrian", "bicyclist")
"""Classes of CamVid that `camvid9` never learnt."""

Row = dict[str, Any]
Work = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Topic:
    """One file of results.

    Args:
        name: of the file, without its end.
        command: that writes it.
        key: what rows that are replaced together have alike; without any, all are.
        conditions: under which every stage runs; a stage may add to them.
    """

    name: str
    command: str
    key: tuple[str, ...] = ("stage",)
    conditions: Row = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A part of a benchmark that can be run by itself.

    Args:
        topic: that its rows belong to.
        rows: makes them from the options; what it puts into `given.conditions` is kept.
        threads: of PyTorch; None leaves them as they are.
    """

    topic: Topic
    rows: Callable[[Namespace], Iterable[Row]]
    threads: int | None = 1


def read(topic: str) -> Row:
    """The results of a topic."""
    content: Row = json.loads((RESULTS / f"{topic}.json").read_text())
    return content


def text_of(content: Row) -> str:
    """The same as JSON, one condition and one row a line."""
    conditions = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in content["conditions"].items()]
    parts = [f"{json.dumps(key)}: {json.dumps(content[key])}" for key in ("command", "version")]
    parts.append('"conditions": {\n' + ",\n".join(conditions) + "\n}")
    parts.append('"rows": [\n' + ",\n".join(map(json.dumps, content["rows"])) + "\n]")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def merged(old: Iterable[Row], new: Iterable[Row], key: tuple[str, ...]) -> list[Row]:
    """Old rows, those made anew in the place of the first that they replace."""
    both: list[dict[Any, list[Row]]] = [{}, {}]
    for groups, rows in zip(both, (old, new)):
        for row in rows:
            groups.setdefault(tuple(row.get(name) for name in key), []).append(row)
    return [row for group in (both[0] | both[1]).values() for row in group]


def put(topic: Topic, rows: Sequence[Row], conditions: Row) -> None:
    """Write the rows of a stage among those of others."""
    path = RESULTS / f"{topic.name}.json"
    old = read(topic.name) if path.exists() else {"conditions": {}, "rows": []}
    content = {
        "command": topic.command,
        "version": dm.__version__,
        "conditions": old["conditions"] | conditions,
        "rows": merged(old["rows"], rows, topic.key),
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(text_of(content))


def run(
    about: str | None,
    stages: Mapping[str, Stage],
    options: Mapping[str, Mapping[str, Any]] | None = None,
    default: str = "",
) -> None:
    """Run the stages that the command line asks for.

    Args:
        about: the benchmark's docstring.
        stages: by name.
        options: of this benchmark alone, as `add_argument` takes them.
        default: stages to run where none are named, between commas; empty for all.
    """
    given = parsed(about, stages, options or {}, default)
    given.work.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    for name in given.stages:
        stage = stages[name]
        torch.set_num_threads(stage.threads or threads)
        torch.manual_seed(0)
        given.conditions, rows = dict(stage.topic.conditions), []
        for row in stage.rows(given):
            named = "stage" in stage.topic.key and "stage" not in row
            rows.append({"stage": name} | row if named else row)
            print(told(rows[-1]), flush=True)
        if rows:
            put(stage.topic, rows, given.conditions)


def parsed(
    about: str | None,
    stages: Mapping[str, Stage],
    options: Mapping[str, Mapping[str, Any]],
    default: str,
) -> Namespace:
    """The options of the command line; `stages` as a list."""
    parser = ArgumentParser(description=about, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="data and networks")
    parser.add_argument("--work", type=Path, help="what is kept for the next run")
    parser.add_argument(
        "--stages", default=default or ",".join(stages), help=f"of {', '.join(stages)}"
    )
    for name, how in options.items():
        parser.add_argument(name, **how)
    given = parser.parse_args()
    given.work = given.work or HERE / "work" / Path(parser.prog).stem
    given.stages = given.stages.split(",")
    for name in given.stages:
        if name not in stages:
            parser.error(f"--stages: expected some of {', '.join(stages)}, got {name}")
    return given


def networks_of(text: str) -> dict[str, list[Path]]:
    """`NAME=FOLDER+FOLDER+...,...` of the command line: several differ by their seed alone."""
    pairs = (pair.split("=", 1) for pair in text.split(",") if pair)
    return {name: [Path(folder) for folder in folders.split("+")] for name, folders in pairs}


def mean_of(name: str, rows: Sequence[Row]) -> Row:
    """The mean of rows of networks that differ by their seed alone, and `FIGURE_runs` of each.

    Intervals are left out: those over images are of one network.
    """
    mean: Row = {"name": name, "networks": len(rows)}
    for key, first in rows[0].items():
        runs = [row[key] for row in rows]
        if isinstance(first, float):
            mean |= {key: float(np.mean(runs)), f"{key}_runs": runs}
        elif isinstance(first, list) and not key.endswith("_interval"):
            mean[key] = np.mean(runs, 0).tolist()
        elif isinstance(first, dict) and all(isinstance(v, float) for v in first.values()):
            mean[key] = {part: float(np.mean([run[part] for run in runs])) for part in first}
        elif isinstance(first, str):
            mean.setdefault(key, first)
    return mean


def without_seed(name: str) -> str:
    """`NETWORK: SCORE` of `NETWORK 2: SCORE`, the second of those that differ by their seed."""
    return re.sub(r" [0-9]+: ", ": ", name)


def over_seeds(named: Mapping[str, tuple[Row, Row]]) -> dict[str, tuple[Row, Row]]:
    """Rows and the replicates of their figures, by name without the seed, in means over seeds."""
    groups: dict[str, list[tuple[Row, Row]]] = {}
    for name, one in named.items():
        groups.setdefault(without_seed(name), []).append(one)
    found = {}
    for name, several in groups.items():
        rows, drawn = zip(*several)
        mean = {key: np.mean([one[key] for one in drawn], 0) for key in drawn[0]}
        found[name] = rows[0] if len(rows) == 1 else mean_of(name, rows), mean
    return found


def told(row: Row) -> str:
    """A row for the eye: its texts and numbers."""
    shown = {k: v for k, v in row.items() if isinstance(v, float | int | str)}
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else str(v) for k, v in shown.items())


def show(stage: str, done: int, total: int) -> None:
    """How far a pass is."""
    print(f"\r{stage} {done}/{total}   ", end="\n" if done == total else "", flush=True)


def apart(work: Callable[..., Row], *arguments: Any) -> Row:
    """What some work gives in a process of its own, with the memory that it took above the data."""
    ours, theirs = get_context("fork").Pipe(False)

    def child(end: Connection) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        row = work(*arguments)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        end.send(row | {"megabytes": (after - before) / 1024})

    process = get_context("fork").Process(target=child, args=(theirs,))
    process.start()
    theirs.close()
    row: Row = ours.recv()
    process.join()
    return row


def best_of(work: Work, rounds: int, clock: Callable[[], float] = time.perf_counter) -> Row:
    """Seconds of the best round of each, all taking turns."""
    best = dict.fromkeys(work, float("inf"))
    for _ in range(rounds):
        for name, call in work.items():
            start = clock()
            call()
            best[name] = min(best[name], clock() - start)
    return best


def in_turns(
    ways: Mapping[str, Callable[[Any], object]],
    images: Sequence[Any],
    clock: Callable[[], float] = time.process_time,
) -> list[Row]:
    """Milliseconds for an image, and the ratio to the first way: medians over the images.

    All ways take turns, in another order for each image: whoever follows a large network finds cold
    caches. The first image is seen twice, once to warm up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    orders = np.random.default_rng(0)
    for image in [images[0], *images]:
        for name in orders.permutation(list(ways)):
            start = clock()
            ways[name](image)
            seconds[name].append(clock() - start)
    base = next(iter(seconds.values()))[1:]
    rows = []
    for name, (_, *own) in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(own, base))
        rows.append({"name": name, "milliseconds": 1000 * statistics.median(own), "ratio": ratio})
    return rows


FIGURES = ("auprc", "auroc", "fpr95")
REPLICATES = 300


def figures_of(bins: Bins) -> list[float]:
    """AUPRC, AUROC and FPR95 of unknown (channel 1) against known pixels (channel 0)."""
    curve = RankingCurve.from_bins(bins, bins.counts[1], bins.counts[0])
    if not curve.defined:
        return [float("nan")] * len(FIGURES)
    found = (curve.average_precision(), curve.auroc(), curve.fpr_at_tpr(0.95))
    return [float(figure) for figure in found]


@dataclass
class Found:
    """Known and unknown pixels by the value of one score, and their bootstrap replicates."""

    pixels: Histogram = field(default_factory=lambda: Histogram(1 << 19, shape=(2,)))
    replicates: BootstrapHistogram = field(
        default_factory=lambda: BootstrapHistogram(REPLICATES, channels=2)
    )

    def update(self, values: Any, unknown: Any, weights: Any) -> None:
        """Take one image: `(N,)` values, and which pixels are unknown."""
        self.pixels.update(values, unknown)
        image = Histogram(1 << 15, shape=(2,))
        image.update(values, unknown)
        self.replicates.add(image, weights)


@dataclass(frozen=True)
class Measured:
    """What one network does on one set.

    Args:
        values: by score, `(3,)`: `FIGURES`.
        drawn: by score, `(R, 3)`: of each bootstrap replicate; an image weighs the same in all
            networks' replicates of a number, so differences of them are paired.
        miou: NaN without labels of known classes.
        images: how many.
    """

    values: Mapping[str, NDArray[np.float64]]
    drawn: Mapping[str, NDArray[np.float64]]
    miou: float
    images: int

    def save(self, path: Path) -> None:
        """Write it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"values {name}": array for name, array in self.values.items()}
        arrays |= {f"drawn {name}": array for name, array in self.drawn.items()}
        np.savez(path, miou=np.array(self.miou), images=np.array(self.images), **arrays)

    @classmethod
    def load(cls, path: Path) -> Measured:
        """Read what `save` wrote."""
        with np.load(path) as file:
            parts = [
                {name.split(" ", 1)[1]: file[name] for name in file.files if name.startswith(kind)}
                for kind in ("values ", "drawn ")
            ]
            return cls(parts[0], parts[1], float(file["miou"]), int(file["images"]))


def measured(
    segmenter: Segmenter,
    dataset: Dataset,
    unknown: tuple[str, ...],
    every: int = 1,
    together: int = 1,
    *,
    scores: Mapping[str, Score],
) -> Measured:
    """All scores in one pass over every so many-th image, pixels pooled, void left out.

    So many images in a row are drawn `together` by the bootstrap: frames of a drive look alike.
    """
    indices = range(0, len(dataset), every)
    found = {name: Found() for name in scores}
    weights, confusion = Weights(REPLICATES), Confusion.empty(len(segmenter.class_names))
    for index, (prediction, label) in enumerate(Pairs(segmenter, dataset, unknown, indices)):
        confusion.update(prediction.classes, label, label >= 0)
        counts = label != -2
        is_unknown = (label[counts] == -1).numpy().astype(np.int64)
        for name, score in scores.items():
            values = score(prediction)[counts].numpy()
            found[name].update(values, is_unknown, weights(index // together))
        print(f"\r{dataset.name}: {index + 1}/{len(indices)}   ", end="", flush=True)
    print()
    return Measured(
        {name: np.array(figures_of(one.pixels.view())) for name, one in found.items()},
        {name: one.replicates.figures(figures_of) for name, one in found.items()},
        confusion.miou if confusion.counts.any() else float("nan"),
        len(indices),
    )


def rows_of_runs(name: str, runs: Sequence[Measured], plain: Sequence[Measured]) -> list[Row]:
    """A row for each score: means over networks that differ by their seed alone.

    Args:
        name: of the networks.
        runs: one for each seed.
        plain: of the networks that they are compared with, the same seeds in the same order, of
            which the first so many count; may be empty.

    Returns:
        Rows with `unknown.FIGURE`, the mean over the runs; `_runs`, each of them; `_interval`, the
        bootstrap's over images, with the networks as they are; and `unknown.auprc_gain`, how far
        the mean lies above that of the plain networks' best score, with its paired interval.

    Raises:
        ValueError: for fewer networks to compare with than networks.
    """
    miou = [run.miou for run in runs]
    about: Row = {"miou": None, "images": runs[0].images, "networks": len(runs)}
    if not np.isnan(miou).any():
        about |= {"miou": float(np.mean(miou)), "miou_runs": miou}
    rows = []
    for score in runs[0].values:
        row: Row = {"name": f"{name}: {score}"} | about
        values, drawn = stacked(runs, score)
        for at, figure in enumerate(FIGURES):
            mean = float(values[:, at].mean())
            row[f"unknown.{figure}"] = mean
            row[f"unknown.{figure}_interval"] = interval(mean, drawn.mean(0)[:, at], (0.0, 1.0))
            row[f"unknown.{figure}_runs"] = values[:, at].tolist()
        if plain:
            if len(plain) < len(runs):
                raise ValueError(f"{name}: expected {len(runs)} plain networks, got {len(plain)}")
            row |= gain(values, drawn, plain[: len(runs)])
        rows.append(row)
    return rows


def gain(values: NDArray[np.float64], drawn: NDArray[np.float64], plain: Sequence[Measured]) -> Row:
    """The AUPRC above that of the plain networks' best score, mean over the runs of both."""
    best = max(plain[0].values, key=lambda score: stacked(plain, score)[0][:, 0].mean())
    base, base_drawn = stacked(plain, best)
    mean = float(values[:, 0].mean() - base[:, 0].mean())
    replicates = drawn.mean(0)[:, 0] - base_drawn.mean(0)[:, 0]
    found: Row = {"plain_best": best, "plain_best_auprc": float(base[:, 0].mean())}
    found["unknown.auprc_gain"] = mean
    found["unknown.auprc_gain_interval"] = interval(mean, replicates)
    return found


def stacked(
    runs: Sequence[Measured], score: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`(runs, 3)` values and `(runs, R, 3)` replicates of a score."""
    return (
        np.stack([run.values[score] for run in runs]),
        np.stack([run.drawn[score] for run in runs]),
    )
