"""What all tests share: one thread, since small tensors are slower on two."""

from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).parents[1].parent / "shared"

torch.set_num_threads(1)


@pytest.fixture
def shared():
    """The folder of real images and networks, or a skip."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real images and networks (../shared) are not here")
    return SHARED
