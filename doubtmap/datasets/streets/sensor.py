"""The camera's own mark on an image: exposure, colour cast, vignette, blur and noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from doubtmap.datasets.streets.canvas import Array


def expose(color: Array, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Turn light into an image, `(H, W, 3)` uint8."""
    height, width = color.shape[:2]
    gain = np.float32(generator.uniform(0.95, 1.22))
    cast = generator.uniform(-0.05, 0.05, 3).astype(np.float32)
    contrast = generator.uniform(0.85, 1.15)
    blur = generator.uniform(0.25, 0.7) * max(1.0, height / 400)
    noise = np.float32(generator.uniform(0.006, 0.022))
    exposed = ndimage.gaussian_filter1d(color, blur, axis=0)
    exposed = ndimage.gaussian_filter1d(exposed, blur, axis=1)
    rows = (np.arange(height, dtype=np.float32)[:, None] / height - 0.5) ** 2
    columns = (np.arange(width, dtype=np.float32)[None] / width - 0.5) ** 2
    exposed *= (gain * (1 - 0.35 * (rows + columns)))[..., None] * (1 + cast)
    exposed = np.clip(exposed, 0, None)
    # a soft shoulder instead of clipped lights
    exposed = np.where(exposed > 0.85, 0.85 + 0.15 * np.tanh((exposed - 0.85) / 0.15), exposed)
    exposed = (exposed - 0.45) * np.float32(contrast) + 0.45
    grain = generator.standard_normal((height, width, 3), dtype=np.float32)
    exposed += noise * grain
    developed: NDArray[np.uint8] = (np.clip(exposed, 0, 1) * 255 + 0.5).astype(np.uint8)
    return developed
