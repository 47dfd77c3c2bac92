import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from doubtmap.kernels import edges_of, labelled, moments, segments_of, summed_probabilities


@pytest.fixture(params=["compiled", "reference"])
def implementation(request, monkeypatch):
    if request.param == "compiled" and not labelled.compiled_serves():
        pytest.skip("the compiled pass was not built here")
    monkeypatch.setenv("DOUBTMAP_KERNELS", request.param)


def random_classes(seed, height, width, classes):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, classes, (height, width)))


shapes = st.tuples(
    st.integers(0, 2**32 - 1), st.integers(1, 23), st.integers(1, 23), st.integers(1, 4)
)


def test_a_worked_case(implementation):
    classes = torch.tensor([[1, 1, 0, 2], [0, 1, 2, 0], [1, 0, 0, 0]])
    labels, count = segments_of(classes)
    assert count == 3
    assert labels.tolist() == [[0, 0, 1, 2], [1, 0, 2, 1], [0, 1, 1, 1]]


@given(shapes)
@settings(max_examples=60, deadline=None)
def test_components_are_those_of_scipy_in_reading_order(case):
    classes = random_classes(*case)
    labels, count = segments_of(classes)
    seen = {}
    for value in range(4):
        found, more = ndimage.label(classes.numpy() == value, np.ones((3, 3)))
        for one in range(1, more + 1):
            inside = np.unique(labels.numpy()[found == one])
            assert len(inside) == 1
            seen[int(inside[0])] = int((found == one).sum())
    assert sorted(seen) == list(range(count))
    assert sum(seen.values()) == classes.numel()
    first = [int(np.flatnonzero(labels.numpy() == one)[0]) for one in range(count)]
    assert first == sorted(first)


@given(shapes)
@settings(max_examples=60, deadline=None)
def test_both_implementations_agree(case):
    seed, height, width, classes = case
    values = random_classes(*case)
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(height, width, generator=generator) for _ in range(3)]
    logits = 5 * torch.randn(1, classes + 1, 3, 5, generator=generator)
    results = []
    for name in ("compiled", "reference"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOUBTMAP_KERNELS", name)
            labels, count = segments_of(values)
            edge = edges_of(labels)
            results.append(
                (
                    labels,
                    edge,
                    moments(labels, edge, maps, count),
                    summed_probabilities(logits, labels, count, (height, width), None, False),
                )
            )
    for one, other in zip(*results):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_edges_by_brute_force(implementation):
    labels, _ = segments_of(random_classes(3, 9, 11, 3))
    padded = np.pad(labels.numpy(), 1, mode="edge")
    expected = np.zeros(labels.shape, bool)
    for row in range(3):
        for column in range(3):
            expected |= padded[row : row + 9, column : column + 11] != labels.numpy()
    assert edges_of(labels).numpy().tolist() == expected.tolist()


def test_moments_by_brute_force(implementation):
    labels, count = segments_of(random_classes(4, 17, 13, 2))
    edge, value = edges_of(labels), torch.rand(17, 13)
    sums = moments(labels, edge, [value, -value], count)
    for one in range(count):
        for side in range(2):
            x = value[(labels == one) & (edge == bool(side))].double()
            expected = torch.tensor([[x.sum(), (x**2).sum()], [-x.sum(), (x**2).sum()]])
            torch.testing.assert_close(sums[one, side], expected.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("covered,align", [(None, False), (None, True), ((40.0, 56.0), False)])
def test_probabilities_are_those_of_the_full_size_logits(implementation, covered, align):
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(1, 6, 9, 13, generator=generator)
    labels, count = segments_of(random_classes(5, 33, 50, 2))
    labels[0, :7] = -1
    sums = summed_probabilities(logits, labels, count, (33, 50), covered, align)
    from doubtmap.kernels import resize_logits

    p = resize_logits(logits, (33, 50), covered, align)[0].softmax(0).double()
    for one in range(count):
        torch.testing.assert_close(sums[one], p[:, labels == one].sum(1), rtol=1e-5, atol=1e-5)


def test_the_number_of_threads_changes_nothing():
    logits = torch.randn(1, 5, 64, 64, generator=torch.Generator().manual_seed(1))
    labels, count = segments_of(random_classes(6, 256, 256, 2))
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(summed_probabilities(logits, labels, count, (256, 256)))
    torch.set_num_threads(before)
    assert torch.equal(*found)
