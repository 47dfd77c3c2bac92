"""What a cluster gives back is taken once, whatever it does twice or loses."""

import pickle
import socket
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from doubtmap.engine import cluster
from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.version import __version__


class Squares:
    """Squares its numbers, each by itself."""

    def open(self, worker):
        return self.look

    def look(self, numbers, done):
        for number in numbers:
            yield [number], bytes([number * number])


class Unsteady:
    """As much of Ray as is used, that gives back chunks as it is told."""

    def __init__(self, order):
        self.order = order
        options = types.SimpleNamespace(execution_options=types.SimpleNamespace())
        self.DataContext = types.SimpleNamespace(get_current=lambda: options)
        self.data, self.exceptions = self, types.SimpleNamespace(RayError=KeyError)
        self.ActorPoolStrategy = dict

    def from_items(self, rows, override_num_blocks):
        self.rows = rows
        return self

    def map_batches(self, kind, fn_constructor_args, **_):
        self.actor = kind(*fn_constructor_args)
        return self

    def iter_rows(self):
        for at in self.order:
            found = self.actor({"chunk": np.array([self.rows[at]["chunk"]], object)})
            yield {name: values[0] for name, values in found.items()}


class Uneven(Squares):
    """Sums more numbers of a chunk the second time."""

    def look(self, numbers, done):
        first, *rest = numbers
        seen = [first, *rest] if first in Uneven.before else [first]
        Uneven.before.add(first)
        yield seen, b""


def looked_at(monkeypatch, order, work=Squares):
    monkeypatch.setattr(cluster, "_connected", lambda address: Unsteady(order))
    told = []
    found = list(
        cluster.by_ray(work(), range(1, 9), "", 1, 0, torch.get_num_threads(), told.append)
    )
    return sorted(told), sorted((number, data[0]) for (number,), data in found)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 0, 0, 2, 1, 3]])
def test_chunks_count_once_in_any_order(monkeypatch, order):
    told, found = looked_at(monkeypatch, order)
    assert told == [*range(1, 9)]
    assert found == [(number, number * number) for number in range(1, 9)]


def test_sums_that_come_back_with_other_images_are_refused(monkeypatch):
    monkeypatch.setattr(Uneven, "before", set(), raising=False)
    with pytest.raises(DataError, match="those of before, but 1 of 2 are new"):
        looked_at(monkeypatch, [0, 0, 1, 2, 3], Uneven)


def test_a_chunk_that_is_lost_is_told(monkeypatch):
    with pytest.raises(DataError, match="came of 8 images, but the cluster lost that of 2"):
        looked_at(monkeypatch, [0, 3, 2])


class Blind(Squares):
    """Does not find its images, or, where that is asked for, its network."""

    def __init__(self, network):
        self.network = network

    def open(self, worker):
        if self.network:
            raise ModelError("net.onnx: expected a network, found nothing there. Check the path.")
        return self.look

    def look(self, numbers, done):
        raise DataError(f"{next(numbers)}.png: expected an image, found nothing there.")
        yield


@pytest.mark.parametrize(
    ("network", "kind", "says"), [(True, ModelError, "net.onnx"), (False, DataError, "1.png")]
)
def test_what_a_machine_does_not_find_is_said_of_that_machine(monkeypatch, network, kind, says):
    where = rf"on {socket.gethostname()}, in {Path.cwd()}: {says}: expected .*Paths must lead to"
    with pytest.raises(kind, match=where):
        looked_at(monkeypatch, [0, 1], lambda: Blind(network))


def test_another_version_on_a_machine_is_named(monkeypatch):
    actor = cluster.Looking(pickle.dumps(Squares()), "0.0.1", 1, str(Path.cwd()))
    row = actor({"chunk": np.array([pickle.dumps([1])], object)})
    error = pickle.loads(row["error"][0])
    assert isinstance(error, UsageError)
    assert "expected doubtmap 0.0.1 on all machines" in str(error)
    assert "Paths" not in str(error)


def test_paths_begin_where_the_driver_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there = tmp_path / "there"
    there.mkdir()
    for folder, found in ((tmp_path / "gone", tmp_path), (there, there)):
        cluster.Looking(pickle.dumps(Squares()), __version__, 1, str(folder))
        assert Path.cwd() == found


def test_a_cluster_that_is_not_there_is_told_at_once():
    pytest.importorskip("ray", reason="ray is not installed")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UsageError, match=rf"expected a cluster at \[::1\]:{port}, found none"):
        next(cluster.by_ray(Squares(), [1], f"[::1]:{port}", 1, 0, 1, print))
