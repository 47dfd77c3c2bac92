"""Seeded corruptions at five strengths: fog, night, noise, blur, JPEG.

They show how calibration decays as images get worse. The labels stay. Strengths are ours, chosen
for cameras in the street; the kinds follow the paper.

Reference:
    Benchmarking Neural Network Robustness to Common Corruptions and Perturbations (Hendrycks and
    Dietterich, 2019), https://arxiv.org/abs/1903.12261
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom
from torch import Tensor

from doubtmap.datasets.dataset import Dataset, Derived, Sample
from doubtmap.errors import UsageError

Brightness = NDArray[np.floating[Any]]
STRENGTHS = (1, 2, 3, 4, 5)


def corrupt(image: Tensor, kind: str, strength: int, seed: int = 0) -> Tensor:
    """Make an image worse.

    Args:
        image: `(3, H, W)` uint8 RGB.
        kind: one of `CORRUPTIONS`.
        strength: 1 (slight) to 5 (severe).
        seed: of noise and fog.

    Returns:
        `(3, H, W)` uint8.

    Raises:
        UsageError: for another kind, strength or image.
    """
    if kind not in CORRUPTIONS:
        raise UsageError(f"corrupt: expected one of {', '.join(CORRUPTIONS)}, got {kind!r}.")
    if strength not in STRENGTHS:
        raise UsageError(f"corrupt: expected a strength from 1 to 5, got {strength!r}.")
    if image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
        raise UsageError(
            f"corrupt: expected an image (3, H, W) uint8, got {tuple(image.shape)} {image.dtype}."
        )
    pixels = image.permute(1, 2, 0).cpu().numpy().astype(np.float32) / 255
    worse = CORRUPTIONS[kind](pixels, strength - 1, np.random.default_rng(seed))
    whole = (worse.clip(0, 1) * 255).round().astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(whole.transpose(2, 0, 1)))


@dataclass(frozen=True, eq=False)
class Corrupted(Derived):
    """A data set whose images are corrupted; implements `Dataset`.

    Args:
        dataset: any.
        kind: one of `CORRUPTIONS`.
        strength: 1 to 5.
        seed: with an image's name it settles the image's noise and fog.

    Raises:
        UsageError: for another kind or strength.
    """

    dataset: Dataset
    kind: str
    strength: int
    seed: int = 0

    def __post_init__(self) -> None:
        corrupt(torch.zeros(3, 8, 8, dtype=torch.uint8), self.kind, self.strength)

    @property
    def name(self) -> str:
        """The data set's, with kind and strength."""
        return f"{self.dataset.name}+{self.kind}{self.strength}"

    def __getitem__(self, index: int) -> Sample:
        """Read one sample and corrupt its image."""
        sample = self.dataset[index]
        digest = hashlib.blake2b(
            f"{self.seed}/{sample.name}".encode("utf-8", "surrogateescape"), digest_size=4
        ).digest()
        image = corrupt(sample.image, self.kind, self.strength, int.from_bytes(digest))
        return Sample(sample.name, image, sample.label)


def _fog(x: Brightness, level: int, generator: np.random.Generator) -> Brightness:
    """Light scattered towards the camera: thicker higher up, in clouds."""
    amount = (0.25, 0.4, 0.5, 0.6, 0.72)[level]
    height, width = x.shape[:2]
    clouds = np.zeros((height, width), np.float32)
    for cells, share in ((3, 0.6), (7, 0.4)):
        rough = generator.random((cells, cells)).astype(np.float32)
        grid = (height / cells, width / cells)
        whole = zoom(rough, grid, order=1, grid_mode=True, mode="nearest")
        clouds += share * whole[:height, :width]
    rise = np.linspace(1.15, 0.75, height, dtype=np.float32)[:, None]
    through = (amount * rise * (0.75 + 0.5 * clouds)).clip(0, 0.95)[..., None]
    hazy: Brightness = x * (1 - through) + through * np.float32(0.82)
    return hazy


def _night(x: Brightness, level: int, generator: np.random.Generator) -> Brightness:
    """Less light, bluish, with the sensor's noise."""
    light = (0.6, 0.4, 0.27, 0.18, 0.11)[level]
    dark = x**1.2 * light * np.array([0.9, 0.95, 1.1], np.float32)
    noise = generator.normal(0, 1, x.shape).astype(np.float32)
    grains = (0.004, 0.008, 0.012, 0.016, 0.022)[level]
    return dark + noise * grains


def _noise(x: Brightness, level: int, generator: np.random.Generator) -> Brightness:
    """Gaussian, in every channel."""
    deviation = (0.03, 0.06, 0.1, 0.15, 0.22)[level]
    return x + generator.normal(0, deviation, x.shape).astype(np.float32)


def _blur(x: Brightness, level: int, generator: np.random.Generator) -> Brightness:
    """Gaussian, its width a share of the image's height; in small images at least half a pixel."""
    share = (0.002, 0.004, 0.006, 0.009, 0.013)[level]
    sigma = share * max(x.shape[0], 250)
    blurred: Brightness = gaussian_filter(x, (sigma, sigma, 0))
    return blurred


def _jpeg(x: Brightness, level: int, generator: np.random.Generator) -> Brightness:
    """Written as JPEG of low quality, and read."""
    quality = (40, 25, 15, 10, 6)[level]
    file = io.BytesIO()
    Image.fromarray((x * 255).round().astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file), np.float32) / 255


CORRUPTIONS: dict[str, Callable[[Brightness, int, np.random.Generator], Brightness]] = {
    "fog": _fog,
    "night": _night,
    "noise": _noise,
    "blur": _blur,
    "jpeg": _jpeg,
}
"""By name; each takes pixels `(H, W, 3)` in [0, 1], the level 0 to 4, and a generator."""
