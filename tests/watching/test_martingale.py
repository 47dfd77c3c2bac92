"""Laws of the evidence: p-values, the gamblers' capital, false alarms, power; bounds of a mean."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from doubtmap.errors import UsageError
from doubtmap.watching.bound import MOST, mean_bounds
from doubtmap.watching.comparing import changes, two_sample
from doubtmap.watching.martingale import (
    JUMPS,
    STAKES,
    composite_jumper,
    evidence,
    first_above,
    p_values,
)

SURE = 0.9999
"""A correct share goes beyond the bound of a test once in ten thousand seeds."""


@given(
    st.lists(st.integers(0, 3), max_size=6),
    st.lists(st.integers(0, 3), min_size=1, max_size=6),
    st.integers(0, 99),
)
@settings(max_examples=50, deadline=None)
def test_p_values_are_ranks_among_all_up_to_then(reference, new, seed):
    ties = np.random.default_rng(seed).random(len(new))
    found = p_values(np.array(reference, float), np.array(new, float), ties)
    for place, value in enumerate(new):
        bag = [*reference, *new[: place + 1]]
        above = sum(one > value for one in bag)
        equal = sum(one == value for one in bag)
        assert found[place] == pytest.approx((above + ties[place] * equal) / len(bag))


def test_p_values_of_exchangeable_values_are_uniform_and_independent():
    generator = np.random.default_rng(0)
    runs = np.stack(
        [
            p_values(*np.split(generator.integers(0, 5, 30).astype(float), [20]), ties)
            for ties in generator.random((3000, 10))
        ]
    )
    assert stats.kstest(runs.ravel(), "uniform").pvalue > 1 - SURE
    correlation = np.corrcoef(runs.T)[np.triu_indices(10, 1)]
    assert np.abs(correlation).max() < 5 / math.sqrt(3000)


def test_the_composite_jumper_is_that_of_the_paper():
    """Algorithm 1 of the paper, line by line, and its mean over the rates of jumping."""
    p = np.random.default_rng(1).random(40)
    totals = []
    for jump in JUMPS:
        capital = dict.fromkeys(STAKES.tolist(), 1 / len(STAKES))
        whole, path = 1.0, []
        for each in p:
            for stake in capital:
                capital[stake] = (1 - jump) * capital[stake] + jump / len(STAKES) * whole
                capital[stake] *= 1 + stake * (each - 0.5)
            whole = sum(capital.values())
            path.append(whole)
        totals.append(path)
    assert np.allclose(np.exp(composite_jumper(p)), np.mean(totals, 0))
    both = composite_jumper(np.stack([p, p[::-1]], 1))
    assert np.array_equal(both[:, 0], composite_jumper(p))


def test_the_expected_capital_is_what_it_starts_with():
    """A bet is linear in p, so two points stand for the uniform distribution: the mean is exact."""
    paths = np.array(list(itertools.product((0.25, 0.75), repeat=8))).T
    assert np.exp(composite_jumper(paths)).mean(1) == pytest.approx(np.ones(8), rel=1e-12)


def test_the_capital_is_finite_whatever_comes():
    extremes = np.repeat([0.0, 1.0, 0.0], 3000)
    assert np.isfinite(composite_jumper(extremes)).all()


def runs_of(shift, orders=1200, reference=40, new=60, after=0):
    """When each of many seeded orders gave an alarm, two gamblers together."""
    generator = np.random.default_rng(2)
    values = generator.normal(size=(orders, 2, reference + new))
    values[:, :, reference + after :] += np.array(shift)[:, None]
    p = np.stack(
        [
            [p_values(row[:reference], row[reference:], generator.random(new)) for row in pair]
            for pair in values
        ]
    )
    capital = composite_jumper(p.transpose(2, 0, 1).reshape(new, -1)).reshape(new, orders, 2)
    return [first_above(evidence(capital[:, at]), math.log(20)) for at in range(orders)]


def test_false_alarms_at_any_time_are_as_rare_as_said():
    alarms = sum(at is not None for at in runs_of((0.0, 0.0)))
    assert 0 < alarms <= stats.binom.ppf(SURE, 1200, 0.05)


@pytest.mark.parametrize(("shift", "after", "within"), [((2.5, 0), 0, 15), ((0, -2.5), 20, 25)])
def test_a_shift_is_seen_soon_in_either_direction(shift, after, within):
    at = np.array([alarm or math.inf for alarm in runs_of(shift, 60, after=after)])
    assert np.median(at) <= after + within
    assert (at <= 60).mean() > 0.95


def test_where_none_reaches_the_limit_there_is_no_alarm():
    assert first_above(np.array([0.0, 2.0, 1.0]), 2.0) == 2
    assert first_above(np.array([0.0, 1.0]), 2.0) is None


@pytest.mark.parametrize("mean", [0.02, 0.5])
def test_bounds_hold_at_all_times_at_once(mean):
    generator = np.random.default_rng(3)
    missed = 0
    for _ in range(100):
        low, high = mean_bounds((generator.random(80) < mean).astype(float), 0.1)
        missed += bool(((low > mean) | (high < mean)).any())
    assert missed <= stats.binom.ppf(SURE, 100, 0.1)


def test_bounds_are_those_of_the_paper():
    """The hedged capital of equation 25 and remark 3, mean by mean, against the grid's ends."""
    values, rate = np.random.default_rng(4).beta(2, 8, 60), 0.05
    low, high = mean_bounds(values, rate)

    def alive(m):
        up = down = 1.0
        mean, variance, seen, known = 0.5, 0.25, 0.5, 0.25
        for count, x in enumerate(values, 1):
            bet = math.sqrt(2 * math.log(2 / rate) / (variance * count * math.log(count + 1)))
            up *= 1 + min(bet, MOST / m) * (x - m)
            down *= 1 - min(bet, MOST / (1 - m)) * (x - m)
            if max(up, down) / 2 >= 1 / rate:
                return False
            seen += x
            mean = seen / (count + 1)
            known += (x - mean) ** 2
            variance = known / (count + 1)
        return True

    kept = [m for m in np.linspace(0.001, 0.999, 999) if alive(m)]
    assert kept[0] == pytest.approx(low[-1], abs=0.0015)
    assert kept[-1] == pytest.approx(high[-1], abs=0.0015)


def test_bounds_shrink_around_the_mean_and_follow_the_range():
    values = np.random.default_rng(5).beta(2, 8, 1000)
    low, high = mean_bounds(values)
    assert (np.diff(low) >= 0).all() and (np.diff(high) <= 0).all()
    assert low[-1] < values.mean() < high[-1] < low[-1] + 0.05
    wide = mean_bounds(2 * values - 1, low=-1)
    assert np.allclose(wide, (2 * low - 1, 2 * high - 1))
    assert mean_bounds(np.empty(0))[0].shape == (0,)


@pytest.mark.parametrize(
    ("values", "options", "said"),
    [
        ([1.5], {}, "from 0.0 to 1.0"),
        ([math.nan], {}, "got others"),
        ([0.5], {"rate": 1}, "a rate"),
    ],
)
def test_values_out_of_range_are_refused(values, options, said):
    with pytest.raises(UsageError, match=said):
        mean_bounds(np.array(values), **options)


def test_two_samples_are_compared_as_scipy_does():
    generator = np.random.default_rng(6)
    reference, new = generator.normal(size=(25, 3)), generator.normal(0.4, size=(18, 3)).round(1)
    statistic, _ = two_sample(reference, new)
    for k in range(3):
        assert statistic[k] == pytest.approx(stats.ks_2samp(reference[:, k], new[:, k]).statistic)
        _, (p,) = two_sample(reference[:, [k]], new[:, [k]], draws=3999)
        exact = stats.ks_2samp(reference[:, k], new[:, k], method="exact").pvalue
        assert p == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 3999) + 1 / 4000)


def test_the_correction_holds_for_all_figures_together():
    generator = np.random.default_rng(7)
    smallest = [
        two_sample(*np.split(generator.normal(size=(24, 12)), [14]), draws=99)[1].min()
        for _ in range(300)
    ]
    assert sum(p <= 0.1 for p in smallest) <= stats.binom.ppf(SURE, 300, 0.1)


def test_what_changed_most_comes_first():
    generator = np.random.default_rng(8)
    reference, new = generator.normal(size=(40, 4)), generator.normal(size=(30, 4))
    new[:, 2] += 5
    reference[:, 3], new[:, 3] = 0.25, 0.25
    found = changes(["a", "b", "c", "still"], reference, new)
    assert (found[0].name, found[-1].name) == ("c", "still")
    assert found[0].effect == pytest.approx(5, abs=1) and found[0].p <= 0.001
    assert found[-1].effect == 0 and found[-1].p == 1
    new[:, 3] = 0.5
    assert changes(["a", "b", "c", "d"], reference, new)[0].effect == math.inf
