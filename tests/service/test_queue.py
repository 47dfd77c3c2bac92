"""What waits for the network, without HTTP: batches, limits, order, and the end."""

import threading
import time
from concurrent.futures import CancelledError

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from doubtmap.errors import DataError, UsageError
from doubtmap.service.limits import Limits, Refusal
from doubtmap.service.queue import Queue


def sums(images):
    return images.sum((1, 2, 3)).tolist()


def image(value, side=2):
    return torch.full((1, 1, side, side), float(value))


@pytest.fixture
def queue_of(gate):
    """Makes queues whose work waits at a gate."""
    made = []

    def make(work=sums, clock=time.monotonic, **limits):
        held = gate(work)
        queue = Queue(held, Limits(**limits), clock=clock)
        made.append((queue, held))
        return queue, held

    yield make
    for queue, held in made:
        held.open.set()
        assert queue.join(10)


def test_images_of_one_size_go_together_in_the_order_they_came(queue_of):
    queue, held = queue_of(batch=2)
    (first,) = queue.put(image(0, 9))
    held.begun.wait(10)
    waiting = [queue.put(image(k, side))[0] for k, side in enumerate((2, 3, 2, 2, 3))]
    assert queue.waiting == 5
    held.open.set()
    assert [each.result(10) for each in (first, *waiting)] == [0, 0, 9, 8, 12, 36]
    sizes = [(1, 9), (2, 2), (2, 3), (1, 2)]
    assert [(shape[0], shape[-1]) for shape in held.batches] == sizes


def test_numbers_of_other_kinds_do_not_go_together(queue_of):
    queue, held = queue_of(batch=4)
    queue.put(image(0, 9))
    held.begun.wait(10)
    answers = queue.put(image(1)) + queue.put(image(1).to(torch.uint8))
    held.open.set()
    assert [each.result(10) for each in answers] == [4, 4]
    assert len(held.batches) == 3


@settings(deadline=None)
@given(sides=st.lists(st.integers(1, 3), max_size=12), batch=st.integers(1, 5))
def test_every_image_gets_its_own_answer(sides, batch):
    queue = Queue(sums, Limits(batch=batch))
    answers = [queue.put(image(k, side))[0] for k, side in enumerate(sides)]
    assert [each.result(10) for each in answers] == [k * s * s for k, s in enumerate(sides)]
    assert queue.join(10)


def test_an_image_waits_for_others_where_it_may(queue_of):
    queue, held = queue_of(batch=2, wait=10_000)
    held.open.set()
    first = queue.put(image(1))[0]
    time.sleep(0.02)
    assert queue.waiting == 1 and not held.batches
    second = queue.put(image(2))[0]
    assert [first.result(5), second.result(5)] == [4, 8]
    assert [shape[0] for shape in held.batches] == [2]


def test_an_image_does_not_wait_for_others_when_the_queue_stops(queue_of):
    queue, held = queue_of(batch=2, wait=60_000)
    held.open.set()
    (answer,) = queue.put(image(1))
    queue.stop()
    assert answer.result(5) == 4


def test_more_requests_than_fit_are_refused_until_one_leaves(queue_of):
    queue, _ = queue_of(queue=2)
    with queue.admitted():
        with queue.admitted():
            assert queue.inside == 2
            with pytest.raises(Refusal, match="at most 2 at a time") as refused:
                queue.admitted().__enter__()
            assert (refused.value.status, refused.value.again) == (429, 1)
        with queue.admitted():
            assert queue.inside == 2
    assert queue.inside == 0


def test_a_queue_that_stops_answers_who_is_inside_and_nobody_else(queue_of):
    queue, held = queue_of()
    with queue.admitted():
        queue.stop()
        with pytest.raises(Refusal, match="is stopping") as refused:
            queue.check_room()
        assert refused.value.status == 503 and refused.value.again >= 1
        (answer,) = queue.put(image(3))
        held.open.set()
        assert answer.result(10) == 12
        assert not queue.join(0.01)
    assert queue.join(10)
    with pytest.raises(Refusal, match="has stopped"):
        queue.put(image(1))


def test_what_is_cancelled_before_its_turn_is_not_run(queue_of):
    queue, held = queue_of()
    queue.put(image(0))
    held.begun.wait(10)
    unwanted, wanted = queue.put(image(1))[0], queue.put(image(2))[0]
    assert unwanted.cancel()
    held.open.set()
    assert wanted.result(10) == 8
    assert len(held.batches) == 2
    with pytest.raises(CancelledError):
        unwanted.result(0)


def test_what_has_waited_too_long_is_refused_and_not_run(queue_of):
    now = [0.0]
    queue, held = queue_of(clock=lambda: now[0], seconds=5)
    begun = queue.put(image(0))[0]
    held.begun.wait(10)
    late = queue.put(image(1))[0]
    now[0] = 5.5
    in_time = queue.put(image(2))[0]
    held.open.set()
    assert (begun.result(10), in_time.result(10)) == (0, 8)
    with pytest.raises(Refusal, match="within 5 s") as refused:
        late.result(10)
    assert refused.value.status == 503
    assert len(held.batches) == 2


def test_an_image_that_fails_fails_alone(queue_of):
    def work(images):
        if (images == 7).any():
            raise DataError("seven")
        return sums(images)

    queue, held = queue_of(work, batch=4)
    queue.put(image(0, 9))
    held.begun.wait(10)
    good, bad, other = (queue.put(image(value))[0] for value in (1, 7, 2))
    held.open.set()
    assert (good.result(10), other.result(10)) == (4, 8)
    with pytest.raises(DataError, match="seven"):
        bad.result(10)
    assert queue.put(image(5))[0].result(10) == 20


def test_when_to_come_again_follows_from_the_time_for_an_image(queue_of):
    ticks = iter(range(0, 1000, 8))
    queue, held = queue_of(clock=lambda: float(next(ticks)), seconds=500)
    held.open.set()
    with queue.admitted():
        assert queue.again == 1
        assert queue.put(image(1))[0].result(10) == 4
        assert queue.again == 4  # half of the 8 s that an image took, for one that is inside


def test_no_more_are_let_in_than_can_be_answered_in_time(queue_of):
    ticks = iter(range(0, 1000, 8))
    queue, held = queue_of(clock=lambda: float(next(ticks)), seconds=40)
    held.open.set()
    assert queue.put(image(1))[0].result(10) == 4  # it took 8 s; two such are half of 40 s
    with queue.admitted(), queue.admitted():
        with pytest.raises(Refusal, match="at most 2 at a time") as refused:
            queue.check_room()
        assert (refused.value.status, refused.value.again) == (429, 8)


def test_one_is_let_in_however_slow_the_network_was(queue_of):
    now = [0.0]

    def work(images):
        now[0] += 100
        return sums(images)

    queue, held = queue_of(work, clock=lambda: now[0], seconds=9)
    held.open.set()
    assert queue.put(image(1))[0].result(10) == 4
    with queue.admitted(), pytest.raises(Refusal, match="at most 1 at a time"):
        queue.check_room()


def test_what_is_run_is_told(gate):
    told = []
    queue = Queue(sums, Limits(batch=2), lambda images, seconds: told.append((images, seconds)))
    queue.put(torch.ones(2, 1, 1, 1))[1].result(10)
    assert queue.join(10)
    assert sum(images for images, _ in told) == 2 and all(seconds >= 0 for _, seconds in told)


def test_many_threads_put_and_all_are_answered():
    queue = Queue(sums, Limits(batch=3))
    found = {}

    def put(k):
        found[k] = queue.put(image(k, 1 + k % 2))[0].result(10)

    threads = [threading.Thread(target=put, args=(k,)) for k in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {k: k * (1 + k % 2) ** 2 for k in range(24)}
    assert queue.join(10)


@pytest.mark.parametrize("name", ["megabytes", "megapixels", "seconds", "queue", "batch"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_limits_that_cannot_be_are_refused(name, value):
    with pytest.raises(UsageError, match=f"expected {name} to be above 0"):
        Limits(**{name: value})


def test_a_cpu_takes_images_alone_and_a_gpu_several():
    assert Limits().on(gpu=False).batch == 1 and Limits().on(gpu=True).batch == 8
    assert Limits(batch=3).on(gpu=False).batch == 3
    with pytest.raises(UsageError, match="expected wait to be 0 ms or more"):
        Limits(wait=-1)
