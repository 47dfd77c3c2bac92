"""The compiled pass, or a skip that says why it is not there."""

import pytest
import torch

from doubtmap.kernels import compiled


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def built(monkeypatch):
    """Use the compiled pass, as it is chosen where nobody says otherwise."""
    if compiled.missing():
        pytest.skip(f"the compiled pass is not here: {compiled.missing()}")
    monkeypatch.delenv("DOUBTMAP_KERNELS", raising=False)


@pytest.fixture(params=["avx512", "avx2", "baseline"])
def instructions(request, built):
    """Use the instructions of one generation of processors, then the best again."""
    best = compiled.instructions()
    if compiled.instructions(request.param) is None:
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    compiled.instructions(best)
