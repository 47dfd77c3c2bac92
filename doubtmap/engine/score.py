"""Doubt maps of images without labels, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from doubtmap.datasets.reading import read_image
from doubtmap.engine.fit import prepared
from doubtmap.engine.observation import score_maps
from doubtmap.errors import DataError
from doubtmap.prediction import Prediction, Score, Segmenter


@dataclass(frozen=True, eq=False)
class ScoredImage:
    """What a network said about one image, and how far to trust it.

    Args:
        path: of the image.
        image: `(3, H, W)` uint8.
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
) -> Iterator[ScoredImage]:
    """Score images in order; the next one is read while the network works.

    Args:
        segmenter: the network.
        paths: of the images.
        scores: by name.
        skipped: takes the images that cannot be read, and why; without it the first ends the run.

    Raises:
        DataError: for an image that cannot be read, unless `skipped` takes it.
    """
    segmenter = prepared(segmenter, scores)
    with ThreadPoolExecutor(1, thread_name_prefix="doubtmap-read") as pool:
        coming = pool.submit(read_image, paths[0], orient=True) if paths else None
        for index, path in enumerate(paths):
            assert coming is not None
            current = coming
            if index + 1 < len(paths):
                coming = pool.submit(read_image, paths[index + 1], orient=True)
            try:
                image = current.result()
            except DataError as error:
                if skipped is None:
                    raise
                skipped[path] = str(error)
                continue
            # Nothing of it is kept here: the network's next run takes the same memory.
            yield _scored(segmenter, path, image, scores)


def _scored(
    segmenter: Segmenter, path: Path, image: Tensor, scores: dict[str, Score]
) -> ScoredImage:
    prediction = segmenter(image[None])
    return ScoredImage(path, image, prediction, score_maps(prediction, scores))
