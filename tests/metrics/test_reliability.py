"""Calibration figures against the sums one would write with all pixels in memory."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from doubtmap.errors import DataError, UsageError
from doubtmap.metrics import Reliability, brier_score

CLASSES = 5


def pixels(seed=0, n=3000, classes=CLASSES, sharpness=2.0, true_sharpness=1.0):
    """Logits `(1, C, 1, n)` and labels drawn from their softmax, sharper than stated or not."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(n, classes))
    p = softmax(true_sharpness * logits, 1)
    label = (p.cumsum(1) < rng.random((n, 1))).sum(1).clip(0, classes - 1)
    return torch.tensor(logits.T[None, :, None]), torch.tensor(label[None, None])


def reliability_of(logits, label, valid=None, bins=15):
    reliability = Reliability(logits.shape[1], bins)
    reliability.update(logits, label, valid)
    return reliability


def flat(logits, label):
    x = logits.double().numpy().transpose(0, 2, 3, 1).reshape(-1, logits.shape[1])
    return softmax(x, 1), log_softmax(x, 1), label.numpy().reshape(-1)


def gaps(confidence, right, bins):
    """Count and |accuracy - confidence| of each bin (lo, hi] that holds anything."""
    edges = np.linspace(0, 1, bins + 1)
    for lo, hi in itertools.pairwise(edges):
        inside = (confidence > lo) & (confidence <= hi)
        if inside.any():
            yield inside.sum(), abs(right[inside].mean() - confidence[inside].mean())


def ece_of(confidence, right, bins):
    return sum(n * gap for n, gap in gaps(confidence, right, bins)) / len(confidence)


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("true_sharpness", [0.3, 1.0, 3.0])
def test_binned_figures_and_losses_equal_brute_force(bins, true_sharpness):
    logits, label = pixels(true_sharpness=true_sharpness)
    p, log_p, truth = flat(logits, label)
    confidence, right = p.max(1), p.argmax(1) == truth
    one_hot = np.eye(CLASSES)[truth]
    found = reliability_of(logits, label, bins=bins)
    expected = {
        "ece": ece_of(confidence, right, bins),
        "mce": max(gap for _, gap in gaps(confidence, right, bins)),
        "classwise_ece": np.mean([ece_of(p[:, c], one_hot[:, c], bins) for c in range(CLASSES)]),
        "brier": ((p - one_hot) ** 2).sum(1).mean(),
        "nll": -log_p[np.arange(len(truth)), truth].mean(),
    }
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-9), name


@pytest.mark.parametrize("true_sharpness", [0.3, 1.0, 3.0])
def test_adaptive_and_cumulated_figures_equal_those_of_sorted_pixels(true_sharpness):
    logits, label = pixels(n=30_000, true_sharpness=true_sharpness)
    p, _, truth = flat(logits, label)
    confidence, right = p.max(1), p.argmax(1) == truth
    order = np.argsort(confidence)
    gap = confidence[order] - right[order]
    found = reliability_of(logits, label)
    adaptive = sum(abs(part.sum()) for part in np.array_split(gap, 15)) / len(gap)
    assert found.adaptive_ece == pytest.approx(adaptive, abs=1e-3)
    assert found.ks == pytest.approx(np.abs(np.cumsum(gap)).max() / len(gap), abs=1e-4)


def test_the_cumulated_gap_begins_at_the_least_confident_pixel():
    # two classes: 100 pixels at 0.6, all right; 100 at 0.9, 30 wrong.
    # From below: -40, then -40 + 20 = -20. From above it would have been 20, then -20.
    p = torch.tensor([0.6] * 100 + [0.9] * 100, dtype=torch.float64)
    label = torch.tensor([0] * 100 + [0] * 70 + [1] * 30)
    found = reliability_of(torch.stack([p, 1 - p]).log()[None, :, None], label[None, None])
    assert found.ks == pytest.approx(40 / 200, abs=1e-6)


def test_calibrated_pixels_have_small_errors_and_overconfident_ones_large():
    good = reliability_of(*pixels(n=60_000))
    bad = reliability_of(*pixels(n=60_000, sharpness=6.0, true_sharpness=0.25))
    for name in ("ece", "adaptive_ece", "ks", "classwise_ece"):
        assert getattr(good, name) < 0.01
        assert getattr(bad, name) > 0.05


def test_an_edge_belongs_to_the_bin_below_it():
    # 0.5 lies in (0, 1/2], and so do both classes' probabilities
    sums = reliability_of(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=int), bins=2).sums
    assert sums.confidence[:, 0].tolist() == [1, 0]
    assert sums.classwise[:, :, 0].tolist() == [[1, 0], [1, 0]]
    sure = torch.tensor([200.0, 0.0]).reshape(1, 2, 1, 1)
    sums = reliability_of(sure, torch.zeros(1, 1, 1, dtype=int), bins=2).sums
    assert sums.confidence[:, 0].tolist() == [0, 1]
    assert sums.classwise[:, :, 0].tolist() == [[0, 1], [1, 0]]


def test_the_diagram_gives_means_and_shares_of_each_bin():
    p = torch.tensor([0.6, 0.7, 0.9, 0.95], dtype=torch.float64)
    logits = torch.stack([p, 1 - p]).log()[None, :, None]
    confidence, accuracy, share = reliability_of(
        logits, torch.tensor([[[0, 1, 0, 0]]]), bins=4
    ).sums.diagram()
    np.testing.assert_allclose(confidence, [np.nan, np.nan, 0.65, 0.925])
    np.testing.assert_allclose(accuracy, [np.nan, np.nan, 0.5, 1])
    np.testing.assert_allclose(share, [0, 0, 0.5, 0.5])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_logits_of_lower_precision_are_taken_at_their_own_values(dtype):
    logits, label = pixels()
    given = logits.to(dtype)
    found, expected = reliability_of(given, label), reliability_of(given.double(), label)
    for name in ("classwise_ece", "brier", "nll"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-4)
    torch.testing.assert_close(
        brier_score(given, label).double(), brier_score(given.double(), label), rtol=0, atol=1e-6
    )


def test_very_confident_pixels_keep_their_order_in_the_fine_histogram():
    logits = torch.tensor([[20.0, 40.0, 80.0], [0.0, 0.0, 0.0]])[None, :, None]
    found = reliability_of(logits, torch.zeros(1, 1, 3, dtype=int))
    assert found.doubts.view().counts.shape[-1] == 3


def test_void_pixels_count_for_nothing():
    logits, label = pixels(n=400)
    valid = torch.rand(label.shape, generator=torch.Generator().manual_seed(0)) < 0.6
    spoilt = label.where(valid, torch.tensor(255)).to(torch.uint8)
    found = reliability_of(logits, spoilt, valid)
    keep = valid[0, 0]
    expected = reliability_of(logits[..., keep], label[..., keep])
    assert found.sums.pixels == keep.sum()
    for name in ("ece", "mce", "classwise_ece", "brier", "nll", "adaptive_ece", "ks"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-12)
    ones = reliability_of(logits, spoilt, valid.to(torch.uint8))
    assert ones.ece == found.ece


def test_without_pixels_all_figures_are_nan():
    logits, label = pixels(n=4)
    for found in (Reliability(CLASSES), reliability_of(logits, label, torch.zeros_like(label) > 0)):
        for name in ("ece", "mce", "classwise_ece", "brier", "nll", "adaptive_ece", "ks"):
            assert math.isnan(getattr(found, name))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_the_sum_is_what_one_accumulator_would_have_become(order):
    logits, label = pixels(n=900)
    parts = [reliability_of(x, y) for x, y in zip(logits.split(300, 3), label.split(300, 2))]
    total = parts[order[0]] + parts[order[1]] + parts[order[2]]
    whole = reliability_of(logits, label)
    restored = Reliability.from_state(total.state())
    for found in (total, restored):
        for name in ("ece", "mce", "classwise_ece", "brier", "nll", "adaptive_ece", "ks"):
            assert getattr(found, name) == pytest.approx(getattr(whole, name), rel=1e-12)
        np.testing.assert_array_equal(found.sums.confidence[:, :2], whole.sums.confidence[:, :2])


def test_counters_stay_exact_beyond_what_float32_can_count():
    one = reliability_of(torch.tensor([3.0, 0.0]).reshape(1, 2, 1, 1), torch.zeros(1, 1, 1).long())
    many = {name: array * 2.0**26 for name, array in one.state().items() if "." not in name}
    fine = {name: array for name, array in one.state().items() if "." in name}
    fine["doubts.counts"] = fine["doubts.counts"] * 2.0**26
    total = Reliability.from_state(many | fine) + one
    assert total.sums.pixels == 2**26 + 1
    assert total.sums.confidence[:, 0].sum() == 2**26 + 1
    assert total.doubts.view().counts[0].sum() == 2**26 + 1


def test_a_frame_that_is_refused_leaves_the_sums_alone():
    logits, label = pixels(n=50)
    found = reliability_of(logits, label)
    before = found.sums.pixels, found.ece
    with pytest.raises(DataError):
        found.update(torch.full_like(logits, torch.nan), label)
    assert (found.sums.pixels, found.ece) == before


@pytest.mark.parametrize(
    ("logits", "label", "valid", "message"),
    [
        ((1, 4, 2, 2), (1, 2, 2), None, r"expected logits \(B, 5, H, W\)"),
        ((5, 2, 2), (2, 2), None, "expected logits"),
        ((1, 5, 2, 2), (1, 2, 3), None, "expected logits"),
        ((1, 5, 2, 2), (1, 2, 2), (2, 2), "valid and labels of one shape"),
        ((2, 5, 2, 2), (2, 2, 2), (2,), "valid and labels of one shape"),
    ],
)
def test_shapes_that_do_not_fit_are_a_usage_error(logits, label, valid, message):
    keep = None if valid is None else torch.ones(valid, dtype=torch.bool)
    with pytest.raises(UsageError, match=message):
        Reliability(5).update(torch.zeros(logits), torch.zeros(label, dtype=int), keep)


@pytest.mark.parametrize("bad", [-1, 5, 255])
def test_labels_outside_the_classes_are_a_usage_error(bad):
    with pytest.raises(UsageError, match="valid=False"):
        Reliability(5).update(torch.zeros(1, 5, 1, 2), torch.tensor([[[0, bad]]]))


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8])
def test_brier_score_of_every_pixel_equals_its_definition(kind):
    logits, label = pixels(n=60)
    p, _, truth = flat(logits, label)
    expected = ((p - np.eye(CLASSES)[truth]) ** 2).sum(1)
    found = brier_score(logits, label.to(kind))
    assert found.shape == label.shape
    np.testing.assert_allclose(found.flatten(), expected, atol=1e-12)


def test_brier_score_lies_between_its_extremes():
    sure = torch.tensor([50.0, -50.0]).reshape(1, 2, 1, 1).expand(1, 2, 1, 2)
    assert brier_score(sure, torch.tensor([[[0, 1]]])).flatten().tolist() == [0, 2]


def test_a_bin_of_one_pixel_has_a_gap_too():
    p = torch.tensor([[0.1, 0.4, 0.4], [0.9, 0.6, 0.6]])
    found = reliability_of(p.log()[None, :, None], torch.tensor([[[0, 0, 1]]]), bins=10)
    assert found.mce == pytest.approx(0.9)
    assert found.ece == pytest.approx((0.9 + abs(1 - 2 * 0.6)) / 3)
