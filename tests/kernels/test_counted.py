"""Sums in C are those of NumPy and SciPy to the last digit, in any order and at any level."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from doubtmap.kernels import available
from doubtmap.kernels.counted import (
    add_columns,
    areas,
    binned,
    curves,
    label_mask,
    means,
    ranked,
)
from doubtmap.kernels.tables import (
    FINEST,
    Counting,
    Table,
    bins_of,
    keys_of,
    sorted_keys,
)
from doubtmap.metrics import Histogram, RankingCurve
from doubtmap.metrics.histogram import Bins

pytestmark = pytest.mark.skipif(
    available()["kernels"] != "compiled", reason="the sums in C were not built"
)
some = settings(deadline=None, max_examples=15, derandomize=True)


def both(make, *given):
    """What C and NumPy make of the same."""
    with pytest.MonkeyPatch.context() as patch:
        compiled = make(*given)
        patch.setenv("DOUBTMAP_KERNELS", "reference")
        return compiled, make(*given)


def assert_same(pair):
    for a, b in zip(*pair, strict=True):
        np.testing.assert_array_equal(a, b)


def values_of(seed, n):
    rng = np.random.default_rng(seed)
    wide = rng.standard_cauchy(n) * 10.0 ** rng.integers(-20, 20)
    return np.where(rng.random(n) < 0.3, np.round(wide, 1), wide).astype(np.float32)


def counted(values, channel, extra, level):
    keys, table = sorted_keys(values), Table(level, 3)
    table.add_pages(keys.pages)
    table.count(Counting(keys, channel, 1.0, extra, 2))
    return table


def parts_of(sums):
    return sums.level, sums.numbers, sums.counts, sums.only


@some
@given(seed=st.integers(0, 10**6), n=st.integers(0, 600))
def test_numbers_come_page_by_page_and_within_it_as_they_stood(seed, n):
    values = values_of(seed, n)
    values[::7] *= -1  # both ends of the keys
    compiled, plain = both(lambda: vars(sorted_keys(values)).values())
    for ours, theirs in zip(compiled, plain):
        np.testing.assert_array_equal(ours, theirs)
    found, keys = sorted_keys(values), keys_of(values)
    order = np.argsort(keys >> FINEST, kind="stable")
    np.testing.assert_array_equal(found.order, order)
    np.testing.assert_array_equal(found.keys, keys[order])
    for first, end in np.random.default_rng(seed).integers(0, 2**32, (5, 2)).tolist():
        near = found.between(min(first, end), max(first, end))
        inside = np.sort(keys[(keys >= min(first, end)) & (keys < max(first, end))])
        np.testing.assert_array_equal(near >> np.uint64(32), inside)
        np.testing.assert_array_equal(keys[near.astype(np.uint32)], inside)


def test_numbers_that_are_none_are_counted():
    values = np.float32([np.nan, 1, -np.inf, -np.nan, np.inf, -3e38, 3e38])
    compiled, plain = both(lambda: sorted_keys(values).infinite)
    assert compiled == plain == 4


@some
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(0, 600),
    level=st.integers(0, 14),
    single=st.booleans(),
)
def test_sums_by_bin_are_those_of_a_table_at_any_level(seed, n, level, single):
    values, rng = values_of(seed, n), np.random.default_rng(seed)
    channel = rng.integers(0, 2, n, np.uint8)
    extra = (rng.integers(0, 1 << 24, n) / 2.0**24).astype(np.float32 if single else np.float64)
    keys = sorted_keys(values)
    what = Counting(keys, channel, 1.0, extra, 2)
    coarser = rng.integers(0, level + 1)

    def make():
        found = bins_of(what, level, 3)
        wide = found.wider(coarser)
        assert found.pages.tolist() == wide.pages.tolist() == keys.pages.tolist()
        ones = found.wider(coarser, 1)
        assert ones.counts.all() and ones.counts.sum() == (channel == 0).sum()
        table = counted(values, channel, extra, level)
        same = table.sums(), table.at_level(coarser).sums()
        for ours, theirs in zip((found, wide), same):
            assert_same((parts_of(ours), parts_of(theirs)))
        return [part for each in (found, wide, ones) for part in parts_of(each)]

    assert_same(both(make))


@some
@given(seed=st.integers(0, 10**6), n=st.integers(0, 600), level=st.integers(0, 14))
def test_counting_and_widening(seed, n, level):
    values, rng = values_of(seed, n), np.random.default_rng(seed)
    channel = rng.integers(0, 2, n, np.uint8)
    extra = rng.integers(0, 1 << 24, n) / 2.0**24  # whose sums are exact
    coarser = rng.integers(0, level + 1)

    def make():
        fine = counted(values, channel, extra, level)
        wide = counted(values[::2], channel[::2], extra[::2], coarser)
        missing = np.setdiff1d(fine.pages, wide.pages)
        wide.add_pages(missing)
        wide.absorb(fine)
        return *fine.held(), *wide.held(), *fine.at_level(coarser).held()

    assert_same(both(make))


@some
@given(
    seed=st.integers(0, 10**6),
    level=st.integers(0, 14),
    kind=st.sampled_from([np.uint8, np.uint16, np.uint32, np.float64]),
)
def test_bins_that_lie_in_a_file_are_added_as_their_table(seed, level, kind):
    """Some of more than one number, into wider bins."""
    values, rng = values_of(seed, 300), np.random.default_rng(seed)
    channel, coarser = rng.integers(0, 2, 300, np.uint8), rng.integers(0, level + 1)

    def make():
        fine = counted(values, channel, None, level)
        told = fine.sums()
        told = replace(told, counts=told.counts.astype(kind))
        wide, same = (counted(values[::2], channel[::2], None, coarser) for _ in range(2))
        for table in (wide, same):
            table.add_pages(np.setdiff1d(fine.pages, table.pages))
        wide.add(told)
        same.absorb(fine)
        assert_same([wide.held(), same.held()])
        return wide.held()

    assert_same(both(make))


@some
@given(seed=st.integers(0, 10**6), kind=st.sampled_from([np.uint8, np.uint16, np.uint32, float]))
def test_columns_are_added_where_they_belong(seed, kind):
    rng = np.random.default_rng(seed)
    most = 1000 if kind is float else np.iinfo(kind).max
    at, more = rng.integers(0, 7, 5), rng.integers(most // 3, most, (3, 2, 5)).astype(kind)

    def make():
        sums = np.ones((3, 2, 7))
        add_columns(sums, at, more)
        return (sums,)

    (found,), _ = pair = both(make)
    assert_same(pair)
    assert np.array_equal(found - 1, more.astype(float) @ np.eye(7)[at])


@some
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    size=st.integers(1, 7),
)
def test_means_of_squares_are_those_of_average_pooling(seed, shape, size):
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal(shape) * 1e3).astype(np.float32)
    whole = rng.random((shape[0] // size, shape[1] // size)) < 0.7
    pair = both(lambda: (means(values, size, whole),))
    assert_same(pair)
    if whole.size:
        pooled = F.avg_pool2d(torch.from_numpy(values)[None], size)[0].numpy()
        np.testing.assert_array_equal(pair[0][0], pooled[whole])


@some
@given(seed=st.integers(0, 10**6), bins=st.sampled_from([16, 64, 1024, 1 << 16]))
def test_parts_in_any_order_make_the_whole_bit_for_bit(seed, bins):
    rng = np.random.default_rng(seed)
    values, owner = values_of(seed, 800), rng.integers(0, 4, 800)
    kind = rng.integers(0, 2, 800, np.uint8)
    total, whole = Histogram(bins), Histogram(bins)
    for part in rng.permutation(4):
        one = Histogram(bins)
        one.update(values[owner == part], kind[owner == part])
        total.absorb(one)
    whole.update(values, kind)
    for name in ("counts", "lowest", "single"):
        np.testing.assert_array_equal(getattr(total.view(), name), getattr(whole.view(), name))


def test_memory_follows_what_was_seen():
    histogram = Histogram(1 << 21)
    histogram.update(values_of(0, 4000))
    assert histogram.state()["counts"].nbytes < 4000 * 64 * 2 * 8
    assert histogram.state()["counts"].sum() == 4000


@some
@given(seed=st.integers(0, 10**6), n=st.integers(1, 400), bins=st.integers(1, 20))
def test_bins_of_probabilities(seed, n, bins):
    rng = np.random.default_rng(seed)
    p = np.round(rng.random((3, n)), 2).astype(np.float32)
    truth = rng.integers(0, 300, n)
    assert_same(both(lambda: (binned(p, truth % 3, bins),)))


@some
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    share=st.sampled_from([0.05, 0.3, 0.5, 0.8, 1.0]),
)
def test_components_are_numbered_as_scipy_does(seed, shape, share):
    mask = np.random.default_rng(seed).random(shape) < share
    assert_same(both(label_mask, mask))


def test_a_grid_of_lone_pixels_has_as_many_components_as_there_can_be():
    mask = np.zeros((31, 33), bool)
    mask[::2, ::2] = True
    assert label_mask(mask)[1] == 16 * 17


@some
@given(seed=st.integers(0, 10**6), n=st.integers(1, 700), share=st.sampled_from([0.01, 0.5, 1]))
def test_figures_of_many_curves_are_those_of_each(seed, n, share):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 60, (2, 3, n)) * (rng.random((2, 3, n)) < share) * 1.0
    positives, negatives = counts
    compiled, plain = both(curves, positives, negatives)
    np.testing.assert_array_equal(compiled, plain)
    for row, p, m in zip(compiled, positives, negatives):
        bins = Bins(np.stack([m, p]), np.arange(n, dtype=np.float32), np.ones(n, bool))
        curve = RankingCurve.from_bins(bins, p, m)
        expected = (curve.average_precision(), curve.auroc(), curve.fpr_at_tpr())
        np.testing.assert_array_equal(row, [float(figure) for figure in expected])


@some
@given(seed=st.integers(0, 10**6), n=st.integers(1, 700), share=st.sampled_from([0.01, 0.5, 1]))
def test_a_curve_and_its_bounds_are_those_of_numpy(seed, n, share):
    rng = np.random.default_rng(seed)
    positives, negatives = rng.integers(0, 60, (2, n)) * (rng.random((2, n)) < share) * 1.0
    lowest, single = np.sort(rng.normal(size=n)).astype(np.float32), rng.random(n) < 0.5
    whole = [np.asarray(each, np.int64) for each in (positives, negatives)]
    compiled, plain = both(ranked, *whole, lowest, single)
    for ours, theirs in zip(compiled, plain):
        np.testing.assert_array_equal(ours, theirs)
    if plain[0][2:, -1:].all() and len(plain[1]):
        sums = both(areas, *plain[0], plain[2])
        np.testing.assert_array_equal(sums[0][[0, 3, 4, 5]], sums[1][[0, 3, 4, 5]])
        np.testing.assert_allclose(*sums, rtol=1e-13)  # the bounds have a logarithm
