"""Reading ahead: the next images are decoded while the network works on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from doubtmap.datasets.dataset import Dataset, Sample
from doubtmap.errors import DataError

AHEAD = 3


@dataclass
class Skipped:
    """The images that could not be used, and why."""

    reasons: dict[str, str] = field(default_factory=dict)


def read_ahead(
    dataset: Dataset, indices: Iterable[int], skipped: Skipped | None = None
) -> Iterator[tuple[int, Sample]]:
    """Read samples in order, a few ahead of their use.

    Args:
        dataset: to read from.
        indices: which samples.
        skipped: takes the images that cannot be read; without it the first one ends the run.

    Raises:
        DataError: for an image that cannot be read, unless `skipped` takes it.
    """
    waiting: deque[tuple[int, Future[Sample]]] = deque()
    with ThreadPoolExecutor(AHEAD, thread_name_prefix="doubtmap-read") as pool:
        try:
            for index in indices:
                waiting.append((index, pool.submit(dataset.__getitem__, index)))
                if len(waiting) > AHEAD:
                    yield from _next(dataset, waiting, skipped)
            while waiting:
                yield from _next(dataset, waiting, skipped)
        finally:
            for _, future in waiting:
                future.cancel()


def _next(
    dataset: Dataset, waiting: deque[tuple[int, Future[Sample]]], skipped: Skipped | None
) -> Iterator[tuple[int, Sample]]:
    index, future = waiting.popleft()
    try:
        yield index, future.result()
    except DataError as error:
        if skipped is None:
            raise
        skipped.reasons[dataset.sample_name(index)] = str(error)
