"""What a service takes on, and how it says no."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

from doubtmap.errors import UsageError
from doubtmap.option import Option

_IMAGES, _SIDE = 64, 32


@dataclass(frozen=True)
class Limits:
    """How much one request, and all that wait, may be.

    Args:
        megabytes: of a request; all that are being received may have eight times as many.
        megapixels: of all images of a request.
        seconds: until it must be answered, and in which it must have come in.
        queue: requests that are read, wait or are being answered at a time.
        batch: images of one size that the network sees at once; None: 8 on a GPU, else 1.
        wait: milliseconds that an image waits for others of its size, where a batch has room.

    Raises:
        UsageError: for numbers that cannot be.
    """

    megabytes: Annotated[float, Option("Of a request, at most.")] = 32.0
    megapixels: Annotated[float, Option("Of a request's images, at most.")] = 16.8
    seconds: Annotated[
        float, Option("Until a request must be answered, and to come in.", "--seconds")
    ] = 30.0
    queue: Annotated[int, Option("Requests that may wait; others are told to come again.")] = 32
    batch: Annotated[
        int | None,
        Option("Images of one size that the network sees at once. Default: 8 on a GPU, else 1."),
    ] = None
    wait: Annotated[
        float, Option("Milliseconds that an image waits for others, where a batch has room.")
    ] = 0.0

    def __post_init__(self) -> None:
        for name in ("megabytes", "megapixels", "seconds", "queue", "batch"):
            value = getattr(self, name)
            if value is not None and not (0 < value < math.inf):
                raise UsageError(f"expected {name} to be above 0, got {value}. Correct it.")
        if not 0 <= self.wait < math.inf:
            raise UsageError(f"expected wait to be 0 ms or more, got {self.wait}. Correct it.")

    def on(self, *, gpu: bool) -> Limits:
        """The same, with the batch decided: a CPU gains little by larger ones."""
        return self if self.batch else replace(self, batch=8 if gpu else 1)

    @property
    def bytes(self) -> int:
        """Of a request."""
        return int(self.megabytes * 1e6)

    @property
    def pixels(self) -> int:
        """Of a request's images."""
        return int(self.megapixels * 1e6)


class Refusal(Exception):
    """A request is not answered, and why.

    Args:
        status: of HTTP.
        sentence: what was expected, what came, and what to do.
        again: seconds after which it may be tried again; None where that is of no use.
    """

    def __init__(self, status: int, sentence: str, again: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.again = again


def too_many_bytes(limits: Limits) -> Refusal:
    """More bytes than a request may have."""
    return Refusal(
        413, f"expected at most {limits.megabytes:g} MB, got more. Send a smaller image, or fewer."
    )


def check_images(limits: Limits, count: int, height: int, width: int) -> None:
    """Refuse images that are too many or too large.

    A side counts as 32 pixels at least: networks pad what is smaller.

    Raises:
        Refusal: 413.
    """
    if count > _IMAGES:
        raise Refusal(413, f"expected at most {_IMAGES} images at a time, got {count}.")
    if count * max(height, _SIDE) * max(width, _SIDE) > limits.pixels:
        raise Refusal(
            413,
            f"expected at most {limits.megapixels:g} million pixels, got {count} x {width} x "
            f"{height}. Send smaller images, or fewer.",
        )
