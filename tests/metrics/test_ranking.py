"""Ranking figures against scikit-learn on the same pixels: the bounds hold, always."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import trapezoid
from score_families import FAMILIES, draw
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from doubtmap import scores
from doubtmap.errors import DataError, UsageError
from doubtmap.metrics import Ranking

BUDGETS = [16, 64, 1024, 4096, 1 << 20]
sizes = st.integers(2, 300) | st.integers(300, 5000)
seeds = st.integers(0, 2**32 - 1)


def ranking_of(score, positive, bins=1 << 20, valid=None):
    ranking = Ranking(bins)
    ranking.update(score, positive, valid)
    return ranking


def exact_figures(score, positive):
    """By scikit-learn; the false-positive rate at the first point that reaches 95 %."""
    score = np.asarray(score, np.float64)
    false_rate, true_rate, _ = roc_curve(positive, score, drop_intermediate=False)
    return (
        min(average_precision_score(positive, score), 1.0),  # its sum may round above 1
        roc_auc_score(positive, score),
        false_rate[np.argmax(true_rate >= 0.95)],
    )


def figures_of(ranking):
    return ranking.average_precision(), ranking.auroc(), ranking.fpr_at_tpr(0.95)


def assert_bounds_hold(ranking, score, positive):
    for figure, exact in zip(figures_of(ranking), exact_figures(score, positive)):
        lower, upper = figure.bounds
        assert lower <= exact <= upper
        assert lower <= figure <= upper
        assert lower >= 0 and upper <= 1


@pytest.mark.parametrize("family", FAMILIES)
@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    seed=seeds,
    n=sizes,
    bins=st.sampled_from(BUDGETS),
    dtype=st.sampled_from([np.float32, np.float64, np.float16]),
    pieces=st.integers(1, 4),
)
def test_bounds_always_hold_the_exact_value(family, seed, n, bins, dtype, pieces):
    score, positive = draw(family, seed, n, dtype)
    positive[:2] = True, False
    ranking = Ranking(bins)
    for part, truth in zip(np.array_split(score, pieces), np.array_split(positive, pieces)):
        ranking.update(part, truth)
    assert_bounds_hold(ranking, score, positive)


@pytest.mark.parametrize("bins", BUDGETS)
def test_bounds_hold_where_the_bins_grow_after_the_first_update(bins):
    # one page only, each number with a bin of its own, then numbers all over the place
    rng = np.random.default_rng(0)
    ranking, scores, truths = Ranking(bins), [], []
    for values in (0.5 + rng.random(2000) / 16, 2.0 ** -np.arange(100.0), -rng.random(50)):
        scores.append(values.astype(np.float32))
        truths.append(rng.random(len(values)) < 0.3)
        ranking.update(scores[-1], truths[-1])
        assert_bounds_hold(ranking, np.concatenate(scores), np.concatenate(truths))


@pytest.mark.parametrize("family", ["constant", "few values", "heavy ties"])
@pytest.mark.parametrize("bins", [4096, 1 << 20])
def test_ties_stay_ties_so_the_figures_are_exact(family, bins):
    score, positive = draw(family, 3, 3000)
    positive[:2] = True, False
    for figure, exact in zip(
        figures_of(ranking_of(score, positive, bins)), exact_figures(score, positive)
    ):
        assert figure == pytest.approx(exact, abs=1e-12)
        if family != "heavy ties":
            assert figure.bounds == pytest.approx((exact, exact), abs=1e-11)


@pytest.mark.parametrize("family", ["narrow range", "one page"])
def test_one_bin_per_number_gives_exact_figures(family):
    score, positive = draw(family, 5, 4000)
    for figure, exact in zip(
        figures_of(ranking_of(score, positive)), exact_figures(score, positive)
    ):
        assert figure == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("family", ["normal", "entropy", "negative", "cauchy"])
def test_a_million_scores_are_bounded_to_one_in_ten_thousand(family):
    score, positive = draw(family, 7, 1_000_000)
    for figure in figures_of(ranking_of(score, positive)):
        lower, upper = figure.bounds
        assert upper - lower <= 1e-4


def test_bounds_hold_on_a_doubt_map_of_many_pixels():
    rng = np.random.default_rng(1)
    logits = torch.tensor(3 * rng.normal(size=(2, 19, 96, 160)), dtype=torch.float32)
    unknown = torch.zeros(2, 96, 160, dtype=torch.bool)
    unknown[:, 30:60, 40:90] = True
    logits[unknown[:, None].expand_as(logits)] *= 0.4
    valid = torch.tensor(rng.random((2, 96, 160)) < 0.9)
    for name in ("max_softmax", "entropy", "energy", "divergence"):
        score = getattr(scores, name)(logits)
        ranking = Ranking()
        for one in range(2):
            ranking.update(score[one], unknown[one], valid[one])
        assert_bounds_hold(ranking, score[valid].numpy(), unknown[valid].numpy())
        assert ranking.auroc() > 0.8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_every_precision_are_ranked_by_their_own_values(dtype):
    score = torch.randn(500, generator=torch.Generator().manual_seed(0)).to(dtype)
    positive = torch.arange(500) % 7 == 0
    ranking = ranking_of(score.requires_grad_(), positive)
    assert_bounds_hold(ranking, score.detach().double().numpy(), positive.numpy())
    zero_one = ranking_of(score, positive.to(torch.uint8))
    assert figures_of(zero_one) == figures_of(ranking)


def test_void_pixels_count_for_nothing_whatever_they_hold():
    score, positive = draw("normal", 0, 600)
    valid = np.random.default_rng(0).random(600) < 0.7
    spoilt, labels = score.copy(), positive.astype(np.uint8)
    spoilt[~valid] = np.resize([np.nan, np.inf, -np.inf], (~valid).sum())
    labels[~valid] = 255
    found = figures_of(ranking_of(spoilt, labels, valid=valid))
    assert found == figures_of(ranking_of(score[valid], positive[valid]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_valid_score_that_is_not_finite_is_a_data_error(bad, dtype):
    score = np.zeros(10, dtype)
    score[[3, 5]] = bad
    with pytest.raises(DataError, match="got 2 NaN or infinite"):
        ranking_of(score, np.arange(10) % 2)


@pytest.mark.parametrize(
    "positive", [np.zeros(5, bool), np.ones(5, bool), np.zeros(0, bool)], ids=["no", "all", "none"]
)
def test_figures_without_both_kinds_of_pixels_are_nan(positive):
    ranking = ranking_of(np.arange(len(positive), dtype=np.float32), positive)
    for figure in figures_of(ranking):
        assert math.isnan(figure) and all(map(math.isnan, figure.bounds))
    assert all(map(math.isnan, ranking.curve.best_f1()))


def test_arrays_of_other_shapes_are_a_usage_error():
    with pytest.raises(UsageError, match="one shape"):
        ranking_of(np.zeros(4), np.zeros(5, bool))
    with pytest.raises(UsageError, match="one shape"):
        ranking_of(np.zeros((2, 2)), np.zeros((2, 2), bool), valid=np.ones(4, bool))


def test_labels_that_are_neither_0_nor_1_are_a_usage_error():
    with pytest.raises(UsageError, match="0 and 1"):
        ranking_of(np.zeros(3), np.array([0, 1, 255]))


@pytest.mark.parametrize("rate", [0, -1, 1.01, float("nan")])
def test_an_impossible_rate_is_a_usage_error(rate):
    with pytest.raises(UsageError, match="rate in"):
        ranking_of(np.arange(3.0), np.array([0, 1, 1])).fpr_at_tpr(rate)


@pytest.mark.parametrize("tpr", [0.001, 0.5, 0.8, 0.95, 1.0])
def test_false_positive_rate_at_the_first_threshold_that_reaches_the_rate(tpr):
    score = np.array([5, 4, 4, 3, 2, 2, 1, 0], np.float32)
    positive = np.array([1, 1, 0, 1, 0, 1, 0, 1], bool)
    thresholds = np.unique(score)[::-1]
    for threshold in thresholds:
        if (score[positive] >= threshold).mean() >= tpr:
            break
    expected = (score[~positive] >= threshold).mean()
    assert ranking_of(score, positive).fpr_at_tpr(tpr) == expected


def test_known_answers_by_hand():
    ranking = ranking_of(np.array([4, 3, 2, 1.0]), np.array([1, 0, 1, 0]))
    assert ranking.average_precision() == pytest.approx((1 + 2 / 3) / 2)
    assert ranking.auroc() == pytest.approx(3 / 4)
    assert ranking.fpr_at_tpr(0.95) == pytest.approx(1 / 2)
    tied = ranking_of(np.ones(4), np.array([1, 0, 0, 0]))
    assert (tied.average_precision(), tied.auroc(), tied.fpr_at_tpr()) == (0.25, 0.5, 1)


@settings(deadline=None, max_examples=80, derandomize=True)
@given(
    family=st.sampled_from(list(FAMILIES)),
    seed=seeds,
    n=sizes,
    bins=st.sampled_from(BUDGETS),
    pieces=st.integers(2, 5),
    dtype=st.sampled_from([np.float32, np.float64, np.float16]),
)
def test_the_sum_of_rankings_is_the_ranking_of_all_pixels(family, seed, n, bins, pieces, dtype):
    score, positive = draw(family, seed, n, dtype)
    rng = np.random.default_rng(seed)
    owner = rng.integers(0, pieces, n)
    parts = [ranking_of(score[owner == i], positive[owner == i], bins) for i in range(pieces)]
    order = rng.permutation(pieces)
    total = parts[order[0]]
    for i in order[1:]:
        total = total + parts[i]
    whole = ranking_of(score, positive, bins)
    assert_same_content(total.histogram, whole.histogram)
    if whole.curve.defined:
        assert figures_of(total) == figures_of(whole)
        assert [f.bounds for f in figures_of(total)] == [f.bounds for f in figures_of(whole)]


def assert_same_content(a, b):
    assert (a.bins, a.level, a.rounded) == (b.bins, b.level, b.rounded)
    np.testing.assert_array_equal(np.sort(a.pages), np.sort(b.pages))
    for name in ("counts", "lowest", "single"):
        np.testing.assert_array_equal(getattr(a.view(), name), getattr(b.view(), name))


def test_adding_leaves_both_summands_alone():
    a, b = (ranking_of(*draw("cauchy", seed, 200), bins=1024) for seed in (0, 1))
    before = [r.histogram.view() for r in (a, b)]
    total = a + b
    total.update(np.full(9, 3e30), np.ones(9, bool))
    for ranking, bins in zip((a, b), before):
        ranking.histogram.forget()
        np.testing.assert_array_equal(ranking.histogram.view().counts, bins.counts)


def test_rankings_of_different_budgets_do_not_add():
    with pytest.raises(UsageError, match="16 bins"):
        Ranking(16) + Ranking(64)


@pytest.mark.parametrize("bins", BUDGETS)
def test_a_ranking_goes_on_from_its_saved_state(bins):
    score, positive = draw("mixture", 2, 1000)
    first = ranking_of(score[:500], positive[:500], bins)
    restored = Ranking.from_state({name: array.copy() for name, array in first.state().items()})
    for ranking in (first, restored):
        ranking.update(score[500:], positive[500:])
    assert_same_content(restored.histogram, first.histogram)
    assert_same_content(first.histogram, ranking_of(score, positive, bins).histogram)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mask_above_the_best_threshold_has_the_stated_f1(family):
    score, positive = draw(family, 11, 3000)
    positive[:2] = True, False
    best, threshold = ranking_of(score, positive).curve.best_f1()
    mask = score > np.float32(threshold)
    f1 = 2 * (mask & positive).sum() / (mask.sum() + positive.sum())
    assert f1 == pytest.approx(best, abs=1e-12)
    every = [
        2 * ((score >= t) & positive).sum() / ((score >= t).sum() + positive.sum())
        for t in np.unique(score)
    ]
    assert best <= max(every) + 1e-12
    if family in ("constant", "few values", "narrow range", "one page"):
        assert best == pytest.approx(max(every), abs=1e-12)


def test_thinned_curves_keep_their_ends_and_their_course():
    curve = ranking_of(*draw("normal", 4, 5000)).curve
    full, few = curve.precision_recall(10**6), curve.precision_recall(50)
    roc, few_roc = curve.roc(10**6), curve.roc(50)
    for whole, thin in zip((full, roc), (few, few_roc)):
        assert len(whole[0]) > 1000 and len(thin[0]) <= 52
        points = set(zip(*whole))
        assert all(point in points for point in zip(*thin))
        for axis in (0, 1):
            assert (thin[axis][0], thin[axis][-1]) == (whole[axis][0], whole[axis][-1])
    assert few[0][-1] == 1
    assert (few_roc[0][-1], few_roc[1][-1]) == (1, 1)
    assert np.abs(np.diff(few[0])).max() < 0.1
    area = trapezoid(few_roc[1], few_roc[0])
    assert area == pytest.approx(curve.auroc(), abs=0.01)


def test_curves_of_nothing_are_empty():
    curve = Ranking().curve
    assert all(len(axis) == 0 for axis in (*curve.precision_recall(), *curve.roc()))
