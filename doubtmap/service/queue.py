"""Images that wait for the network, which one thread runs; those of one size go together."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

from doubtmap.memory import give_back
from doubtmap.service.limits import Limits, Refusal

T = TypeVar("T")
_KEPT = 0.9
"""Share of what is known of the time for an image that a new image leaves."""
_IN_TIME = 0.5
"""Share of the time for an answer that all who are inside may be expected to take."""
_TRIMMED = 32
"""Batches after which freed memory is given back."""


@dataclass(frozen=True, eq=False)
class _Job(Generic[T]):
    image: Tensor
    since: float
    answer: Future[T] = field(default_factory=Future)


class Queue(Generic[T]):
    """Requests are let in, their images wait, and a thread answers them in the order they came.

    Args:
        work: what is done to a batch `(B, K, H, W)`, one answer for each image.
        limits: how many requests are inside, how long an image waits, how large a batch is.
        ran: told of each batch: images and seconds.
        clock: seconds.
    """

    def __init__(
        self,
        work: Callable[[Tensor], Sequence[T]],
        limits: Limits,
        ran: Callable[[int, float], None] = lambda images, seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self.batch = limits.batch or 1
        self._work, self._ran, self._clock = work, ran, clock
        self._jobs: deque[_Job[T]] = deque()
        self._changed = threading.Condition()
        self._inside = self._batches = 0
        self._stopping = False
        self._seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="doubtmap-serve", daemon=True)
        self._thread.start()

    @property
    def stopping(self) -> bool:
        """Whether no more requests are let in."""
        return self._stopping

    @property
    def inside(self) -> int:
        """Requests that were let in and are not answered yet."""
        return self._inside

    @property
    def waiting(self) -> int:
        """Images that the network has not begun with."""
        return len(self._jobs)

    @property
    def again(self) -> int:
        """Seconds after which there may be room."""
        return max(1, math.ceil(self._seconds * self._inside / 2))

    def check_room(self) -> None:
        """Refuse a request where there is no room for it.

        Raises:
            Refusal: 503 for a service that stops, 429 for one that has enough to do.
        """
        if self._stopping:
            raise Refusal(503, "the service is stopping. Try again.", self.again)
        most = self.limits.queue
        if self._seconds:  # what would come to its turn too late only keeps others waiting
            most = min(most, max(1, int(_IN_TIME * self.limits.seconds / self._seconds)))
        if self._inside >= most:
            raise Refusal(
                429,
                f"expected at most {most} at a time, got more requests. Try again in "
                f"{self.again} s.",
                self.again,
            )

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """A request is inside while the block lasts.

        Raises:
            Refusal: as `check_room`.
        """
        with self._changed:
            self.check_room()
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def put(self, images: Tensor) -> list[Future[T]]:
        """Let images of a request that was admitted wait for the network.

        Args:
            images: `(N, K, H, W)`.

        Returns:
            What will be the answer to each. One that is cancelled before its turn is not run.
        """
        jobs = [_Job[T](image, self._clock()) for image in images]
        with self._changed:
            if not self._thread.is_alive():
                raise Refusal(503, "the service has stopped. Try again.", 1)
            self._jobs.extend(jobs)
            self._changed.notify_all()
        return [job.answer for job in jobs]

    def stop(self) -> None:
        """Let no more requests in; those inside are answered."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def join(self, seconds: float | None = None) -> bool:
        """Stop, and wait until all are answered; whether they are."""
        self.stop()
        with self._changed:
            self._changed.wait_for(lambda: not self._inside and not self._jobs, seconds)
            self._changed.notify_all()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while jobs := self._next():
            self._answer([job for job in jobs if self._begins(job)])
            del jobs
            self._batches += 1
            if self._batches % _TRIMMED == 0:
                give_back()

    def _next(self) -> list[_Job[T]]:
        """The next batch; nothing once the last request is answered after `stop`."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._jobs or (self._stopping and not self._inside), None
            )
            if not self._jobs:
                return []
            until = self._jobs[0].since + self.limits.wait / 1000
            while (left := until - self._clock()) > 0 and len(self._alike()) < self.batch:
                if self._stopping:
                    break
                self._changed.wait(left)
            taken = self._alike()
            self._jobs = deque(job for job in self._jobs if job not in taken)
            return taken

    def _alike(self) -> list[_Job[T]]:
        """The first that waits, and others of its size, in the order they came."""
        first = self._jobs[0].image
        alike = (
            job
            for job in self._jobs
            if job.image.shape == first.shape and job.image.dtype == first.dtype
        )
        return [job for job, _ in zip(alike, range(self.batch))]

    def _begins(self, job: _Job[T]) -> bool:
        """Whether it is still wanted; one that has waited too long is told so."""
        if not job.answer.set_running_or_notify_cancel():
            return False
        if self._clock() - job.since > self.limits.seconds:
            job.answer.set_exception(too_late(self.limits, self.again))
            return False
        return True

    def _answer(self, jobs: Sequence[_Job[T]]) -> None:
        """Run the network; where a batch fails, each image alone, so that one fails for itself."""
        if not jobs:
            return
        begun = self._clock()
        try:
            answers = self._work(torch.stack([job.image for job in jobs]))
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].answer.set_exception(error)
            else:
                for job in jobs:
                    self._answer([job])
            return
        seconds = self._clock() - begun
        known = self._seconds or seconds / len(jobs)
        self._seconds = _KEPT * known + (1 - _KEPT) * seconds / len(jobs)
        self._ran(len(jobs), seconds)
        for job, answer in zip(jobs, answers, strict=True):
            job.answer.set_result(answer)


def too_late(limits: Limits, again: int) -> Refusal:
    """A request could not be answered in time."""
    return Refusal(
        503, f"expected to answer within {limits.seconds:g} s, but could not. Try again.", again
    )
