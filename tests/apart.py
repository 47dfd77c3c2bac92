"""Command lines in processes of their own, forked from one that has imported PyTorch already.

A new process imports it for seconds; these are as much apart from the tests, and can be killed.
"""

import functools
import multiprocessing
import os
import signal
import socket
import sys

FORKS = "forkserver" in multiprocessing.get_all_start_methods()
CONTEXT = multiprocessing.get_context("forkserver" if FORKS else "spawn")
IMPORTED = ["doubtmap.evaluation.first_look", "doubtmap.training.fit", "torch._dynamo"]


class Apart:
    """`doubtmap WORDS`, running; `streets` is the size of those that `synthetic:N` draws there."""

    def __init__(self, folder, *words, streets=None, **environment):
        folder.mkdir()
        self.files = [folder / name for name in ("out", "err")]
        if FORKS:
            CONTEXT.set_forkserver_preload(IMPORTED)
        given = [*map(str, words)], environment, self.files, streets
        self.process = CONTEXT.Process(target=_run, args=given)
        self.process.start()

    def ended(self, seconds=60):
        """Its exit code, and what it said to stdout and stderr."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, "it did not end in time"
        return self.process.exitcode, *(file.read_text() for file in self.files)

    def killed_when(self, done):
        """Kill it outright as soon as something is done; it may not end before."""
        while not done():
            self.process.join(0.002)
            assert self.process.exitcode is None, self.files[1].read_text()
        self.process.kill()
        assert self.ended()[0] == -signal.SIGKILL


def two_of_them(folder, *words):
    """What two processes that train together end with and say, the first of them first."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    both = [Apart(folder / f"rank-{k}", *words, **where, RANK=k, LOCAL_RANK=k) for k in "01"]
    return [each.ended() for each in both]


def _run(words, environment, files, streets):
    import torch

    torch.set_num_threads(1)
    for stream, file in zip((1, 2), files):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), stream)
    os.environ.update(environment)
    sys.argv = ["doubtmap", *words]
    if streets is not None:
        from doubtmap.streets import synthetic

        synthetic.SyntheticStreets = functools.partial(synthetic.SyntheticStreets, size=streets)
    from doubtmap.cli import main

    main()
