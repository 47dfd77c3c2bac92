"""A segmenter that looks at large images through windows that overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from doubtmap.prediction import Prediction, Segmenter, listening_to
from doubtmap.windows.canvas import Canvas, Laying, laying_of
from doubtmap.windows.spans import STEP, Span, check_tile, spans

TILE, OVERLAP = 1024, 128


@dataclass(frozen=True, eq=False)
class Windows:
    """A network that is given windows of an image, whose logits are blended.

    Images that fit in one window are given whole. Where the network's grid has whole pixels a
    cell, the predictions of windows continue each other on that grid, with features and inner
    layers; else logits are blended at the size of the image, without. What lies within a quarter
    of the overlap of a window's border counts for nothing: a network that sees no farther than
    that says the same as of the whole image.

    Args:
        segmenter: the network.
        tile: side of a window, in pixels; a multiple of 32.
        overlap: of neighbours; a multiple of 32, at most half of `tile`.

    Raises:
        UsageError: for numbers that do not go together.
    """

    segmenter: Segmenter
    tile: int = TILE
    overlap: int = OVERLAP

    def __post_init__(self) -> None:
        check_tile(self.tile, self.overlap)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The network's."""
        return self.segmenter.class_names

    @property
    def description(self) -> dict[str, object]:
        """The network's, with the windows."""
        return self.segmenter.description | {
            "windows": {"tile": self.tile, "overlap": self.overlap}
        }

    @property
    def content(self) -> object:
        """Hashes of what the network is."""
        return getattr(self.segmenter, "content", None)

    def listening(self, layers: Sequence[str]) -> Windows:
        """The same network, whose predictions also carry the outputs of inner layers."""
        return Windows(listening_to(self.segmenter, layers), self.tile, self.overlap)

    def __call__(self, images: Tensor) -> Prediction:
        """Predict a batch of images of one size; see `Segmenter`."""
        height, width = images.shape[-2:]
        if height <= self.tile and width <= self.tile:
            return self.segmenter(images)
        canvas: Canvas | None = None
        for rows, columns in self.places(height, width):
            window = images[..., rows.start : rows.stop, columns.start : columns.stop]
            prediction = self.segmenter(window)
            if canvas is None:
                laying = self.laying(prediction)
                canvas = Canvas(0, 0, *_room(height, width), laying)
            canvas.add(prediction, rows, columns)
            del prediction
        assert canvas is not None
        return canvas.cut((0, height), (0, width), (height, width))

    def laying(self, prediction: Prediction, *, features: bool = True) -> Laying:
        """How windows like this prediction's are blended."""
        resized = self.description.get("input_size") not in (None, "image")
        return laying_of(prediction, resized=resized, features=features)

    def places(self, height: int, width: int) -> Iterator[tuple[Span, Span]]:
        """Rows and columns of each window, row by row."""
        across = spans(width, self.tile, self.overlap)
        for rows in spans(height, self.tile, self.overlap):
            for columns in across:
                yield rows, columns


def _room(height: int, width: int) -> tuple[int, int]:
    """Space for an image and the padding that its last windows may have."""
    return height + 4 * STEP, width + 4 * STEP


def usual_overlap(tile: int) -> int:
    """Pixels that windows of a side share with their neighbours where nobody says how many."""
    return min(OVERLAP, max(STEP, tile // 2 // STEP * STEP))


def without_windows(segmenter: Segmenter) -> Segmenter:
    """The network behind windows, where there are any."""
    return segmenter.segmenter if isinstance(segmenter, Windows) else segmenter
