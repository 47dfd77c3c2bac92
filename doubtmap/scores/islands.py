"""Island: another class than the pixel's own lies to the right, to the left and below."""

from __future__ import annotations

from typing import get_args

from torch import Tensor

from doubtmap.errors import UsageError
from doubtmap.kernels import at_least_float32
from doubtmap.kernels.squares import Sides, averaged_softmax, islands
from doubtmap.prediction import Prediction, as_prediction
from doubtmap.scores.smoothing import spread_out


def island(prediction: Prediction | Tensor, cell: float = 8, sides: Sides = "mean") -> Tensor:
    """How much a pixel is an island in another class, whichever class that is.

    Things stand on the ground and have something else beside them. With the softmax p averaged
    over squares, and m the probabilities of a class in a window to the right, to the left and
    below, the square itself and the L next ones, summed and divided by L,

        island = max_c max_window  M(m_right, m_left, m_below)_c  (1 - p_c)

    over all classes c and windows of 1/16, 1/8 and 1/4 of the width; M is the mean of the sides,
    or their geometric mean, which wants the class on all of them. Beyond the border there is
    nothing. Known things are islands too: it says where to look, not what is unknown, and it
    means little where there is no ground below (seen from above, or through a microscope).

    Args:
        prediction: or native logits `(B, C, h, w)`.
        cell: side of the squares, in image pixels; at least one sample of the native grid.
        sides: `mean` or `geometric`.

    Returns:
        `(B, H, W)` float32 in [0, 1].

    Raises:
        UsageError: for an unknown `sides`, or `cell` that is not a number above 0.

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 2, 8, 16)
        >>> logits[:, 0] = 9  # one class, but for a thing of the other
        >>> logits[:, :, 4:6, 7:9] = torch.tensor([0.0, 9.0]).view(2, 1, 1)
        >>> doubt = island(logits, cell=1)[0]
        >>> bool(doubt[5, 7] > 0.6), bool(doubt[1, 1] < 0.01)
        (True, True)
    """
    if sides not in get_args(Sides):
        raise UsageError(f"island: expected sides=mean or sides=geometric, got {sides!r}.")
    if not 0 < cell < float("inf"):
        raise UsageError(f"island: expected cell above 0, in pixels, got {cell}.")
    prediction = as_prediction(prediction)
    logits = at_least_float32(prediction.native_logits)
    square = samples(cell, logits.shape[-1], pixels_across(prediction))
    found = islands(averaged_softmax(logits, square)[0], sides)
    found = spread_out(found, square, (logits.shape[-2], logits.shape[-1]))
    return prediction.to_size(found[:, None])[:, 0].float()


def pixels_across(prediction: Prediction) -> float:
    """Image pixels that the native grid is wide, padding included."""
    return float((prediction.covered or prediction.size)[1])


def samples(pixels: float, width: int, across: float) -> int:
    """How many samples of a grid are so many pixels; at least 1.

    Args:
        pixels: a length.
        width: of the grid, in samples.
        across: of the grid, in pixels.
    """
    return max(1, round(float(pixels * width / across)))
