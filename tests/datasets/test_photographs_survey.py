"""Photographs of more than 8 bits share one range."""

from pathlib import Path

import numpy as np
from PIL import Image

from doubtmap.datasets import Photographs


def test_deep_photographs_share_one_range(tmp_path: Path) -> None:
    paths = []
    for top in (4000, 400, 200):
        values = np.linspace(0, top, 64).reshape(8, 8).astype(np.uint16)
        paths.append(tmp_path / f"{top}.png")
        Image.fromarray(values).save(paths[-1])
    found = Photographs("images:deep", tuple(paths))
    means = [found[index].image.float().mean().item() for index in range(3)]
    assert means[0] > 5 * means[1] > 7.5 * means[2]
