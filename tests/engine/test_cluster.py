"""What a cluster gives back is taken once, whatever it does twice or loses."""

import types

import numpy as np
import pytest
import torch

from doubtmap.engine import cluster
from doubtmap.errors import DataError


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
