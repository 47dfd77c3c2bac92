"""A service of a tiny network, asked without sockets."""

import asyncio
import io
import threading

import numpy as np
import pytest
from PIL import Image

import doubtmap as dm

pytest.importorskip("fastapi", reason="needs the packages of the extra serve")
pytest.importorskip("prometheus_client", reason="needs the packages of the extra serve")
httpx = pytest.importorskip("httpx2", reason="needs httpx2, a client of HTTP")

from doubtmap.service.answers import Answering  # noqa: E402
from doubtmap.service.limits import Limits  # noqa: E402
from doubtmap.service.web import Service  # noqa: E402

SCORES = {"entropy": dm.scores.entropy, "energy": dm.scores.energy}


def png(height=24, width=40, seed=0, form="PNG", **options):
    """An image file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


@pytest.fixture
def answering(segmenter):
    return Answering("tiny", segmenter, SCORES)


@pytest.fixture
def served(answering):
    """Makes services; all are stopped at the end."""
    made = []

    def make(**limits):
        made.append(Service(answering, Limits(**limits)))
        return made[-1]

    yield make
    for service in made:
        assert service.queue.join(10)


@pytest.fixture
def service(served):
    return served()


async def talk(service, *requests):
    """Send requests at once, each a method, a path and what the client takes besides."""
    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        calls = (client.request(method, path, **more) for method, path, more in requests)
        return await asyncio.gather(*calls)


@pytest.fixture
def ask(service):
    """Send one request to a service, the usual one where none is given."""

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
