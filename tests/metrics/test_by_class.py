"""Figures of each unknown class: those of scikit-learn on its pixels and the others alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from doubtmap.metrics import Histogram, Ranking
from doubtmap.metrics.bootstrap import BootstrapHistogram, Weights
from doubtmap.metrics.by_class import ByClass

KNOWN, CLASSES = 9, (3, 5)


def drawn(seed, images=4, size=300, digits=2):
    """Scores with ties, and the class of each pixel, image by image."""
    generator = np.random.default_rng(seed)
    for _ in range(images):
        kind = generator.choice([KNOWN, *CLASSES], size, p=[0.7, 0.2, 0.1])
        values = np.clip(np.exp(generator.normal(kind / 9, 0.5, size)), 0.5, 8)
        yield values.round(digits).astype(np.float32), kind


def summed(images, bins=1 << 21, start=0):
    """All pixels, the classes apart, and both in replicates."""
    pixels, every, found = Histogram(bins, (2,)), BootstrapHistogram(30, 2), ByClass(30, bins)
    for index, (values, kind) in enumerate(images, start):
        image = Histogram(bins, (2,))
        image.update(values, (kind != KNOWN).astype(np.uint8))
        pixels.absorb(image)
        every.add(image, Weights(30)(index))
        strange = kind != KNOWN
        found.take(values[strange], kind[strange], Weights(30)(index))
    return pixels, every, found


def curve_of(found, number, pixels):
    bins = pixels.view()
    return found.of[number].curve(bins, pixels.level, bins.counts[0])


@given(seed=st.integers(0, 10**6), digits=st.integers(0, 4))
@settings(max_examples=10, deadline=None)
def test_each_class_has_the_figures_of_its_pixels_and_the_others_alone(seed, digits):
    images = list(drawn(seed, digits=digits))
    pixels, _, found = summed(images)
    values, kind = (np.concatenate(each) for each in zip(*images))
    for number in CLASSES:
        keep = np.isin(kind, [KNOWN, number])
        truth, scores = kind[keep] == number, values[keep]
        curve = curve_of(found, number, pixels)
        assert curve.average_precision() == pytest.approx(average_precision_score(truth, scores))
        assert curve.auroc() == pytest.approx(roc_auc_score(truth, scores))
        alone = Ranking()
        alone.update(scores, truth)
        assert curve.fpr_at_tpr() == alone.fpr_at_tpr()
        assert found.of[number].count == truth.sum()
        for at in (0.0, float(np.median(values)), float(values.max())):
            assert found.of[number].recall(at) == (values[kind == number] > at).mean()


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_bounds_of_coarse_bins_hold_the_exact_figures(seed):
    images = list(drawn(seed, digits=4))
    pixels, _, found = summed(images, bins=1 << 8)
    values, kind = (np.concatenate(each) for each in zip(*images))
    for number in CLASSES:
        keep = np.isin(kind, [KNOWN, number])
        truth, scores = kind[keep] == number, values[keep]
        figure, exact = curve_of(found, number, pixels).auroc(), roc_auc_score(truth, scores)
        assert figure.bounds[0] <= exact <= figure.bounds[1]
        at = float(np.quantile(values, 0.6) * 1.0001)
        low, high = found.of[number].recall(at).bounds
        assert low <= (values[kind == number] > at).mean() <= high


def test_replicates_are_those_of_images_drawn_again():
    """Each as if the pixels of an image were there so often; coarse bins, so near."""
    images = list(drawn(1))
    _, every, found = summed(images)
    negatives = every.view().counts[:, 0]
    for number in CLASSES:
        positives = found.of[number].drawn(every)
        assert positives.shape == negatives.shape
        for replicate in range(30):
            times = [Weights(30)(index)[replicate] for index in range(len(images))]
            expected = sum(t * (kind == number).sum() for t, (_, kind) in zip(times, images))
            assert positives[replicate].sum() == expected
        assert (positives <= every.view().counts[:, 1]).all()


def test_parts_add_up_and_outlive_being_saved():
    images = list(drawn(2, images=6))
    pixels, every, whole = summed(images)
    parts = [summed(images[at : at + 2], start=at)[2] for at in (4, 0, 2)]
    merged = ByClass(30)
    for part in parts:
        merged.absorb(ByClass(30).restore(part.state()))
    for number in CLASSES:
        assert merged.of[number].images == whole.of[number].images == 6
        one, other = (curve_of(each, number, pixels) for each in (whole, merged))
        assert np.array_equal(one.positives, other.positives)
        draws = [each.of[number].drawn(every) for each in (whole, merged)]
        assert np.array_equal(*draws)


def test_without_pixels_of_a_class_nothing_is_there():
    pixels, _, found = summed([(np.float32([1, 2]), np.array([KNOWN, 5]))])
    assert list(found.of) == [5]
    assert curve_of(found, 5, pixels).auroc() == 1.0
