"""Where the images of a run are looked at: here, in one part of several, or by workers.

No other room knows how many machines there are. A part is a run of consecutive images of the data
set; schedulers say in the environment which one is meant.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from doubtmap.engine.pool import Done, Work, begin_workers, by_workers, window_of
from doubtmap.errors import UsageError
from doubtmap.files.resuming import listed
from doubtmap.prediction import Segmenter


@dataclass(frozen=True)
class PartNumber:
    """One part of several.

    Args:
        number: from 1 on.
        of: how many parts there are.
    """

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def then(self) -> str:
        """What to type once all parts are there."""
        parts = " ".join(f"PART{number}" for number in range(1, self.of + 1)[:3])
        more = " ..." if self.of > 3 else ""
        return f"Once all parts are there: doubtmap merge OUT {parts}{more}"

    def numbers(self, count: int) -> range:
        """Which of so many images are this part's; all parts together have each image once.

        Example:
            >>> [list(PartNumber(number, 3).numbers(7)) for number in (1, 2, 3)]
            [[0, 1], [2, 3], [4, 5, 6]]
        """
        return range(count * (self.number - 1) // self.of, count * self.number // self.of)


def all_parts(numbers: Sequence[PartNumber], places: Sequence[object]) -> list[int]:
    """In which order parts are to be taken, once all are there.

    Args:
        numbers: of the parts.
        places: what to call them.

    Returns:
        For each part, from the first, its place in `numbers`.

    Raises:
        UsageError: for parts of other divisions, twice there, or missing.

    Example:
        >>> all_parts([PartNumber(2, 2), PartNumber(1, 2)], ["b", "a"])
        [1, 0]
    """
    if not numbers:
        raise UsageError("merge: expected parts, got none. Name their folders after OUT.")
    of: dict[int, int] = {}
    for at, number in enumerate(numbers):
        if number.of != numbers[0].of:
            raise UsageError(
                f"merge: expected parts of one division, got {numbers[0]} in {places[0]} and "
                f"{number} in {places[at]}. Leave one of them out."
            )
        if number.number in of:
            raise UsageError(
                f"merge: part {number} is there twice, in {places[of[number.number]]} and "
                f"{places[at]}. Leave one of them out."
            )
        of[number.number] = at
    missing = [str(number) for number in range(1, numbers[0].of + 1) if number not in of]
    if missing:
        raise UsageError(
            f"merge: expected {numbers[0].of} parts, got {len(of)}: {listed(missing, 8)} of "
            f"{numbers[0].of} {'is' if len(missing) == 1 else 'are'} missing. Name their folders "
            f"too, or make them with --part."
        )
    return [of[number] for number in sorted(of)]


SCHEDULERS = (
    ("RANK", "WORLD_SIZE", None),
    ("SLURM_PROCID", "SLURM_NTASKS", None),
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
    ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS", None),
)
"""Of each the variables that say which task this is, of how many, and the number of the first:
torchrun, SLURM's tasks, SLURM's arrays, Kubernetes."""


def read_part(text: str, environment: Mapping[str, str] = os.environ) -> PartNumber:
    """The part that `--part` means.

    Args:
        text: `3/8`, or `auto` for what the scheduler says.
        environment: in which a scheduler says it.

    Raises:
        UsageError: for anything else, or where no scheduler says it.

    Example:
        >>> read_part("auto", {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_COUNT": "8"})
        PartNumber(number=5, of=8)
    """
    if text == "auto":
        return _scheduled(environment)
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise UsageError(f"--part: expected I/N such as 3/8, from 1/8 to 8/8, or auto, got {text}.")
    return PartNumber(int(number), int(of))


def _scheduled(environment: Mapping[str, str]) -> PartNumber:
    """The part that a scheduler means; of several that speak, the first that runs several tasks."""
    found = []
    for task, count, first in SCHEDULERS:
        if task in environment and count in environment:
            said = [environment[task], environment[count], environment.get(first or "", "0")]
            if not all(each.isdecimal() for each in said):
                raise UsageError(
                    f"--part auto: expected numbers in {task} and {count}, got {said}."
                )
            found.append(PartNumber(int(said[0]) - int(said[2]) + 1, int(said[1])))
    several = [part for part in found if part.of > 1]
    if len(several) > 1 and len(set(several)) > 1:
        raise UsageError(
            f"--part auto: expected one scheduler, but the environment says "
            f"{' and '.join(map(str, several))}. Say which with --part I/N."
        )
    if not found:
        raise UsageError(_nobody(environment))
    return _within(several[0] if several else found[0])


def _within(part: PartNumber) -> PartNumber:
    if not 1 <= part.number <= part.of:
        raise UsageError(
            f"--part auto: expected a task from 1 to {part.of}, got {part.number}: an array whose "
            f"numbers have gaps. Say the part with --part I/N."
        )
    return part


def _nobody(environment: Mapping[str, str]) -> str:
    if "JOB_COMPLETION_INDEX" in environment:
        return (
            "--part auto: expected JOB_COMPLETIONS beside JOB_COMPLETION_INDEX, which Kubernetes "
            "does not set. Add it to the job's env with the value of completions."
        )
    names = ", ".join(f"{task} and {count}" for task, count, _ in SCHEDULERS)
    return f"--part auto: expected {names} in the environment, found none. Say --part I/N."


@dataclass(frozen=True)
class Place:
    """Where images are looked at.

    Args:
        part: which of the images; None: all.
        workers: processes that look at images; 0: this one does.
        engine: `local`, for processes of this machine; `ray`, or `ray:ADDRESS` for a cluster.
        gpus: how many devices each worker has to itself; below 1: how much of one.
        network: opens the network in each worker; without it the network is sent to them.
        batch: how many images of one size go through the network at once, at most.
        threads: of PyTorch in each process that runs the network, on which the last bits of its
            output depend; default, of workers: those that `OMP_NUM_THREADS` says, else on one
            machine their share of this process's, and 1 on a cluster; of this process: what it has.
    """

    part: PartNumber | None = None
    workers: int = 0
    engine: str = "local"
    gpus: float = 0
    network: Callable[[], Segmenter] | None = None
    batch: int = 1
    threads: int = 0

    def __post_init__(self) -> None:
        kind, colon, address = self.engine.partition(":")
        if kind not in ("local", "ray") or (kind == "local" and colon) or (colon and not address):
            raise UsageError(
                f"--engine: expected local, ray, or ray:ADDRESS such as ray:10.0.0.1:6379, got "
                f"{self.engine}."
            )
        if self.gpus and not self.elsewhere:
            raise UsageError("--gpus-per-worker: expected --workers with it. Add --workers 2.")
        if self.batch < 1:
            raise UsageError(f"--batch: expected 1 image or more at once, got {self.batch}.")
        if self.elsewhere and not self.threads:
            object.__setattr__(self, "threads", self._usual_threads())

    def _usual_threads(self) -> int:
        """How many threads each worker has."""
        if "OMP_NUM_THREADS" in os.environ:
            return torch.get_num_threads()
        return max(1, torch.get_num_threads() // self.workers) if self.one_machine else 1

    def begin(self) -> None:
        """Let what workers of this machine need be imported for them while this process goes on."""
        if self.elsewhere and self.one_machine:
            begin_workers()

    @contextmanager
    def alike(self) -> Iterator[None]:
        """While the block runs, let this process have as many threads as the workers.

        What it makes of an image then is what they would make of it, to the last bit.
        """
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    @property
    def elsewhere(self) -> bool:
        """Whether other processes look at the images."""
        return self.workers > 0 or self.engine != "local"

    @property
    def one_machine(self) -> bool:
        """Whether workers and this process have the same files."""
        return self.engine == "local"

    def opening(self, segmenter: Segmenter) -> Callable[[], Segmenter]:
        """How a worker opens a network."""
        return self.network or functools.partial(_itself, segmenter)

    def look(
        self, work: Work, numbers: Sequence[int], done: Done, ordered: bool = False
    ) -> Generator[tuple[list[int], bytes]]:
        """Let workers look at images.

        Args:
            work: what they do; it must bear to be pickled.
            numbers: of the images.
            done: told of each image as it is done; more than once where a worker has died.
            ordered: whether no worker may be far ahead of the others, for who needs what comes
                back in order, each image by itself.

        Yields:
            Numbers of images and what was made of them, in any order.

        Raises:
            UsageError: for work that cannot be sent, or a cluster that is not there.
            DataError: where a worker dies, and the one after it at the same image.
        """
        if not numbers:
            return
        by = self.workers, self.gpus, self.threads
        if self.engine == "local":
            yield from by_workers(work, numbers, *by, done, ordered, window_of(self.batch))
            return
        from doubtmap.engine.cluster import by_ray

        address = self.engine.partition(":")[2]
        yield from by_ray(work, numbers, address, *by, done, ordered, self.batch)


def _itself(segmenter: Segmenter) -> Segmenter:
    return segmenter


HERE = Place()
