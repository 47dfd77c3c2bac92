"""Numbers in the order of a ruler: float32 as whole numbers that rise with it.

The bits of a float32, with those of negative numbers turned round, are an int32 whose order is the
order of the numbers. Its upper half names a *step*, a 128th of an octave: 65,536 steps for all
float32 there are, whatever the range of a score.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

STEPS = 1 << 16


def ordered(values: Tensor) -> Tensor:
    """Whole numbers in the order of float32 numbers.

    Args:
        values: any shape, float32, not NaN.

    Returns:
        The same shape, int32; -0.0 and 0.0 are one number.

    Example:
        >>> ordered(torch.tensor([-1.0, -0.0, 0.0, 1e-45])).tolist()
        [-1065353217, 0, 0, 1]
    """
    # Adding zero turns -0.0 into 0.0.
    bits = (values + 0.0).view(torch.int32)
    return (bits >> 31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits)


def steps(values: Tensor) -> Tensor:
    """The step of each number.

    Args:
        values: any shape, float32, not NaN.

    Returns:
        The same shape, int64 in [0, 65536), rising with the values.
    """
    return (ordered(values) >> 16).long() + STEPS // 2


def top_of_step(step: int) -> float:
    """The largest float32 number of a step.

    A number is at most this exactly where its step is at most `step`.

    Example:
        >>> top = top_of_step(int(steps(torch.tensor(1.0))))
        >>> 1.0 <= top < 1.0 + 1 / 128
        True
    """
    key = ((step - STEPS // 2) << 16) | 0xFFFF
    return number(key - (key == -1))  # that of -0.0, which is 0.0 here


def number(key: int) -> float:
    """The float32 number of a whole number, as `ordered` gives it.

    Example:
        >>> number(int(ordered(torch.tensor(-0.5))))
        -0.5
    """
    bits = key if key >= 0 else key ^ 0x7FFFFFFF
    return float(np.array(bits, np.int32).view(np.float32))
