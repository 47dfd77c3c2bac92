import threading

import pytest
import torch

from doubtmap.datasets import VOID, Sample
from doubtmap.datasets.reading import read_ahead
from doubtmap.errors import DataError, UsageError
from doubtmap.training.batches import Batches, count_labels, mixed, order
from doubtmap.training.labels import Targets
from doubtmap.training.optimizing import Processes

NAMES = ("grass", "stone", "water")


def batches(dataset, **options):
    return Batches(dataset, Targets.of(dataset, NAMES), options.pop("size", 4), (16, 20), **options)


def test_batches_depend_on_seed_and_epoch_and_not_on_threads(training_set):
    one, two = (list(batches(training_set, workers=w).epoch(3)) for w in (1, 3))
    assert len(one) == len(two) == 2
    for (images, labels), (same, likewise) in zip(one, two):
        assert torch.equal(images, same) and torch.equal(labels, likewise)
    other = next(iter(batches(training_set).epoch(4)))[0]
    assert not torch.equal(one[0][0], other)
    seeded = next(iter(batches(training_set, seed=1).epoch(3)))[0]
    assert not torch.equal(one[0][0], seeded)


def test_shapes_ranges_and_the_held_out_class(training_set):
    images, labels = next(iter(batches(training_set).epoch(0)))
    assert images.shape == (4, 3, 16, 20) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1
    assert labels.shape == (4, 16, 20) and set(labels.unique().tolist()) == {VOID, 0, 1, 2}


def test_processes_share_each_batch(training_set):
    whole = list(batches(training_set).epoch(1))
    parts = [list(batches(training_set, processes=Processes(rank, 2)).epoch(1)) for rank in (0, 1)]
    for step, (images, labels) in enumerate(whole):
        for rank in (0, 1):
            assert torch.equal(images[rank::2], parts[rank][step][0])
            assert torch.equal(labels[rank::2], parts[rank][step][1])


def test_an_incomplete_last_batch_is_left_out_and_all_images_come(training_set):
    three = batches(training_set, size=3)
    assert len(three) == 2 and [len(x) for x, _ in three.epoch(0)] == [3, 3]
    assert sorted(order(8, 0, 5)) == list(range(8)) and order(8, 0, 5) != order(8, 0, 6)


def test_too_few_images_or_an_uneven_batch_are_refused(training_set):
    with pytest.raises(UsageError, match=r"a batch holds, 9, got 8 in stripes.*Lower --batch"):
        batches(training_set, size=9)
    with pytest.raises(UsageError, match="multiple of 2"):
        batches(training_set, size=3, processes=Processes(0, 2))


def test_labels_are_counted(training_set):
    targets = Targets.of(training_set, NAMES)
    labels = torch.stack([targets(training_set[i]) for i in range(8)]).long()
    exact = [(labels == c).sum().item() for c in range(3)]
    assert count_labels(training_set, targets, 3).tolist() == exact


def test_labels_that_cannot_be_meant_are_refused(training_set):
    targets = Targets.of(training_set, NAMES)
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    with pytest.raises(DataError, match=r"x: expected labels below 4.*got 9"):
        targets(Sample("x", image, torch.full((4, 4), 9, dtype=torch.int16)))
    with pytest.raises(DataError, match="got -7"):
        targets(Sample("x", image, torch.full((4, 4), -7, dtype=torch.int16)))
    with pytest.raises(DataError, match=r"image's size \(4, 4\), got \(4, 5\)"):
        targets(Sample("x", image, torch.zeros((4, 5), dtype=torch.int16)))


def test_reading_keeps_order_stops_at_errors_and_ends_its_threads():
    before = set(threading.enumerate())
    assert list(read_ahead(lambda i: i * i, range(50), 3)) == [i * i for i in range(50)]
    got = []
    with pytest.raises(ZeroDivisionError):
        got.extend(read_ahead(lambda i: 1 / (5 - i), range(50), 2))
    views = read_ahead(lambda i: i, range(50), 2)
    next(views)
    views.close()
    ours = set(threading.enumerate()) - before
    assert not any("doubtmap-read" in thread.name for thread in ours)


def test_reading_may_be_ended_by_a_thread_that_reads():
    """As where the garbage collector runs in one of them."""
    started, closed = threading.Event(), threading.Event()

    def read(index):
        if index == 1:
            started.wait(10)
            views.close()
            closed.set()

    views = read_ahead(read, range(50), 2)
    next(views)
    started.set()
    assert closed.wait(10)


def test_mixed_seeds_differ():
    seeds = {mixed(a, b, c) for a in range(8) for b in range(8) for c in range(8)}
    assert len(seeds) == 512 and all(0 <= seed < 2**63 for seed in seeds)
