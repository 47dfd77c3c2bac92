"""Any real numbers in fixed memory: order, ties, merging with weights, and the bound on size."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from doubtmap.errors import UsageError
from doubtmap.kernels.tables import keys_of
from doubtmap.metrics import Histogram
from doubtmap.metrics.histogram import value_of

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def histogram_of(values, bins=1 << 20, channels=1):
    histogram = Histogram(bins, shape=(channels,))
    histogram.update(np.asarray(values, np.float32))
    return histogram


def edges_of(view):
    return np.append(view.lowest.astype(np.float64), np.inf)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    values=hnp.arrays(np.float32, st.integers(1, 60), elements=finite),
    bins=st.sampled_from([4, 16, 4096, 1 << 20]),
)
def test_bins_are_ascending_and_hold_the_values_between_their_edges(values, bins):
    view = histogram_of(values, bins).view()
    edges = edges_of(view)
    assert (np.diff(edges) > 0).all()
    expected, _ = np.histogram(values.astype(np.float64), edges)
    np.testing.assert_array_equal(view.counts[0], expected)
    distinct = [
        len(np.unique(values[(values >= a) & (values < b)])) for a, b in itertools.pairwise(edges)
    ]
    np.testing.assert_array_equal(view.single, np.array(distinct) == 1)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    one=hnp.arrays(np.float32, st.integers(0, 30), elements=finite),
    other=hnp.arrays(np.float32, st.integers(0, 30), elements=finite),
    bins=st.sampled_from([16, 4096, 1 << 20]),
    second=st.booleans(),
)
def test_what_was_saved_adds_up_to_the_histogram_of_all(one, other, bins, second):
    whole = histogram_of(np.concatenate([one, other, other]), bins)
    merged, saved = histogram_of(one, bins), histogram_of(other, bins).state()
    kept = {name: array.copy() for name, array in saved.items()}
    told = Histogram.from_state(saved)
    if second:  # looked at before it is added
        np.testing.assert_array_equal(told.view().counts, histogram_of(other, bins).view().counts)
    merged.absorb(told)
    merged.absorb(told)
    for name, value in vars(whole.view()).items():
        np.testing.assert_array_equal(vars(merged.view())[name], value)
    assert merged.level == whole.level
    assert all(np.array_equal(saved[name], array) for name, array in kept.items())


def test_single_says_whether_all_values_of_a_bin_are_one_number():
    # a budget of 16 bins for nine pages: each bin is a page, an eighth of an octave
    pages = [2.0**k for k in range(9)]
    assert histogram_of(pages * 3, 16).view().single.all()
    view = histogram_of([*pages, 1.01, 1.01, 2.0], 16).view()
    assert view.single.tolist() == [False] + [True] * 8


def test_positive_and_negative_zero_are_one_number():
    view = histogram_of([0.0, -0.0, 0.0]).view()
    assert view.counts.tolist() == [[3]] and view.single.all() and view.lowest.tolist() == [0]


def test_rounded_numbers_are_never_called_equal():
    histogram = Histogram(shape=(1,))
    histogram.update(np.array([0.1, 0.1 + 1e-12]))
    assert histogram.view().single.tolist() == [False]
    exact = Histogram(shape=(1,))
    exact.update(np.array([0.5, 0.5]))
    assert exact.view().single.tolist() == [True]


def test_numbers_beyond_float32_go_to_its_ends():
    histogram = Histogram(shape=(1,))
    histogram.update(np.array([1e300, -1e300, 3.4e38]))
    assert histogram.view().counts.sum() == 3
    assert histogram.view().lowest[0] == np.finfo(np.float32).min


@pytest.mark.parametrize("bins", [4096, 1 << 16, 1 << 20])
@pytest.mark.parametrize("channels", [1, 3])
def test_memory_stays_within_the_budget_over_all_of_float32(bins, channels):
    rng = np.random.default_rng(0)
    histogram = Histogram(bins, shape=(channels,))
    for _ in range(5):
        values = rng.integers(0, 2**32, 100_000, np.uint32).view(np.float32)
        histogram.update(values[np.isfinite(values)])
    state = histogram.state()
    assert len(histogram.pages) > 4000
    assert state["counts"].nbytes + state["only"].nbytes <= (8 * channels + 4) * bins
    assert state["counts"].sum() > 490_000


@pytest.mark.parametrize("channels", [1, 2])
def test_a_budget_below_the_pages_keeps_one_bin_per_page(channels):
    values = np.random.default_rng(0).integers(0, 2**32, 50_000, np.uint32).view(np.float32)
    histogram = Histogram(16, shape=(channels,))
    histogram.update(values[np.isfinite(values)])
    assert histogram.level == 0
    assert len(histogram.state()["counts"]) == len(histogram.pages) <= 4096


def test_values_of_many_chunks_are_all_counted():
    values = np.random.default_rng(0).normal(size=600_000).astype(np.float32)
    view = histogram_of(values).view()
    expected, _ = np.histogram(values.astype(np.float64), edges_of(view))
    np.testing.assert_array_equal(view.counts[0], expected)


def test_channels_may_differ_from_value_to_value():
    histogram = Histogram(shape=(3,))
    histogram.update(np.array([1.0, 2.0, 2.0, 1.0]), np.array([0, 2, 2, 1]), weight=0.5)
    assert histogram.view().counts.tolist() == [[0.5, 0], [0.5, 0], [0, 1]]


@settings(deadline=None, max_examples=50, derandomize=True)
@given(
    seed=st.integers(0, 10**6), weight=st.integers(0, 5), coarse=st.sampled_from([16, 256, 4096])
)
def test_absorbing_with_a_weight_is_counting_that_often(seed, weight, coarse):
    rng = np.random.default_rng(seed)
    mine, theirs = rng.standard_cauchy(40), np.round(rng.normal(size=60), 1)
    total = histogram_of(mine, coarse)
    total.absorb(histogram_of(theirs, 1 << 16), weight)
    repeated = histogram_of(np.concatenate([mine, np.repeat(theirs, weight)]), coarse)
    found, expected = total.view(), repeated.view()
    if weight:
        np.testing.assert_array_equal(found.lowest, expected.lowest)
        np.testing.assert_array_equal(found.counts, expected.counts)
        np.testing.assert_array_equal(found.single, expected.single)
    else:
        assert found.counts.sum() == len(mine)


def test_absorbing_takes_a_weight_for_each_channel():
    total, one = Histogram(64, shape=(3, 2)), Histogram(1 << 12, shape=(2,))
    one.update(np.array([1.0, 2.0, 2.0]), np.array([0, 1, 1]))
    total.absorb(one, np.array([1.0, 0.0, 5.0])[:, None, None])
    assert total.view().counts.tolist() == [[[1, 0], [0, 2]], [[0, 0], [0, 0]], [[5, 0], [0, 10]]]


def test_counters_stay_exact_beyond_what_float32_can_count():
    histogram = histogram_of([1.0])
    histogram.absorb(histogram_of([1.0]), 2.0**24)
    histogram.update(np.ones(1, np.float32))
    assert histogram.view().counts.item() == 2**24 + 2


def test_histograms_of_other_shapes_do_not_add():
    with pytest.raises(UsageError, match="channels"):
        Histogram(16, shape=(2,)) + Histogram(16, shape=(3,))


def test_the_last_number_of_a_bin_may_be_above_what_is_just_below_it():
    histogram = Histogram(bins=16, shape=(1,))
    first = int(keys_of(np.ones(1, np.float32))[0])  # of the bin that 1 is the lowest of
    values = value_of(np.array([first, first | 0xFFFF], np.uint32))
    histogram.update(values)
    assert histogram.level == 4 and len(histogram.view().lowest) == 1
    sure, unsure = histogram.above(float(np.nextafter(values[1], np.float32(0))))
    assert (sure[0], unsure[0]) == (0, 2)
    sure, unsure = histogram.above(float(values[1]))
    assert (sure[0], unsure[0]) == (0, 0)
