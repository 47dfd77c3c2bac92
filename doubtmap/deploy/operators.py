"""Operators that ONNX has not for every size, by others that it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Pooled(TorchFunctionMode):
    """While it is entered, averages over so many bins of an image are products with matrices.

    ONNX averages over one bin, or over windows of one fixed size; pyramids of bins (PSPNet and
    others) on images of any size are neither.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call the function, or what stands for it."""
        given = kwargs or {}
        if func is F.adaptive_avg_pool2d or func is torch._C._nn.adaptive_avg_pool2d:
            return averaged_over_bins(*args, **given)
        return func(*args, **given)


def averaged_over_bins(input: Tensor, output_size: int | Sequence[int | None] | None) -> Tensor:
    """As `torch.nn.functional.adaptive_avg_pool2d`.

    Args:
        input: `(B, C, H, W)`.
        output_size: bins along rows and columns; None: as many as there are.
    """
    wanted = (
        [output_size] * 2 if output_size is None or isinstance(output_size, int) else output_size
    )
    height, width = (side if bins is None else bins for bins, side in zip(wanted, input.shape[-2:]))
    if all(isinstance(side, int) and side == 1 for side in (height, width)):
        return input.mean((-2, -1), keepdim=True)
    down, across = _bins(input.shape[-2], height), _bins(input.shape[-1], width)
    return down.to(input) @ input @ across.to(input).T


def _bins(side: int, count: int) -> Tensor:
    """`(count, side)`: the share of each cell of an axis in each bin; rows sum to 1."""
    number, cell = torch.arange(count)[:, None], torch.arange(side)
    inside = (cell >= number * side // count) & (cell < ((number + 1) * side + count - 1) // count)
    share = inside.double()
    return share / share.sum(1, keepdim=True)
