"""A probability held to what came true: known answers, scikit-learn, laws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from doubtmap.errors import DataError, UsageError
from doubtmap.metrics import BinaryReliability, Reliability


def drawn(n=5000, seed=0, truth=lambda p: p):
    """float32 probabilities, and outcomes that come true with `truth` of them."""
    rng = np.random.default_rng(seed)
    p = rng.beta(0.4, 2.0, n).astype(np.float32)
    return p, rng.random(n) < truth(p.astype(np.float64))


def found_in(p, positive, valid=None, bins=15):
    found = BinaryReliability.empty(bins)
    found.update(p, positive, valid)
    return found


def ece_of(p, positive, bins):
    """Bin by bin, of one minus the probability, as one would write it with all in memory."""
    confidence, total = 1 - p.astype(np.float64), 0.0
    for m in range(bins):
        low, high = m / bins, (m + 1) / bins
        inside = (confidence <= high) & ((confidence > low) if m else True)
        if inside.any():
            total += inside.sum() * abs(positive[inside].mean() - p[inside].mean(dtype=np.float64))
    return total / len(p)


def test_by_hand():
    # two bins: {0.9, 0.8} of which one is positive; {0.1, 0.2, 0.3} of which one is
    p = np.array([0.9, 0.8, 0.1, 0.2, 0.3])
    found = found_in(p, np.array([True, False, False, True, False]), bins=2)
    assert found.ece == pytest.approx((abs(1 - 1.7) + abs(1 - 0.6)) / 5)
    assert found.brier == pytest.approx((0.01 + 0.64 + 0.01 + 0.64 + 0.09) / 5)
    confidence, accuracy, share = found.diagram()
    np.testing.assert_allclose(confidence, [0.15, 0.8])
    np.testing.assert_allclose(accuracy, [0.5, 2 / 3])
    np.testing.assert_allclose(share, [0.4, 0.6])


def test_one_number_everywhere_is_off_by_its_distance_to_the_rate():
    positive = np.arange(10) < 3
    right = found_in(np.full(10, 0.3), positive)
    assert (right.ece, right.brier) == pytest.approx((0, 0.3 * 0.7))
    off = found_in(np.full(10, 0.7), positive)
    assert (off.ece, off.brier) == pytest.approx((0.4, 0.3 * 0.09 + 0.7 * 0.49))


@pytest.mark.parametrize("bins", [1, 7, 10, 15, 100])
@pytest.mark.parametrize("truth", [lambda p: p, np.square, np.sqrt])
def test_figures_and_diagram_are_those_of_scikit_learn_and_of_brute_force(bins, truth):
    p, positive = drawn(truth=truth)
    found = found_in(p, positive, bins=bins)
    assert found.ece == pytest.approx(ece_of(p, positive, bins), rel=1e-9)
    assert found.brier == pytest.approx(brier_score_loss(positive, p.astype(float)), rel=1e-9)
    accuracy, confidence = calibration_curve(~positive, 1 - p.astype(float), n_bins=bins)
    mine, right, _ = (column[found.confidence[:, 0] > 0] for column in found.diagram())
    np.testing.assert_allclose(mine, confidence, rtol=1e-9)
    np.testing.assert_allclose(right, accuracy, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=40),
    st.integers(1, 20),
)
def test_any_probabilities_equal_brute_force(pixels, bins):
    p, positive = np.array([a for a, _ in pixels]), np.array([b for _, b in pixels])
    found = found_in(p, positive, bins=bins)
    inner = (1 - p) * bins  # decided by the last bit of a product, so either bin is right
    if not np.isclose(inner, np.round(inner), rtol=0, atol=1e-12).any():
        assert found.ece == pytest.approx(ece_of(p, positive, bins), abs=1e-12)
    assert found.brier == pytest.approx(np.mean((p - positive) ** 2), abs=1e-12)
    assert 0 <= found.ece <= 1 and 0 <= found.brier <= 1
    assert found.ece**2 <= found.brier + 1e-12  # Jensen: a mean gap is below the root mean square


def test_calibrated_pixels_have_no_error_and_others_have():
    p, positive = drawn(200_000)
    assert found_in(p, positive).ece < 0.004
    wide = p.astype(np.float64)
    assert found_in(p, positive).brier == pytest.approx((wide * (1 - wide)).mean(), abs=0.003)
    lying, positive = drawn(200_000, truth=np.square)
    wide = lying.astype(np.float64)
    assert found_in(lying, positive).ece == pytest.approx((wide - wide**2).mean(), abs=0.004)


def test_it_is_the_ece_of_the_softmax_whose_doubt_it_is_given():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 6, 40, 50, generator=generator)
    label = torch.randint(6, (2, 40, 50), generator=generator)
    whole = Reliability(6, 12)
    sums, doubt, wrong = whole.measure(logits, label)
    found = found_in(doubt, wrong, bins=12)
    np.testing.assert_array_equal(found.confidence[:, :2], sums.confidence[:, :2])
    assert found.ece == pytest.approx(sums.ece, abs=1e-7)
    for mine, theirs in zip(found.diagram(), sums.diagram()):
        np.testing.assert_allclose(mine, theirs, atol=1e-7)


def test_an_edge_belongs_to_the_bin_of_less_confidence():
    found = found_in(np.array([0.0, 0.5, 1.0]), np.zeros(3, bool), bins=2)
    assert found.confidence[:, 0].tolist() == [2, 1]
    assert found.confidence[:, 2].tolist() == [0.5, 1]


@pytest.mark.parametrize("cut", [0, 1, 2500, 5000])
def test_the_sum_is_what_one_accumulator_would_have_become(cut):
    p, positive = drawn()
    parts = [found_in(p[s], positive[s]) for s in (slice(cut), slice(cut, None))]
    whole = found_in(p, positive)
    for total in (parts[0] + parts[1], parts[1] + parts[0]):
        np.testing.assert_array_equal(total.confidence[:, :2], whole.confidence[:, :2])
        assert total.ece == pytest.approx(whole.ece, rel=1e-12)
        assert total.brier == pytest.approx(whole.brier, rel=1e-12)
    again = BinaryReliability(**whole.state())
    assert (again.ece, again.brier) == (whole.ece, whole.brier)
    assert {name: sums.shape for name, sums in whole.state().items()} == {
        "confidence": (15, 3),
        "losses": (2,),
    }


def test_accumulators_of_other_bins_do_not_add_up():
    with pytest.raises(UsageError, match="two accumulators of the same shape"):
        BinaryReliability.empty(10) + BinaryReliability.empty(15)


def test_void_counts_for_nothing_whatever_it_holds():
    p, positive = drawn(300)
    valid = np.arange(300) % 3 > 0
    spoilt = np.where(valid, p, np.float32("nan"))
    found, expected = found_in(spoilt, positive, valid), found_in(p[valid], positive[valid])
    assert (found.pixels, found.ece, found.brier) == (200, expected.ece, expected.brier)
    as_tensors = found_in(*map(torch.from_numpy, (spoilt, positive, valid)))
    assert as_tensors.ece == expected.ece


def test_half_precision_is_taken_at_its_own_values():
    p, positive = drawn(400)
    half = torch.from_numpy(p).half()
    assert found_in(half, positive).brier == found_in(half.double(), positive).brier


def test_without_pixels_figures_are_nan_and_the_diagram_is_empty():
    found = BinaryReliability.empty(3)
    found.update(np.ones(2), np.ones(2, bool), np.zeros(2, bool))
    assert math.isnan(found.ece) and math.isnan(found.brier)
    confidence, accuracy, share = found.diagram()
    assert np.isnan(confidence).all() and np.isnan(accuracy).all() and share.tolist() == [0, 0, 0]


@pytest.mark.parametrize("bad", [-1e-7, 1 + 1e-6, math.nan, math.inf, -math.inf])
def test_what_is_no_probability_is_refused_and_leaves_the_sums_alone(bad):
    p, positive = drawn(50)
    found = found_in(p, positive)
    before = found.pixels, found.ece
    spoilt = p.copy()
    spoilt[[7, 9]] = bad
    with pytest.raises(DataError, match=r"expected probabilities in \[0, 1\], got .* and 1 more"):
        found.update(spoilt, positive)
    assert (found.pixels, found.ece) == before


def test_requests_that_cannot_be():
    with pytest.raises(UsageError, match="one shape"):
        found_in(np.zeros(3), np.zeros(4, bool))
    with pytest.raises(UsageError, match="one shape"):
        found_in(np.zeros(3), np.zeros(3, bool), np.ones(4, bool))
    with pytest.raises(UsageError, match="at least 1 bin, got 0"):
        BinaryReliability.empty(0)
