import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from doubtmap.errors import UsageError
from doubtmap.metrics import Confusion, OpenSet, Ranking

K = 4


def pixels(seed, n=600):
    """Predicted, label (-1 unknown, -2 void), refused."""
    rng = np.random.default_rng(seed)
    label = rng.integers(-2, K, n)
    guess = rng.integers(0, K, n)
    predicted = np.where((rng.random(n) < 0.6) & (label >= 0), label, guess)
    return predicted, label, rng.random(n) < np.where(label == -1, 0.7, 0.2)


def counted(predicted, label, refused):
    found = OpenSet.empty(K)
    found.update(predicted, label, label == -1, refused, label != -2)
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_iou_of_the_definition(seed):
    """TP / (TP + FP + FN), where the unknown is answered or refused like a class of its own."""
    predicted, label, refused = pixels(seed, 80)
    found = counted(predicted, label, refused)
    for k in range(K):
        hit = missed = wrong = 0
        for p, t, r in zip(predicted, label, refused):
            if t == -2:
                continue
            answer = "refused" if r else p
            hit += t == k and answer == k
            missed += t == k and answer != k
            wrong += t != k and answer == k
        union = hit + missed + wrong
        assert found.iou[k] == pytest.approx(hit / union if union else np.nan, nan_ok=True)


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_is_scikit_learns_over_the_classes_without_the_unknown(seed):
    predicted, label, refused = pixels(seed)
    found = counted(predicted, label, refused)
    valid = label != -2
    truth, answer = np.where(label == -1, K, label)[valid], np.where(refused, K, predicted)[valid]
    expected = jaccard_score(truth, answer, labels=range(K), average="macro")
    assert found.miou == pytest.approx(expected)
    unknown = truth == K
    assert found.found == pytest.approx((answer[unknown] == K).mean())
    assert found.false_alarms == pytest.approx((answer[~unknown] == K).mean())


def test_without_unknown_pixels_and_refusals_it_is_the_closed_one():
    predicted, label, _ = pixels(0)
    label = np.where(label == -1, -2, label)
    found = counted(predicted, label, np.zeros(len(label), bool))
    closed = Confusion.empty(K)
    closed.update(predicted, label, label >= 0)
    assert found.miou == closed.miou
    np.testing.assert_array_equal(found.iou, closed.iou)
    assert np.isnan(found.found) and found.false_alarms == 0


def test_a_perfect_network_and_a_perfect_score():
    _, label, _ = pixels(1)
    found = counted(np.where(label >= 0, label, 0), label, label == -1)
    assert (found.miou, found.found, found.false_alarms) == (1, 1, 0)


def test_misses_and_false_alarms_each_cost():
    """Two classes of 10 pixels each, 10 unknown ones that the network takes for class 0."""
    label = np.repeat([0, 1, -1], 10)
    predicted = np.repeat([0, 1, 0], 10)
    refused = np.zeros(30, bool)

    def iou(refused):
        found = OpenSet.empty(2)
        found.update(predicted, label, label == -1, refused)
        return found.iou.tolist()

    assert iou(refused) == [10 / 20, 1]
    refused[20:25] = True
    assert iou(refused) == [10 / 15, 1]
    refused[10:14] = True
    assert iou(refused) == [10 / 15, 6 / 10]
    assert iou(np.ones(30, bool)) == [0, 0]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 600))
def test_parts_add_up(seed, cut):
    arrays = pixels(seed)
    halves = counted(*(a[:cut] for a in arrays)) + counted(*(a[cut:] for a in arrays))
    np.testing.assert_array_equal(halves.counts, counted(*arrays).counts)


def test_tensors_of_images_and_any_label_where_it_does_not_count():
    predicted, label, refused = (torch.tensor(a).reshape(20, 30) for a in pixels(2))
    spoilt = torch.where(label < 0, 255, label)
    found = OpenSet.empty(K)
    found.update(predicted, spoilt, label == -1, refused, label != -2)
    np.testing.assert_array_equal(found.counts, counted(*pixels(2)).counts)


def test_nothing_seen_is_nan():
    found = OpenSet.empty(3)
    assert np.isnan([found.miou, found.found, found.false_alarms, *found.iou]).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label": [0, 3]}, "label in"),
        ({"label": [0, -1]}, "label in .*unknown=True"),
        ({"predicted": [0, 3]}, "predicted in"),
        ({"refused": [True]}, "one shape"),
        ({"valid": [True]}, "one shape"),
    ],
)
def test_what_cannot_be_counted_is_a_usage_error(changed, message):
    arrays = {
        "predicted": [0, 1],
        "label": [0, 1],
        "unknown": [False, False],
        "refused": [False, False],
        "valid": [True, True],
    }
    with pytest.raises(UsageError, match=message):
        OpenSet.empty(3).update(**{k: np.array(v) for k, v in (arrays | changed).items()})
    with pytest.raises(UsageError, match=r"classes in \[0, 3\)"):
        OpenSet.empty(3).mean_iou([3])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.5, 0.95, 1.0]), st.booleans())
def test_the_threshold_is_the_highest_that_finds_enough(seed, tpr, tied):
    rng = np.random.default_rng(seed)
    positive = rng.random(300) < 0.3
    scores = (rng.normal(positive, 1.0) * (2 if tied else 1)).astype(np.float32)
    scores = np.round(scores) if tied else scores
    ranking = Ranking()
    ranking.update(scores, positive)
    threshold = ranking.curve.threshold_at_tpr(tpr)
    share = (scores[positive] > threshold).mean()
    assert share >= tpr
    higher = scores[scores > threshold].min()
    assert (scores[positive] > higher).mean() < tpr
    false_alarms = (scores[~positive] > threshold).mean()
    assert false_alarms == pytest.approx(float(ranking.fpr_at_tpr(tpr)))


def test_a_threshold_needs_both_kinds():
    ranking = Ranking()
    ranking.update(np.array([1.0, 2.0]), np.array([True, True]))
    assert np.isnan(ranking.curve.threshold_at_tpr())
    with pytest.raises(UsageError, match=r"threshold_at_tpr: expected a rate in \(0, 1\]"):
        ranking.curve.threshold_at_tpr(1.5)
