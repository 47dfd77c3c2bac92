"""The two ideas that everything else speaks: `Prediction` and `Segmenter`.

A segmenter is somebody's network behind one call, RGB images in, `Prediction` out. Scores,
calibrators, metrics and reports read predictions only; none of them knows about networks.

Axes are always `B C H W` (images, classes, rows, columns), with `D` in place of `C` for features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from doubtmap.errors import ModelError, NotFinite, UsageError
from doubtmap.files import Origin
from doubtmap.kernels import (
    PixelStatistics,
    at_least_float32,
    recording,
    resize,
    resize_logits,
    resized_divergence,
    resized_statistics,
)
from doubtmap.lazy import kept
from doubtmap.shown import Shown, later

__all__ = [
    "Fitted",
    "FittedScore",
    "Listening",
    "Members",
    "Prediction",
    "Queries",
    "Score",
    "Segmenter",
    "Window",
    "as_prediction",
    "at_least_float32",
    "digest_of",
    "listening_to",
    "resize",
    "showing",
    "shown",
]


@dataclass(frozen=True, eq=False)
class Members:
    """What several networks, or passes of one, said apart from their mean.

    Args:
        count: how many, at least two.
        entropy: `(B, H, W)` in [0, log C], mean over the members of each one's entropy, in nats.
        spread: `(B, H, W)`, standard deviation over the members, with divisor `count - 1`, of the
            probability of the class that their mean predicts.
    """

    count: int
    entropy: Tensor
    spread: Tensor


class Window(NamedTuple):
    """What the last layer sees for one pixel: `rows` x `columns` of its input, centred.

    Attributes:
        rows: of the kernel, odd.
        columns: likewise.
        dilation: steps between the rows and between the columns.
        padding: what lies outside of the input: `zeros`, `reflect`, `replicate` or `circular`.
    """

    rows: int = 1
    columns: int = 1
    dilation: tuple[int, int] = (1, 1)
    padding: str = "zeros"

    @property
    def single(self) -> bool:
        """Whether it is the pixel alone."""
        return self.rows == self.columns == 1


PIXEL = Window()
"""What a 1x1 convolution sees: the pixel alone."""


@dataclass(frozen=True, eq=False)
class Queries:
    """What the queries of a network that predicts masks say beside the classes' scores.

    Args:
        accepted: `(B, H, W)`, `sum_q sigmoid(mask_q) max_c softmax(class_q)_c` over the known
            classes c: how much of the pixel lies in masks of some known class.
    """

    accepted: Tensor


@dataclass(frozen=True, eq=False)
class Prediction(Shown):
    """What a network said about a batch of images, at its own resolution.

    Full-size maps are computed on demand and kept, so that ten scores of one prediction cost
    one resize and one pass over the logits.

    Args:
        native_logits: `(B, C, h, w)`, unnormalised log-probabilities at the network's own
            resolution, finite, at least two classes.
        size: `(H, W)` of the images, in pixels.
        covered: height and width, in image pixels, of the area that the native grid stands for.
            Larger than `size` where the image was padded for the network; default: `size`.
        align_corners: whether the outermost native samples lie on the image's outermost pixel
            centres (True) or half a native sample inside its border (False).
        features: `(B, D, h, w)`, what the last 1x1 convolution saw, where it could be found.
        features_missing: why `features` is None, one sentence.
        class_names: one name per class, or empty where unknown.
        classes_of: the prediction whose classes this one keeps. A calibrator sets it, so that a
            label stays even where rounding makes calibrated logits equal.
        members: what several networks or passes disagree about; the logits are then the logarithm
            of their mean probability.
        members_missing: why `members` is None, one sentence and what to do.
        layers: `(B, D, h', w')` by name, outputs of inner layers that were asked for, each on a
            grid of its own that stands for the same area as the native one.
        energy_missing: why the level of the logits says nothing, so that there is no free energy,
            one sentence; empty where it does. A calibrator sets it.
        window: what of the features the last layer sees for one pixel; one pixel for a 1x1
            convolution.
        queries: what the queries of a network that predicts masks say; the logits are then the
            logarithm of the classes' scores.

    Raises:
        UsageError: for shapes that do not fit each other.
        NotFinite: for logits that are not finite.
    """

    native_logits: Tensor
    size: tuple[int, int]
    covered: tuple[float, float] | None = None
    align_corners: bool = False
    features: Tensor | None = None
    features_missing: str = "this prediction was made from logits alone"
    class_names: tuple[str, ...] = ()
    classes_of: Prediction | None = None
    members: Members | None = None
    members_missing: str = (
        "this is the prediction of one. Give MODEL1,MODEL2,... for an ensemble, or --dropout-passes"
    )
    layers: Mapping[str, Tensor] = field(default_factory=dict)
    energy_missing: str = ""
    window: Window = PIXEL
    queries: Queries | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.native_logits.shape)
        if len(shape) != 4 or shape[1] < 2 or 0 in shape:
            raise UsageError(
                f"Prediction: expected logits (B, C, H, W) with C >= 2 and no empty axis, got "
                f"{shape}. Add a batch axis with x[None]; for one sigmoid channel pass "
                f"torch.cat([torch.zeros_like(x), x], 1)."
            )
        if not self.native_logits.is_floating_point():
            raise UsageError(
                f"Prediction: expected floating-point logits, got {self.native_logits.dtype}. "
                f"Pass the network's scores before argmax."
            )
        if not _all_finite(self.native_logits.detach()):
            said = (
                "Prediction: expected finite logits, got NaN or infinity. Check the network's "
                "weights, or run it in float32."
            )
            raise NotFinite.of(said, self.native_logits)
        if self.class_names and len(self.class_names) != shape[1]:
            raise UsageError(
                f"Prediction: expected {shape[1]} class names, one for each channel of the "
                f"logits, got {len(self.class_names)}: {', '.join(self.class_names)}."
            )
        if self.features is not None and (
            self.features.ndim != 4 or self.features[:, :1].shape != self.native_logits[:, :1].shape
        ):
            raise UsageError(
                f"Prediction: expected features and logits on one grid, got "
                f"{tuple(self.features.shape)} and {shape}."
            )
        kept = self.classes_of
        if kept is not None and (kept.native_logits.shape[0], kept.size) != (shape[0], self.size):
            raise UsageError(
                f"Prediction: expected to keep the classes of a prediction of {shape[0]} images of "
                f"{self.size}, got {len(kept.native_logits)} of {kept.size}."
            )

    def __getstate__(self) -> dict[str, object]:
        """What it was made of; what was computed of it is left out where it is sent or copied."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def _facts(self) -> Mapping[str, object]:
        count, classes, height, width = self.native_logits.shape
        features = {} if self.features is None else {"features": self.features.shape[1]}
        members = {} if self.members is None else {"members": self.members.count}
        return {
            **{"images": count, "of": f"{self.size[0]} x {self.size[1]}", "classes": classes},
            **{"on a grid of": f"{height} x {width}", **features, **members},
        }

    def show(self, score: str | Score = "entropy", images: Tensor | None = None) -> object:
        """Pictures of what is predicted and of a score, for notebooks: `Pictures`, with `save`.

        Args:
            score: its name, such as `entropy`, or the score itself.
            images: `(B, 3, H, W)`, to show beside.
        """
        return later("doubtmap.notebooks", "pictures_of")(self, score, images)

    def to_size(self, maps: Tensor) -> Tensor:
        """Resize maps from the native grid to the image, as the network resizes its logits.

        Args:
            maps: `(B, K, h, w)` on the native grid.

        Returns:
            `(B, K, H, W)`; bilinear.
        """
        return resize(maps, *self.placement)

    @property
    def placement(self) -> tuple[tuple[int, int], tuple[float, float] | None, bool]:
        """How the native grid lies on the image: `size`, `covered` and `align_corners`."""
        return self.size, self.covered, self.align_corners

    @kept
    def logits(self) -> Tensor:
        """`(B, C, H, W)`, full size, at least float32."""
        return resize_logits(self.native_logits, *self.placement)

    @kept
    def statistics(self) -> PixelStatistics:
        """Predicted class and scores of the logits, each `(B, H, W)`, in one pass.

        From the native logits: where the pass is compiled, `logits` is not made for it.
        """
        return resized_statistics(self.native_logits, *self.placement)

    def divergence(self, temperature: float) -> Tensor:
        """`(B, H, W)` in [0, log 2], Jensen-Shannon divergence of softmax(logits / T) to uniform.

        Kept, one map for each temperature; asked for first, it shares the pass of `statistics`.
        """
        kept = self._divergences
        if temperature not in kept:
            if "statistics" in self.__dict__:
                kept[temperature] = resized_divergence(
                    self.native_logits, temperature, *self.placement
                )
            else:
                both = resized_statistics(
                    self.native_logits, *self.placement, temperature=temperature
                )
                assert both.divergence is not None
                kept[temperature] = both.divergence
                object.__setattr__(self, "statistics", both.with_divergence(None))
        return kept[temperature]

    @kept
    def _divergences(self) -> dict[float, Tensor]:
        return {}

    @property
    def classes(self) -> Tensor:
        """`(B, H, W)` int64, the predicted class of every pixel."""
        kept = self.classes_of
        return self.statistics.classes if kept is None else kept.classes

    @kept
    def probabilities(self) -> Tensor:
        """`(B, C, H, W)` in [0, 1], softmax of the full-size logits."""
        return self.logits.softmax(1)

    def require_features(self, score: str) -> Tensor:
        """Return the features, or say in one sentence why `score` cannot have them."""
        if self.features is None:
            raise ModelError(
                f"{score}: needs the network's features, but {self.features_missing}. Take a "
                f"score that needs none, such as max_softmax or entropy (--scores)."
            )
        return self.features

    def require_queries(self, score: str) -> Queries:
        """Return what the queries say, or say why `score` cannot have it."""
        if self.queries is None:
            raise ModelError(
                f"{score}: needs a network that predicts masks by queries, as Mask2Former, "
                f"MaskFormer and EoMT do, but this one does not. Use entropy or max_softmax."
            )
        return self.queries

    def require_members(self, score: str) -> Members:
        """Return what the members disagree about, or say why `score` cannot have it."""
        if self.members is None:
            raise ModelError(
                f"{score}: needs several networks or passes, but {self.members_missing}."
            )
        return self.members


def _all_finite(x: Tensor) -> bool:
    """`isfinite(x).all()`, at memory speed; while a graph is recorded there is nothing to see."""
    if recording(x):
        return True
    if math.isfinite(x.sum().item()):
        return True
    return all(math.isfinite(extreme.item()) for extreme in torch.aminmax(x))


_SHOWN: ContextVar[str] = ContextVar("shown", default="")


@contextmanager
def showing(name: str) -> Iterator[None]:
    """Tell segmenters by which name the image goes that they are given while the block lasts."""
    token = _SHOWN.set(name)
    try:
        yield
    finally:
        _SHOWN.reset(token)


def shown() -> str:
    """The name of the image that is looked at; empty where it has none."""
    return _SHOWN.get()


@runtime_checkable
class Segmenter(Protocol):
    """Somebody's network behind one call: `prediction = segmenter(images)`.

    `images` are `(B, 3, H, W)` RGB, float in [0, 1] or uint8. Normalisation, padding and output
    format are the segmenter's business.
    """

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class, or empty where the network does not know them."""
        ...

    @property
    def description(self) -> dict[str, object]:
        """What a results file should say about the network: source, features, resizing."""
        ...

    def __call__(self, images: Tensor) -> Prediction:
        """Predict a batch of images of one size."""
        ...


@runtime_checkable
class Listening(Segmenter, Protocol):
    """A segmenter whose inner layers can be listened to."""

    def listening(self, layers: Sequence[str]) -> Segmenter:
        """The same network, whose predictions also carry the outputs of these layers."""
        ...


def listening_to(segmenter: Segmenter, layers: Sequence[str]) -> Segmenter:
    """The segmenter, made to carry the outputs of inner layers where any are asked for.

    Raises:
        UsageError: for a segmenter that cannot be listened to, or without such a layer.
    """
    if not layers:
        return segmenter
    if not isinstance(segmenter, Listening):
        raise UsageError(
            f"layer: expected one network whose inner layers can be listened to, got "
            f"{type(segmenter).__name__}. Give a single network, without --dropout-passes."
        )
    return segmenter.listening(layers)


Score = Callable[[Prediction], Tensor]
"""`Prediction -> (B, H, W)` float32, higher = more doubt, without exception."""


@runtime_checkable
class Fitted(Protocol):
    """Whatever was fitted: a score, a calibrator or a network with one, a threshold and so on."""

    @property
    def origin(self) -> Origin:
        """Where it comes from, and which images it has seen."""
        ...


@runtime_checkable
class FittedScore(Fitted, Protocol):
    """A score that learnt from data."""

    @property
    def digest(self) -> str:
        """By which another fit, or another reading of the same file, is told apart."""
        ...

    @property
    def layers(self) -> tuple[str, ...]:
        """Inner layers that predictions must carry."""
        ...

    @property
    def made_by(self) -> str:
        """The command that fits it."""
        ...

    def features(self, prediction: Prediction) -> Tensor:
        """`(B, D, h, w)`, by whose mean over a probe image the network is recognised."""
        ...

    def __call__(self, prediction: Prediction) -> Tensor:
        """Score a prediction."""
        ...


def digest_of(score: Score) -> str:
    """By which another fit of a score, or another code of a user's own, is told apart.

    Empty for those of doubtmap that learnt from no data.
    """
    return score.digest if isinstance(score, FittedScore) else str(getattr(score, "code", ""))


def as_prediction(logits: Prediction | Tensor) -> Prediction:
    """Let scores that are plain arithmetic on logits take a tensor `(B, C, H, W)` too."""
    if isinstance(logits, Prediction):
        return logits
    if not isinstance(logits, Tensor):
        raise UsageError(
            f"scores: expected a prediction or a tensor of logits (B, C, H, W), got "
            f"{type(logits).__name__}. Convert an array with torch.from_numpy(x)."
        )
    return Prediction(
        logits, size=(logits.shape[-2], logits.shape[-1]) if logits.ndim > 1 else (0, 0)
    )
