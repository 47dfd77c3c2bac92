"""Scores of the user's own: `python:FILE.py:NAME`, and those that installed packages bring.

A package names its scores in the group `doubtmap.scores` of its entry points:

    [project.entry-points."doubtmap.scores"]
    sharpness = "package.module:sharpness"
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import torch
from torch import Tensor

from doubtmap.errors import DoubtmapError, ModelError, UsageError, first_line
from doubtmap.files.python import START, Named
from doubtmap.prediction import Prediction, Score

GROUP = "doubtmap.scores"


@dataclass(frozen=True, eq=False)
class Yours:
    """A function of a Python file as a score, or an object of a class of it.

    Sent to another process, it is the text alone, by which the file is opened there.

    Args:
        text: `python:FILE.py:NAME`, or `python:FILE.py:NAME(key=value,...)`: a function of a
            `Prediction` and of these values, or a class that takes them and whose objects are
            called with a `Prediction`.

    Raises:
        UsageError: where file or name is missing.
        ModelError: where the file raises.
    """

    text: str
    name: str = field(init=False)
    code: str = field(init=False)
    """A hash of the file, of what it imports of its neighbours, and of the values."""
    _function: Score = field(init=False)

    def __post_init__(self) -> None:
        named = Named(self.text.removeprefix(START), "a score")
        given = ",".join(f"{key}={value}" for key, value in named.arguments.items())
        found: Any = named.found()
        function = named.called() if inspect.isclass(found) else partial(found, **named.arguments)
        if not callable(function):
            raise UsageError(
                f"{named}: expected objects that are called with a Prediction. Give the class a "
                f"method __call__."
            )
        made = {
            "name": f"{named.name}({given})" if given else named.name,
            "code": f"{named.code} {given}",
            "_function": function,
        }
        for key, value in made.items():
            object.__setattr__(self, key, value)

    def __reduce__(self) -> tuple[type[Yours], tuple[str]]:
        return type(self), (self.text,)

    @property
    def probability_of_wrong(self) -> bool:
        """Whether it says of itself that it is the probability that a pixel is wrong."""
        inner = self._function
        inner = inner.func if isinstance(inner, partial) else inner
        return bool(getattr(inner, "probability_of_wrong", False))

    def __call__(self, prediction: Prediction) -> Tensor:
        """`(B, H, W)` float32, higher = more doubt.

        Raises:
            ModelError: where it raises, or gives something else.
        """
        try:
            found = torch.as_tensor(self._function(prediction))
        except DoubtmapError:
            raise
        except Exception as error:
            raise ModelError(
                f"{self.text}: expected a map of doubt, but it raised {type(error).__name__}: "
                f"{first_line(error)}. Mend it, or leave it out."
            ) from error
        shape = (len(prediction.native_logits), *prediction.size)
        if tuple(found.shape) == shape[1:] and shape[0] == 1:
            found = found[None]
        if tuple(found.shape) != shape or found.is_complex():
            raise ModelError(
                f"{self.text}: expected real numbers of shape {shape}, one for each pixel of the "
                f"image, got {tuple(found.shape)}. prediction.to_size resizes maps of the "
                f"network's grid."
            )
        return found.detach().float()


def of_packages() -> dict[str, EntryPoint]:
    """Scores that installed packages bring, by name."""
    return {point.name: point for point in entry_points(group=GROUP)}


def opened(point: EntryPoint) -> Callable[..., Any]:
    """The function of a package's score.

    Raises:
        ModelError: where the package cannot be imported, or names something else.
    """
    try:
        found = point.load()
    except Exception as error:
        raise ModelError(
            f"scores: {point.name} is of an installed package, {point.value}, which cannot be "
            f"imported ({first_line(error)}). Mend the package, or leave {point.name} out."
        ) from error
    if not callable(found):
        raise ModelError(
            f"scores: expected a function at {point.value}, which an installed package names "
            f"{point.name}, got {type(found).__name__}."
        )
    function: Callable[..., Any] = found
    return function
