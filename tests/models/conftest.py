"""What tests of models share."""

import pytest
import torch


@pytest.fixture
def seed():
    torch.manual_seed(0)
