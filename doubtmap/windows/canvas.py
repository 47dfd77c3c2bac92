"""Where windows' predictions are blended, before any doubt is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from doubtmap.errors import ModelError
from doubtmap.prediction import Members, Prediction, Queries
from doubtmap.windows.spans import STEP, Span

Maps = dict[str, Tensor]
"""`(B, K, h, w)` by name: all of a prediction that is laid side by side."""

CELLS = tuple(cell for cell in range(1, STEP + 1) if STEP % cell == 0)
"""Pixels a side that a cell of a grid may have, so that windows begin at whole cells."""

NO_GRID = (
    "the grid of this network does not fit whole pixels of windows. Take a network that keeps the "
    "size of its images, or scores of the logits"
)


@dataclass(frozen=True)
class Laying:
    """What of each window's prediction is blended, and on which grid.

    Args:
        native: on the network's own grid, where windows' grids continue each other; else at the
            size of the image.
        features: whether features go along, which are many times the logits.
    """

    native: bool
    features: bool

    def maps(self, prediction: Prediction) -> Maps:
        """What is blended of a prediction."""
        found = {"logits": prediction.native_logits if self.native else prediction.logits}
        if prediction.classes_of is not None:
            kept = prediction.classes_of
            found["kept"] = kept.native_logits if self.native else kept.logits
        if prediction.members is not None:
            found["entropy"] = prediction.members.entropy[:, None]
            found["spread"] = prediction.members.spread[:, None]
        if prediction.queries is not None:
            accepted = prediction.queries.accepted[:, None]
            found["accepted"] = accepted if self.native else prediction.to_size(accepted)
        if self.native and self.features and prediction.features is not None:
            found["features"] = prediction.features
        for name, layer in prediction.layers.items():
            found[f"layer {name}"] = layer
        return found

    def prediction(
        self, like: Prediction, maps: Maps, size: tuple[int, int], area: Callable[[str], Area]
    ) -> Prediction:
        """The prediction that blended maps make, in all else like one of a window."""
        covered = area("logits")
        features = maps.get("features")
        placed = {"size": size, "covered": covered, "align_corners": False}
        kept = None
        if like.classes_of is not None:
            names = like.classes_of.class_names
            kept = Prediction(maps["kept"], class_names=names, **placed)  # type: ignore[arg-type]
        members = like.members and replace(
            like.members, entropy=maps["entropy"][:, 0], spread=maps["spread"][:, 0]
        )
        return replace(
            like,
            native_logits=maps["logits"],
            features=features,
            features_missing=like.features_missing if self.native else NO_GRID,
            classes_of=kept,
            members=members,
            queries=like.queries and Queries(maps["accepted"][:, 0]),
            layers={name: maps[f"layer {name}"] for name in like.layers},
            **placed,  # type: ignore[arg-type]
        )


Area = tuple[float, float]


def laying_of(prediction: Prediction, *, resized: bool, features: bool) -> Laying:
    """On which grid windows like this one are blended.

    Args:
        prediction: of a window.
        resized: whether the network brings every window to a size of its own.
        features: whether any score needs them.
    """
    native = not (resized or prediction.align_corners or cell_of(prediction) is None)
    return Laying(native, features)


def cell_of(prediction: Prediction) -> int | None:
    """Image pixels a side for each native cell; None where these are no whole pixels."""
    return _cell(prediction.native_logits, prediction.covered or prediction.size)


def _cell(maps: Tensor, covered: tuple[float, float]) -> int | None:
    rows, columns = maps.shape[-2:]
    fitting = (
        cell
        for cell in CELLS
        if (rows, columns) == (-(-covered[0] // cell), -(-covered[1] // cell))
    )
    return next(fitting, None)


class Canvas:
    """Weighted sums of windows' maps over a part of an image.

    Args:
        top, left: of the part, in pixels of the image; multiples of `STEP`.
        height, width: that it holds at once.
        laying: what is blended.
    """

    def __init__(self, top: int, left: int, height: int, width: int, laying: Laying) -> None:
        self.top, self.left, self.height, self.width = top, left, height, width
        self.laying = laying
        self.like: Prediction | None = None
        self.bottom = self.right = 0
        self._cells: dict[str, int] = {}
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[int, Tensor] = {}

    def add(self, prediction: Prediction, rows: Span, columns: Span) -> None:
        """Take a window's prediction.

        Raises:
            ModelError: for a grid that does not continue those of the windows before.
        """
        self.like = _small(prediction)
        covered = self._covered(prediction)
        self.bottom = max(self.bottom, rows.start + int(covered[0]))
        self.right = max(self.right, columns.start + int(covered[1]))
        weighed = set()
        for name, maps in self.laying.maps(prediction).items():
            cell = self._cell_of(name, maps, covered)
            down = rows.weights(cell, maps.shape[-2])
            across = columns.weights(cell, maps.shape[-1])
            weight = (down[:, None] * across).to(maps.device)
            above = max(0, self.top - rows.start) // cell  # forgotten, since it counts for nothing
            maps, weight = maps[..., above:, :], weight[above:]
            place = self._place(cell, max(rows.start, self.top), columns.start, maps)
            self._sum_of(name, cell, maps)[:, :, *place] += maps * weight
            if cell not in weighed:
                self._weight_of(cell, maps)[place] += weight
                weighed.add(cell)

    def cut(self, rows: tuple[int, int], columns: tuple[int, int], end: Area) -> Prediction:
        """The blended prediction of a part.

        Args:
            rows: first pixel and the one after the last; the first is a multiple of `STEP`.
            columns: likewise.
            end: height and width of the image; a part that reaches it takes its padding along.
        """
        assert self.like is not None
        limits = (
            max(rows[1], self.bottom) if rows[1] >= end[0] else rows[1],
            max(columns[1], self.right) if columns[1] >= end[1] else columns[1],
        )
        areas: dict[str, Area] = {}
        found: Maps = {}
        for name, sums in self._sums.items():
            cell = self._cells[name]
            first = (rows[0] - self.top) // cell, (columns[0] - self.left) // cell
            last = -(-(limits[0] - self.top) // cell), -(-(limits[1] - self.left) // cell)
            place = slice(first[0], last[0]), slice(first[1], last[1])
            weight = self._weights[cell][place]
            found[name] = sums[:, :, *place] / torch.where(weight > 0, weight, 1)
            areas[name] = (
                float(limits[0]) if not rows[0] else (last[0] - first[0]) * cell,
                float(limits[1]) if not columns[0] else (last[1] - first[1]) * cell,
            )
        size = min(rows[1], int(end[0])) - rows[0], min(columns[1], int(end[1])) - columns[0]
        return self.laying.prediction(self.like, found, size, areas.__getitem__)

    def forget(self, until: int) -> None:
        """Let go of the rows above `until`, a multiple of `STEP`, and make room below."""
        if until <= self.top:
            return
        for name, sums in self._sums.items():
            _shift(sums, (until - self.top) // self._cells[name])
        for cell, weight in self._weights.items():
            _shift(weight, (until - self.top) // cell)
        self.top = until

    def _covered(self, prediction: Prediction) -> Area:
        if not self.laying.native:
            return prediction.size
        return prediction.covered or prediction.size

    def _cell_of(self, name: str, maps: Tensor, covered: Area) -> int:
        cell = _cell(maps, covered)
        if cell is None or self._cells.setdefault(name, cell) != cell:
            rows, columns = maps.shape[-2:]
            raise ModelError(
                f"--tile: expected windows whose {name} continue each other, got {rows} x "
                f"{columns} of {covered[0]:g} x {covered[1]:g} pixels. Leave --tile out, or choose "
                f"scores of the logits."
            )
        return cell

    def _place(self, cell: int, top: int, left: int, maps: Tensor) -> tuple[slice, slice]:
        row, column = (top - self.top) // cell, (left - self.left) // cell
        return slice(row, row + maps.shape[-2]), slice(column, column + maps.shape[-1])

    def _grid(self, cell: int) -> tuple[int, int]:
        return -(-self.height // cell), -(-self.width // cell)

    def _sum_of(self, name: str, cell: int, maps: Tensor) -> Tensor:
        if name not in self._sums:
            dtype = torch.promote_types(maps.dtype, torch.float32)
            shape = (*maps.shape[:2], *self._grid(cell))
            self._sums[name] = torch.zeros(shape, dtype=dtype, device=maps.device)
        return self._sums[name]

    def _weight_of(self, cell: int, maps: Tensor) -> Tensor:
        if cell not in self._weights:
            self._weights[cell] = torch.zeros(self._grid(cell), device=maps.device)
        return self._weights[cell]


def _small(prediction: Prediction) -> Prediction:
    """What is not laid side by side: names, and why what is not there is not."""
    dot = prediction.native_logits[..., :1, :1]
    flat = dot[:, 0]
    kept = prediction.classes_of
    return Prediction(
        dot,
        (1, 1),
        features_missing=prediction.features_missing,
        class_names=prediction.class_names,
        classes_of=kept and Prediction(dot, (1, 1), class_names=kept.class_names),
        members=prediction.members and Members(prediction.members.count, flat, flat),
        members_missing=prediction.members_missing,
        layers=dict.fromkeys(prediction.layers, dot),
        energy_missing=prediction.energy_missing,
        window=prediction.window,
        queries=prediction.queries and Queries(flat),
    )


def _shift(grid: Tensor, rows: int) -> None:
    """Move the rows of a grid up, and clear what is left below."""
    kept = grid[..., rows:, :].clone()
    grid[..., : kept.shape[-2], :] = kept
    grid[..., kept.shape[-2] :, :] = 0


def bytes_per_pixel(prediction: Prediction, laying: Laying) -> float:
    """Of a canvas's sums, for each pixel of the image."""
    maps = laying.maps(prediction)
    covered = prediction.covered or prediction.size
    return sum(each.numel() * 4 for each in maps.values()) / (covered[0] * covered[1])
