"""Feature density: how usual a pixel's features are among those of the class it is taken for.

One Gaussian for each class, wherever in the image its pixels lie, fitted in one pass over the
training images and read in one pass with the network: no second network, no sampling.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from torch import Tensor

from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.files import Content, FileKind, Origin, Part, read, write
from doubtmap.files.tables import FLAG, TEXT, one_of, whole, within
from doubtmap.kernels import recording
from doubtmap.prediction import Prediction
from doubtmap.scores.gaussians import (
    Covariance,
    Distances,
    Full,
    Gaussians,
    GaussianSums,
    LowRank,
    Projected,
    check_support,
    support_notes,
    tiles,
)
from doubtmap.scores.inner_features import (
    Scale,
    inner_features,
    predicted_on,
    sure_labels,
)
from doubtmap.scores.smoothing import smoothed
from doubtmap.shown import ShownFit

At = Literal["predicted", "any"]
Labels = Literal["given", "predicted"]
FILE = FileKind(
    "density",
    "a fitted density",
    "Fit it with: doubtmap fit density MODEL DATA --out FILE.",
    {
        "layer": TEXT,
        "scale": one_of(*get_args(Scale)),
        "certainty": within(low=0),
        "covariance": one_of(*get_args(Covariance)),
        "at": one_of(*get_args(At)),
        "prior": FLAG,
        "shrinkage": within(0, 1),
        "rank": whole(0),
        "project": whole(0),
        "smooth": within(low=0),
        "labels": one_of(*get_args(Labels)),
    },
    {
        "pixels": Part("C", torch.int64, low=0),
        "weight": Part("C", torch.float64, low=0),
        "effective": Part("C", torch.float64, low=0),
        "mean": Part("C D", torch.float64, -1e15, 1e15),
        "covariance": Part("C D D", torch.float64, -1e30, 1e30),
    },
)


@dataclass(frozen=True, eq=False)
class Density(ShownFit):
    """`-log q(z)` of the features z under class-wise Gaussians, in nats.

    Departs from the paper, each as measured in `docs/density.md` and each to be undone by an
    option: the Gaussians are fitted to pixels in proportion to how surely the network names their
    class (`certainty=0` weighs all alike; `scores/certainty.py` finds the exponent that suits a
    network); features are taken before the last activation; the
    density is that of the class predicted (`at=any` sums over classes, as the released code does;
    the paper also has the prior), which costs one distance per pixel where the sum costs C;
    shrinkage replaces the ladder of jitters.

    Args:
        gaussians: as fitted.
        layer: `classifier`, what the last 1x1 convolution saw, or names of inner layers joined
            with `+`.
        scale: `none`, or `unit` for features scaled to unit length.
        certainty: exponent g of a pixel's weight in the fit, `p(label)^g`.
        covariance: `full`, one for each class, or `tied`, one for all.
        at: `predicted`, `log q(z | c)` of the predicted class c, or `any`, `log sum_c q(z | c)`.
        prior: whether the classes' shares multiply their densities.
        shrinkage: share of the identity in each covariance, in [0, 1].
        rank: keep so many directions of each covariance, one variance for the others; 0: all.
        project: work in so many directions that all classes share; 0: all.
        smooth: deviation of a Gaussian blur, in cells of the features' grid; 0: none.
        labels: of the fit: `given`, or `predicted`, the network's own, which needs no labels.
        origin: where it comes from; its class names are one for each Gaussian, or none.

    Raises:
        UsageError: for options that make no sense.

    Reference:
        Deep Deterministic Uncertainty for Semantic Segmentation (Mukhoti et al., 2021),
        https://arxiv.org/abs/2111.00079
    """

    gaussians: Gaussians
    layer: str = "classifier"
    scale: Scale = "unit"
    certainty: float = 64.0
    covariance: Covariance = "full"
    at: At = "predicted"
    prior: bool = False
    shrinkage: float = 1e-3
    rank: int = 0
    project: int = 0
    smooth: float = 0.0
    labels: Labels = "given"
    origin: Origin = field(default_factory=Origin)

    name: ClassVar[str] = "density"
    made_by: ClassVar[str] = "doubtmap fit density MODEL DATA --out FILE"
    FIT_OPTIONS: ClassVar[dict[str, Any]] = {
        "layer": "auto",
        "scale": "unit",
        "certainty": "half",
        "labels": "given",
        "border": 0,
    }
    READ_OPTIONS: ClassVar[dict[str, Any]] = {
        "covariance": "full",
        "at": "predicted",
        "prior": False,
        "shrinkage": 1e-3,
        "rank": 0,
        "project": 0,
        "smooth": 0.0,
    }

    def __post_init__(self) -> None:
        for option, known in (
            ("covariance", Covariance),
            ("at", At),
            ("scale", Scale),
            ("labels", Labels),
        ):
            if getattr(self, option) not in get_args(known):
                raise UsageError(
                    f"density: expected {option} to be {' or '.join(get_args(known))}, got "
                    f"{getattr(self, option)!r}."
                )
        if not 0 <= self.shrinkage <= 1 or not 0 <= self.certainty < float("inf"):
            raise UsageError(
                f"density: expected shrinkage in [0, 1] and certainty of at least 0, got "
                f"{self.shrinkage} and {self.certainty}."
            )
        channels = self.gaussians.mean.shape[1]
        for option in ("rank", "project"):
            value = getattr(self, option)
            most = channels - (option == "rank")
            if not math.isfinite(value) or value != int(value) or not 0 <= value <= most:
                raise UsageError(
                    f"density: expected {option} as a number of the {channels} channels, or 0, "
                    f"got {value}."
                )
        if not 0 <= self.smooth < float("inf"):
            raise UsageError(f"density: expected smooth of at least 0, got {self.smooth}.")
        if self.rank and self.project:
            raise UsageError("density: expected rank or project, got both. Leave one out.")

    @cached_property
    def digest(self) -> str:
        """By which another fit, or another reading of the same file, is told apart."""
        digest = hashlib.sha256(repr(self._options).encode())
        for part in fields(Gaussians):
            digest.update(getattr(self.gaussians, part.name).numpy().tobytes())
        return digest.hexdigest()

    @property
    def _options(self) -> dict[str, Any]:
        left_out = ("gaussians", "origin")
        return {
            part.name: getattr(self, part.name)
            for part in fields(self)
            if part.name not in left_out
        }

    @property
    def layers(self) -> tuple[str, ...]:
        """Inner layers that predictions must carry."""
        return () if self.layer == "classifier" else tuple(self.layer.split("+"))

    def __call__(self, prediction: Prediction) -> Tensor:
        """Score a prediction.

        Args:
            prediction: with the features that the Gaussians were fitted to.

        Returns:
            `(B, H, W)` float32, nats; higher = more doubt. Computed on the features' own grid,
            then resized.

        Raises:
            ModelError: for a prediction without these features, or of another number of them.
            DataError: for features that are not finite.
        """
        features = self.features(prediction)
        grid, z = tuple(features.shape[-2:]), features.permute(0, 2, 3, 1).flatten(1, 2)
        if recording(z):
            log_density = self._of_all(z, predicted_on(prediction, grid).flatten())
        elif self.at == "any":
            log_density = torch.stack([self._of_any(image) for image in z])
        else:
            chosen = predicted_on(prediction, grid).flatten(1)
            log_density = torch.stack([self._of_class(*pair) for pair in zip(z, chosen)])
        maps = -log_density.reshape(z.shape[0], *grid)
        maps = smoothed(maps, self.smooth) if self.smooth else maps
        return prediction.to_size(maps[:, None])[:, 0].float()

    def features(self, prediction: Prediction) -> Tensor:
        """`(B, D, h, w)` float32, the features that the Gaussians are over."""
        z = inner_features(prediction, self.layers, self.scale, self.name)
        known = self.gaussians.mean.shape
        if (prediction.native_logits.shape[1], z.shape[1]) != tuple(known):
            raise ModelError(
                f"{self.name}: expected {known[0]} classes and {known[1]} features, as in the "
                f"fit, got {prediction.native_logits.shape[1]} and {z.shape[1]}. Fit again for "
                f"this network."
            )
        return z

    @cached_property
    def _distances(self) -> Distances:
        covariance = self.gaussians.shrunk(self.covariance, self.shrinkage)
        if self.rank:
            return LowRank.of(covariance, int(self.rank))
        if self.project:
            return Projected.of(covariance, self.gaussians.within, int(self.project))
        return Full.of(covariance)

    def _on(self, device: torch.device) -> Distances:
        if device not in self._by_device:
            self._by_device[device] = self._distances.to(device)
        return self._by_device[device]

    @cached_property
    def _by_device(self) -> dict[torch.device, Distances]:
        return {}

    @cached_property
    def _log_prior(self) -> Tensor:
        """`(C,)`: 0 for classes that were seen, or the logarithm of their share."""
        pixels = self.gaussians.pixels.double()
        shares = (pixels / pixels.sum()).log() if self.prior else torch.zeros(len(pixels))
        return torch.where(self.gaussians.present, shares, -torch.inf).float()

    def _log_density(self, z: Tensor, number: int) -> Tensor:
        """`(N,)` of features `(N, D)` under one class."""
        distances = self._on(z.device)
        mean = self.gaussians.mean[number].float().to(z.device)
        constant = float(distances.log_constant[number] + self._log_prior[number])
        return constant - distances.squared(z - mean, number) / 2

    def _of_class(self, z: Tensor, chosen: Tensor) -> Tensor:
        """Each pixel under its own class, or any where no pixel of that class was seen.

        Args:
            z: `(N, D)` of one image.
            chosen: `(N,)`.
        """
        result = z.new_empty(len(z))
        for number in torch.unique(chosen).tolist():
            seen = bool(self.gaussians.present[number])
            own = (chosen == number).nonzero()[:, 0]
            for tile in tiles(own):
                near = z.index_select(0, tile)
                result[tile] = self._log_density(near, number) if seen else self._of_any(near)
        return result

    def _of_any(self, z: Tensor) -> Tensor:
        """The sum over classes, of one image `(N, D)`, one class and tile at a time."""
        seen = self.gaussians.present.nonzero()[:, 0].tolist()
        parts = []
        for tile in tiles(z):
            each = [self._log_density(tile, number) for number in seen]
            parts.append(torch.stack(each).logsumexp(0))
        return torch.cat(parts)

    def _of_all(self, z: Tensor, chosen: Tensor) -> Tensor:
        """Both of the above for a graph, which computes every class everywhere, then chooses.

        Args:
            z: `(B, N, D)`.
            chosen: `(B N,)`.
        """
        rows, present = z.flatten(0, 1), self.gaussians.present
        seen = present.nonzero()[:, 0].tolist()
        each = torch.stack([self._log_density(rows, number) for number in seen])
        any_class = each.logsumexp(0)
        if self.at == "any":
            return any_class
        place = torch.full((len(present),), len(seen))  # of classes that were not seen: any
        place[present] = torch.arange(len(seen))
        at = place.to(z.device)[chosen]
        return torch.cat([each, any_class[None]]).gather(0, at[None])[0]

    @classmethod
    def fit(
        cls,
        pairs: Iterable[tuple[Prediction, Tensor]],
        *,
        layer: str = "classifier",
        scale: Scale = "unit",
        certainty: float = 64.0,
        labels: Labels = "given",
        **options: Any,
    ) -> Self:
        """Fit in one pass; memory does not grow with the data.

        Every labelled sample of the native grid counts, with the nearest pixel's label.

        Args:
            pairs: predictions with labels `(B, H, W)`; below 0 is void or unknown.
            layer: see the class.
            scale: see the class.
            certainty: see the class.
            labels: see the class.
            options: the class's other options.

        Raises:
            DataError: for no labelled pixel, a class with too few, features that are not finite,
                or covariances that are singular.
            ModelError: for a network without accessible features.
        """
        layers = () if layer == "classifier" else tuple(layer.split("+"))
        sums: GaussianSums | None = None
        names: tuple[str, ...] = ()
        images = 0
        for prediction, label in pairs:
            z = inner_features(prediction, layers, scale, cls.name)
            if sums is None:
                names, options["labels"] = prediction.class_names, labels
                cls.check(prediction, layer, scale, certainty, **options)
                sums = GaussianSums(prediction.native_logits.shape[1], z.shape[1])
            given = None if labels == "predicted" else label
            valid, known, sureness = sure_labels(prediction, given, tuple(z.shape[-2:]))
            sums.add(z.permute(0, 2, 3, 1)[valid], known, sureness**certainty)
            images += len(z)
        if sums is None or not sums.pixels.any():
            raise DataError(
                "density: expected labelled pixels of the model's classes, found none. Fit on a "
                "labelled data set whose classes the model knows."
            )
        gaussians = Gaussians.of(sums)
        origin = Origin(class_names=names, facts={"images": images})
        fitted = cls(gaussians, layer, scale, certainty, origin=origin, **options)
        check_support(gaussians)
        _ = fitted._distances
        return fitted

    @classmethod
    def check(
        cls,
        prediction: Prediction,
        layer: str = "classifier",
        scale: Scale = "unit",
        certainty: float = 64.0,
        **options: Any,
    ) -> None:
        """Refuse options that make no sense for what a network gives, before it is run for long.

        Args:
            prediction: of any image.
            layer: as `fit` takes it.
            scale: as `fit` takes it.
            certainty: as `fit` takes it.
            **options: as `fit` takes them.

        Raises:
            UsageError: for such options.
            ModelError: for a network without accessible features.
        """
        layers = () if layer == "classifier" else tuple(layer.split("+"))
        channels = inner_features(prediction, layers, "none", cls.name).shape[1]
        nothing = GaussianSums(prediction.native_logits.shape[1], channels)
        cls(Gaussians.of(nothing), layer, scale, certainty, **options)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results should know: classes that were not, or hardly, seen."""
        return support_notes(self.gaussians, self.origin.class_names)

    def save(self, path: str | Path) -> None:
        """Write to one safetensors file."""
        tensors = {part.name: getattr(self.gaussians, part.name) for part in fields(Gaussians)}
        write(path, FILE, Content(self._options, tensors, self.origin))

    @classmethod
    def load(cls, path: str | Path, **options: Any) -> Self:
        """Read a file that `save` wrote, with some options chosen anew.

        Args:
            path: of the file.
            options: those in `READ_OPTIONS`; the others were decided in the fit.

        Raises:
            UsageError: for options that make no sense.
            DataError: for a file that is no fitted density.
        """
        return replace(read(path, FILE, cls._of), **options)

    @classmethod
    def _of(cls, content: Content) -> Self:
        gaussians, names = Gaussians(**content.tensors), content.origin.class_names
        if not bool(gaussians.present.any()):
            raise ValueError("no class has weight")
        if len(names) not in (0, len(gaussians.mean)):
            raise ValueError(f"{len(names)} class names for {len(gaussians.mean)} classes")
        return cls(gaussians, origin=content.origin, **content.entries)
