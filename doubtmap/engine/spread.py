"""One pass over images, in order: by this process, or by workers that have the network too."""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from doubtmap.datasets.dataset import Sample
from doubtmap.datasets.reading import read_ahead, read_or_skip
from doubtmap.engine.batches import in_batches
from doubtmap.engine.places import HERE, Place
from doubtmap.engine.pool import AHEAD, Done, Looker, ahead_of
from doubtmap.errors import DataError
from doubtmap.memory import give_back
from doubtmap.prediction import Prediction, Segmenter, listening_to

TRIMMED = 32
"""Images after which memory that is free goes back to the system."""

Item = TypeVar("Item")
Read = TypeVar("Read")
Made = TypeVar("Made")
Look = Callable[[Segmenter, Item, Read], Made]
"""What is made of an image, by the network, which image it is, and what was read of it; it must
bear to be pickled where workers do it. It raises DataError for one that cannot be used."""


@dataclass(frozen=True, eq=False)
class Spread:
    """A network of which workers have copies, or that takes batches; implements `Segmenter`.

    So do passes over images (`looked_at`); called by itself it predicts here what it is given.

    Args:
        segmenter: the network.
        place: of the workers, and how many images go through the network at once.
        layers: inner layers that predictions carry.
    """

    segmenter: Segmenter
    place: Place = HERE
    layers: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The network's."""
        return self.segmenter.class_names

    @property
    def description(self) -> dict[str, object]:
        """The network's."""
        return self.segmenter.description

    @property
    def content(self) -> object:
        """Hashes of what the network is."""
        return getattr(self.segmenter, "content", None)

    def listening(self, layers: Sequence[str]) -> Spread:
        """The same, whose predictions also carry the outputs of inner layers."""
        listening = listening_to(self.segmenter, layers)
        return replace(self, segmenter=listening, layers=tuple(layers))

    def __call__(self, images: Tensor) -> Prediction:
        """Predict a batch of images here."""
        return self.segmenter(images)

    def opening(self) -> Callable[[], Segmenter]:
        """How a worker opens the network."""
        return functools.partial(_opened, self.place.opening(self.segmenter), self.layers)


def _opened(network: Callable[[], Segmenter], layers: tuple[str, ...]) -> Segmenter:
    return listening_to(network(), layers)


def looked_at(
    segmenter: Segmenter,
    items: Iterable[Item],
    read: Callable[[Item], Read],
    look: Look[Item, Read, Made],
    skip: Callable[[Item, DataError], None] | None = None,
    threads: int = AHEAD,
) -> Iterator[Made]:
    """What `look` makes of each image, in order; the next ones are read meanwhile.

    Args:
        segmenter: the network, or a `Spread` one.
        items: such as indices or paths.
        read: of an item.
        look: what is done then.
        skip: takes items that cannot be used, and why; without it the first one ends the pass.
        threads: that read.

    Raises:
        DataError: for an item that cannot be used, unless `skip` takes it.
    """
    batch = 1
    if isinstance(segmenter, Spread):
        if segmenter.place.elsewhere:
            with segmenter.place.alike():
                yield from _by_workers(segmenter, list(items), read, look, skip)
            return
        batch, segmenter = segmenter.place.batch, segmenter.segmenter
    reading = read_or_skip(read, items, threads, skip, ahead_of(batch, threads))
    passing = in_batches(segmenter, reading, batch, _image_of)
    for done, (network, (item, found)) in enumerate(passing, 1):
        # Nothing of it is kept here: the network's next run takes the same memory.
        made = _attempt(network, item, found, look)
        del found
        if not isinstance(made, DataError):
            yield made
        else:
            _leave_out(item, made, skip)
        del made
        if done % TRIMMED == 0:
            give_back()


def _attempt(
    segmenter: Segmenter, item: Item, found: Read, look: Look[Item, Read, Made]
) -> Made | DataError:
    try:
        return look(segmenter, item, found)
    except DataError as error:
        return error


def _image_of(found: tuple[Any, Any]) -> Tensor | None:
    """What the network is given of an item that was read; nothing of one that could not be."""
    read = found[1]
    if isinstance(read, tuple):  # such as with its fingerprint before it
        read = read[-1]
    if isinstance(read, Sample):
        return read.image
    return read if isinstance(read, Tensor) else None


def _leave_out(
    item: Item, error: DataError, skip: Callable[[Item, DataError], None] | None
) -> None:
    if skip is None:
        raise error
    skip(item, error)


def _by_workers(
    segmenter: Spread,
    items: Sequence[Item],
    read: Callable[[Item], Read],
    look: Look[Item, Read, Made],
    skip: Callable[[Item, DataError], None] | None,
) -> Iterator[Made]:
    """The first image here, so that this network knows what it is; what workers send after it."""
    yield from looked_at(segmenter.segmenter, items[:1], read, look, skip)
    work = _Looks(segmenter.opening(), items, read, look, segmenter.place.batch)
    rest = range(1, len(items))
    sent: dict[int, bytes] = {}
    with closing(segmenter.place.look(work, rest, lambda _: None, ordered=True)) as coming:
        for number in rest:
            while number not in sent:
                (covered,), data = next(coming)
                sent[covered] = data
            made = pickle.loads(sent.pop(number))  # what our own worker has sent
            if not isinstance(made, DataError):
                yield made
            else:
                _leave_out(items[number], made, skip)
            del made


@dataclass(frozen=True, eq=False)
class _Looks:
    """What workers do in a pass; fields as of `looked_at`.

    Args:
        network: opens it.
        batch: how many images go through it at once.
    """

    network: Callable[[], Segmenter]
    items: Sequence[Any]
    read: Callable[[Any], Any]
    look: Look[Any, Any, Any]
    batch: int

    def open(self, worker: int) -> Looker:
        """Open the network."""
        return functools.partial(self._look, self.network())

    def _look(
        self, segmenter: Segmenter, numbers: Iterable[int], done: Done
    ) -> Iterator[tuple[list[int], bytes]]:
        ahead = ahead_of(self.batch, AHEAD)
        reading = read_ahead(self._read, numbers, AHEAD, ahead)
        passing = in_batches(segmenter, reading, self.batch, _image_of)
        for count, (network, (number, found)) in enumerate(passing, 1):
            if not isinstance(found, DataError):
                found = _attempt(network, self.items[number], found, self.look)
            yield [number], _as_bytes(found)
            done(number)
            if count % TRIMMED == 0:
                give_back()

    def _read(self, number: int) -> tuple[int, Any]:
        try:
            return number, self.read(self.items[number])
        except DataError as error:
            return number, error


class _Pickler(pickle.Pickler):
    """Tensors go as arrays, which is quicker, and lie in the memory of whoever receives them."""

    def reducer_override(self, obj: object) -> Any:
        if not isinstance(obj, Tensor):
            return NotImplemented
        here = obj.detach().cpu()
        if here.dtype is torch.bfloat16:  # of which there are no arrays
            return _bfloat16, (here.view(torch.int16).numpy(),)
        return torch.from_numpy, (here.numpy(),)


def _bfloat16(bits: NDArray[np.int16]) -> Tensor:
    return torch.from_numpy(bits).view(torch.bfloat16)


def _as_bytes(found: object) -> bytes:
    stream = io.BytesIO()
    _Pickler(stream, pickle.HIGHEST_PROTOCOL).dump(found)
    return stream.getvalue()
