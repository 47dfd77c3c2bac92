"""Mahalanobis distance to the nearest class, absolute or relative to all classes taken as one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from doubtmap.files import Origin
from doubtmap.prediction import Prediction
from doubtmap.scores.density import Density
from doubtmap.scores.gaussians import Full, shrink, tiles
from doubtmap.scores.smoothing import smoothed
from doubtmap.shown import ShownFit


@dataclass(frozen=True, eq=False)
class Mahalanobis(ShownFit):
    """The smallest squared Mahalanobis distance of a pixel's features to a class mean.

    It reads the file of a fitted density. Departs from Lee et al. in that the features are those
    of that file alone, without input perturbation and without an ensemble of layers.

    Args:
        density: whose Gaussians they are; `covariance` is `tied` unless chosen otherwise.
        relative: subtract the squared distance to the Gaussian of all pixels taken as one.

    Reference:
        A Simple Unified Framework for Detecting Out-of-Distribution Samples (Lee et al., 2018),
        https://arxiv.org/abs/1807.03888; relative: A Simple Fix to Mahalanobis Distance (Ren et
        al., 2021), https://arxiv.org/abs/2106.09022
    """

    density: Density
    relative: bool = False

    name: ClassVar[str] = "mahalanobis"
    made_by: ClassVar[str] = Density.made_by
    READ_OPTIONS: ClassVar[dict[str, Any]] = {
        "covariance": "tied",
        "shrinkage": 1e-3,
        "relative": False,
        "smooth": 0.0,
    }

    @property
    def layers(self) -> tuple[str, ...]:
        """Inner layers that predictions must carry."""
        return self.density.layers

    @property
    def digest(self) -> str:
        """By which another fit, or another reading of the same file, is told apart."""
        return f"{self.density.digest} {self.relative}"

    @property
    def origin(self) -> Origin:
        """Where its Gaussians come from."""
        return self.density.origin

    def features(self, prediction: Prediction) -> Tensor:
        """`(B, D, h, w)` float32, the features that the Gaussians are over."""
        return self.density.features(prediction)

    def __call__(self, prediction: Prediction) -> Tensor:
        """Score a prediction.

        Args:
            prediction: with the features that the Gaussians were fitted to.

        Returns:
            `(B, H, W)` float32, at least 0 unless `relative`; computed on the features' own
            grid, then resized.

        Raises:
            ModelError: for a prediction without these features, or of another number of them.
            DataError: for features that are not finite.
        """
        features = self.features(prediction)
        z = features.permute(0, 2, 3, 1).flatten(1, 2)
        distances = torch.cat([self._distance(tile) for tile in tiles(z.flatten(0, 1))])
        maps = distances.reshape(z.shape[0], *features.shape[-2:])
        maps = smoothed(maps, self.density.smooth) if self.density.smooth else maps
        maps = maps[:, None]
        return prediction.to_size(maps)[:, 0].float()

    def _distance(self, z: Tensor) -> Tensor:
        """`(N,)` of features `(N, D)`."""
        gaussians, (classes, centre, background) = self.density.gaussians, self._on(z.device)
        nearest = z.new_full((), torch.inf)
        for number in gaussians.present.nonzero()[:, 0].tolist():
            mean = gaussians.mean[number].float().to(z.device)
            nearest = torch.minimum(nearest, classes.squared(z - mean, number))
        if self.relative:
            nearest = nearest - background.squared(z - centre, 0)
        return nearest

    def _on(self, device: torch.device) -> tuple[Full, Tensor, Full]:
        if device not in self._by_device:
            gaussians, shrinkage = self.density.gaussians, self.density.shrinkage
            mean, covariance = gaussians.overall
            classes = Full.of(gaussians.shrunk(self.density.covariance, shrinkage))
            background = Full.of(shrink(covariance, shrinkage)[None])
            moved = (classes.to(device), mean.float().to(device), background.to(device))
            self._by_device[device] = moved
        return self._by_device[device]

    @cached_property
    def _by_device(self) -> dict[torch.device, tuple[Full, Tensor, Full]]:
        return {}

    @classmethod
    def load(cls, path: str | Path, **options: Any) -> Self:
        """Read the file of a fitted density.

        Raises:
            DataError: for a file that is no fitted density.
        """
        relative = bool(options.pop("relative", False))
        chosen = {"covariance": "tied"} | options
        return cls(replace(Density.load(path), **chosen, rank=0, project=0), relative)
