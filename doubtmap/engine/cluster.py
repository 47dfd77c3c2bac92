"""Workers on the machines of a Ray cluster, by Ray Data.

Images go out in chunks, through `map_batches` over a pool of actors of which each opens the
network once. Ray starts actors again that have died, and chunks whose results are lost; what comes
back is streamed, with back-pressure, to this process.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from doubtmap.engine.pool import Done, Work, sendable
from doubtmap.errors import DataError, DoubtmapError, ModelError, UsageError
from doubtmap.version import __version__

log = logging.getLogger("doubtmap")

CHUNK = 256
"""Images whose sums come back as one, at most."""
SMALL = 8
"""Images of a chunk where each comes back by itself."""
ANSWERS = 10.0
"""Seconds within which a cluster answers."""
SHARES = 4
"""Chunks for each worker, at least, so that a slow one holds nobody up."""


def by_ray(
    work: Work,
    numbers: Sequence[int],
    address: str,
    workers: int,
    gpus: float,
    threads: int,
    done: Done,
    ordered: bool = False,
    batch: int = 1,
) -> Generator[tuple[list[int], bytes]]:
    """Let the workers of a cluster look at images.

    Args:
        work: what they do; it must bear to be pickled.
        numbers: of the images.
        address: of the cluster; empty: the one of the environment, or one on this machine.
        workers: how many at most; 0: as many as there is room for.
        gpus: how many devices each has to itself; below 1: how much of one.
        threads: of PyTorch in each.
        done: told of each image, as its chunk comes back.
        ordered: whether chunks are to come back in order, and to be small.
        batch: images that go through a network at once: a chunk is to have as many.

    Yields:
        Numbers of images and what was made of them, in any order.

    Raises:
        UsageError: without Ray, or for a cluster that is not there.
        DataError: where a chunk fails again and again.
    """
    ray = _connected(address)
    ray.data.DataContext.get_current().execution_options.preserve_order = ordered
    most = max(batch, SMALL if ordered else CHUNK)
    size = min(most, max(batch, len(numbers) // (SHARES * max(1, workers))))
    chunks = [[*numbers[at : at + size]] for at in range(0, len(numbers), size)]
    rows = [{"chunk": pickle.dumps(chunk)} for chunk in chunks]
    found = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Looking,
        fn_constructor_args=(sendable(work), __version__, threads, str(Path.cwd())),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers or _room(ray, gpus)),
        num_cpus=1,
        num_gpus=gpus or None,
    )
    taken: set[int] = set()
    try:
        for row in found.iter_rows():
            if row.get("error"):
                raise pickle.loads(row["error"])  # what our own worker has sent
            for covered, result in pickle.loads(row["results"]):
                if again := taken.intersection(covered):  # of a node that was given up too early
                    log.info("%d images came back twice and count once.", len(again))
                    if len(again) < len(covered):
                        raise DataError(
                            f"--engine ray: expected the sums of images that come back twice to be "
                            f"those of before, but {len(covered) - len(again)} of {len(covered)} "
                            f"are new. Run it again; with --out, --resume goes on where it stopped."
                        )
                    continue
                taken.update(covered)
                for number in covered:
                    done(number)
                yield covered, result
    except ray.exceptions.RayError as error:
        raise _translated(error) from error
    if missing := set(numbers) - taken:
        raise DataError(
            f"--engine ray: expected what came of {len(numbers)} images, but the cluster lost that "
            f"of {len(missing)}. Run it again; with --out, --resume goes on where it stopped."
        )


class Looking:
    """An actor that looks at the images of one chunk after the other.

    Args:
        work: pickled.
        version: of doubtmap, where it comes from.
        threads: of PyTorch.
        folder: in which the driver runs; where it is here, too, paths that begin in it are meant.
    """

    def __init__(self, work: bytes, version: str, threads: int, folder: str) -> None:
        self._error: bytes | None = None
        if Path(folder).is_dir():
            os.chdir(folder)
        torch.set_num_threads(threads)  # Ray sets as many as there are processors for an actor
        if version != __version__:
            self._error = pickle.dumps(
                UsageError(
                    f"--engine ray: expected doubtmap {version} on all machines, got {__version__} "
                    f"on {socket.gethostname()}. Install the same everywhere."
                )
            )
            return
        try:
            self._look = pickle.loads(work).open(0)  # what the driver has sent
        except DoubtmapError as error:
            self._error = _from_here(error)
        except (ImportError, OSError) as error:
            self._error = pickle.dumps(
                UsageError(
                    f"--engine ray: {socket.gethostname()}, a machine of the cluster, cannot use "
                    f"what was sent ({error}). Give it the same packages and files, at the same "
                    f"paths."
                )
            )

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Look at a chunk."""
        try:
            if self._error:
                raise pickle.loads(self._error)
            numbers: list[int] = pickle.loads(batch["chunk"][0])
            found = list(self._look(iter(numbers), lambda number: None))
        except DoubtmapError as error:
            return _row([], self._error or _from_here(error))
        return _row(found, b"")


def _from_here(error: DoubtmapError) -> bytes:
    """An error of this machine, which says so: what it misses may be there on the driver's."""
    kind = next(each for each in (UsageError, ModelError, DataError) if isinstance(error, each))
    return pickle.dumps(
        kind(
            f"--engine ray: on {socket.gethostname()}, in {Path.cwd()}: {error} Paths must lead "
            f"to the same files on all machines of the cluster."
        )
    )


def _row(results: list[tuple[list[int], bytes]], error: bytes) -> dict[str, Any]:
    columns = {"results": pickle.dumps(results), "error": error}
    return {name: np.array([value], object) for name, value in columns.items()}


def _connected(address: str) -> Any:
    """Ray, with a cluster."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError(
            "--engine ray: expected Ray, which is not installed. Install it with: "
            "pip install 'doubtmap[ray]'"
        ) from error
    if not ray.is_initialized():
        try:
            _check_answers(address, ray.util.get_node_ip_address)
            ray.init(address=address or None, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"--engine ray: expected a cluster at {address or 'this machine'}, found none "
                f"({str(error).splitlines()[0][:200]}). Start one with: ray start --head; where "
                f"one asks for a token, give RAY_AUTH_MODE and the token here, too."
            ) from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    for name in ("ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray


def _check_answers(address: str, here: Callable[[], str]) -> None:
    """See whether anybody answers at an address, for which Ray would wait for minutes.

    Args:
        address: of the cluster, if one was given.
        here: says where those of this machine are, which Ray takes for `127.0.0.1`, too.

    Raises:
        OSError: where nobody does.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        host = here() if host in ("127.0.0.1", "localhost") else host.strip("[]")
        socket.create_connection((host, int(port)), ANSWERS).close()


def _room(ray: Any, gpus: float) -> int:
    """How many workers the cluster has room for."""
    there = ray.cluster_resources()
    return max(1, int(there.get("GPU", 0) / gpus) if gpus else int(there.get("CPU", 1)))


def _translated(error: Exception) -> DoubtmapError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DoubtmapError):
            return cause
        cause = cause.__cause__
    said = str(error).strip().splitlines()
    return UsageError(f"--engine ray: the cluster gave up: {said[-1][:300] if said else error!r}")
