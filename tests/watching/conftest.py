"""A promise, and a watch that has seen its reference."""

import pytest
from lit_scenes import CHOSEN, Scenes

from doubtmap.decisions.file import save_threshold
from doubtmap.watching import Watch


@pytest.fixture
def promise(tmp_path):
    save_threshold(CHOSEN, tmp_path / "t.json")
    return tmp_path / "t.json"


@pytest.fixture
def begun(fresh_segmenter, promise):
    return Watch.begin(fresh_segmenter(), promise, Scenes(24, 1))
