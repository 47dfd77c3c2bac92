"""The wrappers of docs/bring_your_network.md run as they stand there."""

import re
from pathlib import Path

import pytest
import torch

from doubtmap.models import load

PAGE = Path(__file__).parents[2] / "docs" / "bring_your_network.md"
WRAPPERS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)


def test_there_are_five():
    assert len(WRAPPERS) == 5


@pytest.mark.parametrize("number", range(5))
def test_a_wrapper_runs(tmp_path, number):
    (tmp_path / "net.py").write_text(WRAPPERS[number])
    prediction = load(f"python:{tmp_path}/net.py:network")(torch.rand(1, 3, 16, 24))
    assert prediction.logits.shape == (1, 4, 16, 24)
