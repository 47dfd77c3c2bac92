"""Images without labels, scored one after the other, here or by workers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from doubtmap.datasets.reading import Rendering, read_image
from doubtmap.datasets.survey import survey
from doubtmap.engine.settings import bands_needed
from doubtmap.engine.spread import looked_at
from doubtmap.errors import DataError, within_memory
from doubtmap.prediction import Prediction, Score, Segmenter, showing
from doubtmap.scoring import prepared, score_maps


@dataclass(frozen=True, eq=False)
class ScoredImage:
    """What a network said about one image, and how far to trust it.

    Args:
        path: of the image.
        image: `(3, H, W)` uint8, or all bands for a network that takes others.
        prediction: of this image alone.
        maps: `(H, W)` float32 by score, higher = more doubt.
    """

    path: Path
    image: Tensor
    prediction: Prediction
    maps: dict[str, Tensor]


def score_images(
    segmenter: Segmenter,
    paths: Sequence[Path],
    scores: dict[str, Score],
    skipped: dict[Path, str] | None = None,
    rendering: Rendering | None = None,
    read: Callable[[Path], Tensor] | None = None,
) -> Iterator[ScoredImage]:
    """Score images in order; the next one is read while the network works.

    Args:
        segmenter: the network.
        paths: of the images.
        scores: by name.
        skipped: takes the images that cannot be read, and why; without it the first ends the run.
        rendering: how all of them become RGB; default: as a survey of them all says.
        read: what reads an image in another way, and does so by itself.

    Raises:
        DataError: for an image that cannot be read, unless `skipped` takes it.
    """
    return passing(segmenter, paths, scores, skipped, rendering, _itself, read)


Made = TypeVar("Made")


def passing(
    segmenter: Segmenter,
    paths: Sequence[Path],
    scores: dict[str, Score],
    skipped: dict[Path, str] | None,
    rendering: Rendering | None,
    make: Callable[[ScoredImage], Made],
    read: Callable[[Path], Tensor] | None = None,
) -> Iterator[Made]:
    """What is made of each image once it is scored."""
    segmenter = prepared(segmenter, scores)
    if rendering is None and read is None:
        known = Rendering(every=bands_needed(segmenter))
        rendering = survey([(path, None) for path in paths], known).rendering
    read = read or functools.partial(read_image, rendering=rendering)

    def skip(path: Path, error: DataError) -> None:
        assert skipped is not None
        skipped[path] = str(error)

    look = functools.partial(_scored, scores=scores, make=make)
    yield from looked_at(segmenter, paths, read, look, None if skipped is None else skip, 1)


def _scored(
    segmenter: Segmenter,
    path: Path,
    image: Tensor,
    *,
    scores: dict[str, Score],
    make: Callable[[ScoredImage], Made],
) -> Made:
    try:
        with showing(path.name), within_memory(image.shape[-2:]):
            prediction = segmenter(image[None])
            return make(ScoredImage(path, image, prediction, score_maps(prediction, scores)))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _itself(scored: ScoredImage) -> ScoredImage:
    return scored
