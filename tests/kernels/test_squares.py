"""Means over squares, and islands: C against PyTorch's operators in double precision."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doubtmap.kernels.squares import WIDEST, averaged_softmax, islands

shapes = st.tuples(
    *(st.integers(0, 2**32 - 1), st.integers(1, 2), st.integers(1, 24), st.integers(1, 90)),
    *(st.integers(1, 150), st.integers(1, WIDEST)),
)
same_function = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def random_logits(seed, images, classes, height, width):
    generator = torch.Generator().manual_seed(seed)
    return 6 * torch.randn(images, classes, height, width, generator=generator)


@given(shapes)
@same_function
def test_means_over_squares_are_those_of_double_precision(instructions, case):
    *shape, cell = case
    logits = random_logits(*shape)
    p, entropy = averaged_softmax(logits, cell)
    wanted, unsure = averaged_softmax(logits.double(), cell)
    torch.testing.assert_close(p.double(), wanted, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(entropy.double(), unsure, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sides", ["mean", "geometric"])
@given(shapes)
@same_function
def test_islands_are_those_of_double_precision(instructions, sides, case):
    *shape, _ = case
    p = random_logits(*shape).softmax(1)
    torch.testing.assert_close(
        islands(p, sides).double(), islands(p.double(), sides), rtol=2e-4, atol=3e-6
    )


def test_logits_may_be_a_view_and_may_rule_classes_out(built):
    logits = random_logits(0, 1, 5, 30, 70)
    logits[:, 2] = -float("inf")
    logits[:, :, 0] = 1e30 * logits[:, :, 0].sign()
    view = logits.permute(0, 1, 3, 2)[:, 1:, 3:, ::1]
    for cell in (1, 4):
        found = averaged_softmax(view, cell)
        for one, other in zip(found, averaged_softmax(view.double(), cell)):
            assert torch.isfinite(one).all()
            torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-6)


def test_threads_change_nothing(built):
    logits = random_logits(1, 2, 19, 200, 256)
    p = logits.softmax(1)
    results = []
    for threads in (1, 3):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            results.append((*averaged_softmax(logits, 3), islands(p, "mean")))
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*results))


def test_gradients_go_through_pytorch(built):
    logits = random_logits(2, 1, 3, 8, 16).requires_grad_()
    p, entropy = averaged_softmax(logits, 2)
    (islands(p, "geometric").sum() + entropy.sum()).backward()
    assert logits.grad is not None and bool(logits.grad.abs().sum() > 0)
