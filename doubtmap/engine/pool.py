"""Processes of this machine that look at images; one that dies is replaced.

Each opens the network once. It is given numbers of images a few ahead, says which are done, and
sends what it has made of them. A process that dies is started again and given again all images of
which nothing has come back; the one that it was looking at is given once more only.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import torch

from doubtmap.errors import DataError, DoubtmapError, UsageError

AHEAD = 3
"""Threads by which a worker reads."""
WINDOW = 6
"""Images that a worker is given ahead: those that its threads read, and the two at hand."""
FAR = 2
"""Windows of all workers that the last image given may be after the first still waited for."""
AGAIN = 1
"""How often an image is looked at again whose worker has died."""


IMPORTED_ONCE = ("doubtmap", "transformers", "timm", "segmentation_models_pytorch", "torchvision")
"""Packages of networks: what this process has imported of them is there for all its workers."""

FREEZING = "doubtmap.engine.freezing"
"""Imported after them."""


class Looker(Protocol):
    """What a worker does, with a network that is open."""

    def __call__(self, numbers: Iterable[int], done: Done) -> Iterator[tuple[list[int], bytes]]:
        """Look at images; `done` is told of each.

        Yields:
            Numbers of images, and what was made of all of them.
        """
        ...


class Done(Protocol):
    """Told of each image that need not be looked at again by this worker's successor."""

    def __call__(self, number: int) -> None:
        """Take its number."""
        ...


class Work(Protocol):
    """What workers are sent: how to open the network, and what to do then."""

    def open(self, worker: int) -> Looker:
        """Open the network, as this worker."""
        ...


@dataclass(eq=False)
class _Worker:
    """One process, and its images.

    Args:
        number: of the worker; its successor has the same.
        process: that works.
        connection: to it.
        given: all images of which nothing has come back.
        waiting: those of them that it has not been sent, since a worker before it had them.
        at_hand: those that were sent and are not done, the one that is looked at first.
        told_all: whether it knows that no more will come.
    """

    number: int
    process: BaseProcess
    connection: Connection
    given: list[int] = field(default_factory=list)
    waiting: deque[int] = field(default_factory=deque)
    at_hand: list[int] = field(default_factory=list)
    told_all: bool = False


def by_workers(
    work: Work,
    numbers: Iterable[int],
    workers: int,
    gpus: float,
    threads: int,
    done: Done,
    ordered: bool = False,
    window: int = WINDOW,
) -> Iterator[tuple[list[int], bytes]]:
    """Let workers look at images.

    Args:
        work: what they do; it must bear to be pickled.
        numbers: of the images, rising.
        workers: how many processes.
        gpus: how many devices each has to itself; below 1: how much of one; 0: as this process.
        threads: of PyTorch in each.
        done: told of each image, as it is done.
        ordered: whether no worker may be far ahead of the image that is waited for.
        window: images that a worker is given ahead, see `window_of`.

    Yields:
        Numbers of images and what was made of them, in any order.

    Raises:
        UsageError: for work that cannot be sent.
        DataError: where a worker dies, and the one after it at the same image.
    """
    images = deque(numbers)
    workers = min(workers, max(1, len(images)))
    far = FAR * workers * window if ordered else None
    pool = _Pool(sendable(work), workers, gpus, threads, window, far)
    try:
        yield from pool.results(images, done)
    finally:
        pool.end()


def window_of(batch: int) -> int:
    """Images that a worker must be given ahead, of which so many go through a network at once.

    Those of a batch and the one before it, whose sums are made meanwhile; one a thread ahead for
    each batch that they read, and the one that is asked for.
    """
    return batch + AHEAD * ahead_of(batch, AHEAD) + WINDOW - AHEAD - 1


def ahead_of(batch: int, threads: int) -> int:
    """How many images each thread may read ahead, so that the next batch is read meanwhile."""
    return -(-batch // threads)


def sendable(work: Work) -> bytes:
    """The work as bytes.

    Raises:
        UsageError: for work that cannot be sent.
    """
    try:
        return pickle.dumps(work)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"workers: expected a network, data and scores that can be sent to other processes, "
            f"but {error}. Use the command line, or Place(network=...) with a function of a "
            f"module that opens the network."
        ) from error


class _Pool:
    """The workers of one pass."""

    def __init__(
        self, work: bytes, workers: int, gpus: float, threads: int, window: int, ahead: int | None
    ) -> None:
        self._work, self._gpus, self._threads = work, gpus, threads
        self._window, self._ahead = window, ahead
        self._deaths: Counter[int] = Counter()
        self._workers: list[_Worker] = []
        for number in range(workers):
            self._workers.append(self._start(number))

    def results(self, pending: deque[int], done: Done) -> Iterator[tuple[list[int], bytes]]:
        """What comes back, until all images are looked at."""
        while self._workers:
            for worker in self._workers:
                self._feed(worker, pending)
            ready = wait([worker.connection for worker in self._workers])
            for worker in [each for each in self._workers if each.connection in ready]:
                try:
                    kind, *said = worker.connection.recv()
                    if kind == "result":  # which may be large, and is not copied to be sent
                        said.append(worker.connection.recv_bytes())
                except (EOFError, OSError, pickle.UnpicklingError):
                    self._replace(worker)
                    continue
                if kind == "done":
                    if said[0] in worker.at_hand:
                        worker.at_hand.remove(said[0])
                    done(said[0])
                elif kind == "result":
                    covered = set(said[0])
                    worker.given = [each for each in worker.given if each not in covered]
                    yield said[0], said[1]
                elif kind == "error":
                    raise said[0]
                else:
                    worker.process.join()
                    self._workers.remove(worker)

    def end(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()

    def _start(self, number: int) -> _Worker:
        started = _context()
        ours, theirs = started.Pipe()
        own = _own_devices(number, self._gpus)
        process = started.Process(
            target=_serve, args=(theirs, self._work, number, self._threads, own), daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(number, process, ours)

    def _feed(self, worker: _Worker, pending: deque[int]) -> None:
        with suppress(BrokenPipeError):  # it has died, which the next look at it tells
            while (worker.waiting or pending) and len(worker.at_hand) < self._window:
                if worker.waiting:
                    number = worker.waiting.popleft()
                elif self._too_far(worker, pending[0]):
                    break
                else:
                    number = pending.popleft()
                    worker.given.append(number)
                worker.at_hand.append(number)
                worker.connection.send(number)
            if not (worker.waiting or pending or worker.told_all):
                worker.told_all = True
                worker.connection.send(None)

    def _too_far(self, worker: _Worker, number: int) -> bool:
        """Whether an image is to wait for others of which nothing has come back.

        Not where the first of these is the worker's own: it may wait for more to go beside it.
        """
        first = min((each for one in self._workers for each in one.given), default=number)
        far = self._ahead is not None and number - first > self._ahead
        return far and first not in worker.given

    def _replace(self, worker: _Worker) -> None:
        """Start a worker in place of one that has died, and give it the same images."""
        worker.process.join()
        at_hand = worker.at_hand[0] if worker.at_hand else -1
        self._deaths[at_hand] += 1
        if self._deaths[at_hand] > AGAIN:
            where = f"at image {at_hand + 1} or near it" if worker.at_hand else "without an image"
            raise DataError(
                f"workers: {_died(worker.process.exitcode)} twice {where}. If the machine "
                f"ran out of memory, use fewer --workers, or --tile."
            )
        again = self._start(worker.number)
        again.given, again.waiting = worker.given, deque(worker.given)
        self._workers[self._workers.index(worker)] = again
        worker.connection.close()


def _died(code: int | None) -> str:
    if code is not None and code < 0:
        return f"a worker was killed by {signal.Signals(-code).name}"
    return f"a worker ended with exit code {code}"


def begin_workers() -> None:
    """Start the process from which workers are, which imports what this one has."""
    started = _context()
    if started.get_start_method() == "forkserver":
        from multiprocessing import forkserver  # which not every system has

        forkserver.ensure_running()


def _context() -> Any:
    """How processes are started: from one that has imported what this one has, where there is."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    here = [name for name, found in sys.modules.items() if getattr(found, "__file__", None)]
    needed = [name for name in here if name.split(".")[0] in IMPORTED_ONCE]
    context.set_forkserver_preload([*needed, FREEZING])
    return context


def _own_devices(worker: int, gpus: float) -> str | None:
    """The devices that a worker is to see, as in CUDA_VISIBLE_DEVICES; None: those of all.

    Raises:
        UsageError: where there are too few.
    """
    if not gpus:
        return None
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = seen.split(",") if seen else [str(each) for each in range(torch.cuda.device_count())]
    first = int(worker * gpus)
    own = names[first : first + max(1, round(gpus))]
    if not own:
        raise UsageError(
            f"--gpus-per-worker: expected a device for worker {worker + 1}, but there are "
            f"{len(names)}. Use fewer --workers, or share devices, as with 0.5."
        )
    return ",".join(own)


def _serve(
    connection: Connection, work: bytes, number: int, threads: int, devices: str | None
) -> None:
    """What the process of a worker runs."""
    if devices is not None:  # before CUDA is first asked for anything
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the driver ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_go_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        with _silent():  # the driver has opened the same network, and told of it
            look = pickle.loads(work).open(number)  # what the driver has sent itself
        for covered, result in look(_received(connection), lambda n: connection.send(("done", n))):
            connection.send(("result", covered))
            connection.send_bytes(result)
        connection.send(("end",))
    except (BrokenPipeError, EOFError, ConnectionResetError):
        return
    except DoubtmapError as error:
        connection.send(("error", error))
    except Exception as error:
        connection.send(("error", _foreign(error)))


@contextmanager
def _silent() -> Iterator[None]:
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _received(connection: Connection) -> Iterator[int]:
    while (number := connection.recv()) is not None:
        yield number


def _foreign(error: Exception) -> Exception:
    """The error as it can be sent; one that cannot by what it says."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _go_with_parent() -> None:
    """End when the driver has ended, however it did."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
