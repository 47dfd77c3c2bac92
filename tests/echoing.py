"""Work for worker processes, which import it by its name."""

import itertools
import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Echo:
    """Sends its images back; one of its workers dies at the tenth where `killed` is not there."""

    killed: Path

    def open(self, worker):
        return self.look

    def look(self, numbers, done):
        for number in numbers:
            if number == 9 and not self.killed.exists():
                self.killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield [number], str(number).encode()
            done(number)


@dataclass
class Filling:
    """Sends nothing back before it has a whole batch."""

    batch: int

    def open(self, worker):
        return self.look

    def look(self, numbers, done):
        for first in numbers:
            for number in [first, *itertools.islice(numbers, self.batch - 1)]:
                yield [number], b""
                done(number)
