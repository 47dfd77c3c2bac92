"""Doubt: the score to take where there is no reason for another."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.files import Content, FileKind, Origin, Part, read, write
from doubtmap.files.tables import TEXT, TEXTS, whole, within
from doubtmap.kernels import at_least_float32
from doubtmap.kernels.squares import Sides, averaged, averaged_softmax, islands
from doubtmap.prediction import Prediction, as_prediction
from doubtmap.scores.diagonal import (
    SURE,
    Diagonal,
    in_image,
    layer_features,
    relative,
    sums_of,
    surprise,
)
from doubtmap.scores.islands import pixels_across, samples
from doubtmap.scores.smoothing import smoothed, spread_out
from doubtmap.shown import ShownFit

FLOOR = 0.2
"""Added to islands, so that what is no island can be doubted too."""
ACROSS = 512
"""Samples across; finer grids are averaged to about as many first."""
SQUARES = (4, 16)
"""Sides of the squares for islands, in image pixels."""
SHRINKAGE = 0.02
WEIGHT = 0.25
FEWEST, FEW, MOST = 2, 5, 100
"""Images of a fit; fewer than `FEW` it says itself."""
FRAIL = 1.3
"""Ratio of deviations, left out to seen, above which the fit is believed half as much."""

FILE = FileKind(
    "doubt",
    "a fitted doubt",
    "Fit it with: doubtmap fit doubt MODEL DATA --out FILE.",
    {
        "layer": TEXT,
        "mean": within(),
        "deviation": within(low=1e-30),
        "weight": within(low=0),
        "notes": TEXTS,
        "still": whole(0),
    },
    {
        "share": Part("C", torch.float64, low=0),
        "mean": Part("C D", torch.float64, -1e15, 1e15),
        "variance": Part("C D", torch.float64, 0, 1e30),
    },
)


def doubt(prediction: Prediction | Tensor) -> Tensor:
    """How much a pixel is to be doubted, from the logits alone: unsure, and an island.

        doubt = sqrt(H + 1e-6)  (0.2 + I)^(3/4)  (0.2 + J)^(3/4)

    H is the softmax's entropy in nats, smoothed over 1/256 of the width; I and J are `island` with
    the mean of the sides on squares of 4 pixels, and with their geometric mean on squares of 16.
    What is finer than a sample of the native grid is one sample. So native grids of any stride,
    and full-size logits, say about the same.

    It ranks unknown things, for which it was made. It is not a probability, and for wrong labels
    of known things `max_softmax` is the better choice (docs/doubt.md).

    Args:
        prediction: or native logits `(B, C, h, w)`.

    Returns:
        `(B, H, W)` float32, above 0; higher = more doubt.

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 3, 16, 32)
        >>> logits[:, 0] = 9
        >>> logits[:, :, 8:12, 14:18] = 0  # unsure, within something sure
        >>> found = doubt(logits)[0]
        >>> bool(found[10, 16] > 10 * found[2, 2])
        True
    """
    prediction = as_prediction(prediction)
    logits = at_least_float32(prediction.native_logits)
    return on_image(prediction, log_doubt(logits, pixels_across(prediction)))


def log_doubt(logits: Tensor, across: float = 0) -> Tensor:
    """The logarithm of `doubt`, `(B, h', w')`: the sum of its `terms`."""
    entropy, mean, geometric = terms(logits, across)
    return entropy + mean + geometric


def terms(logits: Tensor, across: float = 0) -> tuple[Tensor, Tensor, Tensor]:
    """The logarithms of the three factors of `doubt`.

    Args:
        logits: `(B, C, h, w)`, float32 or float64.
        across: width of the grid in image pixels; 0: as many as it has samples.

    Returns:
        Of smoothed entropy, of islands by the mean of the sides, and by their geometric mean;
        `(B, h', w')` on the native grid, or about `ACROSS` wide where that is finer.
    """
    fine, across = fineness(logits), across or logits.shape[-1]
    p, entropy = averaged_softmax(logits, fine)
    unsure = 0.5 * (smoothed(entropy, max(1.0, 2 * float(p.shape[-1]) / ACROSS)) + 1e-6).log()
    squares = [samples(pixels, p.shape[-1], across) for pixels in SQUARES]
    return unsure, _log_islands(p, squares[0], "mean"), _log_islands(p, squares[1], "geometric")


def fineness(maps: Tensor) -> int:
    """Samples that are averaged to one, so that about `ACROSS` are left in a row; 1: none."""
    return max(1, round(float(maps.shape[-1]) / ACROSS))


def _log_islands(p: Tensor, square: int, sides: Sides) -> Tensor:
    found = islands(averaged(p, square), sides)
    return 0.75 * (FLOOR + spread_out(found, square, (p.shape[-2], p.shape[-1]))).log()


def on_image(prediction: Prediction, log_maps: Tensor) -> Tensor:
    """`(B, H, W)` float32 from logarithms on the grid of `terms`, resized and then raised."""
    shape = prediction.native_logits.shape
    maps = spread_out(log_maps, fineness(prediction.native_logits), (shape[-2], shape[-1]))
    return prediction.to_size(maps[:, None])[:, 0].exp().float()


@dataclass(frozen=True, eq=False)
class Doubt(ShownFit):
    """`doubt` with an eye on the network's deepest features, fitted to a few ordinary images.

        doubt  exp(w tanh(z)),    z = (A - median(A) / 2 - mean) / deviation

    A is the surprise of the features of one inner layer, of length 1, on that layer's own grid,
    under diagonal Gaussians of the classes that the network predicts (no labels are needed),
    smoothed over half a cell of the layer. Its median over the image is taken off by half, since
    on unfamiliar ground everything is surprising; tanh bounds it, so that it outvotes nothing.
    Mean and deviation are those of the fit's images, each left out of its own fit.

    Args:
        familiar: the Gaussians of the features.
        layer: name of the inner layer.
        mean: of `A - median(A) / 2`, in nats.
        deviation: of the same, above 0.
        weight: w, at least 0; 0 is the feature-free form.
        origin: where it comes from.
        notes: what the fit had to say, one sentence each.

    Raises:
        UsageError: for a weight that is not a number of at least 0.
    """

    familiar: Diagonal
    layer: str
    mean: float
    deviation: float
    weight: float = WEIGHT
    origin: Origin = field(default_factory=Origin)
    notes: tuple[str, ...] = ()

    name: ClassVar[str] = "doubt"
    made_by: ClassVar[str] = "doubtmap fit doubt MODEL DATA --out FILE"
    FIT_OPTIONS: ClassVar[dict[str, Any]] = {"layer": "deepest"}
    READ_OPTIONS: ClassVar[dict[str, Any]] = {"weight": WEIGHT}

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise UsageError(f"doubt: expected weight of at least 0, got {self.weight}.")

    @property
    def layers(self) -> tuple[str, ...]:
        """Inner layers that predictions must carry."""
        return (self.layer,)

    @cached_property
    def digest(self) -> str:
        """By which another fit, or another reading of the same file, is told apart."""
        digest = hashlib.sha256(repr(self._options).encode())
        for tensor in (self.familiar.share, self.familiar.mean, self.familiar.variance):
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    @property
    def _options(self) -> dict[str, Any]:
        kept = ("layer", "mean", "deviation", "weight", "notes")
        return {name: getattr(self, name) for name in kept} | {"still": self.familiar.still}

    def __call__(self, prediction: Prediction) -> Tensor:
        """Score a prediction.

        Args:
            prediction: with the inner layer that the fit was over.

        Returns:
            `(B, H, W)` float32, above 0; higher = more doubt.

        Raises:
            ModelError: for a prediction without that layer, or of another number of features.
            DataError: for features that are not finite.
        """
        logits = at_least_float32(prediction.native_logits)
        total = log_doubt(logits, pixels_across(prediction))
        strange, _ = _strange(self.familiar, self.features(prediction), prediction, total)
        total = total + self.weight * torch.tanh((strange - self.mean) / self.deviation)
        return on_image(prediction, total)

    def features(self, prediction: Prediction) -> Tensor:
        """`(B, D, h, w)` float32 of length 1, on the layer's own grid."""
        z = layer_features(prediction, self.layer)
        if z.shape[1] != self.familiar.mean.shape[1]:
            raise ModelError(
                f"doubt: expected {self.familiar.mean.shape[1]} features of {self.layer}, as in "
                f"the fit, got {z.shape[1]}. Fit again for this network."
            )
        return z

    @classmethod
    def fit(cls, predictions: Iterable[Prediction], *, layer: str, **options: Any) -> Self:
        """Fit in two passes; memory does not grow with the pixels.

        Args:
            predictions: that carry the layer, one image each; gone through twice.
            layer: its name.
            options: `weight`.

        Raises:
            DataError: for fewer than 2 images, none of whose cells is sure, or features that are
                not finite or do not vary.
            ModelError: for predictions without the layer.
        """
        names: tuple[str, ...] = ()
        each = []
        for prediction in predictions:
            names = prediction.class_names
            each.append(sums_of(prediction, layer))
        if len(each) < FEWEST:
            raise DataError(
                f"doubt: expected at least {FEWEST} images, better 10 to {MOST}, got {len(each)}. "
                f"Add ordinary images of the domain."
            )
        total = each[0]
        for one in each[1:]:
            total = total + one
        if not float(total.count.sum()):
            raise DataError(
                f"doubt: expected cells where the network is sure (mean probability above {SURE}), "
                f"found none. Fit on images like those that it was trained on."
            )
        familiar = Diagonal.of(total, SHRINKAGE)
        seen, left_out = _Moments(), _Moments()
        for prediction, own in zip(predictions, each):
            z, like = layer_features(prediction, layer), log_doubt(prediction.native_logits.float())
            rest = total - own
            others = Diagonal.of(rest, SHRINKAGE) if float(rest.count.sum()) else familiar
            for gaussians, moments in ((familiar, seen), (others, left_out)):
                strange, inside = _strange(gaussians, z, prediction, like)
                moments.add(strange if inside is None else strange[:, inside])
        ratio = left_out.deviation / max(seen.deviation, 1e-12)
        fitted = cls(familiar, layer, left_out.mean, max(left_out.deviation, 1e-6), **options)
        facts = {"images": len(each), "deviation left out over seen": round(ratio, 3)}
        notes = tuple(_remarks(fitted, names, ratio, len(each)))
        weight = fitted.weight / 2 if ratio > FRAIL else fitted.weight
        return replace(fitted, weight=weight, origin=Origin(facts=facts), notes=notes)

    def save(self, path: str | Path) -> None:
        """Write to one safetensors file.

        Raises:
            DataError: where it cannot be written.
        """
        tensors = {
            "share": self.familiar.share,
            "mean": self.familiar.mean,
            "variance": self.familiar.variance,
        }
        entries = self._options | {"notes": list(self.notes)}
        write(path, FILE, Content(entries, tensors, self.origin))

    @classmethod
    def load(cls, path: str | Path, **options: Any) -> Self:
        """Read a file that `save` wrote, with some options chosen anew.

        Args:
            path: of the file.
            options: those in `READ_OPTIONS`.

        Raises:
            UsageError: for options that make no sense.
            DataError: for a file that is no fitted doubt.
        """
        return replace(read(path, FILE, cls._of), **options)

    @classmethod
    def _of(cls, content: Content) -> Self:
        kept = dict(content.entries)
        familiar = Diagonal(**content.tensors, still=kept.pop("still"))
        if not bool((familiar.share > 0).any()):
            raise ValueError("no class has a share")
        return cls(familiar, origin=content.origin, **kept | {"notes": tuple(kept["notes"])})


def _strange(
    familiar: Diagonal, z: Tensor, prediction: Prediction, like: Tensor
) -> tuple[Tensor, Tensor | None]:
    """How strange the features are beside their image, and what of the map lies in the image."""
    wide = surprise(familiar, z, like, prediction)
    inside = in_image(prediction, tuple(wide.shape[-2:]))
    return relative(wide, inside), inside


class _Moments:
    """Mean and deviation of all values of maps."""

    def __init__(self) -> None:
        self.count, self.sum, self.squares = 0, 0.0, 0.0

    def add(self, values: Tensor) -> None:
        """Take a map."""
        exact = values.double()
        self.count += values.numel()
        self.sum += float(exact.sum())
        self.squares += float(exact.square().sum())

    @property
    def mean(self) -> float:
        return self.sum / self.count

    @property
    def deviation(self) -> float:
        return math.sqrt(max(self.squares / self.count - self.mean**2, 0.0))


def _remarks(fitted: Doubt, names: tuple[str, ...], ratio: float, images: int) -> Iterable[str]:
    """What a user should know of a fit, one sentence each."""
    if images < FEW:
        yield (
            f"doubt: fitted to {images} images, fewer than {FEW}, which may all be alike; add "
            f"ordinary images of other places and hours."
        )
    share = fitted.familiar.share
    absent = [names[i] if names else str(i) for i in range(len(share)) if not share[i]]
    if absent:
        yield f"doubt: no cell was surely {', '.join(absent)}; add images that show it."
    if fitted.familiar.still:
        of = fitted.familiar.mean.shape[1]
        yield f"doubt: {fitted.familiar.still} of {of} features of {fitted.layer} never vary."
    yield (
        f"doubt: images left out of the fit deviate {ratio:.2f} times as much as those in it"
        + (
            f", more than {FRAIL}: the features have half their weight. Add images."
            if ratio > FRAIL
            else "."
        )
    )
