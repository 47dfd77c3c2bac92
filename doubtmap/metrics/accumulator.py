"""What all accumulators share: fixed-size sums over pixels that can be added, saved and weighted.

Every state is a sum over images. Hence the laws that the tests hold all of them to: the order of
updates does not matter, `a + b` is what one accumulator would have become, and a bootstrap over
images is a weighted sum of the images' states.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from doubtmap.errors import UsageError

Array: TypeAlias = NDArray[Any]
State: TypeAlias = dict[str, Array]
ArrayLike: TypeAlias = Tensor | Array


class Accumulator(Protocol):
    """Fixed-size, mergeable state; figures are pure functions of it."""

    def __add__(self, other: Self) -> Self:
        """The accumulator that has seen what both have seen."""
        ...

    def state(self) -> State:
        """The sums as named arrays, to be saved."""
        ...


@dataclass
class Sums:
    """An accumulator whose fields are arrays that add up one by one."""

    def __add__(self, other: Self) -> Self:
        mine, theirs = self.state(), other.state()
        shapes = {name: (mine[name].shape, theirs[name].shape) for name in mine}
        if any(a != b for a, b in shapes.values()):
            raise UsageError(
                f"{type(self).__name__}: expected two accumulators of the same shape, got {shapes}."
            )
        return type(self)(**{name: mine[name] + theirs[name] for name in mine})

    def state(self) -> State:
        """The sums as named arrays."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Figure(float):
    """A float that knows between which bounds the exact value lies."""

    bounds: tuple[float, float]

    def __new__(cls, value: float, bounds: tuple[float, float]) -> Self:
        """Make a figure from its value and its lower and upper bound."""
        figure = super().__new__(cls, value)
        figure.bounds = bounds
        return figure


def to_numpy(values: ArrayLike) -> Array:
    """A NumPy view or copy of a tensor or an array; half precision becomes float32."""
    if isinstance(values, Tensor):
        values = values.detach()
        if values.dtype in (torch.float16, torch.bfloat16):
            values = values.float()
        return np.asarray(values.cpu().numpy())
    values = np.asarray(values)
    return values.astype(np.float32) if values.dtype == np.float16 else values


def same_shape(who: str, **arrays: Array) -> None:
    """Raise where arrays that belong together differ in shape."""
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise UsageError(f"{who}: expected arrays of one shape, got {listed}.")


def join_states(**states: State) -> State:
    """One flat state from several, names joined by a slash."""
    return {
        f"{prefix}/{name}": array
        for prefix, state in states.items()
        for name, array in state.items()
    }


def sub_state(state: State, prefix: str) -> State:
    """The arrays below a prefix, without it."""
    start = prefix + "/"
    return {name[len(start) :]: array for name, array in state.items() if name.startswith(start)}


def narrowed(sums: Array) -> Array:
    """Sums as unsigned numbers of as few bits as hold them all, where they are whole.

    Example:
        >>> narrowed(np.array([0.0, 300.0])).dtype, narrowed(np.array([0.5])).dtype
        (dtype('uint16'), dtype('float64'))
    """
    if not sums.size or sums.min() < 0:
        return sums
    for kind in (np.uint8, np.uint16, np.uint32):
        if sums.max() <= np.iinfo(kind).max:
            whole = sums.astype(kind)
            return whole if np.array_equal(whole, sums) else sums
    return sums
