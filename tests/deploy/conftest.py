"""Few images for the parity, and seeds."""

import pytest
import torch

from doubtmap.deploy import parity


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    """As many as show each size alone and three together."""
    monkeypatch.setattr(parity, "IMAGES", 12)
    torch.manual_seed(0)
