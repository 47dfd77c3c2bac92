"""Predictions of an image that is too large to be held, block by block, in bounded memory.

Windows are looked at row by row and summed on a canvas. Once no later window counts for the upper
rows, these are given away as blocks, each with some context around it, and forgotten. Where a row
of the whole image does not fit in memory, the image is gone through in panels of columns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from doubtmap.prediction import Prediction
from doubtmap.windows.blended import Windows
from doubtmap.windows.canvas import Canvas, Laying, bytes_per_pixel
from doubtmap.windows.spans import STEP, Span, spans

Range = tuple[int, int]
"""The first pixel, and the one after the last."""
Key = tuple[int, int]
"""Of a strip: its panel, and its row of windows."""

PANEL_BYTES = 2**29
"""That the sums of a canvas may take."""


@dataclass(frozen=True, eq=False)
class Block:
    """A part of an image, predicted.

    Args:
        rows, columns: of the part, in pixels of the image.
        prediction: of the part and some context; None where there are no data.
        inside: where the part lies in the prediction.
    """

    rows: Range
    columns: Range
    prediction: Prediction | None
    inside: tuple[slice, slice]


@dataclass(frozen=True)
class Strips:
    """How an image is gone through: strips of blocks, in panels of columns.

    Args:
        size: height and width of the image.
        tile, overlap: see `Windows`.
        context: pixels around a block that its scores may look at; a multiple of 32.
        panel: columns that a canvas may be wide.
    """

    size: tuple[int, int]
    tile: int
    overlap: int
    context: int
    panel: int

    @cached_property
    def rows(self) -> tuple[Span, ...]:
        """Rows of the windows."""
        return spans(self.size[0], self.tile, self.overlap)

    @cached_property
    def edges(self) -> tuple[int, ...]:
        """Up to which row everything is known, with its context, after each row of windows."""
        found = [0]
        for following in self.rows[1:]:
            ready = (int(following.rise[0]) - self.context) // STEP * STEP
            found.append(max(found[-1], ready))
        return (*found[1:], self.size[0])

    @cached_property
    def panels(self) -> tuple[tuple[Span, ...], ...]:
        """Columns of the blocks with their context, panel by panel."""
        wide = max(self.tile, 4 * self.context)
        found: list[list[Span]] = [[]]
        for each in spans(self.size[1], wide, 2 * self.context, shrink=False):
            if found[-1] and each.stop - found[-1][0].start > self.panel:
                found.append([])
            found[-1].append(each)
        return tuple(tuple(panel) for panel in found)

    @cached_property
    def keys(self) -> tuple[Key, ...]:
        """Of all strips, in the order in which they come."""
        rows = [row for row in range(len(self.rows)) if self.range_of(row)[0] < self.edges[row]]
        return tuple((panel, row) for panel in range(len(self.panels)) for row in rows)

    def range_of(self, row: int) -> Range:
        """Rows of the blocks of a strip."""
        return (self.edges[row - 1] if row else 0), self.edges[row]

    def columns_of(self, panel: int) -> Range:
        """Columns of the blocks of a strip."""
        blocks = self.panels[panel]
        return _core(blocks[0])[0], _core(blocks[-1])[1]

    def windows_of(self, panel: int) -> tuple[Span, ...]:
        """Columns of the windows that count in a panel."""
        first, last = self.panels[panel][0].start, self.panels[panel][-1].stop
        across = spans(self.size[1], self.tile, self.overlap)
        return tuple(each for each in across if each.stop > first and each.start < last)

    def first_window(self, row: int) -> int:
        """The first row of windows that counts for a strip or its context."""
        top = self.range_of(row)[0] - self.context
        return next(index for index, each in enumerate(self.rows) if each.fall[1] > top)


def _core(block: Span) -> Range:
    """What a block is of the columns that it has with its context."""
    low = sum(block.rise) / 2 if block.rise[1] > block.start else block.start
    high = sum(block.fall) / 2 if block.fall[0] < block.stop else block.stop
    return int(low), int(high)


def panel_width(prediction: Prediction, laying: Laying, tile: int, context: int) -> int:
    """Columns of a canvas whose sums take `PANEL_BYTES`, at least two windows."""
    height = tile + 2 * context + 4 * STEP
    return max(2 * tile, int(PANEL_BYTES / (bytes_per_pixel(prediction, laying) * height)))


def blocks(
    windows: Windows,
    read: Callable[[Range, Range], Tensor | None],
    strips: Strips,
    laying: Laying,
    done: Collection[Key] = (),
    seen: Callable[[], None] | None = None,
) -> Iterator[tuple[Key, Block]]:
    """Predict an image block by block.

    Args:
        windows: the network.
        read: `(3, h, w)` of these rows and columns; None where there are no data.
        strips: how the image is gone through.
        laying: how windows are blended.
        done: strips that are not needed again.
        seen: called after each window.

    Yields:
        The strip's key and the block, strip by strip, from left to right.
    """
    for panel in range(len(strips.panels)):
        todo = [row for each, row in strips.keys if each == panel and (each, row) not in done]
        canvas: Canvas | None = None
        for row in range(
            strips.first_window(todo[0]) if todo else len(strips.rows), len(strips.rows)
        ):
            if row > todo[-1]:
                break
            if canvas is None:
                canvas = _canvas(strips, panel, row, laying)
            _look(windows, read, canvas, strips, panel, row, seen)
            if row in todo:
                for block in _given(canvas, strips, panel, row):
                    yield (panel, row), block
            canvas.forget(max(0, strips.edges[row] - strips.context))


def _canvas(strips: Strips, panel: int, row: int, laying: Laying) -> Canvas:
    columns = strips.windows_of(panel)
    tops = [max(0, strips.range_of(row)[0] - strips.context) for row in range(len(strips.rows))]
    height = max(each.stop - top for each, top in zip(strips.rows, tops)) + 4 * STEP
    left, right = columns[0].start, columns[-1].stop + 4 * STEP
    return Canvas(tops[row], left, height, right - left, laying)


def _look(
    windows: Windows,
    read: Callable[[Range, Range], Tensor | None],
    canvas: Canvas,
    strips: Strips,
    panel: int,
    row: int,
    seen: Callable[[], None] | None,
) -> None:
    """Put a row of windows on the canvas."""
    rows = strips.rows[row]
    for columns in strips.windows_of(panel):
        image = read((rows.start, rows.stop), (columns.start, columns.stop))
        if image is not None:
            canvas.add(windows.segmenter(image[None]), rows, columns)
        if seen is not None:
            seen()


def _given(canvas: Canvas, strips: Strips, panel: int, row: int) -> Iterator[Block]:
    """The blocks of a strip, from left to right."""
    rows = strips.range_of(row)
    around = max(0, rows[0] - strips.context), min(strips.size[0], rows[1] + strips.context)
    for each in strips.panels[panel]:
        columns, wide = _core(each), (each.start, each.stop)
        inside = (
            slice(rows[0] - around[0], rows[1] - around[0]),
            slice(columns[0] - wide[0], columns[1] - wide[0]),
        )
        prediction = None if canvas.like is None else canvas.cut(around, wide, strips.size)
        yield Block(rows, columns, prediction, inside)
