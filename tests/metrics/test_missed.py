"""Missed shares at all thresholds, and thresholds that keep promises."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from score_families import FAMILIES, draw
from sklearn.metrics import f1_score

from doubtmap.decisions.choosing import bounded_risk, by_f1, by_fpr, by_risk, by_tpr
from doubtmap.errors import DataError, UsageError
from doubtmap.metrics.missed import Missed, place_of, threshold_at
from doubtmap.studies.risk_splits import MissedByImage, risk_over_splits, transferred

few = settings(deadline=None, max_examples=2, derandomize=True)
many = settings(deadline=None, max_examples=8, derandomize=True)


def counted(images):
    missed = Missed.empty()
    for score, positive in images:
        missed.update(score, positive)
    return missed


def drawn(family, seed, count=4, n=60):
    return [draw(family, seed + k, n) for k in range(count)]


def reached(images):
    """Thresholds to try: the tops of the steps around every value."""
    values = np.unique(np.concatenate([score for score, _ in images]))
    places = {place_of(float(v)) + k for v in values for k in (-1, 0, 1)}
    return np.array([threshold_at(place) for place in sorted(places) if 128 < place <= 65408])


@pytest.mark.parametrize("family", FAMILIES)
@few
@given(seed=st.integers(0, 2**31))
def test_figures_at_a_threshold_are_those_of_the_flagged_pixels(family, seed):
    images = drawn(family, seed)
    missed = counted(images)
    score, positive = (np.concatenate(part) for part in zip(*images))
    for threshold in reached(images)[:: max(1, len(reached(images)) // 6)]:
        assert np.float32(threshold) == threshold
        flagged, figures = score > threshold, missed.at(threshold)
        assert figures["flagged"] == pytest.approx(flagged.mean())
        shares = [(s <= threshold)[p].mean() for s, p in images if p.any()]
        if shares:
            assert figures["missed"] == pytest.approx(np.mean(shares))
            assert figures["tpr"] == pytest.approx(flagged[positive].mean())
            assert figures["f1"] == pytest.approx(f1_score(positive, flagged, zero_division=0))
        if not positive.all():
            assert figures["fpr"] == pytest.approx(flagged[~positive].mean())
        if flagged.any():
            assert figures["precision"] == pytest.approx(positive[flagged].mean())


@many
@given(seed=st.integers(0, 2**31), family=st.sampled_from(sorted(FAMILIES)))
def test_sums_add_up_in_any_order(seed, family):
    images = drawn(family, seed, 5)
    whole, first, second = counted(images), counted(images[:2][::-1]), counted(images[2:])
    for name, array in (second + first).state().items():
        np.testing.assert_allclose(array, getattr(whole, name), rtol=0, atol=1e-12)
    again = Missed(**whole.state())
    assert again.at(0.5) == pytest.approx(whole.at(0.5), nan_ok=True)


def test_void_counts_for_nothing_and_tensors_are_taken():
    score = torch.tensor([[0.1, 0.9], [torch.nan, 0.5]])
    positive = torch.tensor([[False, True], [True, True]])
    missed = Missed.empty()
    missed.update(score, positive, score == score)
    assert (missed.positives.sum(), missed.negatives.sum()) == (2, 1)
    assert missed.images.tolist() == [1, 1]
    half = Missed.empty()
    half.update(score.half(), positive, score == score)
    assert half.at(0.7)["tpr"] == 0.5


def test_images_without_positives_have_no_missed_share():
    missed = counted([(np.array([0.1, 0.9]), np.array([True, True]))] + 3 * [
        (np.array([0.1, 0.9]), np.array([False, False]))
    ])  # fmt: skip
    assert missed.images.tolist() == [1, 4]
    assert missed.at(0.5)["missed"] == 0.5
    nothing = counted([(np.array([0.1]), np.array([False]))])
    assert np.isnan(nothing.at(0.5)["missed"]) and np.isnan(nothing.at(0.5)["f1"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad):
    with pytest.raises(DataError, match="NaN or infinity in 1 pixels"):
        Missed.empty().update(np.array([0.1, bad]), np.array([True, False]))


def test_shapes_that_differ_are_refused():
    with pytest.raises(UsageError, match="one shape"):
        Missed.empty().update(np.zeros(3), np.zeros(4, bool))
    with pytest.raises(UsageError, match="one shape"):
        Missed.empty().update(np.zeros(3), np.zeros(3, bool), np.zeros(2, bool))


@pytest.mark.parametrize("family", FAMILIES)
@few
@given(seed=st.integers(0, 2**31))
def test_thresholds_by_f1_and_by_rates_are_the_best_there_are(family, seed):
    images = drawn(family, seed)
    missed = counted(images)
    score, positive = (np.concatenate(part) for part in zip(*images))
    if positive.all() or not positive.any():
        with pytest.raises(DataError, match="to flag and pixels to leave"):
            by_f1(missed)
        return
    tried = reached(images)
    flagged = score > tried[:, None]
    f1 = 2 * (flagged & positive).sum(1) / (flagged.sum(1) + positive.sum())
    assert f1_score(positive, score > by_f1(missed)) == pytest.approx(f1.max())
    chosen = by_tpr(missed, 0.9)
    assert (score > chosen)[positive].mean() >= 0.9
    assert not (flagged[tried > chosen][:, positive].mean(1) >= 0.9).any()
    chosen = by_fpr(missed, 0.1)
    assert (score > chosen)[~positive].mean() <= 0.1
    assert not (flagged[tried < chosen][:, ~positive].mean(1) <= 0.1).any()


@pytest.mark.parametrize("family", FAMILIES)
@few
@given(
    seed=st.integers(0, 2**31), empty=st.booleans(), alpha=st.sampled_from([0.1, 0.15, 0.3, 0.6])
)
def test_the_threshold_by_risk_is_the_highest_that_the_bound_allows(family, seed, empty, alpha):
    images = drawn(family, seed, 12, 40)
    held = [(s, p) for s, p in images if p.any()]
    count = len(images) if empty else len(held)
    if not held or 1 / (count + 1) > alpha:
        return
    chosen = by_risk(counted(images), alpha, empty=empty)

    def bound(t):
        return (sum((s[p] <= t[:, None]).mean(1) for s, p in held) + 1) / (count + 1)

    assert bound(np.array([chosen])) <= alpha + 1e-12
    tried = reached(images)
    assert not (bound(tried[tried > chosen]) <= alpha - 1e-12).any()


def test_known_answers_by_risk():
    # Nine images of two positives each: one above 0.5, one at an own height below.
    images = [(np.array([0.9, 0.01 * k]), np.array([True, True])) for k in range(1, 10)]
    assert (by_risk(counted(images), 0.1)) < 0.01
    chosen = by_risk(counted(images), 0.3)  # (4 / 2 + 1) / 10: the lowest four may be missed
    assert 0.04 <= chosen < 0.05
    assert by_risk(counted(images), 0.55) < 0.9
    assert by_risk(counted(images), 0.99) < 0.9


@pytest.mark.parametrize(("alpha", "needed"), [(0.1, 9), (0.05, 19), (0.2, 4), (0.15, 6)])
def test_too_few_images_for_alpha_are_told_how_many_it_takes(alpha, needed):
    image = (np.array([0.5, 0.2]), np.array([True, False]))
    assert by_risk(counted(needed * [image]), alpha) < 0.5
    with pytest.raises(DataError, match=f"at least {needed} images that hold any such pixel"):
        by_risk(counted((needed - 1) * [image]), alpha)
    blank = (np.array([0.5, 0.2]), np.array([False, False]))
    with pytest.raises(DataError, match=f"got {needed - 1}"):
        by_risk(counted((needed - 1) * [image] + 5 * [blank]), alpha)
    assert by_risk(counted((needed - 1) * [image] + [blank]), alpha, empty=True) < 0.5


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, np.nan])
def test_shares_that_cannot_be(share):
    missed = counted([(np.array([0.5, 0.2]), np.array([True, False]))])
    for choose in (by_risk, by_tpr, by_fpr):
        with pytest.raises(UsageError, match="a share between 0 and 1"):
            choose(missed, share)


def test_nothing_to_choose_by():
    for choose in (
        by_f1,
        functools.partial(by_tpr, rate=0.9),
        functools.partial(by_risk, alpha=0.1),
    ):
        with pytest.raises(DataError, match="labelled pixels"):
            choose(Missed.empty())
    blank = counted(20 * [(np.array([0.5, 0.2]), np.array([False, False]))])
    for empty in (False, True):
        with pytest.raises(DataError, match="images that hold pixels to flag"):
            by_risk(blank, 0.1, empty=empty)


@pytest.mark.parametrize("place", [0, 128, 65409, 65537])
def test_thresholds_are_finite(place):
    with pytest.raises(UsageError, match="among finite numbers"):
        threshold_at(place)


def test_a_constant_score_flags_all_or_nothing():
    images = 30 * [(np.full(10, 0.25), np.arange(10) < 3)]
    assert by_risk(counted(images), 0.1) < 0.25  # missing nothing, at the price of flagging all
    assert counted(images).at(by_risk(counted(images), 0.1))["flagged"] == 1
    assert by_tpr(counted(images), 0.5) < 0.25
    assert by_fpr(counted(images), 0.5) >= 0.25


def test_the_bound_rises_and_starts_above_nothing():
    shares = np.random.default_rng(0).random((3, 50))
    risk = bounded_risk(shares, np.array([9, 9, 60]))
    assert risk.shape == (3, 51)
    assert (np.diff(risk, axis=1) >= 0).all()
    assert risk[:, 0].tolist() == [0.1, 0.1, 1 / 61]


@functools.cache
def world(count=160, seed=0, shift=0.0):
    """Images whose mistakes are told apart better or worse, each in a way of its own."""
    rng = np.random.default_rng(seed)
    found = MissedByImage()
    for _ in range(count):
        positive = rng.random(400) < rng.choice([0.0, 0.02, 0.2, 0.5], p=[0.1, 0.3, 0.3, 0.3])
        score = rng.normal(size=400) + positive * (rng.gamma(2, 0.8) - shift)
        image = Missed.empty()
        image.update(score.astype(np.float32), positive)
        found.take(image)
    return found


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_the_promise_is_kept_on_exchangeable_images_and_hardly_more_than_kept(alpha):
    splits = risk_over_splits(world(), alpha, splits=200)
    missed = np.array([split.missed for split in splits])
    assert len(missed) == 200
    assert missed.mean() <= alpha + 3 * missed.std() / np.sqrt(200)
    assert missed.mean() >= alpha - 2 / 70  # within 2 / (n + 1) for continuous losses
    assert 0 < np.mean([split.flagged for split in splits]) < 1
    assert risk_over_splits(world(), alpha, splits=5) == splits[:5]
    assert risk_over_splits(world(), alpha, splits=5, seed=1) != splits[:5]


def test_the_promise_takes_its_correction():
    """Thresholds that just keep the share among n images miss more of the next."""
    rng, promised, plain = np.random.default_rng(0), [], []
    images, yes = 1 + rng.random((1500, 19), dtype=np.float32), np.ones(19, bool)
    for number, row in enumerate(images):
        missed = Missed.empty()
        missed.update(row, yes)
        # Images of one pixel each, which are missed whole or not at all.
        missed.shares, missed.images = missed.positives, np.array([19.0, 19.0])
        if not number:
            one_by_one = counted((row[k : k + 1], yes[:1]) for k in range(19))
            assert all(map(np.array_equal, missed.state().values(), one_by_one.state().values()))
        # the next image's only pixel is missed with this probability
        promised.append(by_risk(missed, 0.14) - 1)
        plain.append(threshold_at(int(np.flatnonzero(missed.missed <= 0.14)[-1])) - 1)
    slack = 3 * np.std(promised) / np.sqrt(1500)
    assert np.mean(promised) <= 0.14 - slack
    assert np.mean(plain) >= 0.14 + slack


def test_images_without_labels_are_no_evidence():
    missed = Missed.empty()
    missed.update(np.zeros((2, 2), np.float32), np.zeros((2, 2), bool), np.zeros((2, 2), bool))
    assert missed.images.tolist() == [0, 0]


def test_the_promise_is_broken_where_the_images_are_of_another_kind():
    rows = MissedByImage([*world().rows, *world(seed=1, shift=1.5).rows])
    _, positives, negatives = rows.tables()
    here, there = np.arange(160), np.arange(160, 320)
    assert transferred(positives, negatives, here, there, 0.1).missed > 0.15
    assert transferred(positives, negatives, here[::2], here[1::2], 0.1).missed < 0.15


def test_a_split_is_what_choosing_and_measuring_give():
    rows = world()
    _, positives, negatives = rows.tables()
    fit, test = np.arange(100), np.arange(100, 160)
    found = transferred(positives, negatives, fit, test, 0.1)
    halves = []
    for part in (fit, test):
        images = Missed.empty()
        for number in part:
            held, own, others = rows.rows[number]
            one = Missed.empty()
            one.positives[held], one.negatives[held] = own, others
            one.shares = one.positives / max(one.positives.sum(), 1)
            one.images = np.array([own.sum() > 0, 1.0])
            images = images + one
        halves.append(images)
    expected = halves[1].at(by_risk(halves[0], 0.1))
    assert found.missed == pytest.approx(expected["missed"])
    assert found.flagged == pytest.approx(expected["flagged"])


def test_runs_stay_together(monkeypatch):
    seen = []

    def watched(positives, negatives, fit, test, alpha):
        seen.append((fit, test))
        return transferred(positives, negatives, fit, test, alpha)

    monkeypatch.setattr("doubtmap.studies.risk_splits.transferred", watched)
    risk_over_splits(world(), 0.3, splits=20, block=7)
    for fit, test in seen:
        assert sorted([*fit, *test]) == list(range(160))
        assert not set(fit // 7) & set(test // 7)


def test_too_few_images_for_splits():
    few_images = MissedByImage(world().rows[:6])
    with pytest.raises(DataError, match="enough images to calibrate on"):
        risk_over_splits(few_images, 0.1)
