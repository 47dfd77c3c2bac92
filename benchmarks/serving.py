"""What a service costs beside the bare network, and what it does when too much is asked.

    python benchmarks/serving.py [--stages service,overload]

`service` starts `doubtmap serve` and asks it for CamVid's test images, in turns with the bare
network in this process on the same images; then as fast as some clients at once can, with batches
and without, in turns. `overload` sends ten times as many requests a second as were answered before,
for a minute: each must be answered with 200, 429 or 503, and memory must stay what it was.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import numpy as np
from stages import Row, Stage, Topic, run

import doubtmap as dm
from doubtmap.datasets.reading import read_image
from doubtmap.scores.parsing import parse_scores
from doubtmap.scoring import score_maps

SERVING = Topic(
    "serving",
    "python benchmarks/serving.py",
    conditions={
        "service": "camvid9, entropy and max_softmax, one thread, 127.0.0.1, client beside it",
    },
)
SCORES = "entropy,max_softmax"
SET = "CamVid test, 480 x 360"
CLIENTS, TIMES, ROUNDS = 4, 10, 6


@dataclass(frozen=True)
class Server:
    """A service that runs in a process of its own."""

    address: str
    process: subprocess.Popen[str]

    @property
    def megabytes(self) -> float:
        """That it holds."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


@contextmanager
def serving(given: Namespace, *options: str) -> Iterator[Server]:
    """A service of one thread; it must end as it should."""
    model = str(given.shared / "models" / "camvid9")
    words = ["serve", model, "--scores", SCORES, "--port", "0", *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "doubtmap", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = next(line for line in process.stderr if " at http://" in line)
    try:
        yield Server(line.split(" at ")[1].split(": ")[0], process)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def photographs(given: Namespace) -> list[Path]:
    """Images to ask for."""
    dataset = dm.open_dataset(f"camvid:{given.shared / 'data' / 'camvid'}:test")
    paths = [Path(files[0]) for files in dataset.files]  # type: ignore[attr-defined]
    return paths[: given.images]


def figures(seconds: Sequence[float], **more: object) -> Row:
    """The usual and the slow case."""
    milliseconds = 1000 * np.array(seconds)
    p50, p99 = (float(np.percentile(milliseconds, at)) for at in (50, 99))
    return {"p50": p50, "p99": p99, **more}


def service(given: Namespace) -> Iterable[Row]:
    """One client in turns with the bare network; then several at once."""
    paths = photographs(given)
    contents = [path.read_bytes() for path in paths]
    images = [read_image(path)[None] for path in paths]
    segmenter, scores = dm.load(given.shared / "models" / "camvid9"), parse_scores(SCORES)
    with serving(given) as server, httpx.Client(base_url=server.address, timeout=60) as client:

        def ask(query: str, index: int) -> None:
            assert client.post(f"/doubt{query}", content=contents[index]).status_code == 200

        ways = {
            "network alone": lambda index: segmenter(images[index]).native_logits,
            "network and two scores": lambda index: score_maps(segmenter(images[index]), scores),
            "POST /doubt, a PNG": lambda index: ask("?answer=doubt", index),
            "POST /doubt, JSON": lambda index: ask("", index),
            "POST /doubt, tensors": lambda index: ask("?answer=tensors", index),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for index in [0, *range(len(paths))]:  # the first warms up
            for name, way in ways.items():
                begun = time.perf_counter()
                way(index)
                seconds[name].append(time.perf_counter() - begun)
    base = np.median(seconds["network alone"][1:])
    for name, (_, *own) in seconds.items():
        ratio = float(np.median(own) / base)
        yield {"name": name, "set": SET, **figures(own), "x network": ratio}
    with serving(given, "--batch", "1") as alone, serving(given, "--batch", "4") as together:
        yield from services_in_turns({"1": alone, "4": together}, contents, given.seconds)


def services_in_turns(
    servers: dict[str, Server], contents: Sequence[bytes], seconds: float
) -> list[Row]:
    """As many requests as several clients get answered, of one service and the other in turns."""
    taken: dict[str, list[float]] = {batch: [] for batch in servers}
    spent = dict.fromkeys(servers, 0.0)
    for _ in range(ROUNDS):
        for batch, server in servers.items():
            begun = time.perf_counter()
            taken[batch] += asyncio.run(closed(server, contents, seconds / 2 / ROUNDS))
            spent[batch] += time.perf_counter() - begun
    return [
        {
            "name": f"{CLIENTS} clients at once, --batch {batch}",
            "set": SET,
            **figures(own, requests_per_second=len(own) / spent[batch]),
        }
        for batch, own in taken.items()
    ]


async def closed(server: Server, contents: Sequence[bytes], seconds: float) -> list[float]:
    """Clients that each ask again as soon as they are answered; how long each answer took."""
    taken: list[float] = []
    end = time.perf_counter() + seconds

    async def ask(client: httpx.AsyncClient, first: int) -> None:
        index = first
        while (begun := time.perf_counter()) < end:
            content = contents[index % len(contents)]
            response = await client.post("/doubt?answer=doubt", content=content)
            assert response.status_code == 200
            taken.append(time.perf_counter() - begun)
            index += CLIENTS

    async with httpx.AsyncClient(base_url=server.address, timeout=60) as client:
        await asyncio.gather(*(ask(client, first) for first in range(CLIENTS)))
    return taken


def overload(given: Namespace) -> Iterable[Row]:
    """A minute of ten times what can be answered."""
    contents = [path.read_bytes() for path in photographs(given)]
    with serving(given) as server:
        asyncio.run(closed(server, contents, 5))
        capacity = len(asyncio.run(closed(server, contents, 15))) / 15
        # Once as full as it gets: what the queue holds is no leak.
        asyncio.run(opened(server, contents, TIMES * capacity, 10))
        before = server.megabytes
        outcomes, seconds, most = asyncio.run(
            opened(server, contents, TIMES * capacity, given.seconds)
        )
        time.sleep(1)
        after = server.megabytes
    yield {
        "name": f"{TIMES} times as many requests as can be answered",
        "set": SET,
        **figures(seconds),
        "seconds": given.seconds,
        "answered_before": capacity,
        "asked_per_second": sum(outcomes.values()) / given.seconds,
        "requests_per_second": outcomes[200] / given.seconds,
        "requests": sum(outcomes.values()),
        "answered": outcomes[200],
        "busy": outcomes[429],
        "late": outcomes[503],
        "lost": sum(n for status, n in outcomes.items() if status not in (200, 429, 503)),
        "megabytes_before": before,
        "megabytes_highest": most,
        "megabytes_after": after,
    }


async def opened(
    server: Server, contents: Sequence[bytes], rate: float, seconds: float
) -> tuple[Counter[int], list[float], float]:
    """Requests at a rate, whatever becomes of those before.

    Returns:
        How many by status, 0 for one without an answer; seconds of those answered with 200;
        the most megabytes that the service held.
    """
    outcomes: Counter[int] = Counter()
    taken: list[float] = []
    most = 0.0

    async def ask(client: httpx.AsyncClient, content: bytes) -> None:
        begun = time.perf_counter()
        try:
            response = await client.post("/doubt?answer=doubt", content=content)
        except httpx.TransportError:
            outcomes[0] += 1
            return
        outcomes[response.status_code] += 1
        if response.status_code == 200:
            taken.append(time.perf_counter() - begun)

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=server.address, timeout=120, limits=limits) as client:
        begun, asked = time.perf_counter(), set[asyncio.Task[None]]()
        for index in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begun + index / rate - time.perf_counter()))
            asked.add(task := asyncio.create_task(ask(client, contents[index % len(contents)])))
            task.add_done_callback(asked.discard)
            most = max(most, server.megabytes)
        await asyncio.gather(*asked)
    return outcomes, taken, most


OPTIONS = {
    "--images": {"type": int, "default": 100, "help": "of CamVid"},
    "--seconds": {"type": float, "default": 60.0, "help": "of each stage's busy part"},
}
STAGES = {"service": Stage(SERVING, service), "overload": Stage(SERVING, overload)}

if __name__ == "__main__":
    run(__doc__, STAGES, OPTIONS)
