"""What all benchmarks share: their options, their stages, and the results that these fill.

A benchmark is a file with a table of stages; each stage makes rows of one topic. Rows made anew
take the place of the old ones, all others stay, so that stages can be run apart. The file of a
topic, `results/TOPIC.json`, is an object of `command`, `version`, `conditions` and `rows`, written
as one condition and one row a line.
"""

from __future__ import annotations

import json
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

import doubtmap as dm

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
