import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, jaccard_score

from doubtmap.errors import UsageError
from doubtmap.metrics import Confusion


def random_labels(seed, classes=7, n=2000):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, n)
    predicted = np.where(rng.random(n) < 0.6, label, rng.integers(0, classes, n))
    return predicted, label, rng.random(n) < 0.8


def confusion_of(classes, *arrays):
    confusion = Confusion.empty(classes)
    confusion.update(*arrays)
    return confusion


@pytest.mark.parametrize("seed", range(3))
def test_counts_and_iou_are_those_of_scikit_learn(seed):
    predicted, label, valid = random_labels(seed)
    confusion = confusion_of(7, predicted, label, valid)
    p, t = predicted[valid], label[valid]
    np.testing.assert_array_equal(confusion.counts, confusion_matrix(t, p))
    np.testing.assert_allclose(confusion.iou, jaccard_score(t, p, average=None))
    assert confusion.miou == pytest.approx(jaccard_score(t, p, average="macro"))
    assert confusion.accuracy == pytest.approx((p == t).mean())


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.int32])
def test_tensors_of_every_integer_kind_are_taken(kind):
    predicted, label, valid = (torch.tensor(a).reshape(4, 500) for a in random_labels(0))
    found = confusion_of(7, predicted.to(kind), label.to(kind), valid)
    np.testing.assert_array_equal(found.counts, confusion_of(7, *random_labels(0)).counts)


def test_classes_that_never_occur_leave_the_mean_alone():
    confusion = confusion_of(4, np.array([0, 1, 1]), np.array([0, 1, 0]))
    np.testing.assert_array_equal(confusion.iou, [0.5, 0.5, np.nan, np.nan])
    assert confusion.miou == 0.5


def test_a_class_only_predicted_counts_as_zero():
    assert confusion_of(3, np.array([0, 2]), np.array([0, 0])).miou == 0.25


def test_without_pixels_all_is_nan():
    confusion = Confusion.empty(3)
    confusion.update(np.array([1]), np.array([255]), np.array([False]))
    assert np.isnan([confusion.miou, confusion.accuracy, *confusion.iou]).all()


def test_void_may_hold_any_label():
    predicted, label, valid = random_labels(1)
    spoilt = np.where(valid, label, 255).astype(np.uint8)
    np.testing.assert_array_equal(
        confusion_of(7, predicted, spoilt, valid).counts,
        confusion_of(7, predicted, label, valid).counts,
    )


def test_sums_are_those_of_all_pixels():
    predicted, label, _ = random_labels(2)
    halves = confusion_of(7, predicted[:900], label[:900]) + confusion_of(
        7, predicted[900:], label[900:]
    )
    np.testing.assert_array_equal(halves.counts, confusion_of(7, predicted, label).counts)
    with pytest.raises(UsageError, match="same shape"):
        halves + Confusion.empty(3)


def test_counts_stay_exact_beyond_what_float32_can_count():
    many = Confusion(np.full((2, 2), 2**40))
    many.update(np.array([1]), np.array([0]))
    assert many.counts.tolist() == [[2**40, 2**40 + 1], [2**40, 2**40]]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([3], [0]), "predicted in"),
        (([0], [255]), "label in .* valid=False"),
        (([0], [-1]), "label in"),
        (([0, 1], [0]), "one shape"),
        (([0, 1], [0, 1], [True]), "one shape"),
    ],
)
def test_what_cannot_be_counted_is_a_usage_error(arrays, message):
    with pytest.raises(UsageError, match=message):
        confusion_of(3, *map(np.array, arrays))
