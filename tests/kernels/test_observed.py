"""What the labels say of an image's softmax, in one pass of C: held to NumPy in float64."""

import numpy as np
import pytest
import torch
from held_to_reference import compare_observed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doubtmap import kernels
from doubtmap.errors import UsageError
from doubtmap.kernels.observed import observed, serves
from doubtmap.metrics.frame import FrameSums

pytestmark = pytest.mark.usefixtures("built")
OWN = ("confidence", "classwise", "losses", "confusion", "doubt", "brier")


@settings(
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    shape=st.tuples(st.integers(2, 30), st.integers(1, 12), st.integers(1, 40)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 70)),
    padded=st.booleans(),
    corners=st.booleans(),
    bins=st.integers(1, 20),
    scale=st.sampled_from([0.1, 3.0, 40.0]),
    seed=st.integers(0, 10**6),
)
def test_any_shape(shape, size, padded, corners, bins, scale, seed):
    torch.manual_seed(seed)
    covered = (size[0] + 5.5, size[1] + 3.0) if padded else None
    compare_observed(torch.randn(1, *shape) * scale, (size, covered, corners), bins, seed)


@pytest.mark.parametrize("classes", [2, 19, 200])
@pytest.mark.parametrize("size", [(40, 33), (90, 132)])
def test_every_set_of_instructions(instructions, classes, size):
    compare_observed(torch.randn(1, classes, 40, 33) * 4, (size, None, False))


@pytest.mark.parametrize("size", [(64, 700), (256, 300)])
def test_any_number_of_threads_gives_the_same_bits(size):
    """On the image's own grid as on another."""
    x, before = torch.randn(1, 11, 64, 700) * 5, torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(compare_observed(x, (size, None, False)))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for name in OWN:
            assert np.array_equal(getattr(found[0], name), getattr(other, name))


def test_what_is_next_to_nothing_stays_it():
    x = torch.tensor([60.0, 20.0, 0.0]).reshape(1, 3, 1, 1)
    place, classes = ((1, 1), None, False), torch.zeros(1, 1, dtype=torch.long)
    sure = observed(x, place, classes, classes, 10)
    assert sure.doubt.item() == pytest.approx(np.exp(-40.0), rel=1e-5)
    assert sure.losses[2] == pytest.approx(np.exp(-40.0), rel=1e-5)
    assert sure.brier.item() == pytest.approx(2 * np.exp(-80.0), rel=1e-5)
    lost = observed(x * 1e4, place, classes, classes + 2, 10)
    assert lost.losses.tolist() == [1, 2, pytest.approx(6e5)]


def test_classes_that_are_not_the_likeliest_are_held_to_their_own_probability():
    x = torch.tensor([2.0, 1.0]).log().reshape(1, 2, 1, 1)
    second = torch.ones(1, 1, dtype=torch.long)
    found = observed(x, ((1, 1), None, False), second, second, 3)
    assert found.doubt.item() == pytest.approx(2 / 3)
    assert found.confidence[:, 1].sum() == found.classwise[1, :, 1].sum() == 1


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_pytorch_says_the_same(kind, monkeypatch):
    x, place = (torch.randn(1, 5, 12, 17) * 3).to(kind), ((30, 40), None, False)
    classes = kernels.resized_statistics(x, *place).classes[0]
    label = torch.randint(-2, 5, (30, 40))
    assert serves(x) == (kind is not torch.float64)
    ours = FrameSums.of(x, place, classes, label, 8)
    monkeypatch.setenv("DOUBTMAP_KERNELS", "reference")
    assert not serves(x)
    other = FrameSums.of(x, place, classes, label, 8)
    assert np.array_equal(ours.confusion.counts, other.confusion.counts)
    assert np.array_equal(ours.wrong, other.wrong)
    for name in ("doubt", "brier"):
        np.testing.assert_allclose(getattr(ours, name), getattr(other, name), atol=1e-5)
    np.testing.assert_allclose(ours.reliability.losses, other.reliability.losses, rtol=1e-5)
    for figure in ("ece", "classwise_ece"):
        found, expected = (getattr(each.reliability, figure) for each in (ours, other))
        assert found == pytest.approx(expected, abs=1e-3)


def test_a_label_that_is_no_class_is_refused():
    x, classes = torch.randn(1, 3, 2, 2), torch.zeros(2, 2, dtype=torch.long)
    with pytest.raises(UsageError, match="expected labels below 3, got 3"):
        FrameSums.of(x, ((2, 2), None, False), classes, classes + 3, 15)
