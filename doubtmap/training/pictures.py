"""What a training looks like: its log as curves, and what a flow draws.

Every column of a log is one curve in an SVG file that stands alone; samples of a flow lie side by
side in one picture.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from doubtmap.files import write_atomically
from doubtmap.reports.charts import ChartLine, Plane, drawing, line_chart
from doubtmap.reports.page import stand_alone
from doubtmap.training.flow_training import read_flow

AXES = ("epoch", "step")
"""Columns that can be the horizontal axis, the preferred first."""


NOT_DRAWN = ("step", "seconds")


def draw_log(log: Path) -> Path | None:
    """Draw a log beside it, `NAME.csv` as `NAME.svg`; None where there is no log.

    Args:
        log: of `doubtmap train`, one row for each epoch or stage.

    Raises:
        DataError: where the drawing cannot be written.
    """
    if not log.is_file():
        return None
    drawn = log.with_suffix(".svg")
    write_atomically(drawn, loss_chart(log.read_text()).encode())
    return drawn


def loss_chart(text: str) -> str:
    """An SVG with one plot for each column of a log that holds numbers.

    Args:
        text: of a CSV file; cells that are empty or not finite are left out.

    Returns:
        The drawing.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    axis = next(name for name in AXES if name in rows[0])
    columns = [n for n in rows[0] if n != axis and n not in NOT_DRAWN]
    plots = [_plot(axis, name, points(rows, axis, name)) for name in columns]
    shown = [plot for plot in plots if plot is not None]
    parts = [
        Markup('<g transform="translate(0 {})">{}</g>').format(PLANE.height * k, plot)
        for k, plot in enumerate(shown)
    ]
    height = PLANE.height * max(1, len(shown))
    whole = drawing(PLANE.width, height, f"{', '.join(columns)} by {axis}", *parts)
    return stand_alone(whole).decode()


PLANE = Plane("", "", height=190)
"""The size of each plot."""


def points(rows: list[dict[str, str]], x: str, y: str) -> NDArray[np.float64]:
    """`(N, 2)`, the finite cells of two columns."""
    pairs = [(_number(row[x]), _number(row[y])) for row in rows]
    finite = [pair for pair in pairs if all(map(math.isfinite, pair))]
    return np.array(finite, np.float64).reshape(-1, 2)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _plot(axis: str, name: str, at: NDArray[np.float64]) -> Markup | None:
    if not len(at):
        return None
    (left, low), (right, high) = at.min(0).tolist(), at.max(0).tolist()
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    ends = (left, right) if right > left else (left - 0.5, right + 0.5)
    plane = Plane(axis, name, ends, (low - margin, high + margin), height=PLANE.height)
    return line_chart(plane, [ChartLine(name, name, at, 0)], f"{name} by {axis}")


COLUMNS, ROWS, SIDE, GAP = 8, 3, 64, 4


def draw_samples(path: Path) -> None:
    """Draw samples of a flow as PNG beside its file, unless there is no such file.

    Args:
        path: `FLOW.safetensors`; `FLOW.png` is written.

    Raises:
        DataError: for a file that is no flow, or a picture that cannot be written.
    """
    if not path.exists():
        return
    flow, _ = read_flow(path)
    with torch.no_grad():
        drawn = flow.sample(ROWS * COLUMNS, (SIDE, SIDE), torch.Generator().manual_seed(0))
    buffer = io.BytesIO()
    tiled(drawn.view(ROWS, COLUMNS, 3, SIDE, SIDE)).save(buffer, "PNG", optimize=True)
    write_atomically(path.with_suffix(".png"), buffer.getvalue())


def tiled(images: Tensor) -> Image.Image:
    """Rows of images on white.

    Args:
        images: `(rows, columns, 3, h, w)` in [0, 1].
    """
    rows, columns, _, height, width = images.shape
    canvas = torch.ones(3, rows * (height + GAP) - GAP, columns * (width + GAP) - GAP)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + GAP), column * (width + GAP)
            canvas[:, top : top + height, left : left + width] = images[row, column]
    return Image.fromarray((canvas * 255).round().byte().permute(1, 2, 0).numpy())
