"""The pass's own exponential and logarithm, over the whole range of float32."""

import pytest
import torch

from doubtmap.kernels.compiled import exponential_and_logarithm

STEP = 9973
"""A prime: every 9973rd float32. Over all of them the errors are the same."""


def floats(first, last):
    bits = torch.arange(first, last, STEP, dtype=torch.int32)
    return bits.view(torch.float32)


@pytest.mark.usefixtures("instructions")
def test_exponential():
    x = floats(0, 0x42B00000)  # 0 to 88
    x = torch.cat([-x[x <= 87].flip(0), x])
    exact = x.double().exp()
    found = exponential_and_logarithm(x)[0].double()
    assert ((found - exact) / exact).abs().max() < 1e-7


@pytest.mark.usefixtures("instructions")
def test_exponential_of_one_and_of_next_to_nothing():
    x = torch.tensor([0.0, -0.0, -87.1, -1e4, -3.4e38])
    assert exponential_and_logarithm(x)[0].tolist() == [1, 1, 0, 0, 0]


@pytest.mark.usefixtures("instructions")
def test_logarithm():
    x = torch.cat([floats(1, 0x7F800000), 1 + torch.arange(-5000, 5000) * 2.0**-23])
    exact = x.double().log()
    found = exponential_and_logarithm(x)[1].double()
    assert (found - exact).abs().le(1e-7 * exact.abs()).all()
