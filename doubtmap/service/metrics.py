"""Figures of a running service, for Prometheus; this is the one place that knows its library."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

FORM = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one service, apart from those of others in the process."""

    def __init__(self) -> None:
        self._all = every = CollectorRegistry()
        self._requests = Counter(
            "doubtmap_requests", "Requests by way and status.", ["way", "status"], registry=every
        )
        self._seconds = Histogram(
            "doubtmap_request_seconds",
            "From the end of a request's arrival to its answer.",
            ["way"],
            buckets=_SECONDS,
            registry=every,
        )
        self._pixels = Counter("doubtmap_pixels", "Pixels of images answered.", registry=every)
        self._network = Histogram(
            "doubtmap_network_seconds",
            "That the network and its scores took for a batch.",
            buckets=_SECONDS,
            registry=every,
        )
        self._images = Histogram(
            "doubtmap_batch_images", "Images in a batch.", buckets=_IMAGES, registry=every
        )

    def watch(self, waiting: Callable[[], int], inside: Callable[[], int]) -> None:
        """Let the length of a queue be asked for when it is shown."""
        for name, help, value in (
            ("doubtmap_waiting_images", "Images that wait for the network.", waiting),
            ("doubtmap_requests_inside", "Requests let in and not answered yet.", inside),
        ):
            Gauge(name, help, registry=self._all).set_function(value)

    def answered(self, way: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(way, str(status)).inc()
        self._seconds.labels(way).observe(seconds)

    def seen(self, pixels: int) -> None:
        """Count the pixels of images that were answered."""
        self._pixels.inc(pixels)

    def ran(self, images: int, seconds: float) -> None:
        """Count a batch."""
        self._images.observe(images)
        self._network.observe(seconds)

    def sentence(self) -> str:
        """How many requests were answered, and how many refused, for the end."""
        samples = [each for metric in self._requests.collect() for each in metric.samples]
        counts = {True: 0, False: 0}
        for sample in samples:
            if sample.name.endswith("_total"):
                counts[sample.labels["status"] == "200"] += int(sample.value)
        return f"{counts[True]} requests answered, {counts[False]} refused"

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._all)
