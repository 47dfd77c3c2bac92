"""Several images through the network at once, and the prediction of each by itself.

Whoever looks at an image calls the network on it as always; where the network sees the images
after it in its size, they go through the network with it, and their predictions wait until they are
asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from doubtmap.errors import (
    DataError,
    ModelError,
    NotFinite,
    UsageError,
    first_line,
    is_out_of_memory,
)
from doubtmap.prediction import Members, Prediction, Queries, Segmenter

NEAR = 0.01
"""How far the logits of an image may differ beside others from those alone, as a share of their
largest: rounding stays below it, in half precision too; images that act on each other do not."""

Found = TypeVar("Found")


def in_batches(
    segmenter: Segmenter,
    found: Iterator[Found],
    most: int,
    image_of: Callable[[Found], Tensor | None],
) -> Iterator[tuple[Segmenter, Found]]:
    """Each of what was found, and the network that is to be called on its image.

    Args:
        segmenter: the network.
        found: in order.
        most: how many images go through the network at once; those that follow each other and that
            it sees in one size do.
        image_of: the image of one of them, `(3, H, W)`, as the network will be given it; None
            where it will not be called.
    """
    together = Batches(segmenter)
    batch: list[Found] = []

    def size(each: Found) -> tuple[int, ...] | None:
        image = image_of(each)
        return None if image is None else together.size(image)

    for each in found:
        if batch and size(batch[0]) != size(each):
            yield from _apart(together, batch, image_of)
        batch.append(each)
        del each
        if len(batch) == most or size(batch[0]) is None:
            yield from _apart(together, batch, image_of)
    yield from _apart(together, batch, image_of)


def _apart(
    together: Batches, batch: list[Found], image_of: Callable[[Found], Tensor | None]
) -> Iterator[tuple[Segmenter, Found]]:
    """What is in a batch, which is empty then; nothing of it is kept that was given out."""
    images = [image for each in batch if (image := image_of(each)) is not None]
    network = together.of(images)
    del images
    while batch:
        yield network, batch.pop(0)


@dataclass(eq=False)
class Batches:
    """A network that is given several images at once.

    Args:
        segmenter: the network.
    """

    segmenter: Segmenter
    _known: bool = field(default=False, init=False)

    def size(self, image: Tensor) -> tuple[int, ...]:
        """The shape in which the network sees an image."""
        seen = getattr(self.segmenter, "seen_size", None)
        bands, height, width = image.shape
        return (bands, *(seen((height, width)) if seen else (height, width)))

    def of(self, images: Sequence[Tensor]) -> Segmenter:
        """The network, for whoever calls it on each of these images by itself."""
        return _Together(self, list(images)) if len(images) > 1 else self.segmenter

    def predict(self, images: Sequence[Tensor]) -> list[Prediction]:
        """Predictions of images that the network sees in one size, each by itself.

        Raises:
            UsageError: where memory ends.
            ModelError: for a network that takes one image at a time, or of whose images one acts
                on another.
            DataError: where it gives nothing that can be used of one of them.
        """
        try:
            found = self._predicted(images)
        except DataError:
            raise
        except Exception as error:  # of any kind, where the network is somebody's own class
            raise self._refused(images, error) from error
        if not self._known:
            self._check(images[0], found[0])
            self._known = True
        return found

    def _predicted(self, images: Sequence[Tensor]) -> list[Prediction]:
        if len({image.shape for image in images}) == 1:
            return singles(self.segmenter(torch.stack([*images])))
        alike: Any = self.segmenter  # of several sizes only where it can do that, see `size`
        found = singles(alike.seen_alike(images))
        return [_sized(each, *image.shape[-2:]) for each, image in zip(found, images)]

    def _check(self, image: Tensor, beside: Prediction) -> None:
        """See once whether images act on each other, as in a network left in training mode."""
        alone = self.segmenter(image[None]).native_logits
        largest = alone.abs().max().item()
        apart = (alone - beside.native_logits).abs().max().item()
        if apart > NEAR * largest:
            raise ModelError(
                f"--batch: expected a network that says the same of an image alone and beside "
                f"others, but its logits of up to {largest:.3g} differ by {apart:.3g}. Leave "
                f"--batch out."
            )

    def _refused(self, images: Sequence[Tensor], error: Exception) -> Exception:
        """What to say where several images cannot go through the network."""
        height, width = images[0].shape[-2:]
        if is_out_of_memory(error):
            return UsageError(
                f"--batch: out of memory with {len(images)} images of {width} x {height} pixels "
                f"at once. Take fewer, such as --batch {max(1, len(images) // 2)}."
            )
        self.segmenter(images[0][None])  # whose own error comes first
        return ModelError(
            f"--batch: expected a network that takes several images at once, but with "
            f"{len(images)} it says: {first_line(error)}. Leave --batch out."
        )


class _Together:
    """A network, called on images by themselves, that sees them together.

    Args:
        batches: with the network.
        images: of one size.
    """

    def __init__(self, batches: Batches, images: list[Tensor]) -> None:
        self._batches = batches
        self._images: list[Tensor] | None = images
        self._waiting: dict[int, tuple[Tensor, Prediction]] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The network's."""
        return self._batches.segmenter.class_names

    @property
    def description(self) -> dict[str, object]:
        """The network's."""
        return self._batches.segmenter.description

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches.segmenter, name)

    def __call__(self, images: Tensor) -> Prediction:
        """The prediction of one of the images; others go through the network by themselves."""
        self._run()
        image, prediction = self._waiting.get(images.data_ptr(), (None, None))
        if image is None or prediction is None or not _is_of(images, image):
            return self._batches.segmenter(images)
        del self._waiting[images.data_ptr()]
        return prediction

    def _run(self) -> None:
        """Predict all images, once; those that are no good go by themselves, to be named."""
        images, self._images = self._images or [], None
        while images:
            try:
                found = self._batches.predict(images)
            except NotFinite as error:
                good = [each for k, each in enumerate(images) if k not in error.images]
                images = good if len(good) < len(images) else []
            except DataError:
                return
            else:
                # Images are kept with them, so that no other comes to lie where they were.
                pairs = zip(images, found)
                self._waiting = {image.data_ptr(): (image, each) for image, each in pairs}
                return


def _is_of(images: Tensor, image: Tensor) -> bool:
    """Whether these, which begin where an image does, are it: no part of it, and not turned."""
    view = image[None]
    return images.shape == view.shape and images.stride()[1:] == view.stride()[1:]


def singles(prediction: Prediction) -> list[Prediction]:
    """The predictions of the images of a batch, each by itself.

    Returns:
        One for each image, that share the batch's memory.
    """
    count = len(prediction.native_logits)
    kept = prediction.classes_of
    behind = [None] * count if kept is None else singles(kept)
    return [_single(prediction, slice(k, k + 1), behind[k]) for k in range(count)]


def _single(prediction: Prediction, k: slice, classes_of: Prediction | None) -> Prediction:
    features, members, queries = prediction.features, prediction.members, prediction.queries
    return replace(
        prediction,
        native_logits=prediction.native_logits[k],
        features=None if features is None else features[k],
        classes_of=classes_of,
        members=members and Members(members.count, members.entropy[k], members.spread[k]),
        layers={name: values[k] for name, values in prediction.layers.items()},
        queries=queries and Queries(queries.accepted[k]),
    )


def _sized(prediction: Prediction, height: int, width: int) -> Prediction:
    """The prediction of an image of another size that the network sees in the same."""
    covered = prediction.covered and (
        prediction.covered[0] * height / prediction.size[0],
        prediction.covered[1] * width / prediction.size[1],
    )
    return replace(prediction, size=(height, width), covered=covered)
