"""What the segmenter asks of a network's run time, so that a new one is a small thing to add.

A backend runs one tensor and reports what chosen 1x1 convolutions saw and said (a `Tap` each).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Tap:
    """One call of a 1x1 convolution during one run.

    Args:
        name: the layer's name in the network.
        input: `(B, D, h, w)`.
        output: `(B, C, h, w)`.
    """

    name: str
    input: Tensor
    output: Tensor


class Backend(Protocol):
    """A network that can be run and listened to."""

    @property
    def device(self) -> torch.device:
        """Where inputs are wanted."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type that inputs are wanted in."""
        ...

    @property
    def convolutions(self) -> Mapping[str, int]:
        """Number of output channels of each ungrouped 1x1 convolution, by name."""
        ...

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """Height and width, in pixels, of the only input accepted; None where sizes are free."""
        ...

    @property
    def fixed_batch(self) -> int | None:
        """The only batch size accepted; None where it is free."""
        ...

    def run(self, x: Tensor, taps: Collection[str] = ()) -> tuple[object, list[Tap]]:
        """Run the network once.

        Args:
            x: `(B, 3, H, W)`, normalised, on `device`, of `dtype`.
            taps: names from `convolutions` to listen to.

        Returns:
            The network's output as it is, and the calls of the named layers in order.

        Raises:
            RuntimeError, ValueError or AssertionError: for an input that the network refuses.
        """
        ...


def first_line(error: BaseException) -> str:
    """The first line of somebody else's error, short enough for a sentence of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return (text if len(text) <= 200 else text[:197] + "...").rstrip(".")
