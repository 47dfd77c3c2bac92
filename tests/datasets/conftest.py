from pathlib import Path

import numpy as np
import pytest
from PIL import Image


class Folder:
    """A folder of tiny images and labels."""

    def __init__(self, root):
        self.root = root

    def image(self, name, height=2, width=3, format=None, colour=(10, 20, 30)):
        path = self._path(name)
        Image.new("RGB", (width, height), colour).save(path, format=format)
        return path

    def label(self, name, rows, palette=False):
        path = self._path(name)
        image = Image.fromarray(np.array(rows, dtype=np.uint8))
        if palette:
            # Colours that say nothing about the indices.
            image.putpalette([(7 * i + 3) % 256 for i in range(768)])
        image.save(path)
        return path

    def text(self, name, content):
        self._path(name).write_text(content)

    def _path(self, name):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "data set")


@pytest.fixture
def shared():
    path = Path(__file__).parents[2].parent / "shared"
    if not (path / "data" / "camvid").is_dir():
        pytest.skip(f"no real data: {path / 'data'} is absent")
    return path / "data"
