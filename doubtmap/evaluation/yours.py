"""Metrics of the user's own beside ours: any object with `update` and `compute`.

Objects of torchmetrics are taken as they are. On the command line a metric is
`python:FILE.py:CLASS(key=value,...)`, or the name that an installed package gives one in the group
`doubtmap.metrics` of its entry points.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from doubtmap.datasets.dataset import UNKNOWN
from doubtmap.engine.run import Run
from doubtmap.errors import DoubtmapError, ModelError, UsageError, first_line
from doubtmap.files.python import START, Named
from doubtmap.prediction import Prediction
from doubtmap.reports.digits import digits, number
from doubtmap.scores.parsing import split_names
from doubtmap.scoring import score_maps

GROUP = "doubtmap.metrics"


@runtime_checkable
class Metric(Protocol):
    """Sums over images, and what follows from them."""

    def update(self, prediction: Prediction, label: Tensor, maps: Mapping[str, Tensor]) -> None:
        """Take an image.

        Args:
            prediction: of the image, a batch of one.
            label: `(H, W)` in the network's classes, or below 0:
                `doubtmap.datasets.dataset.VOID`, `UNKNOWN` and `KNOWN`.
            maps: `(H, W)` float32, by score.
        """
        ...

    def compute(self) -> object:
        """A number, or several by name."""
        ...


@dataclass(eq=False)
class OnPixels:
    """A metric of torchmetrics, or any of `update(preds, target)` and `compute()`, fed pixels.

    Args:
        metric: the object.
        of: what it is about. `probabilities`, the default: `(N, C)` of the pixels that have a
            class, against their classes `(N,)`; `classes`: the predicted ones against them. Or the
            name of a score: its values `(N,)` against whether the pixel is wrong, 0 or 1.
        target: of a score: `wrong`, or `unknown` against known pixels.

    Example:
        >>> from doubtmap.evaluation.asking import Options
        >>> class Share:
        ...     wrong = pixels = 0
        ...
        ...     def update(self, preds, target):
        ...         self.wrong, self.pixels = self.wrong + target.sum(), self.pixels + len(preds)
        ...
        ...     def compute(self):
        ...         return self.wrong / self.pixels
        >>> options = Options(metrics={"wrong share": OnPixels(Share(), "entropy")})
    """

    metric: Any
    of: str = "probabilities"
    target: str = "wrong"

    def __post_init__(self) -> None:
        if self.target not in ("wrong", "unknown"):
            raise UsageError(f"metrics: expected target wrong or unknown, got {self.target}.")

    def update(self, prediction: Prediction, label: Tensor, maps: Mapping[str, Tensor]) -> None:
        """See `Metric`."""
        label = label.to(prediction.native_logits.device, torch.int64)
        classes, known = prediction.classes[0], label >= 0
        if self.of == "classes":
            found, truth = classes[known], label[known]
        elif self.of == "probabilities":
            found, truth = prediction.probabilities[0][:, known].T, label[known]
        elif self.of not in maps:
            raise UsageError(
                f"metrics: expected probabilities, classes, or one of the scores "
                f"{', '.join(maps)}, got {self.of}. Add it to the scores."
            )
        elif self.target == "wrong":
            found, truth = maps[self.of][known], (classes != label)[known].long()
        else:
            there = known | (label == UNKNOWN)
            found, truth = maps[self.of][there], (label == UNKNOWN)[there].long()
        if len(found):
            self.metric.update(found, truth)

    def compute(self) -> object:
        """See `Metric`."""
        return self.metric.compute()


Metrics = Mapping[str, object] | Iterable[object] | str


def named_metrics(wanted: Metrics) -> dict[str, Metric]:
    """Metrics by name.

    Args:
        wanted: by name; or objects, called as their classes; or text as on the command line.

    Raises:
        UsageError: for what is none, or two of one name.
        ModelError: where a user's own code raises.
    """
    if isinstance(wanted, str):
        pairs = [_opened(text) for text in split_names(wanted)]
    elif isinstance(wanted, Mapping):
        pairs = [*wanted.items()]
    else:
        pairs = [(type(each).__name__, each) for each in wanted]
    found: dict[str, Metric] = {}
    for name, each in pairs:
        if name in found:
            raise UsageError(
                f"metrics: {name} is there twice. Name each, as in metrics={{'a': ..., 'b': ...}}."
            )
        if any(kind.__module__.startswith("torchmetrics.") for kind in type(each).__mro__):
            each = OnPixels(each)
        if not isinstance(each, Metric) or isinstance(each, type):
            raise UsageError(
                f"metrics: expected an object with update and compute, got {name}. See "
                f"doubtmap.evaluation.yours.Metric."
            )
        found[name] = each
    return found


def _opened(text: str) -> tuple[str, object]:
    if text.startswith(START):
        named = Named(text.removeprefix(START), "a metric")
        return named.name, named.called()
    points = {point.name: point for point in entry_points(group=GROUP)}
    if text not in points:
        known = f"one of {', '.join(points)}, which packages bring, or " if points else ""
        raise UsageError(f"metrics: expected {known}python:FILE.py:CLASS, got {text}.")
    try:
        return text, points[text].load()()
    except Exception as error:
        raise ModelError(
            f"metrics: {text} is of an installed package, {points[text].value}, which raised "
            f"{type(error).__name__}: {first_line(error)}. Mend it, or leave it out."
        ) from error


class Yours:
    """What becomes of the user's metrics in one evaluation.

    Args:
        metrics: by name.
    """

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self._metrics, self._seen = metrics, set[int]()

    def take(
        self, index: int, prediction: Prediction, label: Tensor, maps: Mapping[str, Tensor]
    ) -> None:
        """Add an image as it was evaluated."""
        self._seen.add(index)
        for name, metric in self._metrics.items():
            try:
                metric.update(prediction, label, maps)
            except DoubtmapError:
                raise
            except Exception as error:
                raise _raised(name, error) from error

    def finish(self, run: Run, images: Sequence[int]) -> dict[str, Any]:
        """Look again at what a run before had seen, and compute."""
        with torch.inference_mode():  # in which the others were taken
            for index in sorted(set(images) - self._seen):
                told = run.attempt(run.dataset[index])
                if told is not None:
                    self.take(index, *told, score_maps(told[0], run.scores))
        found = {}
        for name, metric in self._metrics.items():
            try:
                found[name] = _plain(metric.compute())
            except Exception as error:
                raise _raised(name, error) from error
        return found


def flattened(found: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Each value by its name, those in mappings and lists by `outer.inner`."""
    for key, value in found.items():
        inner = dict(enumerate(value)) if isinstance(value, list) else value
        if isinstance(inner, Mapping):
            yield from flattened({str(k): v for k, v in inner.items()}, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def metrics_text(found: Mapping[str, Any]) -> str:
    """One line on what the user's metrics gave."""
    return "metrics: " + ", ".join(f"{name} {_shown(value)}" for name, value in flattened(found))


def _shown(value: Any) -> str:
    return digits(value) if number(value) is not None else str(value)


def metric_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values, for the report."""
    return [(name, _shown(value)) for name, value in flattened(found)]


def _raised(name: str, error: Exception) -> ModelError:
    return ModelError(
        f"metrics: {name} raised {type(error).__name__}: {first_line(error)}. Mend it, or leave "
        f"it out."
    )


def _plain(value: object) -> Any:
    """As JSON has it: numbers, lists, and mappings of these."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Tensor):
        return _plain(value.detach().cpu().numpy())
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, int | float | str | None) else str(value)
