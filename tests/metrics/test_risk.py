"""Risk-coverage and sparsification against sorting all pixels."""

import itertools
import math

import numpy as np
import pytest

from doubtmap.metrics import Keeping, area_under_sparsification_error, sparsification
from doubtmap.metrics.risk import normalised_ece


def by(order, errors):
    """One bin for each distinct value of what pixels are ordered by."""
    values, at = np.unique(order, return_inverse=True)
    return Keeping(np.bincount(at).astype(float), np.bincount(at, errors, len(values)))


def doubts_and_errors(seed, n=1000, noise=1.0):
    rng = np.random.default_rng(seed)
    errors = rng.gamma(0.5, size=n)
    return errors + noise * rng.normal(size=n), errors


def expected_areas(doubt, error):
    """AUSE by sorting and dropping, one hundredth after another."""
    n = len(doubt)
    kept = [round(n * (100 - share) / 100) for share in range(100)]
    curve, oracle = (
        np.array([error[np.argsort(order)][:k].mean() for k in kept]) / error.mean()
        for order in (doubt, error)
    )
    gap = curve - oracle
    return sum((a + b) / 2 * 0.01 for a, b in itertools.pairwise(gap))


@pytest.mark.parametrize("seed", range(4))
def test_area_under_risk_is_the_mean_risk_over_all_coverages(seed):
    rng = np.random.default_rng(seed)
    doubt = rng.normal(size=4000)
    wrong = (rng.random(4000) < 1 / (1 + np.exp(-2 * doubt))).astype(float)
    expected = (np.cumsum(wrong[np.argsort(doubt)]) / np.arange(1, 4001)).mean()
    assert by(doubt, wrong).area_under_risk() == pytest.approx(expected, rel=1e-3)


def test_pixels_of_one_doubt_count_as_evenly_mixed():
    rng = np.random.default_rng(0)
    doubt, wrong = rng.integers(0, 5, 400), rng.random(400) < 0.3
    areas = []
    for _ in range(1500):  # the mean over random orders of the ties
        order = np.lexsort([rng.random(400), doubt])
        areas.append((np.cumsum(wrong[order]) / np.arange(1, 401)).mean())
    assert by(doubt, wrong).area_under_risk() == pytest.approx(np.mean(areas), abs=2e-3)


def test_all_pixels_in_one_bin_have_their_mean_error_as_area():
    assert Keeping(np.array([50.0]), np.array([20.0])).area_under_risk() == pytest.approx(0.4)


def test_area_under_risk_of_the_best_and_the_worst_order():
    wrong = np.repeat([0.0, 1.0], [900, 100])
    best, worst = (by(sign * np.arange(1000), wrong).area_under_risk() for sign in (1, -1))
    harmonic = np.cumsum(1 / np.arange(1, 1001))
    assert best == pytest.approx(0.1 - 0.9 * (harmonic[999] - harmonic[899]), rel=1e-3)
    assert worst == pytest.approx(0.1 + 0.1 * (harmonic[999] - harmonic[99]), rel=1e-3)


def test_empty_bins_change_nothing_and_no_pixels_give_nan():
    kept = Keeping(np.array([0.0, 5, 0, 3, 0]), np.array([0.0, 1, 0, 3, 0]))
    dense = Keeping(np.array([5.0, 3]), np.array([1.0, 3]))
    assert kept.area_under_risk() == dense.area_under_risk()
    np.testing.assert_allclose(kept.risk(np.array([0.5, 1])), dense.risk(np.array([0.5, 1])))
    assert math.isnan(Keeping(np.zeros(3), np.zeros(3)).area_under_risk())


def test_risk_is_the_mean_error_of_what_is_kept():
    doubt, errors = doubts_and_errors(0)
    ascending = errors[np.argsort(doubt)]
    for coverage in (0.001, 0.25, 0.5, 1.0):
        expected = ascending[: round(coverage * 1000)].mean()
        assert by(doubt, errors).risk(np.array([coverage]))[0] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [0.1, 1.0, 10.0])
def test_sparsification_error_equals_sorting_and_dropping(seed, noise):
    doubt, errors = doubts_and_errors(seed, noise=noise)
    found = area_under_sparsification_error(*sparsification(by(doubt, errors), by(errors, errors)))
    assert found == pytest.approx(expected_areas(doubt, errors), abs=1e-9)


def test_perfect_doubt_has_no_sparsification_error_and_permuted_doubt_has():
    _, errors = doubts_and_errors(0)
    perfect = by(errors, errors)
    assert area_under_sparsification_error(*sparsification(perfect, perfect)) == 0
    squared = by(errors**2, errors)  # any order-keeping change is as good
    assert area_under_sparsification_error(*sparsification(squared, perfect)) == pytest.approx(0)
    permuted = by(np.random.default_rng(1).permutation(errors), errors)
    # The authors' code gives 0 here: it never looks at which pixel the doubt belongs to.
    assert area_under_sparsification_error(*sparsification(permuted, perfect)) > 0.5
    backwards = by(-errors, errors)
    assert area_under_sparsification_error(
        *sparsification(backwards, perfect)
    ) > area_under_sparsification_error(*sparsification(permuted, perfect))


def test_curves_start_at_one_and_the_oracle_falls():
    doubt, errors = doubts_and_errors(2)
    removed, curve, oracle = sparsification(by(doubt, errors), by(errors, errors))
    assert removed[0] == 0 and removed[-1] == 0.99
    assert (curve[0], oracle[0]) == pytest.approx((1, 1))
    assert (np.diff(oracle) < 0).all()
    assert (curve >= oracle - 1e-12).all()


def test_without_any_error_the_curves_are_not_defined():
    nothing = Keeping(np.array([5.0]), np.array([0.0]))
    assert math.isnan(area_under_sparsification_error(*sparsification(nothing, nothing)))


def one_by_one(doubt, wrong, bins=10):
    """The definition, pixel by pixel."""
    confidence = 1 - (doubt - doubt.min()) / (doubt.max() - doubt.min())
    at = np.minimum((confidence * bins).astype(int), bins - 1)
    parts = [at == k for k in range(bins)]
    gaps = [abs((1 - wrong[p]).mean() - confidence[p].mean()) * p.mean() for p in parts if p.any()]
    return sum(gaps)


@pytest.mark.parametrize("scale", [1.0, -3.0, 1e4])
def test_normalised_calibration_is_that_of_the_scaled_score(scale):
    """By pixels; the same however the score is scaled and moved."""
    random = np.random.default_rng(0)
    doubt = random.normal(size=2000).round(2)
    wrong = (random.random(2000) < 0.3 + 0.1 * doubt).astype(float)
    values = np.unique(doubt)
    counts = [np.array([(wrong[doubt == v] == k).sum() for v in values]) for k in (0, 1)]
    got = normalised_ece(abs(scale) * values + scale, *counts)
    assert got == pytest.approx(one_by_one(doubt, wrong), abs=1e-6)


def test_known_normalised_calibration():
    """Certain and right, doubtful and wrong; the other way round; and nothing to scale by."""
    ends, ten, none = np.array([2.0, 7.0]), np.array([10, 0]), np.array([0, 10])
    assert normalised_ece(ends, ten, none) == 0 and normalised_ece(ends, none, ten) == 1
    assert normalised_ece(ends, np.array([5, 5]), np.array([5, 5])) == 0.5
    assert math.isnan(normalised_ece(ends, ten, 0 * none))
    assert math.isnan(normalised_ece(ends[:0], ten[:0], none[:0]))
