"""Whether calls are answered with numbers, or written down as a graph."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses import FakeTensor


def recording(x: Tensor) -> bool:
    """Whether the calls on a tensor are written down as a graph rather than answered.

    While a graph is traced, exported or compiled, under `vmap` and for fake tensors there are no
    numbers to look at, and what C writes into memory of its own is no part of the graph: PyTorch's
    operators do the work then.
    """
    return (
        torch._C._get_tracing_state() is not None
        or torch.compiler.is_compiling()
        or torch._C._functorch.is_functorch_wrapped_tensor(x)
        or isinstance(x, FakeTensor)
    )
