"""A service of a tiny network, asked without sockets."""

import asyncio
import threading

import pytest

import doubtmap as dm

SCORES = {"entropy": dm.scores.entropy, "energy": dm.scores.energy}


def threads_of_services():
    return [each for each in threading.enumerate() if each.name.startswith("doubtmap-serve")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    """Threads of a service end with it."""
    yield
    assert threads_of_services() == []


@pytest.fixture
def answering(segmenter):
    from doubtmap.service.answers import Answering

    return Answering("tiny", segmenter, SCORES)


@pytest.fixture
def served(answering):
    """Makes services; all are stopped at the end."""
    from doubtmap.service.limits import Limits
    from doubtmap.service.web import Service

    made = []

    def make(**limits):
        made.append(Service(answering, Limits(**limits)))
        return made[-1]

    yield make
    for service in made:
        assert service.join(10)


@pytest.fixture
def service(served):
    return served()


@pytest.fixture
def ask(service):
    """Send one request to a service, the usual one where none is given."""

    from asking import talk

    def call(method, path, to=service, **more):
        return asyncio.run(talk(to, (method, path, more)))[0]

    return call


class Gate:
    """Work that waits until it is let through, and remembers what it was given."""

    def __init__(self, work):
        self.work, self.open, self.begun = work, threading.Event(), threading.Event()
        self.batches = []

    def __call__(self, images):
        self.begun.set()
        assert self.open.wait(10)
        self.batches.append(tuple(images.shape))
        return self.work(images)


@pytest.fixture
def gate():
    return Gate
