"""What a flow draws, side by side in one picture."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from doubtmap.atomic import write_atomically
from doubtmap.training.flow_file import read_flow

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
